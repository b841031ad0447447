//! What can go wrong with WAL between the connection and the disk.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::postgres::MalformedMessage;
use crate::wal::Lsn;

/// What a server must not send while it streams WAL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No message of the protocol.
    #[error("{0}")]
    Malformed(#[from] MalformedMessage),
    /// WAL that does not follow what came before.
    #[error("WAL from {got} on, where {expected} comes next")]
    OutOfOrder {
        /// The next position.
        expected: Lsn,
        /// What was sent instead.
        got: Lsn,
    },
    /// The first page of a segment is of another place or another cluster.
    #[error("{0}")]
    Page(String),
    /// A timeline that cannot follow.
    #[error("timeline {timeline} ends at {end}, and is to go on as timeline {next} from {start}")]
    NextTimeline {
        /// The one that has ended.
        timeline: u32,
        /// Where.
        end: Lsn,
        /// What is said to follow.
        next: u32,
        /// From where on.
        start: Lsn,
    },
}

/// Why WAL could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), room_hint(source))]
pub struct FileError {
    /// A verb phrase.
    action: &'static str,
    /// The file or directory concerned.
    path: PathBuf,
    /// The system's answer.
    source: io::Error,
    /// Nothing is lost: what was refused may be tried again in the same place.
    pub(super) may_be_repeated: bool,
}

impl FileError {
    /// Makes one of the system's answer: what was tried must begin anew.
    pub(super) fn of(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| FileError {
            action,
            path,
            source,
            may_be_repeated: false,
        }
    }

    /// The same for what may be tried again in its place.
    pub(super) fn repeatable(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let failed = Self::of(action, path);
        move |source| FileError {
            may_be_repeated: true,
            ..failed(source)
        }
    }

    /// Whether there is only no room, so that it may succeed later.
    pub(super) fn is_want_of_room(&self) -> bool {
        is_want_of_room(&self.source)
    }
}

fn is_want_of_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT))
}

fn room_hint(error: &io::Error) -> &'static str {
    match is_want_of_room(error) {
        true => {
            "\nHINT: the file system of streaming_wals_directory is full; no WAL is lost as long as \
             the replication slot keeps it on the server"
        }
        false => "",
    }
}
