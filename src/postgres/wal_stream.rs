//! WAL on its way from a server: the copy-both mode that `START_REPLICATION` begins.

use std::ops::Deref;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::connection::{Connection, Limits, Rows};
use super::error::PostgresError;
use super::ffi::{CopyData, CopyStep, Outcome};
use super::replication::StatusUpdate;
use super::slot::identifier;
use crate::wal::Lsn;

/// How WAL may come after it was asked for.
pub enum Replication {
    /// It comes.
    Streaming(WalStream),
    /// There is none on this timeline from that position on: the timeline ends there.
    EndOfTimeline(Connection, NextTimeline),
}

/// Where a timeline goes on that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextTimeline {
    /// The next one.
    pub timeline: u32,
    /// From here on it has WAL of its own.
    pub start: Lsn,
}

/// Asks for WAL of a timeline from a position on (`START_REPLICATION`).
///
/// Returns [`PostgresError::Statement`] with what the server objects to: a slot that is missing or in
/// use, a position or a timeline that it does not have.
pub fn start_replication(
    connection: Connection,
    slot_name: Option<&str>,
    timeline: u32,
    start: Lsn,
) -> Result<Replication, PostgresError> {
    let slot = slot_name.map_or_else(String::new, |name| format!("SLOT {} ", identifier(name)));
    let sql = format!("START_REPLICATION {slot}PHYSICAL {start} TIMELINE {timeline}");
    connection.raw.send(&sql, &[])?;
    let mut next = None;
    while let Some(result) = connection.next_result()? {
        match result.outcome() {
            Outcome::CopyBoth => {
                connection.raw.set_nonblocking(true)?;
                return Ok(Replication::Streaming(WalStream { connection }));
            }
            Outcome::CopyIn | Outcome::CopyOut => return Err(no_answer(&sql)),
            Outcome::Complete => next = next_timeline(&Rows::new(result.check()?))?.or(next),
        }
    }
    let next = next.ok_or_else(|| no_answer(&sql))?;
    Ok(Replication::EndOfTimeline(connection, next))
}

fn no_answer(sql: &str) -> PostgresError {
    PostgresError::Answer(format!("{sql} returned nothing that it can"))
}

/// The row that ends a timeline, if this is it.
fn next_timeline(rows: &Rows) -> Result<Option<NextTimeline>, PostgresError> {
    if rows.is_empty() {
        return Ok(None);
    }
    let timeline = rows.get(0, "next_tli").and_then(|text| text.parse().ok());
    let start = rows.get(0, "next_tli_startpos");
    let start = start.and_then(|text| text.parse().ok());
    match timeline.zip(start) {
        Some((timeline, start)) => Ok(Some(NextTimeline { timeline, start })),
        None => Err(PostgresError::Answer(
            "a timeline ended, but the next one was not named".to_owned(),
        )),
    }
}

/// A connection over which WAL comes and status updates go. Only [`WalStream::wait`] and
/// [`WalStream::end`] wait. Dropping it closes the connection.
pub struct WalStream {
    connection: Connection,
}

/// What has come.
pub enum Arrival {
    /// The content of a `CopyData` message, to be read as a
    /// [`ReplicationMessage`](super::ReplicationMessage).
    Message(Message),
    /// Nothing yet.
    Nothing,
    /// The server has ended the stream; [`WalStream::end`] tells why.
    End,
}

/// The bytes of a message.
pub struct Message(CopyData);

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl WalStream {
    /// What has come already, without waiting.
    pub fn next(&self) -> Result<Arrival, PostgresError> {
        Ok(match self.connection.raw.copy_data()? {
            CopyStep::Message(message) => Arrival::Message(Message(message)),
            CopyStep::Nothing => Arrival::Nothing,
            CopyStep::End => Arrival::End,
        })
    }

    /// Waits until bytes come or the time is over; a signal ends it too. Returns whether bytes have
    /// come: then [`WalStream::next`] may have a message.
    pub fn wait(&self, timeout: Duration) -> Result<bool, PostgresError> {
        let wanted = match self.connection.raw.flush()? {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        self.connection.wait(timeout, wanted)
    }

    /// Waits as long, but takes nothing in, so that the server has to wait as well. What was sent
    /// goes on its way. Returns an error if the connection is seen to be lost.
    pub fn hold(&self, timeout: Duration) -> Result<(), PostgresError> {
        self.connection.raw.flush()?;
        // Without a wish only the end of the connection is told.
        self.connection.wait(timeout, PollFlags::empty()).map(drop)
    }

    /// Sends a status update, without waiting. False if the server has not read the former ones, so
    /// that there is no room for this one.
    pub fn send(&self, update: &StatusUpdate) -> Result<bool, PostgresError> {
        let queued = self.connection.raw.put_copy_data(&update.encode())?;
        self.connection.raw.flush()?;
        Ok(queued)
    }

    /// Ends the stream from our side, if the server has not ended it yet, and waits for its last
    /// words; WAL that still comes is dropped. `None` is an end without a next timeline: because we
    /// wanted it, or because the server shuts down.
    pub fn end(
        mut self,
        deadline: Instant,
    ) -> Result<(Connection, Option<NextTimeline>), PostgresError> {
        self.connection.set_limits(Limits {
            deadline: Some(deadline),
            stop: None,
        });
        let connection = &self.connection;
        let mut next = None;
        let mut is_ended = false;
        let mut is_complete = false;
        loop {
            let result = match self.last_result() {
                // One that shuts down says that this was all, and hangs up.
                Err(PostgresError::Connection(_)) if is_complete => {
                    return Ok((self.connection, next));
                }
                other => other?,
            };
            let Some(result) = result else { break };
            match result.outcome() {
                Outcome::CopyIn | Outcome::CopyBoth if !is_ended => {
                    connection.raw.put_copy_end()?;
                    is_ended = true;
                }
                Outcome::CopyOut if is_ended => self.drain(deadline)?,
                Outcome::Complete => {
                    next = next_timeline(&Rows::new(result.check()?))?.or(next);
                    is_complete = true;
                }
                _ => return Err(no_answer("START_REPLICATION")),
            }
        }
        connection.raw.set_nonblocking(false)?;
        Ok((self.connection, next))
    }

    /// The next result, with everything sent before that we have to say.
    fn last_result(&self) -> Result<Option<super::ffi::RawResult>, PostgresError> {
        self.connection.raw.flush()?;
        self.connection.next_result()
    }

    fn drain(&self, deadline: Instant) -> Result<(), PostgresError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next()? {
                Arrival::End => return Ok(()),
                _ if left.is_zero() => return Err(PostgresError::TimedOut),
                Arrival::Message(_) => {}
                Arrival::Nothing => self.wait(left).map(drop)?,
            }
        }
    }
}
