//! One run of `receive-wal`: everything before, around and after the receiver itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::back_off::BackOff;
use super::commits::CommitWatch;
use super::error::{ArchiverFailure, ReceiverError};
use super::gap::{Position, create_marker};
use super::handover::HandOver;
use super::lock::lock;
use super::preflight::{self, Source, preflight};
use super::report::Reporter;
use super::reset::report_gap;
use super::start;
use super::state::ReceiverState;
use super::task::{receiver, task};
use super::{Archivist, Hole, Meter, Notice, Progress, Receiver, slots};
use crate::archiver;
use crate::config::{ReceiverKind, ServerConfig};
use crate::postgres::{ReplicationSlot, SystemIdentity};
use crate::wal::SegmentSize;

/// How often it is said why there is no connection, as long as the reason stays the same.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How long a request to stop can stay unnoticed in a pause.
const TICK: Duration = Duration::from_millis(100);

/// Receives WAL until `stop` becomes true or it cannot go on. What happens is counted by `meter`. What is
/// complete goes to `archivist` at once, if there is one and the receiver can serve it.
///
/// Must be called from the thread that lives as long as the process: the receiver dies with it.
pub fn receive(
    server: &ServerConfig,
    stop: &Arc<AtomicBool>,
    meter: &Arc<Meter>,
    archivist: Option<Box<dyn Archivist>>,
    notify: &dyn Fn(&Notice<'_>),
) -> Result<(), ReceiverError> {
    if !server.streaming_archiver {
        return Err(ReceiverError::SwitchedOff);
    }
    let Some(_lock) = lock(server)? else {
        // As Barman: what is wrong with the server comes first.
        preflight(server, Some(stop), notify)?;
        notify(&Notice::Starting(&server.name));
        return Err(ReceiverError::Running(server.name.clone()));
    };
    let mut session = Session {
        server,
        stop,
        meter,
        archivist,
        hand_over: None,
        notify,
        state: ReceiverState::load(server).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            ReceiverState::default()
        }),
        streaming_since: None,
        next_is_removed: false,
        complaint: None,
    };
    session.run()
}

struct Session<'a> {
    server: &'a ServerConfig,
    stop: &'a Arc<AtomicBool>,
    meter: &'a Arc<Meter>,
    archivist: Option<Box<dyn Archivist>>,
    hand_over: Option<HandOver>,
    notify: &'a dyn Fn(&Notice<'_>),
    state: ReceiverState,
    /// Since when WAL comes over the connection at hand, or came over the last one.
    streaming_since: Option<Instant>,
    /// The server has said that it does not have any more what comes next.
    next_is_removed: bool,
    /// What was said last of why there is no connection, and when.
    complaint: Option<(String, Instant)>,
}

impl Session<'_> {
    fn run(&mut self) -> Result<(), ReceiverError> {
        let since = Instant::now();
        self.state.start(Timestamp::now());
        self.store();
        for hole in &self.state.holes {
            self.meter.hole_found(hole.clone());
        }
        let reporter = Reporter::start(self.server, Arc::clone(self.meter));
        let reporter = reporter.inspect_err(|error| tracing::warn!("cannot report: {error}"));
        let received = self.keep_receiving();
        let stopped = self.is_to_stop();
        let (reason, failed_after) = match &received {
            _ if stopped => ("it was asked to stop".to_owned(), None),
            Ok(()) => ("pg_receivewal ended by itself".to_owned(), None),
            Err(error) => (error.cause(), Some(since.elapsed())),
        };
        if failed_after.is_some() {
            self.meter.failed(&reason);
        }
        self.hand_over = None;
        self.meter.stopped();
        drop(reporter);
        self.state.end(Timestamp::now(), reason, failed_after);
        self.store();
        if stopped { Ok(()) } else { received }
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// What is remembered serves `cron` and `status`; receiving goes on without.
    fn store(&self) {
        match self.state.store(self.server) {
            // No home yet: there is nothing to remember of one that never worked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("cannot write the state of the receiver: {error}"),
            Ok(()) => {}
        }
    }

    /// The built-in receiver connects again and again once it has worked. One that never did ends with
    /// its reason, for whoever started it.
    fn keep_receiving(&mut self) -> Result<(), ReceiverError> {
        let stays_up = self.server.own.receiver == ReceiverKind::Builtin;
        let mut back_off = BackOff::default();
        let mut has_worked = false;
        loop {
            let error = match self.prepare_and_receive(has_worked) {
                _ if self.is_to_stop() => return Ok(()),
                Err(error) if stays_up => error,
                received => return received,
            };
            let streamed_for = self.streaming_since.take().map(|since| since.elapsed());
            has_worked |= streamed_for.is_some();
            if self.next_is_removed && streamed_for.is_some() && self.server.slot_name.is_some() {
                // The slot may know where to go on. If that is gone as well, this is no busy loop.
                self.sleep(back_off.pause(Duration::ZERO));
                continue;
            }
            if !has_worked || !error.is_passing() {
                return Err(error);
            }
            let pause = back_off.pause(streamed_for.unwrap_or_default());
            self.meter.failed(&error.cause());
            self.state.lose();
            self.store();
            self.complain(&error, pause);
            self.sleep(pause);
        }
    }

    /// A server may be away for days: the same is not said with every attempt.
    fn complain(&mut self, error: &ReceiverError, pause: Duration) {
        let cause = error.cause();
        let is_known = self
            .complaint
            .as_ref()
            .is_some_and(|(said, at)| *said == cause && at.elapsed() < COMPLAINT_INTERVAL);
        if is_known {
            return;
        }
        (self.notify)(&Notice::Reconnecting {
            server: &self.server.name,
            error,
            pause,
        });
        self.complaint = Some((cause, Instant::now()));
    }

    /// Ends early if we shall stop.
    fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.is_to_stop() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(TICK));
            self.meter.turned();
        }
    }

    fn prepare_and_receive(&mut self, again: bool) -> Result<(), ReceiverError> {
        let server = self.server;
        self.meter.connecting();
        let source = match again {
            // What is wrong is said with the next attempt.
            true => preflight::examine(server, Some(self.stop), self.notify)?,
            false => preflight(server, Some(self.stop), self.notify)?,
        };
        if !again {
            (self.notify)(&Notice::Starting(&server.name));
        }
        self.check_timeline(&source.identity)?;
        start::create_streaming_directory(server)?;
        let receiver = receiver(server, &source)?;
        let slot = slots::prepare(server, &source, Some(&|notice| (self.notify)(notice)))?;
        start::truncate_partial(server, &source, self.notify)?;
        let next = self.next(&source, slot.as_ref())?;
        let identifier = source.identity.system_identifier;
        let major_version = source.status.version / 10_000;
        if let Err(error) =
            archiver::pin_identity(&server.backup_directory, identifier, major_version)
        {
            tracing::warn!("cannot write down the system identifier: {error}");
        }
        let task = task(server, &source, next, self.meter)?;
        // The server's resources are for others.
        drop(source);
        let _watch = CommitWatch::start(server, &task, self.stop);
        tracing::info!("Activating WAL archiving through streaming protocol");
        self.hand_over(&*receiver);
        let stop = Arc::clone(self.stop);
        let mut removed = false;
        let received = receiver.receive(&task, &stop, &mut |progress| {
            if let Progress::Line(line) = progress {
                removed |= line.contains("has already been removed");
            }
            self.take_progress(&progress);
        });
        match received {
            Err(failure) if removed || failure.is_of_removed_wal() => {
                self.next_is_removed = true;
                Err(self.removed(task.start, task.segment_size).into())
            }
            other => Ok(other?),
        }
    }

    /// Where to go on. Where the server does not have that any more, but the slot keeps what comes
    /// later, the built-in receiver goes on there, and what is missing is written down.
    fn next(
        &mut self,
        source: &Source,
        slot: Option<&ReplicationSlot>,
    ) -> Result<Position, ReceiverError> {
        let server = self.server;
        let next = start::next(server, source, slot)?;
        let is_builtin = server.own.receiver == ReceiverKind::Builtin;
        let mut available = start::check_available(server, source, slot, &next.position);
        if std::mem::take(&mut self.next_is_removed) && available.is_ok() {
            let wanted = next.position.clone();
            available = Err(self.removed(wanted, source.status.segment_size));
        }
        match available {
            Err(failure @ ArchiverFailure::Removed { .. }) if is_builtin => {
                let restart = source.restart_position(slot);
                let kept = restart.map_err(ArchiverFailure::from)?;
                let kept = kept.filter(|kept| kept.start > next.position.start);
                let kept = kept.ok_or(failure)?;
                self.write_down_hole(&next.position, &kept, source);
                return Ok(kept);
            }
            other => other?,
        }
        if next.needs_marker {
            // A pg_receivewal of before version 15 would begin at the server's position instead.
            tracing::info!("Beginning at the position of the slot: {}", next.position);
            if !is_builtin {
                create_marker(&server.streaming_wals_directory, &next.position)
                    .map_err(|error| start::unreadable(server, error))?;
            }
        }
        Ok(next.position)
    }

    fn removed(&self, wanted: Position, segment_size: SegmentSize) -> ArchiverFailure {
        let limits = preflight::limits(self.server, Some(self.stop));
        start::removed(self.server, wanted, segment_size, limits)
    }

    fn write_down_hole(&mut self, wanted: &Position, kept: &Position, source: &Source) {
        let hole = Hole {
            at: Timestamp::now(),
            timeline: kept.segment.timeline(),
            from: wanted.start,
            to: kept.start,
        };
        (self.notify)(&Notice::Hole {
            server: &self.server.name,
            hole: &hole,
        });
        report_gap(self.server, source, kept, self.notify);
        self.meter.hole_found(hole.clone());
        self.state.add_hole(hole);
        self.store();
    }

    /// A former primary that comes back at the same address has WAL of its own, which is not to be
    /// mixed with that of the timeline it does not know.
    fn check_timeline(&self, identity: &SystemIdentity) -> Result<(), ArchiverFailure> {
        match self.state.timeline {
            Some(pinned) if pinned > identity.timeline => Err(ArchiverFailure::FormerTimeline {
                pinned,
                connected: identity.timeline,
            }),
            _ => Ok(()),
        }
    }

    fn pin_timeline(&mut self, timeline: u32) {
        if self.state.timeline < Some(timeline) {
            self.state.timeline = Some(timeline);
            self.store();
        }
    }

    /// Receiving goes on without it: `cron` archives what waits.
    fn hand_over(&mut self, receiver: &dyn Receiver) {
        if let Some(archivist) = self.archivist.take()
            && receiver.tells_of_files()
        {
            self.hand_over = HandOver::start(archivist, Arc::clone(self.meter))
                .inspect_err(|error| tracing::warn!("cannot archive while receiving: {error}"))
                .ok();
        }
    }

    fn take_progress(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Line(line) => self.tell(line),
            Progress::Streaming(position) => {
                self.streaming_since = Some(Instant::now());
                self.complaint = None;
                self.state.stream(Timestamp::now());
                self.store();
                (self.notify)(&Notice::Streaming(position));
            }
            Progress::Timeline(timeline) => self.pin_timeline(*timeline),
        }
    }

    fn tell(&self, line: &str) {
        (self.notify)(&Notice::Line {
            server: &self.server.name,
            line,
        });
    }
}
