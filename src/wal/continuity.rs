//! Which segments are there, and which are missing between them, across timelines.

use std::collections::BTreeMap;
use std::fmt;

use super::history::TimelineHistory;
use super::lsn::{Lsn, SegmentSize};
use super::name::{WalKind, WalName};

/// The complete segments of an archive, as far as it matters for gaps: runs of consecutive ones.
///
/// Segments may be added in any order. What this takes in memory depends on the number of runs, not
/// on that of the segments.
#[derive(Clone, Debug)]
pub struct Coverage {
    segment_size: SegmentSize,
    timelines: BTreeMap<u32, Timeline>,
}

#[derive(Clone, Debug, Default)]
struct Timeline {
    /// First and last number of each run of consecutive segments.
    runs: BTreeMap<u64, u64>,
    history: Option<TimelineHistory>,
}

/// Segments that are not there although others before and behind them are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last segment before.
    pub after: WalName,
    /// The first segment behind. It may be on a younger timeline.
    pub before: WalName,
    /// How many are missing.
    pub segments: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { after, before, .. } = self;
        match self.segments {
            1 => write!(f, "1 segment missing between {after} and {before}"),
            count => write!(f, "{count} segments missing between {after} and {before}"),
        }
    }
}

impl Coverage {
    /// No segment yet, in a cluster with segments of this size.
    pub fn new(segment_size: SegmentSize) -> Self {
        Coverage {
            segment_size,
            timelines: BTreeMap::new(),
        }
    }

    /// The segment size that it was made for.
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// Adds a complete segment; other kinds of files change nothing.
    ///
    /// Returns false for a segment that no cluster with segments of this size can have.
    pub fn add(&mut self, name: &WalName) -> bool {
        if name.kind() != WalKind::Segment {
            return true;
        }
        let Some(number) = self.number(name) else {
            return false;
        };
        self.add_run(name.timeline(), number, number);
        true
    }

    /// Adds consecutive segments by their numbers, counted from the beginning of the WAL.
    pub fn add_run(&mut self, timeline: u32, first: u64, last: u64) {
        self.timelines.entry(timeline).or_default().add(first, last);
    }

    /// Says where a timeline came from. Without that it is taken to go on where any older one ends.
    pub fn add_history(&mut self, history: TimelineHistory) {
        let timeline = self.timelines.entry(history.timeline).or_default();
        timeline.history = Some(history);
    }

    /// Timelines that have segments but whose history is not known; the first one needs none.
    pub fn without_history(&self) -> impl Iterator<Item = u32> {
        self.timelines
            .iter()
            .filter(|(number, timeline)| {
                **number > 1 && timeline.history.is_none() && !timeline.runs.is_empty()
            })
            .map(|(number, _)| *number)
    }

    /// Whether a segment is there.
    pub fn contains(&self, name: &WalName) -> bool {
        let timeline = self.timelines.get(&name.timeline());
        self.number(name)
            .zip(timeline)
            .is_some_and(|(number, timeline)| timeline.contains(number))
    }

    /// What is missing right before a segment that is there.
    ///
    /// Before the first segment of a timeline that is what its history promises: the rest of its
    /// parent up to the segment in which it began (which has the new timeline's name), and so on
    /// back to the last segment that is there. Where nothing older is there at all, nothing is
    /// missing: the archive begins here.
    pub fn missing_before(&self, name: &WalName) -> Option<Gap> {
        let timeline = self.timelines.get(&name.timeline())?;
        let number = self.number(name)?;
        let starts_run = timeline.runs.contains_key(&number) && name.kind() == WalKind::Segment;
        starts_run
            .then(|| self.missing_before_run(name.timeline(), timeline, number))
            .flatten()
    }

    /// Everything that is missing, by the timeline and the position of what comes behind.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.timelines.iter().flat_map(|(number, timeline)| {
            let starts = timeline.runs.keys();
            starts.filter_map(|start| self.missing_before_run(*number, timeline, *start))
        })
    }

    /// Where the last segment of a timeline ends or, if it has none, that of the one before.
    pub fn end_on(&self, timeline: u32) -> Option<Lsn> {
        let mut older = self.timelines.range(..=timeline).rev();
        let last = older.find_map(|(_, timeline)| timeline.runs.values().next_back())?;
        let end = last
            .checked_add(1)?
            .checked_mul(self.segment_size.bytes())?;
        Some(Lsn(end))
    }

    fn missing_before_run(&self, number: u32, timeline: &Timeline, start: u64) -> Option<Gap> {
        let before = timeline.runs.range(..start).next_back();
        let (after, last) = match (before, &timeline.history) {
            (Some((_, last)), _) => (number, *last),
            (None, Some(history)) => self.end_of_ancestors(history, start)?,
            (None, None) => self.end_of_older(number, start)?,
        };
        (last + 1 < start).then(|| Gap {
            after: self.name(after, last),
            before: self.name(number, start),
            segments: start - last - 1,
        })
    }

    /// The last segment on the way that a history describes before the timeline's own `start`.
    fn end_of_ancestors(&self, history: &TimelineHistory, start: u64) -> Option<(u32, u64)> {
        let mut end = start;
        for (at, ancestor) in history.ancestors.iter().enumerate().rev() {
            // The descendant's own segments begin with the one that it branched off in.
            let branched_in = |at: usize| history.ancestors.get(at).map(|a| self.segment(a.end));
            end = end.min(branched_in(at).unwrap_or(0));
            let began_in = at.checked_sub(1).and_then(branched_in).unwrap_or(0);
            let timeline = self.timelines.get(&ancestor.timeline);
            let last = timeline.and_then(|timeline| timeline.last_before(end));
            if let Some(last) = last.filter(|last| *last >= began_in) {
                return Some((ancestor.timeline, last));
            }
        }
        None
    }

    /// The last segment before `start` on any older timeline.
    fn end_of_older(&self, number: u32, start: u64) -> Option<(u32, u64)> {
        let older = self.timelines.range(..number);
        older
            .filter_map(|(older, timeline)| Some((*older, timeline.last_before(start)?)))
            .max_by_key(|(older, last)| (*last, *older))
    }

    fn name(&self, timeline: u32, number: u64) -> WalName {
        let position = Lsn(number.saturating_mul(self.segment_size.bytes()));
        WalName::of_segment(timeline, position, self.segment_size)
    }

    fn segment(&self, position: Lsn) -> u64 {
        position.0 / self.segment_size.bytes()
    }

    fn number(&self, name: &WalName) -> Option<u64> {
        name.start(self.segment_size)
            .map(|start| self.segment(start))
    }
}

impl Timeline {
    fn add(&mut self, mut first: u64, mut last: u64) {
        // Runs that overlap the new one or touch it become part of it.
        while let Some((start, end)) = self.runs.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            let start = *start;
            (first, last) = (first.min(start), last.max(*end));
            self.runs.remove(&start);
        }
        self.runs.insert(first, last);
    }

    fn contains(&self, number: u64) -> bool {
        let run = self.runs.range(..=number).next_back();
        run.is_some_and(|(_, last)| number <= *last)
    }

    /// The last segment that is there with a number below `end`.
    fn last_before(&self, end: u64) -> Option<u64> {
        let (_, last) = self.runs.range(..end).next_back()?;
        Some((*last).min(end - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn name(timeline: u32, number: u64) -> WalName {
        WalName::of_segment(timeline, Lsn(number * SIZE.bytes()), SIZE)
    }

    fn coverage(segments: &[(u32, std::ops::RangeInclusive<u64>)]) -> Coverage {
        let mut coverage = Coverage::new(SIZE);
        for (timeline, numbers) in segments {
            for number in numbers.clone() {
                assert!(coverage.add(&name(*timeline, number)));
            }
        }
        coverage
    }

    /// Switch points in sixteenths of a segment.
    fn branched(mut coverage: Coverage, timeline: u32, switches: &[(u32, u64)]) -> Coverage {
        let text: String = switches
            .iter()
            .map(|(parent, sixteenths)| format!("{parent}\t{}\tx\n", Lsn(sixteenths << 20)))
            .collect();
        coverage.add_history(TimelineHistory::parse(timeline, text.as_bytes()).unwrap());
        coverage
    }

    /// Timeline and number of the segment before and of the one behind each gap.
    fn gaps(coverage: &Coverage) -> Vec<((u32, u64), (u32, u64))> {
        let number = |name: &WalName| name.start(SIZE).unwrap().0 / SIZE.bytes();
        coverage
            .gaps()
            .map(|gap| {
                let (after, before) = (number(&gap.after), number(&gap.before));
                assert_eq!(gap.segments, before - after - 1);
                (
                    (gap.after.timeline(), after),
                    (gap.before.timeline(), before),
                )
            })
            .collect()
    }

    #[test]
    fn an_unbroken_archive_has_no_gap() {
        assert_eq!(gaps(&coverage(&[(1, 250..=260)])), []);
        assert_eq!(gaps(&coverage(&[])), []);
    }

    #[test]
    fn holes_on_one_timeline_are_found() {
        let coverage = coverage(&[(1, 1..=3), (1, 5..=5), (1, 9..=9)]);
        assert_eq!(gaps(&coverage), [((1, 3), (1, 5)), ((1, 5), (1, 9))]);
        assert_eq!(coverage.missing_before(&name(1, 7)), None);
        assert_eq!(coverage.missing_before(&name(1, 9)).unwrap().segments, 3);
        assert_eq!(coverage.missing_before(&name(1, 2)), None);
        assert_eq!(coverage.missing_before(&name(1, 1)), None);
    }

    #[test]
    fn a_timeline_goes_on_in_the_segment_in_which_it_began() {
        let plain = coverage(&[(1, 1..=4), (2, 5..=7)]);
        // In the middle of segment 5; the old timeline has only a partial one there.
        assert_eq!(gaps(&branched(plain.clone(), 2, &[(1, 5 * 16 + 3)])), []);
        assert_eq!(gaps(&plain), []);
        assert_eq!(Vec::from_iter(plain.without_history()), [2]);
    }

    #[test]
    fn what_is_missing_around_a_switch_is_found() {
        let end_of_parent = coverage(&[(1, 1..=2), (2, 5..=7)]);
        assert_eq!(
            gaps(&branched(end_of_parent, 2, &[(1, 83)])),
            [((1, 2), (2, 5))]
        );
        // What the parent has of the segment in which the child began is no substitute.
        for parent in [1..=4, 1..=5, 1..=20] {
            let start_of_child = coverage(&[(1, parent), (2, 8..=9)]);
            assert_eq!(
                gaps(&branched(start_of_child, 2, &[(1, 83)])),
                [((1, 4), (2, 8))]
            );
        }
    }

    #[test]
    fn without_its_history_a_timeline_goes_on_where_any_older_one_ends() {
        assert_eq!(gaps(&coverage(&[(1, 1..=2), (2, 3..=3)])), []);
        assert_eq!(gaps(&coverage(&[(1, 1..=2), (2, 2..=3)])), []);
        assert_eq!(gaps(&coverage(&[(1, 2..=2), (2, 1..=3)])), []);
        assert_eq!(gaps(&coverage(&[(1, 1..=2), (3, 3..=3)])), []);
        assert_eq!(
            gaps(&coverage(&[(1, 1..=2), (2, 5..=5)])),
            [((1, 2), (2, 5))]
        );
    }

    #[test]
    fn a_parent_that_went_on_is_no_gap() {
        // The old primary archived up to 9 after the new one had left it in 5.
        let rivals = coverage(&[(1, 1..=9), (2, 5..=7)]);
        assert_eq!(gaps(&branched(rivals, 2, &[(1, 83)])), []);
    }

    #[test]
    fn an_archive_that_begins_on_a_later_timeline_has_no_gap_before() {
        let rest = coverage(&[(2, 8..=9)]);
        assert_eq!(gaps(&branched(rest, 2, &[(1, 83)])), []);
    }

    #[test]
    fn timelines_without_segments_are_stepped_over() {
        // Promoted twice within segment 5, or: timeline 2 is missing altogether.
        let twice = coverage(&[(1, 1..=4), (3, 5..=6)]);
        assert_eq!(gaps(&branched(twice, 3, &[(1, 83), (2, 84)])), []);
        let lost = coverage(&[(1, 1..=4), (3, 9..=9)]);
        assert_eq!(
            gaps(&branched(lost, 3, &[(1, 83), (2, 8 * 16)])),
            [((1, 4), (3, 9))]
        );
    }

    #[test]
    fn the_end_is_that_of_the_timeline_or_of_the_one_before() {
        let coverage = coverage(&[(1, 4..=5), (2, 6..=6)]);
        assert_eq!(coverage.end_on(1), Some(Lsn(6 * SIZE.bytes())));
        assert_eq!(coverage.end_on(9), Some(Lsn(7 * SIZE.bytes())));
    }

    #[test]
    fn a_segment_of_another_size_is_refused() {
        let beyond = WalName::parse("000000010000000000000100").unwrap();
        assert!(!Coverage::new(SIZE).add(&beyond));
    }

    proptest! {
        #[test]
        fn runs_are_the_same_as_their_segments(
            runs in proptest::collection::vec((0u64..40, 0u64..6), 0..12)
        ) {
            let (mut whole, mut single) = (Coverage::new(SIZE), Coverage::new(SIZE));
            for (first, more) in runs {
                whole.add_run(1, first, first + more);
                (first..=first + more).for_each(|number| assert!(single.add(&name(1, number))));
            }
            prop_assert_eq!(&whole.timelines.get(&1).map(|t| &t.runs),
                &single.timelines.get(&1).map(|t| &t.runs));
        }

        #[test]
        fn the_order_in_which_segments_come_does_not_matter(
            numbers in proptest::collection::vec(0u64..64, 0..64)
        ) {
            let mut shuffled = Coverage::new(SIZE);
            numbers.iter().for_each(|number| assert!(shuffled.add(&name(1, *number))));
            let present: std::collections::BTreeSet<u64> = numbers.into_iter().collect();
            let missing: Vec<u64> = match (present.first(), present.last()) {
                (Some(first), Some(last)) => {
                    (*first..=*last).filter(|number| !present.contains(number)).collect()
                }
                _ => Vec::new(),
            };
            let found: Vec<u64> = gaps(&shuffled)
                .into_iter()
                .flat_map(|((_, after), (_, before))| after + 1..before)
                .collect();
            prop_assert_eq!(found, missing);
            for number in 0..64 {
                prop_assert_eq!(shuffled.contains(&name(1, number)), present.contains(&number));
            }
        }
    }
}
