//! What is told while WAL is received. The wording is Barman's wherever Barman has words for it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::error::ReceiverError;
use super::gap::Gap;
use super::measurements::Hole;

/// One thing that happened. [`fmt::Display`] gives the line for the person and the log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// `primary_conninfo` is set, and the server is a primary itself.
    NoStandby,
    /// The server is as it should be.
    Starting(&'a str),
    /// `create_slot = auto`, and the slot is missing.
    CreatingMissingSlot(&'a str),
    /// A slot is about to be created.
    CreatingSlot {
        /// `slot_name`
        slot: &'a str,
        /// Which server.
        server: &'a str,
    },
    /// It was.
    SlotCreated(&'a str),
    /// It was there already, and that is as well.
    SlotExists(&'a str),
    /// A slot is about to be dropped.
    DroppingSlot {
        /// `slot_name`
        slot: &'a str,
        /// Which server.
        server: &'a str,
    },
    /// It was.
    SlotDropped(&'a str),
    /// The newest partial segment is of no use.
    TruncatingPartial {
        /// Where it is.
        path: &'a Path,
        /// Its size.
        size_bytes: u64,
        /// The size of a segment.
        expected_bytes: u64,
    },
    /// The receiver printed something.
    Line {
        /// Which server.
        server: &'a str,
        /// What.
        line: &'a str,
    },
    /// WAL begins to flow, from this position on, with a timeline in parentheses.
    Streaming(&'a str),
    /// The connection is lost, or could not be made, and is tried again.
    Reconnecting {
        /// Which server.
        server: &'a str,
        /// Why.
        error: &'a ReceiverError,
        /// After this pause.
        pause: Duration,
    },
    /// The server does not have any more what comes next, and receiving goes on later.
    Hole {
        /// Which server.
        server: &'a str,
        /// What is missing.
        hole: &'a Hole,
    },
    /// The receiver will go on where it should.
    NothingToReset,
    /// It will go on somewhere else from now on.
    Resetting,
    /// The old marker goes.
    RemovingMarker(&'a Path),
    /// The old marker stays.
    KeepingPartial(&'a Path),
    /// The old marker is put somewhere else.
    SettingPartialAside {
        /// Where it was.
        path: &'a Path,
        /// Where it is.
        aside: &'a Path,
    },
    /// The new marker comes.
    CreatingMarker(&'a Path),
    /// WAL is missing before the new start.
    Gap {
        /// Which server.
        server: &'a str,
        /// What is missing.
        gap: &'a Gap,
    },
    /// Whether WAL is missing could not be found out.
    GapUnknown(&'a str),
}

impl Notice<'_> {
    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Notice::Gap { .. }
                | Notice::Hole { .. }
                | Notice::Reconnecting { .. }
                | Notice::GapUnknown(_)
                | Notice::NoStandby
                | Notice::SettingPartialAside { .. }
        )
    }
}

impl fmt::Display for Notice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::NoStandby => f.write_str(
                "'primary_conninfo' is set but 'conninfo' does not point to a standby server. \
                 Ignoring 'primary_conninfo'.",
            ),
            Notice::Starting(server) => write!(f, "Starting receive-wal for server {server}"),
            Notice::CreatingMissingSlot(slot) => write!(f, "Creating replication slot '{slot}'"),
            Notice::CreatingSlot { slot, server } => write!(
                f,
                "Creating physical replication slot '{slot}' on server '{server}'"
            ),
            Notice::SlotCreated(slot) => write!(f, "Replication slot '{slot}' created"),
            Notice::SlotExists(slot) => write!(
                f,
                "Replication slot '{slot}' already exists and --if-not-exists was specified. \
                 Skipping creation"
            ),
            Notice::DroppingSlot { slot, server } => write!(
                f,
                "Dropping physical replication slot '{slot}' on server '{server}'"
            ),
            Notice::SlotDropped(slot) => write!(f, "Replication slot '{slot}' dropped"),
            Notice::TruncatingPartial {
                path,
                size_bytes,
                expected_bytes,
            } => write!(
                f,
                "Truncating partial file {} that has wrong size {size_bytes} while \
                 {expected_bytes} was expected.",
                path.display()
            ),
            Notice::Line { server, line } => write!(f, "{server}: {line}"),
            Notice::Streaming(position) => write!(f, "receiving WAL from {position}"),
            Notice::Reconnecting {
                server,
                error,
                pause,
            } => write!(
                f,
                "{server}: {}; the next attempt follows in {:.1} s",
                error.cause(),
                pause.as_secs_f64()
            ),
            Notice::Hole { server, hole } => write!(
                f,
                "{server}: the server has removed WAL that was not received: {hole} is missing. \
                 Going on where the slot keeps WAL"
            ),
            Notice::NothingToReset => {
                f.write_str("Nothing to do. Position of receive-wal is aligned.")
            }
            Notice::Resetting => f.write_str("Resetting receive-wal directory status"),
            Notice::RemovingMarker(path) => {
                write!(f, "Removing status file {}", path.display())
            }
            Notice::KeepingPartial(path) => write!(
                f,
                "Leaving {} to archive-wal: what it holds will not be received again",
                path.display()
            ),
            Notice::SettingPartialAside { path, aside } => write!(
                f,
                "{} holds WAL of a timeline that was left behind; it is now {}",
                path.display(),
                aside.display()
            ),
            Notice::CreatingMarker(path) => {
                write!(f, "Creating status file {}", path.display())
            }
            Notice::Gap { server, gap } => write!(f, "WAL of server {server} is lost: {gap}"),
            Notice::GapUnknown(error) => write!(
                f,
                "cannot tell whether WAL is missing before the new position: {error}"
            ),
        }
    }
}
