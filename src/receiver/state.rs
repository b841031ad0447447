//! What is remembered of a server's receiver between its runs, for `cron` and `status`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::measurements::Hole;
use crate::config::ServerConfig;
use crate::durable;

/// The file in `backup_directory`; hidden, so that Barman passes over it.
const STATE_FILE: &str = ".walarch-receive-wal.json";

/// Permissions of the file, less the umask.
const STATE_MODE: u32 = 0o600;

/// The pause after the first failure; it doubles with each further one up to
const BACK_OFF_MIN: Duration = Duration::from_secs(5);
/// this one, which is also the longest that a repaired server waits for its receiver.
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// A run that lasted as long as this was a good one, however it ended.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// How many holes are remembered.
const HOLES_MAX: usize = 100;

/// How a run of the receiver ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// When.
    pub at: Timestamp,
    /// In words, without passwords: may have several lines, the last of them a `HINT:`.
    pub reason: String,
    /// False if it was asked to end.
    pub failed: bool,
}

/// What is known of a server's receiver, in `BACKUP_DIRECTORY/.walarch-receive-wal.json`.
///
/// Written by the holder of `.SERVER-receive-wal.lock` only. Whether a receiver runs now is told by
/// that lock alone: a killed one leaves `pid` behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReceiverState {
    /// The `receive-wal` process of the run that goes on; `None` after a run has ended.
    pub pid: Option<u32>,
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// Since when the run that goes on receives WAL; `None` before it does and after it has ended.
    pub streaming_since: Option<Timestamp>,
    /// How the last run ended that could say so, or that the next one found dead.
    pub last_exit: Option<LastExit>,
    /// Runs in a row that failed within a minute. The next good one, or a repair such as
    /// `receive-wal --reset`, sets it to 0.
    pub consecutive_failures: u32,
    /// The newest timeline that WAL was received of; an older one is refused until
    /// `receive-wal --reset`.
    pub timeline: Option<u32>,
    /// What WAL was missed, oldest first; the last 100 of them.
    pub holes: Vec<Hole>,
    /// Before this `cron` does not start the receiver; see [`ReceiverState::may_start_at`].
    pub retry_at: Option<Timestamp>,
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the state of the receiver in {}: {reason}", path.display())]
pub struct StateError {
    pub(super) path: PathBuf,
    pub(super) reason: String,
}

impl ReceiverState {
    /// Reads the state of a server's receiver; one that never ran has the default.
    ///
    /// An error is no reason not to start a receiver: its next run writes the file anew.
    pub fn load(server: &ServerConfig) -> Result<Self, StateError> {
        let path = path(server);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(|error| error.to_string()),
        };
        text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            .map_err(|reason| StateError { path, reason })
    }

    /// When `cron` may start the receiver; `None` is at once.
    ///
    /// A time that is further away than the longest back-off comes from a clock that was wrong, then
    /// or now, and does not count.
    pub fn may_start_at(&self, now: Timestamp) -> Option<Timestamp> {
        // A run that did not say how it ended was killed: the pause counts from its beginning.
        let retry_at = match self.pid {
            None => self.retry_at,
            Some(_) => self
                .started_at
                .and_then(|started_at| after(started_at, back_off(self.consecutive_failures)?)),
        };
        let latest = after(now, BACK_OFF_MAX)?;
        retry_at.filter(|&at| now < at && at <= latest)
    }

    /// A run begins in this process.
    pub(super) fn start(&mut self, now: Timestamp) {
        if let Some(pid) = self.pid.take() {
            let reason = format!("process {pid} was killed or the host went down");
            let lasted = self
                .started_at
                .map(|started_at| now.duration_since(started_at));
            let lasted = lasted.and_then(|lasted| lasted.try_into().ok());
            self.end(now, reason, Some(lasted.unwrap_or_default()));
        }
        self.pid = Some(std::process::id());
        self.started_at = Some(now);
        self.retry_at = None;
    }

    /// WAL arrives.
    pub(super) fn stream(&mut self, now: Timestamp) {
        self.streaming_since = Some(now);
    }

    /// No WAL arrives until the connection is there again.
    pub(super) fn lose(&mut self) {
        self.streaming_since = None;
    }

    /// WAL is missing that will never be received.
    pub(super) fn add_hole(&mut self, hole: Hole) {
        if self.holes.len() >= HOLES_MAX {
            self.holes.remove(0);
        }
        self.holes.push(hole);
    }

    /// A run has ended: by a failure after this time, or because it was asked to (`None`).
    pub(super) fn end(&mut self, now: Timestamp, reason: String, failed_after: Option<Duration>) {
        self.consecutive_failures = match failed_after {
            None => 0,
            Some(lasted) if lasted >= GOOD_RUN => 1,
            Some(_) => self.consecutive_failures.saturating_add(1),
        };
        self.retry_at = back_off(self.consecutive_failures).and_then(|pause| after(now, pause));
        self.last_exit = Some(LastExit {
            at: now,
            reason,
            failed: failed_after.is_some(),
        });
        self.pid = None;
        self.streaming_since = None;
    }

    /// Somebody has repaired what failed: there is no reason to wait any longer.
    pub(super) fn forgive(&mut self) {
        self.consecutive_failures = 0;
        self.retry_at = None;
    }

    pub(super) fn store(&self, server: &ServerConfig) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        durable::replace_file(&path(server), text.as_bytes(), STATE_MODE)
    }
}

fn path(server: &ServerConfig) -> PathBuf {
    Path::new(&server.backup_directory).join(STATE_FILE)
}

/// The pause after so many failures.
fn back_off(failures: u32) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?;
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    Some(BACK_OFF_MIN.saturating_mul(factor).min(BACK_OFF_MAX))
}

fn after(instant: Timestamp, pause: Duration) -> Option<Timestamp> {
    instant.checked_add(pause).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn failed(times: u32, lasted_s: u64) -> ReceiverState {
        let mut state = ReceiverState::default();
        for _ in 0..times {
            state.start(at(0));
            state.end(
                at(0),
                "gone".to_owned(),
                Some(Duration::from_secs(lasted_s)),
            );
        }
        state
    }

    #[test]
    fn each_failure_in_a_row_doubles_the_pause_up_to_five_minutes() {
        let pauses_s = [
            (1, 5),
            (2, 10),
            (3, 20),
            (4, 40),
            (6, 160),
            (7, 300),
            (99, 300),
        ];
        for (failures, pause_s) in pauses_s {
            let state = failed(failures, 1);
            assert_eq!(state.consecutive_failures, failures);
            assert_eq!(state.may_start_at(at(0)), Some(at(pause_s)), "{failures}");
            assert_eq!(state.may_start_at(at(pause_s)), None);
        }
    }

    #[test]
    fn a_long_run_a_stop_request_and_a_repair_end_the_row() {
        assert_eq!(failed(9, 60).consecutive_failures, 1);
        let mut stopped = failed(9, 1);
        stopped.start(at(1));
        stopped.end(at(2), "asked to".to_owned(), None);
        assert_eq!(stopped.may_start_at(at(2)), None);
        let mut repaired = failed(9, 1);
        repaired.forgive();
        assert_eq!(repaired.may_start_at(at(0)), None);
    }

    #[test]
    fn a_clock_that_jumped_keeps_no_receiver_waiting() {
        let state = failed(9, 1);
        assert_eq!(state.may_start_at(at(-86_400)), None);
        assert_eq!(state.may_start_at(at(86_400)), None);
    }

    #[test]
    fn a_run_that_never_said_how_it_ended_is_a_failure_for_the_next_one() {
        let mut state = ReceiverState::default();
        state.start(at(0));
        assert_eq!(state.may_start_at(at(0)), None, "the first one is free");
        state.start(at(1));
        assert_eq!(state.consecutive_failures, 1);
        assert_eq!(state.may_start_at(at(2)), Some(at(6)));
        state.start(at(600));
        assert_eq!(state.consecutive_failures, 1, "it ran for long");
    }
}
