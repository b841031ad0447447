//! Why WAL is not received. The wording is Barman's wherever Barman has words for it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::gap::Position;
use super::stream_error::{FileError, ProtocolError};
use crate::postgres::PostgresError;
use crate::wal::Lsn;

/// Why `receive-wal` did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// `streaming_archiver = off`
    #[error(
        "Unable to start receive-wal process: streaming_archiver option set to 'off' in barman \
         configuration file"
    )]
    SwitchedOff,
    /// The server is not one that WAL can be received from.
    #[error(
        "Impossible to start WAL streaming. Check the log for more details, or run \
         'walarch check {server}'{}",
        lines(checks)
    )]
    Preflight {
        /// Which server.
        server: String,
        /// What is wrong with it.
        checks: Vec<FailedCheck>,
        /// It is only that nobody answered.
        is_unreachable: bool,
    },
    /// Somebody else receives.
    #[error("Another receive-wal process is already running for server {0}.")]
    Running(String),
    /// Somebody receives, so that nothing can be reset.
    #[error("Unable to reset the status of receive-wal for server {0}. Process is still running")]
    ResetWhileRunning(String),
    /// What lies in `streaming_wals_directory` is newer than what the server has.
    #[error(
        "The receive-wal position is ahead of PostgreSQL current WAL lsn ({newest} > {current})"
    )]
    Ahead {
        /// The newest file.
        newest: String,
        /// The server's current segment.
        current: String,
    },
    /// The receiver cannot be started, or has ended.
    #[error("ArchiverFailure:{0}")]
    Failure(#[from] ArchiverFailure),
    /// The system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb phrase.
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// This process was asked to stop before the receiver was started.
    #[error("interrupted")]
    Interrupted,
}

impl ReceiverError {
    /// What is wrong, for those who cannot be sent to the log.
    pub fn cause(&self) -> String {
        match self {
            ReceiverError::Preflight { checks, .. } => lines(checks).trim_start().to_owned(),
            ReceiverError::Failure(failure) => failure.to_string(),
            error => error.to_string(),
        }
    }

    /// Whether the same may succeed a moment later without anybody's help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            ReceiverError::Preflight { is_unreachable, .. } => *is_unreachable,
            ReceiverError::Failure(failure) => failure.is_passing(),
            _ => false,
        }
    }
}

/// A check that a server must pass before WAL is received from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCheck {
    /// As Barman names it in the log.
    pub name: &'static str,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for FailedCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

fn lines(checks: &[FailedCheck]) -> String {
    checks.iter().map(|check| format!("\n{check}")).collect()
}

/// What Barman calls a failure of an archiver.
#[derive(Debug, thiserror::Error)]
pub enum ArchiverFailure {
    /// No program to receive with.
    #[error("pg_receivewal not present in $PATH")]
    NotInstalled,
    /// An older program than the server.
    #[error(
        "pg_receivewal version not compatible with PostgreSQL server version\n\
         HINT: {program} is of version {program_version}, the server of version {server_version}; \
         path_prefix says where a newer one is"
    )]
    NotCompatible {
        /// Where it is.
        program: PathBuf,
        /// Its version.
        program_version: String,
        /// The server's major version.
        server_version: i32,
    },
    /// The slot is not there.
    #[error(
        "replication slot '{slot}' doesn't exist. Please execute \
         'walarch receive-wal --create-slot {server}'"
    )]
    SlotMissing {
        /// `slot_name`
        slot: String,
        /// Which server.
        server: String,
    },
    /// Somebody streams from the slot.
    #[error("replication slot '{slot}' is already in use{}", by(*active_pid))]
    SlotInUse {
        /// `slot_name`
        slot: String,
        /// The server process that serves it.
        active_pid: Option<i32>,
    },
    /// The slot is not for WAL.
    #[error("replication slot '{0}' is a logical one: receive-wal needs a physical slot")]
    SlotIsLogical(String),
    /// The slot was to be created, but was not.
    #[error("{0}")]
    Slot(#[from] SlotError),
    /// The server does not have the WAL any more that comes next.
    #[error(
        "the WAL that is needed next has already been removed from server '{server}': {wanted} is \
         needed, the oldest there is {}\nHINT: if it is archived nowhere else, it is lost. \
         'walarch receive-wal --reset {server}' goes on behind the gap and says which segments are \
         missing; take a base backup then",
        oldest.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string)
    )]
    Removed {
        /// Which server.
        server: String,
        /// What is needed.
        wanted: Position,
        /// What is there; `None` if the server does not say.
        oldest: Option<Position>,
    },
    /// The server has given the slot up (`max_slot_wal_keep_size`).
    #[error(
        "server '{server}' has given up replication slot '{slot}' and removed WAL that it should \
         keep: {wanted} is needed, the oldest there is {}\nHINT: drop the slot and create it anew \
         (--drop-slot, --create-slot), then 'walarch receive-wal --reset {server}' goes on behind \
         the gap; take a base backup then. max_slot_wal_keep_size is the limit that was exceeded",
        oldest.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string)
    )]
    SlotLost {
        /// Which server.
        server: String,
        /// `slot_name`
        slot: String,
        /// What is needed.
        wanted: Position,
        /// What is there; `None` if the server does not say.
        oldest: Option<Position>,
    },
    /// A connection that worked a moment ago.
    #[error("lost the connection to PostgreSQL: {0}")]
    Connection(#[from] PostgresError),
    /// The server sent what the protocol does not allow at that point.
    #[error("PostgreSQL sent what cannot be: {0}")]
    Protocol(#[from] ProtocolError),
    /// The server gave no sign of life.
    #[error("nothing was heard from PostgreSQL for {} s", .0.as_secs())]
    Silent(Duration),
    /// The server has ended the stream in good order.
    #[error("the server ended the stream at {0}: it shuts down")]
    Ended(Lsn),
    /// Another cluster than a moment ago.
    #[error(
        "another cluster answers than before: its system identifier is {connected}, not {expected}"
    )]
    Stranger {
        /// Of the server that was checked.
        expected: u64,
        /// Of the one that answered.
        connected: u64,
    },
    /// The server has less WAL than this host.
    #[error(
        "the server has less WAL than was received from it: {wanted} on timeline {timeline} comes \
         next, the server is at {position} on timeline {server_timeline}\nHINT: was it restored, or \
         is it a standby that is behind, or a former primary?"
    )]
    Behind {
        /// What comes next.
        wanted: Lsn,
        /// On which timeline.
        timeline: u32,
        /// How far the server is.
        position: Lsn,
        /// On which timeline.
        server_timeline: u32,
    },
    /// The server is on an older timeline than before.
    #[error(
        "the server is on timeline {connected}, but WAL of timeline {pinned} was received from \
         it\nHINT: is it a former primary? 'receive-wal --reset' goes on with it all the same"
    )]
    FormerTimeline {
        /// The newest one that it was seen on.
        pinned: u32,
        /// The one that it is on.
        connected: u32,
    },
    /// The server has left the timeline before the place that was received.
    #[error(
        "{wanted} on timeline {timeline} comes next, but that is not in this server's history: it \
         has branched off before\nHINT: 'receive-wal --reset' goes on at the server's position"
    )]
    Diverged {
        /// What comes next.
        wanted: Lsn,
        /// On which timeline.
        timeline: u32,
    },
    /// WAL could not be written.
    #[error("{0}")]
    File(#[from] FileError),
    /// The program cannot be run.
    #[error("cannot run {}: {source}", program.display())]
    Start {
        /// Which one.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The program ended.
    #[error("pg_receivewal {ending}{}", last_words(reasons, *hint))]
    ProgramEnded {
        /// How.
        ending: Ending,
        /// The last errors that it printed.
        reasons: Vec<String>,
        /// What can be done about them.
        hint: Option<&'static str>,
    },
    /// Something must not be handed to another program.
    #[error(
        "{0} in the connection string would be seen in the list of processes by everybody on this \
         host\nHINT: use a file instead: passfile, a key without passphrase"
    )]
    Secret(&'static str),
}

impl ArchiverFailure {
    /// Whether the same may succeed a moment later without anybody's help: the server restarts, the
    /// network is down, a standby is promoted.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            ArchiverFailure::Connection(error) => error.is_passing(),
            ArchiverFailure::File(error) => error.is_want_of_room(),
            ArchiverFailure::SlotInUse { .. }
            | ArchiverFailure::Protocol(_)
            | ArchiverFailure::Silent(_)
            | ArchiverFailure::Ended(_)
            | ArchiverFailure::FormerTimeline { .. }
            | ArchiverFailure::Behind { .. } => true,
            _ => false,
        }
    }

    /// Whether the server has said that it has removed the WAL that it was asked for.
    pub(super) fn is_of_removed_wal(&self) -> bool {
        matches!(
            self,
            ArchiverFailure::Connection(error)
                if error.sqlstate() == Some(PostgresError::UNDEFINED_FILE)
        )
    }
}

fn by(active_pid: Option<i32>) -> String {
    active_pid.map_or_else(String::new, |pid| {
        format!("\nPostgreSQL process {pid} streams from it")
    })
}

fn last_words(reasons: &[String], hint: Option<&str>) -> String {
    let lines = reasons.iter().map(|reason| format!("\n{reason}"));
    let hint = hint.map(|hint| format!("\nHINT: {hint}"));
    lines.chain(hint).collect()
}

/// How a program ended that should have gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "terminated with error code: {code}"),
            Ending::Signal(number) => write!(f, "terminated by signal: {number}"),
        }
    }
}

/// Why a slot was not created or dropped.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// There is no streaming connection to do it with.
    #[error("Unable to {action} a physical replication slot: streaming connection not configured")]
    NoStreaming {
        /// `create` or `drop`.
        action: &'static str,
    },
    /// `slot_name` is not set.
    #[error(
        "Unable to {action} a physical replication slot: slot_name configuration option required"
    )]
    NoName {
        /// `create` or `drop`.
        action: &'static str,
    },
    /// No connection.
    #[error("Cannot connect to server '{server}'\n{error}")]
    Connection {
        /// Which server.
        server: String,
        /// Why.
        error: PostgresError,
    },
    /// A slot of this name is there already.
    #[error("Replication slot '{0}' already exists")]
    Exists(String),
    /// There is no such slot.
    #[error("Replication slot '{0}' does not exist")]
    Missing(String),
    /// Somebody streams from it.
    #[error("Cannot drop replication slot '{slot}' on server '{server}' because it is in use.")]
    InUse {
        /// `slot_name`
        slot: String,
        /// Which server.
        server: String,
    },
    /// `max_replication_slots` is reached.
    #[error(
        "All replication slots for server '{0}' are in use\nFree one or increase the \
         max_replication_slots value on your PostgreSQL server."
    )]
    Full(String),
    /// Something else.
    #[error(
        "Cannot {action} replication slot '{slot}' on server '{server}': {error}{}",
        grant(error)
    )]
    Other {
        /// `create` or `drop`.
        action: &'static str,
        /// `slot_name`
        slot: String,
        /// Which server.
        server: String,
        /// PostgreSQL's words.
        error: PostgresError,
    },
}

fn grant(error: &PostgresError) -> &'static str {
    match error.sqlstate() {
        Some(PostgresError::INSUFFICIENT_PRIVILEGE) => {
            "\nHINT: the user of streaming_conninfo needs the attribute REPLICATION"
        }
        _ => "",
    }
}
