//! Which segments a recovery will ask for next.

use crate::wal::{Lsn, SegmentSize, WalKind, WalName, read_history};

/// The way through the timelines that a recovery takes, as far as it is known.
///
/// PostgreSQL asks for each segment on the newest timeline that had begun by then (`XLogFileReadAnyTLI` in its
/// `xlogrecovery.c`): the segment in which a timeline branches off is read from the new timeline, which has a copy of the
/// part before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TimelinePath {
    /// Oldest first: a timeline, and where it begins.
    steps: Vec<(u32, Lsn)>,
}

impl TimelinePath {
    /// The path that a history file describes, up to the timeline that it is the history of.
    pub(super) fn from_history(timeline: u32, text: &str) -> Self {
        let mut begin = Lsn(0);
        let mut steps = Vec::new();
        for (ancestor, end) in read_history(text) {
            steps.push((ancestor, begin));
            begin = end;
        }
        steps.push((timeline, begin));
        TimelinePath { steps }
    }

    /// The timeline on which a recovery, now on timeline `current`, will ask for the segment that begins at `start`.
    fn timeline_at(&self, start: Lsn, size: SegmentSize, current: u32) -> u32 {
        let end = start.0.saturating_add(size.bytes());
        // A path that does not lead over the current timeline belongs to something else.
        if !self.steps.iter().any(|(timeline, _)| *timeline == current) {
            return current;
        }
        let begun = self.steps.iter().rev().find(|(_, begin)| begin.0 < end);
        begun.map_or(current, |(timeline, _)| (*timeline).max(current))
    }

    /// The names of the segments behind `last`, nearest first.
    pub(super) fn ahead<'a>(
        &'a self,
        last: &WalName,
        size: SegmentSize,
    ) -> impl Iterator<Item = WalName> + 'a {
        let mut timeline = last.timeline();
        let mut start = last.start(size).filter(|_| last.kind() == WalKind::Segment);
        std::iter::from_fn(move || {
            start = start.and_then(|at| at.0.checked_add(size.bytes())).map(Lsn);
            let at = start?;
            timeline = self.timeline_at(at, size, timeline);
            Some(WalName::of_segment(timeline, at, size))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::new(16 << 20).unwrap()
    }

    fn ahead(path: &TimelinePath, last: &str, count: usize) -> Vec<String> {
        let last = WalName::parse(last).unwrap();
        let names = path.ahead(&last, size()).take(count);
        names.map(|name| name.to_string()).collect()
    }

    #[test]
    fn segments_follow_each_other_into_the_next_log() {
        assert_eq!(
            ahead(&TimelinePath::default(), "0000000100000000000000FE", 3),
            [
                "0000000100000000000000FF",
                "000000010000000100000000",
                "000000010000000100000001"
            ]
        );
    }

    #[test]
    fn a_branch_is_taken_in_the_segment_in_which_it_begins() {
        // In the middle of segment 4.
        let path = TimelinePath::from_history(2, "1\t0/4800000\tno reason\n");
        assert_eq!(
            ahead(&path, "000000010000000000000002", 3),
            [
                "000000010000000000000003",
                "000000020000000000000004",
                "000000020000000000000005"
            ]
        );
    }

    #[test]
    fn a_branch_at_the_end_of_a_segment_begins_with_the_next_one() {
        let path = TimelinePath::from_history(2, "1\t0/4000000\tno reason\n");
        assert_eq!(
            ahead(&path, "000000010000000000000002", 2),
            ["000000010000000000000003", "000000020000000000000004"]
        );
    }

    #[test]
    fn several_branches_in_one_segment_lead_to_the_last_timeline() {
        let path = TimelinePath::from_history(3, "1\t0/4000100\ta\n2\t0/4000200\tb\n");
        assert_eq!(
            ahead(&path, "000000010000000000000003", 2),
            ["000000030000000000000004", "000000030000000000000005"]
        );
    }

    #[test]
    fn the_history_of_another_branch_is_not_followed() {
        let path = TimelinePath::from_history(3, "1\t0/2000000\ta\n");
        assert_eq!(
            ahead(&path, "000000020000000000000004", 1),
            ["000000020000000000000005"]
        );
    }

    #[test]
    fn nothing_follows_what_is_no_segment() {
        assert_eq!(
            ahead(&TimelinePath::default(), "00000002.history", 1),
            [""; 0]
        );
        assert_eq!(
            ahead(&TimelinePath::default(), "00000001FFFFFFFF000000FF", 1),
            [""; 0]
        );
    }
}
