//! The receiver that PostgreSQL brings, run as a child.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{ArchiverFailure, Ending};
use super::program::ReceiverProgram;
use super::supervise;
use super::{Progress, Receiver, Task};
use crate::config::search_path;

/// How many of the program's last errors become part of ours.
const REASONS_MAX: usize = 4;

/// What the program says when WAL begins to flow (`StreamLog` in `pg_receivewal.c`).
const STREAMING: &str = "starting log streaming at ";

/// What can be done about an error, by what is said in it. The words are the server's
/// (`walsender.c`), which are English unless its `lc_messages` says otherwise.
const HINTS: [(&str, &str); 3] = [
    (
        "is ahead of the WAL flush position",
        "the server has less WAL than was received from it: was it restored, or is it a standby \
         that is behind?",
    ),
    (
        "is not in this server's history",
        "the server has branched off before what was received from it; 'receive-wal --reset' goes \
         on at the server's position",
    ),
    (
        "No space left on device",
        "the file system of streaming_wals_directory is full; no WAL is lost as long as the \
         replication slot keeps it on the server",
    ),
];

/// `pg_receivewal`
#[derive(Debug)]
pub struct PgReceivewal {
    program: ReceiverProgram,
    path_prefix: Option<String>,
}

impl PgReceivewal {
    /// Looks for a program that can receive from a server of this version (150018 for 15.18).
    pub fn for_server(
        path_prefix: Option<&str>,
        server_version: i32,
    ) -> Result<Self, ArchiverFailure> {
        let program = ReceiverProgram::find(path_prefix).ok_or(ArchiverFailure::NotInstalled)?;
        if !program.is_compatible_with(server_version) {
            return Err(ArchiverFailure::NotCompatible {
                program: program.path,
                program_version: program.version.unwrap_or_else(|| "unknown".to_owned()),
                server_version: server_version / 10_000,
            });
        }
        Ok(PgReceivewal {
            program,
            path_prefix: path_prefix.map(str::to_owned),
        })
    }

    fn command(&self, task: &Task<'_>) -> Result<Command, ArchiverFailure> {
        for secret in ["sslpassword", "oauth_client_secret"] {
            if task.conninfo.get(secret).is_some() {
                return Err(ArchiverFailure::Secret(secret));
            }
        }
        // Everybody on this host may read arguments.
        let (conninfo, password) = task.conninfo.clone().without_password();
        let mut command = Command::new(&self.program.path);
        command.arg(format!("--dbname={}", conninfo.to_connection_string()));
        command.args(["--verbose", "--no-loop", "--no-password"]);
        let mut directory = std::ffi::OsString::from("--directory=");
        directory.push(task.directory);
        command.arg(directory);
        if let Some(slot) = task.slot_name {
            command.arg(format!("--slot={slot}"));
        }
        if task.synchronous.load(Ordering::Relaxed) {
            command.arg("--synchronous");
        }
        if let Some(password) = password {
            command.env("PGPASSWORD", password);
        }
        if let Some(path) = search_path(self.path_prefix.as_deref()) {
            command.env("PATH", path);
        }
        // Its messages are read below, and this is not a service of its own for systemd.
        command.env("LC_ALL", "C").env_remove("NOTIFY_SOCKET");
        Ok(command)
    }

    fn program(&self) -> PathBuf {
        self.program.path.clone()
    }
}

impl Receiver for PgReceivewal {
    fn name(&self) -> &'static str {
        "pg_receivewal"
    }

    fn tells_of_files(&self) -> bool {
        false
    }

    fn receive(
        &self,
        task: &Task<'_>,
        stop: &Arc<AtomicBool>,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), ArchiverFailure> {
        let command = self.command(task)?;
        let mut reasons = Reasons::default();
        let ended = supervise::run(command, stop, &|| task.meter.turned(), &mut |line| {
            reasons.take(line);
            on_progress(Progress::Line(line));
            if let Some((_, position)) = line.split_once(STREAMING) {
                task.meter.receiving();
                on_progress(Progress::Streaming(position));
            }
        });
        let ending = ended.map_err(|source| ArchiverFailure::Start {
            program: self.program(),
            source,
        })?;
        if ending == Ending::Exit(0) || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(reasons.into_failure(ending))
    }
}

/// The last errors, and what was printed last if there were none.
#[derive(Default)]
struct Reasons {
    errors: VecDeque<String>,
    last: String,
}

impl Reasons {
    fn take(&mut self, line: &str) {
        let marks = [
            "error:",
            "FATAL",
            "ERROR:",
            "could not",
            "detail:",
            "DETAIL:",
        ];
        if marks.iter().any(|mark| line.contains(mark)) {
            self.errors.push_back(line.to_owned());
            if self.errors.len() > REASONS_MAX {
                self.errors.pop_front();
            }
        }
        line.clone_into(&mut self.last);
    }

    fn into_failure(self, ending: Ending) -> ArchiverFailure {
        let mut reasons = Vec::from(self.errors);
        if reasons.is_empty() && !self.last.is_empty() {
            reasons.push(self.last);
        }
        let said = |words: &str| reasons.iter().any(|reason| reason.contains(words));
        let hint = HINTS.iter().find(|(words, _)| said(words));
        ArchiverFailure::ProgramEnded {
            ending,
            hint: hint.map(|(_, hint)| *hint),
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::postgres::Conninfo;
    use crate::receiver::{Meter, Position};
    use crate::wal::{Lsn, SegmentSize};

    fn arguments(conninfo: &str, synchronous: bool) -> Result<Vec<String>, ArchiverFailure> {
        let receiver = PgReceivewal {
            program: ReceiverProgram {
                path: "pg_receivewal".into(),
                version: None,
            },
            path_prefix: None,
        };
        let task = Task {
            conninfo: Conninfo::parse(conninfo).unwrap(),
            slot_name: Some("barman"),
            directory: Path::new("/home/streaming"),
            synchronous: Arc::new(AtomicBool::new(synchronous)),
            start: Position::of(1, Lsn(0), SegmentSize::DEFAULT),
            segment_size: SegmentSize::DEFAULT,
            system_identifier: 1,
            meter: &Meter::new("pg_receivewal"),
        };
        let command = receiver.command(&task)?;
        Ok(command
            .get_args()
            .chain(command.get_envs().filter_map(|(_, value)| value))
            .map(|argument| argument.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn the_arguments_are_those_of_barman_and_the_password_is_none_of_them() {
        let arguments = arguments("host=h password='pass word'", true).unwrap();
        assert_eq!(
            arguments,
            [
                "--dbname=host=h",
                "--verbose",
                "--no-loop",
                "--no-password",
                "--directory=/home/streaming",
                "--slot=barman",
                "--synchronous",
                "C",
                "pass word",
            ]
        );
    }

    #[test]
    fn a_secret_that_only_an_argument_could_carry_is_refused() {
        for conninfo in ["host=h sslpassword=x", "host=h password=y sslpassword=x"] {
            let error = arguments(conninfo, false).unwrap_err();
            assert!(matches!(error, ArchiverFailure::Secret("sslpassword")));
        }
    }

    #[test]
    fn the_last_errors_and_what_can_be_done_become_the_reason() {
        let mut reasons = Reasons::default();
        reasons.take("pg_receivewal: starting log streaming at 0/3000000 (timeline 1)");
        for number in 0..9 {
            reasons.take(&format!("pg_receivewal: error: {number}"));
        }
        reasons.take("pg_receivewal: error: could not write: No space left on device");
        let text = reasons.into_failure(Ending::Exit(1)).to_string();
        assert!(
            text.starts_with("pg_receivewal terminated with error code: 1\n"),
            "{text}"
        );
        assert_eq!(text.matches("error: ").count(), REASONS_MAX);
        assert!(text.contains("HINT: the file system of streaming_wals_directory is full"));
    }
}
