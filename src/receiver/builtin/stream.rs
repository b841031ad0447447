//! One stream: WAL comes in, goes to the disk, and is acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::acknowledge::{Acknowledgement, Due, Progress};
use super::segment::SegmentFiles;
use super::timeline::Place;
use crate::postgres::{
    Arrival, Connection, PostgresError, ReplicationMessage, StatusUpdate, WalStream,
};
use crate::receiver::stream_error::ProtocolError;
use crate::receiver::{ArchiverFailure, Progress as Told, Task};
use crate::wal::{LongPageHeader, Lsn};

/// How long a request to stop can stay unnoticed, should its signal not end a wait.
const TICK: Duration = Duration::from_millis(500);

/// How soon it is seen that a segment has become durable, should nothing else happen.
const FINISHING_TICK: Duration = Duration::from_millis(5);

/// After this pause it is seen whether there is room on the disk again.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// How much WAL that has arrived is written before the commits that wait for it get their answer.
const BATCH_MAX_BYTES: u64 = 1 << 20;

/// How long the server may take to say goodbye when we stop,
const GOODBYE: Duration = Duration::from_secs(2);
/// and to say what follows when it has ended the stream.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why a stream has ended.
pub(super) enum End {
    /// We were asked to stop.
    Stopped,
    /// Its timeline has ended, and goes on with another one.
    Timeline(Connection, Place),
}

/// Receives from a stream until it ends.
pub(super) fn receive(
    stream: WalStream,
    task: &Task<'_>,
    place: Place,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(Told<'_>),
) -> Result<End, ArchiverFailure> {
    let Task {
        directory,
        segment_size,
        meter,
        ..
    } = *task;
    let synchronous = task.synchronous.load(Ordering::Relaxed);
    // In synchronous mode everything is durable already when a segment is full.
    let is_ahead = !synchronous;
    let Place { timeline, start } = place;
    let files = SegmentFiles::begin(directory, timeline, start, segment_size, is_ahead, meter)?;
    let has_slot = task.slot_name.is_some();
    let mut inflow = Inflow {
        acknowledgement: Acknowledgement::new(synchronous, has_slot, place.start, Instant::now()),
        stream,
        task,
        place,
        stop,
        files,
        on_progress,
    };
    match inflow.run() {
        Ok(true) => inflow.follow(),
        Ok(false) | Err(ArchiverFailure::Connection(PostgresError::Interrupted)) => {
            inflow.say_goodbye();
            Ok(End::Stopped)
        }
        Err(failure) => {
            // Nobody is told, but it may be all that is left of that WAL.
            if let Err(error) = inflow.files.flush() {
                tracing::warn!("{error}");
            }
            Err(failure)
        }
    }
}

struct Inflow<'t, 'p> {
    stream: WalStream,
    task: &'t Task<'t>,
    place: Place,
    stop: &'t AtomicBool,
    files: SegmentFiles<'t>,
    acknowledgement: Acknowledgement,
    on_progress: &'p mut dyn FnMut(Told<'_>),
}

impl Inflow<'_, '_> {
    /// Returns true when the server has ended the stream, false when we shall.
    fn run(&mut self) -> Result<bool, ArchiverFailure> {
        self.write(self.place.start, &[])?;
        while !self.is_to_stop() {
            self.see_who_waits();
            let has_ended = self.take_what_has_come()?;
            self.acknowledge()?;
            if has_ended {
                return Ok(true);
            }
            let patience = self.acknowledgement.patience(Instant::now());
            let tick = match self.files.is_finishing() {
                true => FINISHING_TICK,
                false => TICK,
            };
            let heard = self.listen(patience.min(tick))?;
            self.task.meter.turned();
            if !heard && let Some(silence) = self.acknowledgement.dead_for(Instant::now()) {
                return Err(ArchiverFailure::Silent(silence));
            }
        }
        Ok(false)
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The server's settings may have changed.
    fn see_who_waits(&mut self) {
        let synchronous = self.task.synchronous.load(Ordering::Relaxed);
        if synchronous == self.acknowledgement.is_synchronous() {
            return;
        }
        self.acknowledgement.set_synchronous(synchronous);
        self.tell(match synchronous {
            true => "commits wait for this receiver now: what arrives is made durable at once",
            false => "commits do not wait for this receiver any more",
        });
    }

    /// Waits so long for bytes. Returns whether some came.
    fn listen(&mut self, timeout: Duration) -> Result<bool, ArchiverFailure> {
        let heard = self.stream.wait(timeout)?;
        if heard {
            self.acknowledgement.heard(Instant::now());
        }
        Ok(heard)
    }

    /// Takes all messages that are there, without waiting for more. Returns whether the stream has
    /// ended.
    fn take_what_has_come(&mut self) -> Result<bool, ArchiverFailure> {
        while !self.is_to_stop() {
            match self.stream.next()? {
                Arrival::Message(message) => self.take(&message)?,
                Arrival::End => return Ok(true),
                Arrival::Nothing => {
                    let unflushed_bytes = self.files.written().0 - self.files.flushed().0;
                    // Only those who wait for an answer have something of a larger batch.
                    let is_batch = self.acknowledgement.is_synchronous() && unflushed_bytes > 0;
                    if !is_batch
                        || unflushed_bytes > BATCH_MAX_BYTES
                        || !self.listen(Duration::ZERO)?
                    {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    fn take(&mut self, message: &[u8]) -> Result<(), ArchiverFailure> {
        match ReplicationMessage::decode(message).map_err(ProtocolError::from)? {
            ReplicationMessage::Wal {
                start,
                server_end,
                bytes,
                ..
            } => {
                self.check(start, bytes)?;
                self.task.meter.message(server_end);
                self.write(start, bytes)
            }
            ReplicationMessage::Keepalive {
                server_end,
                reply_requested,
                ..
            } => {
                self.task.meter.message(server_end);
                if reply_requested {
                    self.acknowledgement.request();
                }
                Ok(())
            }
        }
    }

    /// WAL must follow what is there; and if it is the first of a segment, it must say that it is of
    /// this place of this cluster.
    fn check(&self, start: Lsn, bytes: &[u8]) -> Result<(), ProtocolError> {
        let expected = self.files.written();
        if start != expected {
            return Err(ProtocolError::OutOfOrder {
                expected,
                got: start,
            });
        }
        let size_bytes = self.task.segment_size.bytes();
        let to_first_page = start.0.wrapping_neg() % size_bytes;
        let first_page = usize::try_from(to_first_page)
            .ok()
            .and_then(|at| bytes.get(at..));
        // One of a version that is not known here, or a part of one, cannot be looked into.
        let Some(header) = first_page.and_then(LongPageHeader::parse) else {
            return Ok(());
        };
        let page = Lsn(start.0.wrapping_add(to_first_page));
        let is_sound = header.system_identifier == self.task.system_identifier
            && header.page_address == page
            && u64::from(header.segment_size_bytes) == size_bytes
            && header.timeline <= self.place.timeline;
        match is_sound {
            true => Ok(()),
            false => Err(ProtocolError::Page(format!(
                "the page at {page} says that it is at {} on timeline {} of cluster {}",
                header.page_address, header.timeline, header.system_identifier
            ))),
        }
    }

    /// Writes WAL. Where there is no room for it, this waits for some and keeps the connection alive
    /// meanwhile.
    fn write(&mut self, start: Lsn, bytes: &[u8]) -> Result<(), ArchiverFailure> {
        let mut is_full = false;
        loop {
            match self.files.write(start, bytes) {
                Ok(()) => break,
                Err(error) if error.may_be_repeated && error.is_want_of_room() => {
                    if !is_full {
                        self.task.meter.disk_full(&error.to_string());
                        self.tell(&format!("waiting for room: {error}"));
                    }
                    is_full = true;
                    self.wait_for_room()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if is_full {
            self.task.meter.receiving();
            self.tell(&format!(
                "there is room again, going on at {}",
                self.files.written()
            ));
        }
        self.tell_completed();
        Ok(())
    }

    fn tell(&mut self, line: &str) {
        (self.on_progress)(Told::Line(line));
    }

    fn tell_completed(&mut self) {
        let timeline = self.place.timeline;
        while let Some(end) = self.files.take_completed() {
            self.task.meter.segment_completed();
            self.tell(&format!("finished segment at {end} (timeline {timeline})"));
        }
    }

    /// A pause in which the server sees that we live, and waits: nothing more is read from it.
    fn wait_for_room(&mut self) -> Result<(), ArchiverFailure> {
        let until = Instant::now() + ROOM_INTERVAL;
        while !until.saturating_duration_since(Instant::now()).is_zero() {
            if self.is_to_stop() {
                return Err(PostgresError::Interrupted.into());
            }
            let left = until.saturating_duration_since(Instant::now());
            self.stream.hold(left.min(TICK))?;
            self.task.meter.turned();
        }
        // It cannot be heard while nothing is read.
        self.acknowledgement.heard(Instant::now());
        self.acknowledge()
    }

    fn progress(&self) -> Progress {
        Progress {
            written: self.files.kept(),
            flushed: self.files.flushed(),
        }
    }

    /// Makes durable and reports what is due.
    fn acknowledge(&mut self) -> Result<(), ArchiverFailure> {
        self.files.settle(false)?;
        match self.acknowledgement.due(self.progress(), Instant::now()) {
            Due::Nothing => return Ok(()),
            Due::Reply => {}
            Due::FlushAndReply => self.files.flush()?,
        }
        self.tell_completed();
        let progress = self.progress();
        let update: StatusUpdate = self.acknowledgement.update(progress);
        if self.stream.send(&update)? {
            self.acknowledgement.told(progress, Instant::now());
        }
        Ok(())
    }

    /// The server has ended the stream: because the timeline ends here, or because it shuts down.
    fn follow(self) -> Result<End, ArchiverFailure> {
        let end = self.files.written();
        let (connection, next) = self.stream.end(Instant::now() + LAST_WORDS)?;
        let Some(next) = next else {
            return Err(ArchiverFailure::Ended(end));
        };
        let next: Place = self.place.after(end, next, self.task.segment_size)?;
        self.files.end_timeline()?;
        Ok(End::Timeline(connection, next))
    }

    /// Tells the server how far WAL has come, and waits a moment for its goodbye: without one it may
    /// not have read what it was told.
    fn say_goodbye(mut self) {
        self.task.meter.stopping();
        if let Err(error) = self.files.flush() {
            tracing::warn!("{error}");
        }
        let update = self.acknowledgement.update(self.progress());
        let ended = self
            .stream
            .send(&update)
            .and_then(|_| self.stream.end(Instant::now() + GOODBYE));
        if let Err(error) = ended {
            tracing::debug!("the server did not say goodbye: {error}");
        }
    }
}
