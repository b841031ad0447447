//! When what was received is made durable and reported.

use std::time::{Duration, Instant};

use crate::postgres::{ServerClock, StatusUpdate};
use crate::wal::Lsn;

/// The longest time between two status updates, as `pg_receivewal` has it.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// How long a server may take to answer that was asked to. An idle one is asked when nothing was heard
/// from it between two updates, so that a dead one is noticed within three times this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may read nothing of what it is told.
const DEAF_TIMEOUT: Duration = Duration::from_secs(30);

/// How far WAL has come, as the server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) written: Lsn,
    pub(super) flushed: Lsn,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// What is durable is reported.
    Reply,
    /// Everything is made durable first.
    FlushAndReply,
}

/// Knows what the server was told, and when it must be told more.
#[derive(Debug)]
pub(super) struct Acknowledgement {
    synchronous: bool,
    has_slot: bool,
    reply_requested: bool,
    told: Progress,
    told_at: Instant,
    heard_at: Instant,
    /// Something was heard since the last update.
    has_heard: bool,
    /// When it was asked to answer, and has not said anything since.
    asked_at: Option<Instant>,
}

impl Acknowledgement {
    pub(super) fn new(synchronous: bool, has_slot: bool, start: Lsn, now: Instant) -> Self {
        Acknowledgement {
            synchronous,
            has_slot,
            // The server shall know at once where we are.
            reply_requested: true,
            told: Progress {
                written: start,
                flushed: start,
            },
            told_at: now,
            heard_at: now,
            has_heard: true,
            asked_at: None,
        }
    }

    /// Whether commits wait for what is received.
    pub(super) fn is_synchronous(&self) -> bool {
        self.synchronous
    }

    /// Commits wait from now on, or do not any more.
    pub(super) fn set_synchronous(&mut self, synchronous: bool) {
        self.synchronous = synchronous;
        // Who waits already has waited long enough.
        self.reply_requested |= synchronous;
    }

    /// The server has sent something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.has_heard = true;
        self.asked_at = None;
    }

    /// The server wants an answer at once.
    pub(super) fn request(&mut self) {
        self.reply_requested = true;
    }

    /// What is to be done, with so much received.
    pub(super) fn due(&self, progress: Progress, now: Instant) -> Due {
        let interval_is_over = now.duration_since(self.told_at) >= STATUS_INTERVAL;
        let commits_wait = self.synchronous && progress.written > self.told.flushed;
        if self.reply_requested || interval_is_over || commits_wait {
            Due::FlushAndReply
        } else if progress.flushed > self.told.flushed {
            Due::Reply
        } else {
            Due::Nothing
        }
    }

    /// The status update for now. Asks for an answer if nothing was heard since the last one.
    pub(super) fn update(&self, progress: Progress) -> StatusUpdate {
        StatusUpdate {
            written: progress.written,
            flushed: match self.tells_flushed() {
                true => progress.flushed,
                false => Lsn(0),
            },
            // Nothing is ever applied here.
            applied: Lsn(0),
            clock: ServerClock::now(),
            reply_requested: !self.has_heard,
        }
    }

    /// Whether the server may know what is durable. `pg_receivewal` says so only with a slot or in
    /// synchronous mode: it makes a client eligible as a synchronous standby.
    fn tells_flushed(&self) -> bool {
        self.synchronous || self.has_slot
    }

    /// An update was sent.
    pub(super) fn told(&mut self, progress: Progress, now: Instant) {
        self.told = progress;
        self.told_at = now;
        self.reply_requested = false;
        if !self.has_heard {
            self.asked_at.get_or_insert(now);
        }
        self.has_heard = false;
    }

    /// For how long the server has been silent that must be taken for dead. To be asked when there
    /// is nothing to hear at this moment: we may have been busy.
    pub(super) fn dead_for(&self, now: Instant) -> Option<Duration> {
        let is_mute = self
            .asked_at
            .is_some_and(|asked_at| now.duration_since(asked_at) >= ANSWER_TIMEOUT);
        let is_deaf = now.duration_since(self.told_at) >= DEAF_TIMEOUT;
        (is_mute || is_deaf).then(|| now.duration_since(self.heard_at))
    }

    /// How long nothing is due if nothing comes.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let left = |then, limit: Duration| limit.saturating_sub(now.duration_since(then));
        let asked_at = self.asked_at.unwrap_or(now);
        left(self.told_at, STATUS_INTERVAL).min(left(asked_at, ANSWER_TIMEOUT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Progress = at(0x100, 0x100);

    const fn at(written: u64, flushed: u64) -> Progress {
        Progress {
            written: Lsn(written),
            flushed: Lsn(flushed),
        }
    }

    /// A server that was told where we begin.
    fn told(synchronous: bool, has_slot: bool) -> (Acknowledgement, Instant) {
        let now = Instant::now();
        let mut acknowledgement = Acknowledgement::new(synchronous, has_slot, Lsn(0x100), now);
        assert_eq!(acknowledgement.due(START, now), Due::FlushAndReply);
        acknowledgement.told(START, now);
        acknowledgement.heard(now);
        (acknowledgement, now)
    }

    #[test]
    fn a_commit_that_waits_is_answered_at_once() {
        let (acknowledgement, now) = told(true, false);
        assert_eq!(acknowledgement.due(START, now), Due::Nothing);
        assert_eq!(
            acknowledgement.due(at(0x200, 0x100), now),
            Due::FlushAndReply
        );
    }

    #[test]
    fn else_a_complete_segment_is_reported_and_everything_after_the_interval() {
        let (acknowledgement, now) = told(false, true);
        assert_eq!(acknowledgement.due(at(0x200, 0x100), now), Due::Nothing);
        assert_eq!(acknowledgement.due(at(0x300, 0x200), now), Due::Reply);
        let later = now + STATUS_INTERVAL;
        assert_eq!(acknowledgement.due(START, later), Due::FlushAndReply);
        assert_eq!(acknowledgement.patience(now), STATUS_INTERVAL);
    }

    #[test]
    fn who_asks_is_answered_at_once() {
        let (mut acknowledgement, now) = told(false, false);
        acknowledgement.request();
        assert_eq!(acknowledgement.due(START, now), Due::FlushAndReply);
        acknowledgement.told(START, now);
        assert_eq!(acknowledgement.due(START, now), Due::Nothing);
    }

    #[test]
    fn without_a_slot_nobody_is_made_a_synchronous_standby() {
        for (synchronous, has_slot, flushed) in [
            (false, false, 0),
            (false, true, 0x180),
            (true, false, 0x180),
        ] {
            let (acknowledgement, _) = told(synchronous, has_slot);
            let update = acknowledgement.update(at(0x200, 0x180));
            assert_eq!((update.written, update.flushed), (Lsn(0x200), Lsn(flushed)));
            assert_eq!(update.applied, Lsn(0));
        }
    }

    #[test]
    fn commits_that_begin_to_wait_are_answered_at_once_and_from_then_on() {
        let (mut acknowledgement, now) = told(false, false);
        let flushed = at(0x200, 0x200);
        acknowledgement.told(flushed, now);
        acknowledgement.set_synchronous(true);
        // All of it is durable, but the server was not told.
        assert_eq!(acknowledgement.due(flushed, now), Due::FlushAndReply);
        assert_eq!(acknowledgement.update(flushed).flushed, Lsn(0x200));
        acknowledgement.told(flushed, now);
        assert_eq!(acknowledgement.due(flushed, now), Due::Nothing);
        let more = at(0x300, 0x200);
        assert_eq!(acknowledgement.due(more, now), Due::FlushAndReply);
        acknowledgement.set_synchronous(false);
        assert_eq!(acknowledgement.due(more, now), Due::Nothing);
    }

    #[test]
    fn a_silent_server_is_asked_and_is_dead_when_it_does_not_answer() {
        let (mut acknowledgement, now) = told(false, true);
        assert!(!acknowledgement.update(START).reply_requested);
        let then = now + STATUS_INTERVAL;
        acknowledgement.told(START, then);
        assert!(acknowledgement.update(START).reply_requested);
        let asked = then + STATUS_INTERVAL;
        acknowledgement.told(START, asked);
        assert_eq!(acknowledgement.patience(asked), ANSWER_TIMEOUT);
        assert_eq!(acknowledgement.dead_for(asked), None);
        let dead = asked + ANSWER_TIMEOUT;
        assert_eq!(
            acknowledgement.dead_for(dead),
            Some(Duration::from_secs(30))
        );
        // It has answered while we were busy with the disk.
        acknowledgement.heard(dead);
        acknowledgement.told(START, dead);
        assert_eq!(acknowledgement.dead_for(dead), None);
    }

    #[test]
    fn a_server_that_reads_nothing_is_dead() {
        let (mut acknowledgement, now) = told(true, true);
        let then = now + DEAF_TIMEOUT;
        acknowledgement.heard(then);
        assert!(acknowledgement.dead_for(then).is_some());
    }
}
