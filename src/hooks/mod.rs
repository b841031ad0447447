//! Hook scripts around archiving and deleting: order, environment and retry rules of Barman.

mod shell;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::catalog::WalFileInfo;
use crate::config::ServerConfig;
use shell::Ending;

/// What `BARMAN_VERSION` says: the release whose behaviour scripts may rely on.
pub const BARMAN_VERSION: &str = "3.19.1";

/// A retry script that ends so is done.
const EXIT_SUCCESS: i32 = 0;
/// A retry script that ends so gives up, and the work goes on.
const EXIT_ABORT_CONTINUE: i32 = 62;
/// A retry script that ends so gives up, and the work stops.
const EXIT_ABORT_STOP: i32 = 63;

/// A retry script that failed is tried again after this pause,
const RETRY_PAUSE: Duration = Duration::from_secs(3);
/// and after a long one each time that it has failed this often in a row.
const FAILURES_BEFORE_NAP: u32 = 6;
const RETRY_NAP: Duration = Duration::from_secs(60);

/// How soon a stop request is seen between two attempts.
const STOP_POLL: Duration = Duration::from_millis(100);

/// The work that hooks surround.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Putting a file into the archive.
    Archive,
    /// Removing a file from the archive.
    WalDelete,
}

/// Whether a hook runs before or after the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pre,
    Post,
}

/// What a hook script is told of the file, in `BARMAN_*` variables.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `BARMAN_SEGMENT`, `BARMAN_SIZE`, `BARMAN_TIMESTAMP` and `BARMAN_COMPRESSION`.
    pub info: WalFileInfo,
    /// `BARMAN_FILE`: where the file is; its source before archiving, its archived copy after.
    pub location: String,
    /// `BARMAN_ERROR`: why the work failed, empty if it did not.
    pub error: String,
}

/// Why the work must not be done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The retry script ended with the code that asks for it.
    #[error("Abort '{hook}' retry hook script ({script}, exit code: {EXIT_ABORT_STOP})")]
    Aborted {
        /// Phase and kind, such as `pre_archive_retry_script`.
        hook: String,
        /// The command line.
        script: String,
    },
    /// walarch was asked to stop before the work was begun.
    #[error("walarch was asked to stop")]
    Stopped,
}

/// Runs the hook scripts of one server.
#[derive(Debug)]
pub struct Hooks<'a> {
    server: &'a ServerConfig,
    configuration_path: PathBuf,
    stop: &'a AtomicBool,
}

impl<'a> Hooks<'a> {
    /// `configuration_path` is told to scripts as `BARMAN_CONFIGURATION`. When `stop` becomes
    /// true, a script before the work is ended, and the work refused.
    pub fn new(server: &'a ServerConfig, configuration_path: &Path, stop: &'a AtomicBool) -> Self {
        Hooks {
            server,
            configuration_path: configuration_path.to_owned(),
            stop,
        }
    }

    /// Whether any script is configured around this work.
    pub fn any(&self, work: Work) -> bool {
        [Phase::Pre, Phase::Post].into_iter().any(|phase| {
            self.script(work, phase, false)
                .or(self.script(work, phase, true))
                .is_some()
        })
    }

    /// Runs the script, then the retry script, that come before the work.
    ///
    /// Only the retry script can refuse the work; a failure of the other one is logged.
    pub fn before(&self, work: Work, subject: &Subject) -> Result<(), Refusal> {
        self.run_once(work, Phase::Pre, subject);
        if self.stop.load(Ordering::Relaxed) {
            return Err(Refusal::Stopped);
        }
        self.run_until_done(work, Phase::Pre, subject)
    }

    /// Runs the retry script, then the script, that come after the work. It is done already:
    /// whatever they answer is logged and changes nothing. A stop request does not end them, so that
    /// every file that was archived is reported; it only ends the repeating.
    pub fn after(&self, work: Work, subject: &Subject) {
        let refusal = self.run_until_done(work, Phase::Post, subject);
        if let Err(Refusal::Aborted { script, .. }) = refusal {
            tracing::warn!(
                "Ignoring stop request after receiving abort (exit code {EXIT_ABORT_STOP}) from \
                 post-{} retry hook script: {script}",
                work.log_name()
            );
        }
        self.run_once(work, Phase::Post, subject);
    }

    fn script(&self, work: Work, phase: Phase, retry: bool) -> Option<&'a str> {
        let hooks = &self.server.hooks;
        match (work, phase, retry) {
            (Work::Archive, Phase::Pre, false) => &hooks.pre_archive,
            (Work::Archive, Phase::Pre, true) => &hooks.pre_archive_retry,
            (Work::Archive, Phase::Post, false) => &hooks.post_archive,
            (Work::Archive, Phase::Post, true) => &hooks.post_archive_retry,
            (Work::WalDelete, Phase::Pre, false) => &hooks.pre_wal_delete,
            (Work::WalDelete, Phase::Pre, true) => &hooks.pre_wal_delete_retry,
            (Work::WalDelete, Phase::Post, false) => &hooks.post_wal_delete,
            (Work::WalDelete, Phase::Post, true) => &hooks.post_wal_delete_retry,
        }
        .as_deref()
    }

    fn run_once(&self, work: Work, phase: Phase, subject: &Subject) {
        if let Some(script) = self.script(work, phase, false) {
            let environment = self.environment(work, phase, false, subject);
            self.run(script, work.hook_name(false), phase, &environment);
        }
    }

    /// Repeats the retry script until it succeeds or gives up.
    fn run_until_done(&self, work: Work, phase: Phase, subject: &Subject) -> Result<(), Refusal> {
        let Some(script) = self.script(work, phase, true) else {
            return Ok(());
        };
        let environment = self.environment(work, phase, true, subject);
        for failures in 1.. {
            match self.run(script, work.hook_name(true), phase, &environment) {
                Some(EXIT_SUCCESS) => return Ok(()),
                Some(EXIT_ABORT_CONTINUE) => {
                    tracing::warn!(
                        "{script} was aborted (got exit status {EXIT_ABORT_CONTINUE}, Barman resumes)"
                    );
                    return Ok(());
                }
                Some(EXIT_ABORT_STOP) => {
                    tracing::error!(
                        "{script} was aborted (got exit status {EXIT_ABORT_STOP}, Barman requested to stop)"
                    );
                    let hook = format!("{}_{}", phase.name(), work.hook_name(true));
                    return Err(Refusal::Aborted {
                        hook,
                        script: script.to_owned(),
                    });
                }
                _ => {}
            }
            let pause = if failures % FAILURES_BEFORE_NAP == 0 {
                RETRY_NAP
            } else {
                RETRY_PAUSE
            };
            tracing::debug!("Retry again in {} seconds", pause.as_secs());
            if !self.sleep(pause) {
                return Err(Refusal::Stopped);
            }
        }
        Ok(())
    }

    /// Sleeps; false when a stop request came.
    fn sleep(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        while Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(STOP_POLL);
        }
        !self.stop.load(Ordering::Relaxed)
    }

    /// Runs a script once and returns its exit code, if it came to have one.
    fn run(
        &self,
        script: &str,
        hook: &str,
        phase: Phase,
        environment: &[(&'static str, String)],
    ) -> Option<i32> {
        tracing::debug!("Attempt to run {hook}: {script}");
        let server = self.server;
        let stop = (phase == Phase::Pre).then_some(self.stop);
        let path_prefix = server.path_prefix.as_deref();
        let run = shell::run(
            script,
            environment,
            path_prefix,
            server.own.hook_timeout,
            stop,
        );
        match run {
            Ok(run) => {
                match run.ending {
                    Ending::Exit(EXIT_SUCCESS) => tracing::debug!("{script} returned 0"),
                    ending => tracing::warn!("{script} {ending}\nOutput details:\n{}", run.output),
                }
                run.ending.exit_code()
            }
            Err(error) => {
                tracing::warn!("cannot run {script}: {error}");
                None
            }
        }
    }

    fn environment(
        &self,
        work: Work,
        phase: Phase,
        retry: bool,
        subject: &Subject,
    ) -> Vec<(&'static str, String)> {
        let info = &subject.info;
        vec![
            ("BARMAN_VERSION", BARMAN_VERSION.to_owned()),
            ("BARMAN_SERVER", self.server.name.clone()),
            (
                "BARMAN_CONFIGURATION",
                self.configuration_path.display().to_string(),
            ),
            ("BARMAN_HOOK", work.hook_name(retry).to_owned()),
            ("BARMAN_RETRY", u8::from(retry).to_string()),
            ("BARMAN_PHASE", phase.name().to_owned()),
            ("BARMAN_SEGMENT", info.name.to_string()),
            ("BARMAN_FILE", subject.location.clone()),
            ("BARMAN_SIZE", info.size_bytes.to_string()),
            ("BARMAN_TIMESTAMP", format!("{:?}", info.modified_s)),
            (
                "BARMAN_COMPRESSION",
                info.compression.clone().unwrap_or_default(),
            ),
            ("BARMAN_ERROR", subject.error.clone()),
        ]
    }
}

impl Work {
    fn log_name(self) -> &'static str {
        match self {
            Work::Archive => "archive",
            Work::WalDelete => "wal-delete",
        }
    }

    fn hook_name(self, retry: bool) -> &'static str {
        match (self, retry) {
            (Work::Archive, false) => "archive_script",
            (Work::Archive, true) => "archive_retry_script",
            (Work::WalDelete, false) => "wal_delete_script",
            (Work::WalDelete, true) => "wal_delete_retry_script",
        }
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Pre => "pre",
            Phase::Post => "post",
        }
    }
}
