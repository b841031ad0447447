//! The numbers of a receiver that runs: written by the thread that receives and by the one that
//! archives, read by the one that reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::measurements::{FLUSH_BOUNDS_S, FlushTimes, Hole, Measurements, Phase, Trouble};
use crate::wal::Lsn;

/// No position is known yet. PostgreSQL's `InvalidXLogRecPtr`, too, which is no position.
const UNKNOWN: u64 = 0;

/// Counts what happens, and wakes whoever waits for files to archive. One method for each thing that
/// can happen; those that belong to every message only touch numbers in memory.
///
/// Whoever receives calls [`turned`](Self::turned) wherever it waits, or the watchdog of the service
/// manager takes it for dead.
#[derive(Debug)]
pub struct Meter {
    receiver: &'static str,
    started_at: Timestamp,
    start: Instant,
    turned_ns: AtomicU64,
    last_message_ns: AtomicU64,
    /// When all WAL was here that the server was known to have.
    caught_up_ns: AtomicU64,
    write_lsn: AtomicU64,
    flush_lsn: AtomicU64,
    server_lsn: AtomicU64,
    received_bytes: AtomicU64,
    flushes: [AtomicU64; FLUSH_BOUNDS_S.len() + 1],
    flushes_ns: AtomicU64,
    rest: Mutex<Rest>,
    called: Condvar,
}

/// What changes too rarely to be worth an atomic.
#[derive(Debug, Default)]
struct Rest {
    phase: Phase,
    timeline: Option<u32>,
    connections: u64,
    segments_completed: u64,
    /// How often somebody was given a reason to look for files.
    calls: u64,
    files_archived: Option<u64>,
    archive_queue: Option<u64>,
    holes: Vec<Hole>,
    last_error: Option<Trouble>,
    archive_error: Option<Trouble>,
}

impl Meter {
    /// For a receiver of this name that begins now.
    pub fn new(receiver: &'static str) -> Self {
        Meter {
            receiver,
            started_at: Timestamp::now(),
            start: Instant::now(),
            turned_ns: AtomicU64::new(0),
            last_message_ns: AtomicU64::new(UNKNOWN),
            caught_up_ns: AtomicU64::new(0),
            write_lsn: AtomicU64::new(UNKNOWN),
            flush_lsn: AtomicU64::new(UNKNOWN),
            server_lsn: AtomicU64::new(UNKNOWN),
            received_bytes: AtomicU64::new(0),
            flushes: Default::default(),
            flushes_ns: AtomicU64::new(0),
            rest: Mutex::default(),
            called: Condvar::new(),
        }
    }

    /// The receiver has come around once more and is not stuck.
    pub fn turned(&self) {
        self.turned_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// A connection is being made.
    pub fn connecting(&self) {
        self.turned();
        self.rest().phase = Phase::Connecting;
    }

    /// WAL begins to flow, from this position on; also after the change of a timeline, which is no new
    /// connection.
    pub fn streaming(&self, timeline: u32, start: Lsn, is_new_connection: bool) {
        self.write_lsn.store(start.0, Ordering::Relaxed);
        self.flush_lsn.store(start.0, Ordering::Relaxed);
        self.turned();
        let mut rest = self.rest();
        rest.phase = Phase::Streaming;
        rest.timeline = Some(timeline);
        rest.connections += u64::from(is_new_connection);
    }

    /// WAL flows, again or from wherever the receiver does not say.
    pub fn receiving(&self) {
        self.turned();
        self.rest().phase = Phase::Streaming;
    }

    /// There is no room for the next bytes; the connection stands.
    pub fn disk_full(&self, reason: &str) {
        self.turned();
        let mut rest = self.rest();
        rest.phase = Phase::DiskFull;
        rest.last_error = Some(trouble(reason));
    }

    /// The connection is lost, or could not be made, and is tried again after a pause. The reason must
    /// not have a password in it.
    pub fn failed(&self, reason: &str) {
        self.turned();
        let mut rest = self.rest();
        rest.phase = Phase::Waiting;
        rest.last_error = Some(trouble(reason));
    }

    /// It is over.
    pub(super) fn stopped(&self) {
        self.rest().phase = Phase::Stopped;
    }

    /// The receiver was asked to stop and is about to.
    pub fn stopping(&self) {
        self.turned();
        self.rest().phase = Phase::Stopping;
    }

    /// The server said something, and has WAL up to here.
    pub fn message(&self, server_lsn: Lsn) {
        let now_ns = self.now_ns();
        self.server_lsn.store(server_lsn.0, Ordering::Relaxed);
        self.last_message_ns.store(now_ns, Ordering::Relaxed);
        self.turned_ns.store(now_ns, Ordering::Relaxed);
        if self.write_lsn.load(Ordering::Relaxed) >= server_lsn.0 {
            self.caught_up_ns.store(now_ns, Ordering::Relaxed);
        }
    }

    /// So much WAL was written to a file, up to this position.
    pub fn written(&self, end: Lsn, size_bytes: u64) {
        self.write_lsn.store(end.0, Ordering::Relaxed);
        self.received_bytes.fetch_add(size_bytes, Ordering::Relaxed);
        if end.0 >= self.server_lsn.load(Ordering::Relaxed) {
            self.caught_up_ns.store(self.now_ns(), Ordering::Relaxed);
        }
    }

    /// Everything up to this position has become durable, and that took so long.
    pub fn flushed(&self, end: Lsn, took: Duration) {
        self.flush_lsn.store(end.0, Ordering::Relaxed);
        let took_s = took.as_secs_f64();
        let class = FLUSH_BOUNDS_S.iter().position(|bound| took_s <= *bound);
        let class = class.unwrap_or(FLUSH_BOUNDS_S.len());
        if let Some(count) = self.flushes.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.flushes_ns.fetch_add(ns(took), Ordering::Relaxed);
    }

    /// A segment is whole, durable and under its name. To be called when the partial segment behind it is
    /// there, too: until then the complete one says where to go on, and is not archived.
    pub fn segment_completed(&self) {
        self.rest().segments_completed += 1;
        self.call();
    }

    /// A history file is whole, durable and under its name.
    pub fn history_completed(&self) {
        self.call();
    }

    /// Makes [`wait_for_call`](Self::wait_for_call) return.
    pub(super) fn call(&self) {
        self.rest().calls += 1;
        self.called.notify_all();
    }

    /// How often was called so far.
    pub(super) fn calls(&self) -> u64 {
        self.rest().calls
    }

    /// Returns as soon as there are more calls than these, or when the time is over.
    pub(super) fn wait_for_call(&self, seen: u64, time_limit: Duration) {
        let rest = self.rest();
        // A wait that ends without a reason does no harm: whoever waits looks for itself.
        if rest.calls == seen {
            drop(self.called.wait_timeout(rest, time_limit));
        }
    }

    /// WAL is missing that will never be received.
    pub fn hole_found(&self, hole: Hole) {
        self.rest().holes.push(hole);
    }

    /// So many more files have been archived; 0 tells that files are handed over at all.
    pub(super) fn archived(&self, files: u64) {
        let mut rest = self.rest();
        rest.files_archived = Some(rest.files_archived.unwrap_or(0) + files);
    }

    /// So many files wait to be archived.
    pub(super) fn queue(&self, files: Option<u64>) {
        self.rest().archive_queue = files;
    }

    /// Why files wait; `None` when they do not any more.
    pub(super) fn archive_trouble(&self, reason: Option<&str>) {
        self.rest().archive_error = reason.map(trouble);
    }

    /// Whether the receiver has come around within this time. Connecting counts: it is done in a thread
    /// of its own, for as long as libpq takes.
    pub fn is_alive(&self, within: Duration) -> bool {
        let turned_ns = self.turned_ns.load(Ordering::Relaxed);
        let is_connecting = self.rest().phase == Phase::Connecting;
        is_connecting || self.now_ns().saturating_sub(turned_ns) <= ns(within)
    }

    /// Everything that is known now.
    pub fn read(&self) -> Measurements {
        let now_ns = self.now_ns();
        let write_lsn = position(&self.write_lsn);
        let server_lsn = position(&self.server_lsn);
        let lag_bytes = write_lsn
            .zip(server_lsn)
            .map(|(write, server)| server.0.saturating_sub(write.0));
        let last_message_ns = match self.last_message_ns.load(Ordering::Relaxed) {
            UNKNOWN => None,
            at_ns => Some(at_ns),
        };
        let caught_up_ns = self.caught_up_ns.load(Ordering::Relaxed);
        let rest = self.rest();
        let is_current = rest.phase == Phase::Streaming && lag_bytes == Some(0);
        let lag_s = last_message_ns.map(|_| match is_current {
            true => 0.0,
            false => seconds(now_ns.saturating_sub(caught_up_ns)),
        });
        Measurements {
            receiver: self.receiver.to_owned(),
            pid: std::process::id(),
            at: Timestamp::now(),
            started_at: self.started_at,
            phase: rest.phase,
            timeline: rest.timeline,
            write_lsn,
            flush_lsn: position(&self.flush_lsn),
            server_lsn,
            lag_bytes,
            lag_s,
            last_message_at: last_message_ns.and_then(|at_ns| {
                self.started_at
                    .checked_add(Duration::from_nanos(at_ns))
                    .ok()
            }),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            reconnects: rest.connections.saturating_sub(1),
            flushes: FlushTimes {
                counts: self.flushes.each_ref().map(|n| n.load(Ordering::Relaxed)),
                sum_s: seconds(self.flushes_ns.load(Ordering::Relaxed)),
            },
            segments_completed: rest.segments_completed,
            files_archived: rest.files_archived,
            archive_queue: rest.archive_queue,
            holes: rest.holes.clone(),
            last_error: rest.last_error.clone(),
            archive_error: rest.archive_error.clone(),
        }
    }

    fn now_ns(&self) -> u64 {
        ns(self.start.elapsed())
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        // Nobody leaves it half changed.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trouble(reason: &str) -> Trouble {
    Trouble {
        at: Timestamp::now(),
        reason: reason.to_owned(),
    }
}

fn position(value: &AtomicU64) -> Option<Lsn> {
    match value.load(Ordering::Relaxed) {
        UNKNOWN => None,
        position => Some(Lsn(position)),
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn seconds(time_ns: u64) -> f64 {
    Duration::from_nanos(time_ns).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_what_the_server_has_and_we_have_not_written() {
        let meter = Meter::new("builtin");
        assert_eq!(meter.read().lag_bytes, None);
        assert_eq!(meter.read().lag_s, None);
        meter.streaming(1, Lsn(0x1000), true);
        meter.message(Lsn(0x3000));
        let behind = meter.read();
        assert_eq!(behind.lag_bytes, Some(0x2000));
        assert!(behind.lag_s > Some(0.0));
        meter.written(Lsn(0x3000), 0x2000);
        let current = meter.read();
        assert_eq!((current.lag_bytes, current.lag_s), (Some(0), Some(0.0)));
        assert_eq!(current.received_bytes, 0x2000);
        assert_eq!(current.flush_lsn, Some(Lsn(0x1000)));
    }

    #[test]
    fn without_a_connection_nobody_knows_how_far_behind_we_are() {
        let meter = Meter::new("builtin");
        meter.streaming(1, Lsn(0x1000), true);
        meter.message(Lsn(0x1000));
        assert_eq!(meter.read().lag_s, Some(0.0));
        meter.failed("gone");
        let lost = meter.read();
        assert!(lost.lag_s > Some(0.0));
        assert_eq!(lost.phase, Phase::Waiting);
        assert_eq!(lost.last_error.unwrap().reason, "gone");
    }

    #[test]
    fn the_first_connection_and_a_new_timeline_are_no_reconnects() {
        let meter = Meter::new("builtin");
        meter.streaming(1, Lsn(0x1000), true);
        meter.streaming(2, Lsn(0x2000), false);
        assert_eq!(meter.read().reconnects, 0);
        meter.streaming(2, Lsn(0x2000), true);
        assert_eq!(meter.read().reconnects, 1);
        assert_eq!(meter.read().timeline, Some(2));
    }

    #[test]
    fn flushes_fall_into_the_class_of_their_time() {
        let meter = Meter::new("builtin");
        for ms in [1, 1, 3, 90_000] {
            meter.flushed(Lsn(1), Duration::from_millis(ms));
        }
        let times = meter.read().flushes;
        assert_eq!(times.counts, [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(times.count(), 4);
        assert!((times.sum_s - 90.005).abs() < 1e-6);
    }

    #[test]
    fn a_receiver_that_does_not_turn_is_not_alive_unless_it_connects() {
        let meter = Meter::new("builtin");
        meter.streaming(1, Lsn(1), true);
        assert!(meter.is_alive(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(2));
        assert!(!meter.is_alive(Duration::from_millis(1)));
        meter.turned();
        assert!(meter.is_alive(Duration::from_secs(60)));
        meter.connecting();
        std::thread::sleep(Duration::from_millis(2));
        assert!(meter.is_alive(Duration::from_millis(1)));
    }

    #[test]
    fn measurements_survive_their_way_through_a_file() {
        let meter = Meter::new("builtin");
        meter.streaming(3, Lsn(0x16_B374_D848), true);
        meter.hole_found(Hole {
            at: Timestamp::UNIX_EPOCH,
            timeline: 3,
            from: Lsn(0x100_0000),
            to: Lsn(0x300_0000),
        });
        let read = meter.read();
        let text = serde_json::to_string(&read).unwrap();
        assert!(text.contains("\"write_lsn\":\"16/B374D848\""), "{text}");
        assert_eq!(serde_json::from_str::<Measurements>(&text).unwrap(), read);
    }
}
