//! Which segments are there, and which are missing between them, across timelines.

use std::collections::BTreeMap;

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

/// Consecutive segments of one timeline that are not there although others before and behind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first missing segment.
    pub first: WalName,
    /// The last missing segment.
    pub last: WalName,
    /// How many there are.
    pub segments: u64,
}

impl Coverage {
    /// No segment yet, in a cluster with segments of this size.
    pub fn new(segment_size: SegmentSize) -> Self {
        Coverage {
            segment_size,
            timelines: BTreeMap::new(),
        }
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
        let timeline = self.timelines.entry(name.timeline()).or_default();
        timeline.add(number);
        true
    }

    /// Says where a timeline came from. Without that, nothing is missing before its first segment.
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

    /// What is missing right before a segment that is there, oldest first: usually nothing.
    ///
    /// Before the first segment of a timeline that is what its history promises: the rest of its
    /// parent up to the segment in which it began (which has the new timeline's name), and so on
    /// back to the last segment that is there. Where nothing older is there at all, nothing is
    /// missing: the archive begins here.
    pub fn missing_before(&self, name: &WalName) -> Vec<Gap> {
        let timeline = self.timelines.get(&name.timeline());
        match self.number(name).zip(timeline) {
            Some((number, timeline)) if timeline.contains(number) => {
                self.missing_before_run(name.timeline(), timeline, number)
            }
            _ => Vec::new(),
        }
    }

    /// Everything that is missing, by timeline and position.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.timelines.iter().flat_map(|(number, timeline)| {
            let starts = timeline.runs.keys();
            starts.flat_map(|start| self.missing_before_run(*number, timeline, *start))
        })
    }

    /// The segments of one timeline from `from` on that are not there, up to the next one that is;
    /// `from` alone if there is none behind it. `None` if `from` is there.
    pub fn missing_from(&self, from: &WalName) -> Option<Gap> {
        let number = self.number(from).filter(|_| !self.contains(from))?;
        let timeline = self.timelines.get(&from.timeline());
        let next = timeline.and_then(|timeline| timeline.runs.range(number..).next());
        let last = next.map_or(number, |(start, _)| start - 1);
        self.gap(from.timeline(), number, last)
    }

    fn missing_before_run(&self, number: u32, timeline: &Timeline, start: u64) -> Vec<Gap> {
        let mut runs = timeline.runs.range(..=start).rev();
        match runs.next() {
            // In the middle of a run.
            Some((run_start, last)) if *run_start < start && start <= *last => return Vec::new(),
            _ => {}
        }
        match runs.next() {
            Some((_, last)) => Vec::from_iter(self.gap(number, last + 1, start - 1)),
            None => self.missing_at_branch(number, timeline, start),
        }
    }

    /// What is missing between the first segment of a timeline and the last one before it on its
    /// ancestors.
    fn missing_at_branch(&self, number: u32, timeline: &Timeline, start: u64) -> Vec<Gap> {
        let Some(history) = &timeline.history else {
            return Vec::new();
        };
        let mut gaps = Vec::new();
        let (mut descendant, mut end) = (number, start);
        for ancestor in history.ancestors.iter().rev() {
            // The descendant's own segments begin with the one it branched off in.
            let branched_in = ancestor.end.0 / self.segment_size.bytes();
            if branched_in < end {
                gaps.extend(self.gap(descendant, branched_in, end - 1));
            }
            (descendant, end) = (ancestor.timeline, branched_in.min(end));
            let last = self
                .timelines
                .get(&ancestor.timeline)
                .and_then(|timeline| timeline.last_before(end));
            let began_in = history.began_in(ancestor.timeline, self.segment_size);
            if let Some(last) = last.filter(|last| *last >= began_in) {
                if last + 1 < end {
                    gaps.extend(self.gap(ancestor.timeline, last + 1, end - 1));
                }
                gaps.reverse();
                return gaps;
            }
        }
        Vec::new()
    }

    fn gap(&self, timeline: u32, first: u64, last: u64) -> Option<Gap> {
        let name = |number: u64| {
            let position = Lsn(number.checked_mul(self.segment_size.bytes())?);
            Some(WalName::of_segment(timeline, position, self.segment_size))
        };
        Some(Gap {
            first: name(first)?,
            last: name(last)?,
            segments: last.checked_sub(first)? + 1,
        })
    }

    fn number(&self, name: &WalName) -> Option<u64> {
        let start = name.start(self.segment_size)?;
        Some(start.0 / self.segment_size.bytes())
    }
}

impl TimelineHistory {
    /// The number of the segment in which a timeline of this history began; 0 for the oldest.
    fn began_in(&self, timeline: u32, segment_size: SegmentSize) -> u64 {
        let older = self
            .ancestors
            .iter()
            .take_while(|ancestor| ancestor.timeline < timeline)
            .last();
        older.map_or(0, |older| older.end.0 / segment_size.bytes())
    }
}

impl Timeline {
    fn add(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let before = self.runs.range(..number).next_back();
        let before = before.filter(|(_, last)| **last + 1 == number);
        let start = before.map_or(number, |(start, _)| *start);
        let last = self.runs.remove(&(number + 1)).unwrap_or(number);
        self.runs.insert(start, last);
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

    /// Timeline, first and last number of each gap.
    fn gaps(coverage: &Coverage) -> Vec<(u32, u64, u64)> {
        let number = |name: &WalName| name.start(SIZE).unwrap().0 / SIZE.bytes();
        coverage
            .gaps()
            .map(|gap| {
                let (first, last) = (number(&gap.first), number(&gap.last));
                assert_eq!(gap.segments, last - first + 1);
                (gap.first.timeline(), first, last)
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
        assert_eq!(gaps(&coverage), [(1, 4, 4), (1, 6, 8)]);
        assert_eq!(coverage.missing_before(&name(1, 7)), []);
        assert_eq!(coverage.missing_before(&name(1, 9)).len(), 1);
        assert_eq!(coverage.missing_before(&name(1, 2)), []);
        assert_eq!(coverage.missing_before(&name(1, 1)), []);
    }

    #[test]
    fn a_timeline_goes_on_in_the_segment_in_which_it_began() {
        let plain = coverage(&[(1, 1..=4), (2, 5..=7)]);
        // In the middle of segment 5; the old timeline has only a partial one there.
        assert_eq!(gaps(&branched(plain.clone(), 2, &[(1, 5 * 16 + 3)])), []);
        // Without its history nothing is known to be missing, but for the history itself.
        assert_eq!(gaps(&plain), []);
        assert_eq!(Vec::from_iter(plain.without_history()), [2]);
    }

    #[test]
    fn what_is_missing_around_a_switch_is_found() {
        let end_of_parent = coverage(&[(1, 1..=2), (2, 5..=7)]);
        assert_eq!(gaps(&branched(end_of_parent, 2, &[(1, 83)])), [(1, 3, 4)]);
        let start_of_child = coverage(&[(1, 1..=4), (2, 8..=9)]);
        assert_eq!(gaps(&branched(start_of_child, 2, &[(1, 83)])), [(2, 5, 7)]);
        let both = coverage(&[(1, 1..=3), (2, 8..=9)]);
        assert_eq!(gaps(&branched(both, 2, &[(1, 83)])), [(1, 4, 4), (2, 5, 7)]);
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
            [(2, 5, 7), (3, 8, 8)]
        );
    }

    #[test]
    fn what_is_asked_for_and_not_there_is_missing() {
        let coverage = coverage(&[(1, 4..=5)]);
        assert_eq!(coverage.missing_from(&name(1, 4)), None);
        let gap = coverage.missing_from(&name(1, 1)).unwrap();
        assert_eq!((gap.last, gap.segments), (name(1, 3), 3));
        assert_eq!(coverage.missing_from(&name(1, 7)).unwrap().segments, 1);
        assert_eq!(coverage.missing_from(&name(2, 7)).unwrap().segments, 1);
    }

    #[test]
    fn a_segment_of_another_size_is_refused() {
        let beyond = WalName::parse("000000010000000000000100").unwrap();
        assert!(!Coverage::new(SIZE).add(&beyond));
    }

    proptest! {
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
                .flat_map(|(_, first, last)| first..=last)
                .collect();
            prop_assert_eq!(found, missing);
            for number in 0..64 {
                prop_assert_eq!(shuffled.contains(&name(1, number)), present.contains(&number));
            }
        }
    }
}
