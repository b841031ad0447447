//! `archive-wal`

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::Output;
use super::report::{DirectReporter, Reporter};
use super::servers::select_one;
use crate::archiver::{self, Direct};
use crate::catalog::{Catalog, CatalogState, RebuildCounts};
use crate::codec::{Decoder, Encoder};
use crate::config::{Config, ServerConfig, WalsDirectory};
use crate::durable::{LockFile, Wait};
use crate::hooks::Hooks;
use crate::observe::Observer;
#[cfg(feature = "cloud")]
use crate::storage::Cloud;
use crate::storage::{
    Archive, Local, Recognition, Validation, WalFile, WalStorageStrategy, rebuild,
};
use crate::wal::WalName;

/// The pause between two rounds over the queues while something is waited for.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);

/// Archives a queue, or the one file that PostgreSQL names.
pub(super) fn run(config: Config, server_name: &str, wal_path: Option<&Path>, output: &Output) {
    let configuration_path = config.path.clone();
    let Some(server) = select_one(config, server_name, output) else {
        if let Some(path) = wal_path {
            // A round of cron's may pass over a server; PostgreSQL would recycle the file.
            output.error(&format!("{} was not archived", path.display()));
        }
        return;
    };
    output.debug(&format!("Starting archive-wal for server {server_name}"));
    let archived = match wal_path {
        Some(path) => archive_one(&server, &configuration_path, path, output),
        None => archive_queues(&server, &configuration_path, output),
    };
    if let Err(message) = archived {
        output.error(&message);
    }
}

/// What a server's archive is made of, apart from what encodes and runs.
pub(super) struct Parts {
    pub(super) storage: Box<dyn WalStorageStrategy>,
    pub(super) catalog: Catalog,
}

impl Parts {
    pub(super) fn new(server: &ServerConfig) -> Result<Self, String> {
        Self::sending(server, None)
    }

    /// `at_a_time` is how many files a cloud archive is sent at a time, if that is not the configured number.
    pub(super) fn sending(
        server: &ServerConfig,
        at_a_time: Option<NonZeroUsize>,
    ) -> Result<Self, String> {
        let storage: Box<dyn WalStorageStrategy> = match &server.wals_directory {
            WalsDirectory::Local(root) => Box::new(Local::new(root, server)),
            WalsDirectory::Cloud(url) => cloud_storage(url, server, at_a_time)?,
        };
        Ok(Parts {
            storage,
            catalog: Catalog::of(server),
        })
    }

    /// An archive that has gone while xlogdb lists it is a file system that is not mounted: nothing
    /// must be put in its place.
    pub(super) fn check_mounted(&self, server: &ServerConfig) -> Result<(), String> {
        let WalsDirectory::Local(root) = &server.wals_directory else {
            return Ok(());
        };
        let lists_something =
            fs::metadata(self.catalog.path()).is_ok_and(|metadata| metadata.len() > 0);
        if root.exists() || !lists_something {
            return Ok(());
        }
        Err(format!(
            "{} does not exist, and {} lists files in it\nHINT: is its file system mounted?",
            root.display(),
            self.catalog.path().display()
        ))
    }

    /// Whether the archive holds a file of this name.
    pub(super) fn holds(&self, name: &WalName) -> Result<bool, String> {
        let found = self.storage.find(name).map_err(|error| error.to_string())?;
        Ok(found.is_some())
    }

    /// To notice whether anything has been archived since, by us or by somebody else.
    pub(super) fn catalog_state(&self) -> CatalogState {
        self.catalog.state()
    }

    pub(super) fn rebuild_catalog(&self, server: &ServerConfig) -> Result<RebuildCounts, String> {
        match &server.wals_directory {
            WalsDirectory::Local(root) if !root.exists() => Err(format!(
                "{} does not exist\nHINT: is its file system mounted?",
                root.display()
            )),
            _ => rebuild(&self.catalog, &*self.storage).map_err(|error| error.to_string()),
        }
    }
}

#[cfg(feature = "cloud")]
fn cloud_storage(
    url: &str,
    server: &ServerConfig,
    at_a_time: Option<NonZeroUsize>,
) -> Result<Box<dyn WalStorageStrategy>, String> {
    let cloud = Cloud::new(url, server).map_err(|error| error.to_string())?;
    Ok(Box::new(match at_a_time {
        Some(files) => cloud.with_concurrency(files),
        None => cloud,
    }))
}

#[cfg(not(feature = "cloud"))]
fn cloud_storage(
    url: &str,
    server: &ServerConfig,
    _at_a_time: Option<NonZeroUsize>,
) -> Result<Box<dyn WalStorageStrategy>, String> {
    Err(format!(
        "server '{}' keeps its WAL in an object store, for which this walarch was not built: {url}\n\
         HINT: build it with the feature cloud",
        server.name
    ))
}

fn archive_queues(
    server: &ServerConfig,
    configuration_path: &Path,
    output: &Output,
) -> Result<(), String> {
    let parts = Parts::new(server)?;
    let Some(_lock) = lock(server, Wait::Never)? else {
        output.info(&format!(
            "Another archive-wal process is already running on server {}. \
             Skipping to the next server",
            server.name
        ));
        return Ok(());
    };
    with_archive(server, configuration_path, &parts, |archive| {
        let reporter = Reporter::new(output, &server.name);
        run_archivers(server, archive, &reporter, &|error| output.error(error));
        report_stop(archive, output);
    })
}

/// Archives what waits in the queues, again and again, until `is_done` says so after a round, a round
/// fails, or this process is asked to stop. A round is left to the process that is at it already, if
/// there is one; only files that are archived are printed.
pub(super) fn archive_until(
    server: &ServerConfig,
    configuration_path: &Path,
    parts: &Parts,
    output: &Output,
    mut is_done: impl FnMut() -> bool,
) -> Result<(), String> {
    let mut outcome = Ok(());
    with_archive(server, configuration_path, parts, |archive| {
        let round = || {
            let lock = lock(server, Wait::Never)?;
            let reporter = Reporter::new(output, &server.name).only_files();
            let on_error = |error: &str| output.error(error);
            Ok(lock.is_none() || run_archivers(server, archive, &reporter, &on_error))
        };
        while !archive.stop.load(Ordering::Relaxed) {
            let succeeded = round();
            if is_done() || !matches!(succeeded, Ok(true)) {
                outcome = succeeded.map(drop);
                return;
            }
            thread::sleep(ROUND_INTERVAL);
        }
        report_stop(archive, output);
    })?;
    outcome
}

/// Runs each archiver once. Returns whether none of them failed at anything; what did was told to the
/// observer, or is a queue that cannot be read.
pub(super) fn run_archivers(
    server: &ServerConfig,
    archive: &Archive<'_>,
    observer: &dyn Observer,
    on_error: &dyn Fn(&str),
) -> bool {
    let mut succeeded = true;
    for archiver in archiver::archivers(server) {
        match archiver::run(&*archiver, archive, observer) {
            Ok(report) => succeeded &= report.failed == 0,
            Err(error) => {
                on_error(&format!(
                    "cannot read the queue of {}: {error}",
                    archiver.name()
                ));
                succeeded = false;
            }
        }
        if archive.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    succeeded
}

fn report_stop(archive: &Archive<'_>, output: &Output) {
    if archive.stop.load(Ordering::Relaxed) {
        output.error("Process interrupted by user (KeyboardInterrupt)");
    }
}

fn archive_one(
    server: &ServerConfig,
    configuration_path: &Path,
    path: &Path,
    output: &Output,
) -> Result<(), String> {
    let name = path
        .file_name()
        .and_then(|name| WalName::parse(&name.to_string_lossy()).ok())
        .ok_or_else(|| format!("{} is not the name of a WAL file", path.display()))?;
    if server.passive {
        return Err(format!(
            "'{}' is a passive server: archive on its primary",
            server.name
        ));
    }
    // Found now, a mistyped path is no reason to wait for the lock.
    fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let file = WalFile {
        name,
        path: path.to_owned(),
    };
    #[cfg(feature = "cloud")]
    if matches!(server.wals_directory, WalsDirectory::Cloud(_)) {
        let parallel = server.cloud.wal_archive_parallel;
        return super::cloud_wal_archive::send(server, configuration_path, file, parallel, output);
    }
    let parts = Parts::new(server)?;
    let _lock = lock(server, Wait::Forever)?;
    with_archive(server, configuration_path, &parts, |archive| {
        let reporter = DirectReporter::new(output, &server.name);
        let report = archive.save(&[file], None, &Direct, &reporter);
        if report.archived != 1 && !reporter.has_said_why() {
            output.error(&format!("{} was not archived", path.display()));
        }
    })
}

/// Takes the lock that keeps every other archiver of this server away.
pub(super) fn lock(server: &ServerConfig, wait: Wait) -> Result<Option<LockFile>, String> {
    lock_task(server, "archive-wal", wait)
}

/// Takes the lock of one of a server's tasks, in walarch and in Barman. `None` if it is busy.
pub(super) fn lock_task(
    server: &ServerConfig,
    task: &str,
    wait: Wait,
) -> Result<Option<LockFile>, String> {
    let path = lock_path(server, task);
    LockFile::acquire(&path, wait)
        .map_err(|error| format!("cannot lock {}: {error}", path.display()))
}

pub(super) fn lock_path(server: &ServerConfig, task: &str) -> PathBuf {
    let name = format!(".{}-{task}.lock", server.name);
    server.lock_directory.join(name)
}

/// A flag that a request to stop raises; a second request ends the process at once, which loses
/// nothing either.
pub(super) fn stop_on_signals() -> Result<Arc<AtomicBool>, String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| format!("cannot watch for signals: {error}"))?;
    }
    Ok(stop)
}

/// Puts the archive together and lets `work` use it. A request to stop raises the archive's flag.
pub(super) fn with_archive(
    server: &ServerConfig,
    configuration_path: &Path,
    parts: &Parts,
    work: impl FnOnce(&Archive<'_>),
) -> Result<(), String> {
    parts.check_mounted(server)?;
    let tools = Tools::new(server, parts)?;
    let stop = stop_on_signals()?;
    tools.with_archive(server, configuration_path, parts, &stop, work);
    Ok(())
}

/// What encodes and judges the files of a server. Kept by those that archive again and again.
pub(super) struct Tools {
    encoder: Encoder,
    decoder: Decoder,
    recognition: Recognition,
    validation: Option<Validation>,
}

impl Tools {
    pub(super) fn new(server: &ServerConfig, parts: &Parts) -> Result<Self, String> {
        let mut encoder = Encoder::new(server).map_err(|error| error.to_string())?;
        if parts.storage.in_flight().is_some() {
            encoder = encoder.sparing();
        }
        if let Some(notice) = encoder.level_notice() {
            tracing::warn!("{notice}");
        }
        Ok(Tools {
            encoder,
            decoder: Decoder::new(server),
            recognition: Recognition::new(server),
            validation: validation(server),
        })
    }

    /// Puts the archive together and lets `work` use it.
    pub(super) fn with_archive(
        &self,
        server: &ServerConfig,
        configuration_path: &Path,
        parts: &Parts,
        stop: &AtomicBool,
        work: impl FnOnce(&Archive<'_>),
    ) {
        work(&Archive {
            storage: &*parts.storage,
            catalog: &parts.catalog,
            encoder: &self.encoder,
            decoder: &self.decoder,
            hooks: &Hooks::new(server, configuration_path, stop),
            validation: self.validation,
            recognition: &self.recognition,
            jobs: jobs(server),
            stop,
        });
    }
}

/// What segments are checked against; `None` if they are not to be.
pub(super) fn validation(server: &ServerConfig) -> Option<Validation> {
    server.own.validate_wal.then(|| own_cluster(server))
}

/// The cluster that a server's WAL must be of, as far as that is known.
pub(super) fn own_cluster(server: &ServerConfig) -> Validation {
    let system_identifier = archiver::system_identifier(&server.backup_directory);
    if let Err(error) = &system_identifier {
        tracing::warn!("{error}; WAL is not checked against it");
    }
    Validation {
        system_identifier: system_identifier.ok().flatten(),
    }
}

pub(super) fn jobs(server: &ServerConfig) -> NonZeroUsize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    server.own.jobs.unwrap_or_else(cores)
}
