//! receive-wal: WAL that comes by streaming replication.
//!
//! ```text
//! session      one run: lock, preflight, slot, marker, receiver, what is remembered of it
//!    |
//! preflight    is this the server, and can WAL be received from it?
//! start        where to begin, and does the server still have that?
//! task         what is to be done, and by which receiver
//! commits      do commits wait for it? asked again while it receives
//! gap          where receiving goes on, and what is missing before it
//! Receiver     what receives: Builtin, or PgReceivewal, a child under supervision
//! state        what cron and status know of it
//!
//! meter        counts what happens; beside the receiver, in threads of their own,
//! handover     what is complete is archived at once, by an Archivist of the caller's
//! report       what was counted goes into files, for status and, as metrics, for Prometheus
//! ```

mod back_off;
mod builtin;
mod commits;
mod error;
mod gap;
mod handover;
mod lock;
mod measurements;
mod meter;
mod metrics;
mod notice;
mod pg_receivewal;
mod preflight;
mod program;
mod report;
mod reset;
mod session;
mod slots;
mod start;
mod state;
mod stream_error;
mod supervise;
mod synchronous;
mod task;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use builtin::Builtin;
pub use error::{ArchiverFailure, Ending, FailedCheck, ReceiverError, SlotError};
pub use gap::{Gap, Position};
pub use handover::{Archivist, Round};
pub use measurements::{FLUSH_BOUNDS_S, FlushTimes, Hole, Measurements, Phase, Trouble};
pub use meter::Meter;
pub use notice::Notice;
pub use pg_receivewal::PgReceivewal;
pub use program::ReceiverProgram;
pub use reset::reset;
pub use session::receive;
pub use slots::Slot;
pub use state::{LastExit, ReceiverState, StateError};
pub use stream_error::{FileError, ProtocolError};
pub use synchronous::is_synchronous;

use crate::postgres::Conninfo;
use crate::wal::SegmentSize;

/// What is to be received.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// The server, for a replication connection under the receiver's name.
    pub conninfo: Conninfo,
    /// The slot to use.
    pub slot_name: Option<&'a str>,
    /// Where the files go; those that lie there say where to go on.
    pub directory: &'a Path,
    /// Every write is made durable and reported at once, because a commit waits for it. May change while
    /// [`Builtin`] receives; [`PgReceivewal`] looks once.
    pub synchronous: Arc<AtomicBool>,
    /// Where to go on. [`PgReceivewal`] finds the same place by itself.
    pub start: Position,
    /// The server's `wal_segment_size`.
    pub segment_size: SegmentSize,
    /// Whose WAL it is: no byte of another cluster is to be written.
    pub system_identifier: u64,
    /// Is told what happens.
    pub meter: &'a Meter,
}

/// What a receiver tells meanwhile.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Something for the log.
    Line(&'a str),
    /// WAL begins to flow, from this position on, with a timeline in parentheses.
    Streaming(&'a str),
    /// WAL of this timeline is received.
    Timeline(u32),
}

/// A way to receive WAL.
pub trait Receiver: Debug {
    /// Which one it is.
    fn name(&self) -> &'static str;

    /// Whether it tells the meter of each file that it completes, so that files can be archived while
    /// it receives.
    fn tells_of_files(&self) -> bool;

    /// Receives until `stop` becomes true, which is no failure, or it cannot go on.
    ///
    /// Never leaves a file under the name of a complete segment that is not complete and durable,
    /// and is gone when it returns or when the calling thread ends in any way.
    fn receive(
        &self,
        task: &Task<'_>,
        stop: &Arc<AtomicBool>,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), ArchiverFailure>;
}
