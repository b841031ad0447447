//! Straight into the archive: what is received is archived by a thread beside the receiver.
//!
//! The files in `streaming_wals_directory` are the queue. Whoever completes one only leaves word in the
//! [`Meter`], so that receiving waits for nothing here; the queue is bounded by nothing but the disk.
//! What this thread does not come to do, `archive-wal` does: both take the same lock for each round.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::Meter;

/// How soon the archive is tried again when somebody else is at it.
const BUSY_PAUSE: Duration = Duration::from_millis(200);

/// The pause after a failure; it doubles with each further one up to
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
/// this one.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// How often the queues are looked at when nothing is received.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);

/// How long a stop may take. What is not done by then is cut off with the process, which loses nothing.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// Somebody else is archiving.
    Busy,
    /// The queues have been gone through.
    Done {
        /// How many files were archived.
        archived: u64,
        /// What failed, in words.
        failures: Vec<String>,
    },
}

/// Archives what waits in the queues of a server.
pub trait Archivist: Send {
    /// Goes through the queues once, as `archive-wal` does, under its lock. Comes back soon after
    /// `stop` has become true, with the file at hand archived or untouched.
    fn archive(&mut self, stop: &AtomicBool) -> Round;
}

/// An archivist at work in a thread of its own. Dropping it asks it to stop and waits a while for that.
pub(super) struct HandOver {
    stop: Arc<AtomicBool>,
    meter: Arc<Meter>,
    ended: Receiver<()>,
}

impl HandOver {
    /// Begins with what waits already.
    pub(super) fn start(archivist: Box<dyn Archivist>, meter: Arc<Meter>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ending, ended) = mpsc::sync_channel(1);
        let mut worker = Worker {
            archivist,
            meter: Arc::clone(&meter),
            stop: Arc::clone(&stop),
            causes: BTreeSet::new(),
            back_off: BACK_OFF_MIN,
        };
        thread::Builder::new()
            .name("archive".to_owned())
            .spawn(move || {
                worker.run();
                // Nobody listens any more if it took too long.
                let _ = ending.send(());
            })?;
        Ok(HandOver { stop, meter, ended })
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.meter.call();
        if self.ended.recv_timeout(STOP_TIMEOUT).is_err() {
            tracing::warn!(
                "Archiving has not stopped within {} s and is cut off; archive-wal goes on from there",
                STOP_TIMEOUT.as_secs()
            );
        }
    }
}

struct Worker {
    archivist: Box<dyn Archivist>,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
    /// Why the last round failed.
    causes: BTreeSet<String>,
    /// The pause after the next failure.
    back_off: Duration,
}

impl Worker {
    fn run(&mut self) {
        self.meter.archived(0);
        loop {
            let calls = self.meter.calls();
            if self.is_stopped() {
                return;
            }
            match self.archivist.archive(&self.stop) {
                Round::Busy => self.pause(BUSY_PAUSE),
                Round::Done { archived, failures } => {
                    self.meter.archived(archived);
                    if !failures.is_empty() {
                        self.fail(&failures);
                    } else {
                        self.succeed();
                        if archived == 0 {
                            self.meter.wait_for_call(calls, IDLE_INTERVAL);
                        }
                    }
                }
            }
        }
    }

    /// Tells what fails that did not fail before, and waits: what arrives meanwhile would fail, too.
    fn fail(&mut self, failures: &[String]) {
        let causes: BTreeSet<String> = failures.iter().map(|failure| cause(failure)).collect();
        let mut news: BTreeSet<&String> = causes.difference(&self.causes).collect();
        for failure in failures {
            if news.remove(&cause(failure)) {
                tracing::error!("WAL that was received is not archived: {failure}");
            }
        }
        self.meter
            .archive_trouble(failures.first().map(String::as_str));
        self.causes = causes;
        self.pause(self.back_off);
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
    }

    fn succeed(&mut self) {
        if !self.causes.is_empty() {
            tracing::info!("WAL that was received is archived again");
            self.meter.archive_trouble(None);
            self.causes.clear();
        }
        self.back_off = BACK_OFF_MIN;
    }

    /// Waits for so long, whatever is received; less if the work is to end.
    fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let calls = self.meter.calls();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_stopped() {
                return;
            }
            self.meter.wait_for_call(calls, left);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A failure without its numbers (how long something took, how often it was tried) and without the names of
/// segments and of their directories: what is wrong with one file is usually wrong with all of them.
fn cause(failure: &str) -> String {
    let words = failure.split_whitespace();
    let words = words.filter(|word| !word.starts_with(|first: char| first.is_ascii_digit()));
    words.map(without_names).collect::<Vec<_>>().join(" ")
}

fn without_names(word: &str) -> String {
    let mut left = String::new();
    let mut digits = 0;
    for character in word.chars() {
        let is_digit = character.is_ascii_digit() || ('A'..='F').contains(&character);
        digits = if is_digit { digits + 1 } else { 0 };
        if digits <= 8 {
            left.push(character);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::SyncSender;

    use super::*;

    /// Tells of every round, and answers what it is given.
    struct Scripted {
        rounds: SyncSender<Instant>,
        answers: Receiver<Round>,
    }

    impl Archivist for Scripted {
        fn archive(&mut self, stop: &AtomicBool) -> Round {
            self.rounds.send(Instant::now()).unwrap();
            loop {
                match self.answers.recv_timeout(Duration::from_millis(10)) {
                    Ok(round) => return round,
                    Err(_) if stop.load(Ordering::Relaxed) => return Round::Busy,
                    Err(_) => {}
                }
            }
        }
    }

    struct Rig {
        meter: Arc<Meter>,
        rounds: Receiver<Instant>,
        answers: SyncSender<Round>,
        _hand_over: HandOver,
    }

    fn rig() -> Rig {
        let meter = Arc::new(Meter::new("builtin"));
        let (round, rounds) = mpsc::sync_channel(100);
        let (answers, answer) = mpsc::sync_channel(100);
        let archivist = Scripted {
            rounds: round,
            answers: answer,
        };
        Rig {
            _hand_over: HandOver::start(Box::new(archivist), Arc::clone(&meter)).unwrap(),
            meter,
            rounds,
            answers,
        }
    }

    impl Rig {
        fn round(&self) -> Instant {
            self.rounds.recv_timeout(Duration::from_secs(20)).unwrap()
        }

        fn no_round_within(&self, time: Duration) {
            self.rounds.recv_timeout(time).unwrap_err();
        }

        fn answer(&self, archived: u64, failures: &[&str]) {
            let failures = failures.iter().map(|&text| text.to_owned()).collect();
            self.answers
                .send(Round::Done { archived, failures })
                .unwrap();
        }
    }

    #[test]
    fn what_waits_is_archived_at_once_and_what_comes_when_it_comes() {
        let rig = rig();
        rig.round();
        rig.answer(2, &[]);
        // There may be more than a batch takes.
        rig.round();
        rig.answer(0, &[]);
        rig.no_round_within(Duration::from_millis(300));
        rig.meter.segment_completed();
        rig.round();
        assert_eq!(rig.meter.read().files_archived, Some(2));
    }

    #[test]
    fn what_comes_during_a_round_is_seen_by_the_next_one() {
        let rig = rig();
        rig.round();
        rig.meter.segment_completed();
        rig.answer(0, &[]);
        rig.round();
    }

    #[test]
    fn a_busy_archive_is_tried_again_soon() {
        let rig = rig();
        let first = rig.round();
        rig.answers.send(Round::Busy).unwrap();
        assert!(rig.round() - first < IDLE_INTERVAL / 2);
    }

    #[test]
    fn after_a_failure_comes_a_pause_whatever_is_received() {
        let rig = rig();
        rig.round();
        let failed = Instant::now();
        rig.answer(0, &["no disk"]);
        while rig.meter.read().archive_error.is_none() {
            thread::yield_now();
        }
        rig.meter.segment_completed();
        assert!(rig.round() - failed >= BACK_OFF_MIN);
        rig.answer(1, &[]);
        rig.round();
        assert_eq!(rig.meter.read().archive_error, None);
    }

    #[test]
    fn the_same_failure_of_another_segment_is_the_same_cause() {
        let failure = |name: &str, why: &str| cause(&format!("cannot write wals/{name}: {why}"));
        let full = failure("0000000100000000/00000001000000000000000A", "full");
        assert_eq!(
            failure("0000000100000001/000000010000000100000000", "full"),
            full
        );
        assert_ne!(
            failure("0000000100000000/00000001000000000000000A", "broken"),
            full
        );
    }

    #[test]
    fn the_same_failure_after_another_time_is_the_same_cause() {
        let slow = cause("PUT x failed in 2.5s, after 12 retries: closed");
        assert_eq!(
            cause("PUT x failed in 113.2ms, after 1 retries: closed"),
            slow
        );
        assert_ne!(
            cause("PUT x failed in 2.5s, after 12 retries: refused"),
            slow
        );
    }

    #[test]
    fn a_stop_ends_a_pause_and_a_wait() {
        let begun = Instant::now();
        for failures in [&["no disk"][..], &[]] {
            let rig = rig();
            rig.round();
            rig.answer(0, failures);
        }
        assert!(begun.elapsed() < STOP_TIMEOUT);
    }
}
