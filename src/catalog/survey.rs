//! What xlogdb tells about the archive as a whole: how much, how new, and whether it is complete.

use std::io::{BufRead, BufReader};

use super::backup::BackupWal;
use super::{Catalog, CatalogError};
use crate::wal::{Coverage, Gap, Lsn, SegmentSize, WalKind, WalName};

/// Segments with consecutive numbers: as they stand in the names, within one middle part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    timeline: u32,
    log: u32,
    first: u32,
    last: u32,
}

/// The complete segments that xlogdb lists. Partial ones, backup labels and history files are no
/// part of it.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    lists_something: bool,
    newest: Option<(WalName, f64)>,
    size_since_backup_bytes: u64,
    runs: Vec<Run>,
}

impl Catalog {
    /// Reads the whole of xlogdb once; changes nothing. One that is not there lists nothing.
    ///
    /// With a base backup, only what was archived since counts for size and age.
    pub fn survey(&self, backup: Option<&BackupWal>) -> Result<Survey, CatalogError> {
        // A writer may replace the content in place. Without the lock we might see half of it.
        let _lock = self.share_lock()?;
        let Some((path, file)) = self.open_to_read()? else {
            return Ok(Survey::default());
        };
        let failed = |e| Self::io_at("read", &path, e);
        let mut survey = Survey {
            lists_something: file.metadata().map_err(failed)?.len() > 0,
            ..Survey::default()
        };
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(failed)? > 0 {
            // A line without an end is still being written, or was never finished.
            if line.ends_with(b"\n") {
                survey.add_line(&line, backup);
            }
            line.clear();
        }
        Ok(survey)
    }
}

impl Survey {
    /// Whether anything at all is listed.
    pub fn lists_something(&self) -> bool {
        self.lists_something
    }

    /// The segment that was written last, and when: in seconds since 1970. Since the base backup, if
    /// there is one.
    pub fn newest(&self) -> Option<(&WalName, f64)> {
        self.newest.as_ref().map(|(name, time)| (name, *time))
    }

    /// The size of what was archived after the base backup, as stored; of everything without one.
    pub fn size_since_backup_bytes(&self) -> u64 {
        self.size_since_backup_bytes
    }

    /// Counts a segment as present that is on its way into the archive.
    pub fn add_waiting(&mut self, name: &WalName) {
        if name.kind() == WalKind::Segment
            && let Some(run) = Run::of(name.as_str().as_bytes())
        {
            self.runs.push(run);
        }
    }

    /// Where the archive ends on a timeline or, if it holds nothing of that, on the one before.
    pub fn end_on(&self, timeline: u32, segment_size: SegmentSize) -> Option<Lsn> {
        self.coverage(segment_size).end_on(timeline)
    }

    /// The gaps in what is listed, in order.
    ///
    /// Within a timeline, numbers must follow each other. A timeline must begin where an older one has
    /// the segment before, unless the archive begins later than that. Without the segment size of the
    /// cluster, the names are asked: the highest number in them is one less than a power of two, as soon
    /// as the archive is long enough for that to matter.
    pub fn gaps(&self, segment_size: Option<SegmentSize>) -> Vec<Gap> {
        let segment_size = segment_size.or_else(|| self.segment_size_by_names());
        segment_size.map_or(Vec::new(), |size| self.coverage(size).gaps().collect())
    }

    fn add_line(&mut self, line: &[u8], backup: Option<&BackupWal>) {
        let mut columns = line
            .split(u8::is_ascii_whitespace)
            .filter(|column| !column.is_empty())
            .filter_map(|column| str::from_utf8(column).ok());
        let (Some(name), Some(size), Some(time)) = (columns.next(), columns.next(), columns.next())
        else {
            return;
        };
        let Some(run) = Run::of(name.as_bytes()) else {
            return;
        };
        self.add_run(run);
        if backup.is_some_and(|backup| name < backup.begin_wal.as_str()) {
            return;
        }
        if backup.is_none_or(|backup| name > backup.end_wal.as_str()) {
            let size_bytes: u64 = size.parse().unwrap_or(0);
            self.size_since_backup_bytes = self.size_since_backup_bytes.saturating_add(size_bytes);
        }
        let newest = self.newest.as_ref().map(|(_, time)| *time);
        if let Ok(time) = time.parse::<f64>()
            && newest.is_none_or(|newest| newest <= time)
            && let Ok(name) = WalName::parse(name)
        {
            self.newest = Some((name, time));
        }
    }

    fn add_run(&mut self, new: Run) {
        if let Some(run) = self.runs.last_mut()
            && (run.timeline, run.log) == (new.timeline, new.log)
            && run.last.checked_add(1) == Some(new.first)
        {
            run.last = new.last;
        } else {
            self.runs.push(new);
        }
    }

    /// The segment size that the highest number in the names allows, or a larger one.
    pub fn segment_size_by_names(&self) -> Option<SegmentSize> {
        let highest = self.runs.iter().map(|run| run.last).max()?;
        let segments_per_log = u64::from(highest).checked_add(1)?.next_power_of_two();
        // A log of 4 GiB has 4 segments of 1 GiB, or 4096 of 1 MiB.
        SegmentSize::new((1 << 32) / segments_per_log.clamp(4, 4096)).ok()
    }

    fn coverage(&self, segment_size: SegmentSize) -> Coverage {
        let per_log = segment_size.segments_per_log();
        let mut coverage = Coverage::new(segment_size);
        for run in &self.runs {
            let number = |segment: u32| u64::from(run.log) * per_log + u64::from(segment);
            coverage.add_run(run.timeline, number(run.first), number(run.last));
        }
        coverage
    }
}

impl Run {
    /// One segment, by its name; `None` for what is no complete segment.
    fn of(name: &[u8]) -> Option<Run> {
        if name.len() != 24 || !name.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let part = |at: usize| {
            let digits = str::from_utf8(name.get(at..at + 8)?).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let segment = part(16)?;
        Some(Run {
            timeline: part(0)?,
            log: part(8)?,
            first: segment,
            last: segment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(names: &[&str]) -> Survey {
        let mut survey = Survey::default();
        for name in names {
            survey.add_line(format!("{name}\t1\t2.5\tNone\tNone\n").as_bytes(), None);
        }
        survey
    }

    fn gaps(names: &[&str]) -> Vec<(String, String, u64)> {
        survey(names)
            .gaps(Some(SegmentSize::DEFAULT))
            .into_iter()
            .map(|gap| (gap.after.to_string(), gap.before.to_string(), gap.segments))
            .collect()
    }

    const NONE: [(String, String, u64); 0] = [];

    #[test]
    fn a_sequence_without_holes_has_no_gap_in_whatever_order_it_was_listed() {
        assert_eq!(gaps(&[]), NONE);
        assert_eq!(
            gaps(&[
                "0000000100000000000000FF",
                "000000010000000100000000",
                "0000000100000000000000FE",
                "0000000100000000000000FF",
                "000000010000000100000001.partial",
                "00000002.history",
            ]),
            NONE
        );
    }

    #[test]
    fn missing_numbers_are_a_gap() {
        assert_eq!(
            gaps(&["0000000100000000000000FE", "000000010000000100000002"]),
            [(
                "0000000100000000000000FE".to_owned(),
                "000000010000000100000002".to_owned(),
                3
            )]
        );
    }

    #[test]
    fn a_timeline_begins_where_an_older_one_has_the_segment_before() {
        let old = ["000000010000000000000001", "000000010000000000000002"];
        assert_eq!(gaps(&[old[0], old[1], "000000020000000000000003"]), NONE);
        // Branched off earlier than where the old one went on to.
        assert_eq!(gaps(&[old[0], old[1], "000000020000000000000002"]), NONE);
        // Branched off before the archive begins.
        assert_eq!(gaps(&[old[1], "000000020000000000000001"]), NONE);
        assert_eq!(
            gaps(&[old[0], old[1], "000000020000000000000005"]),
            [(old[1].to_owned(), "000000020000000000000005".to_owned(), 2)]
        );
        // From the first timeline straight to the third.
        assert_eq!(gaps(&[old[0], old[1], "000000030000000000000003"]), NONE);
    }

    #[test]
    fn what_waits_in_a_queue_closes_a_gap() {
        let mut survey = survey(&["000000010000000000000001", "000000010000000000000003"]);
        assert_eq!(survey.gaps(None).len(), 1);
        survey.add_waiting(&WalName::parse("000000010000000000000002").unwrap());
        assert_eq!(survey.gaps(None), []);
    }

    #[test]
    fn the_names_tell_how_many_segments_a_log_has() {
        // Segments of 1 GiB: four a log.
        let large = survey(&[
            "000000010000000000000002",
            "000000010000000000000003",
            "000000010000000100000000",
        ]);
        assert_eq!(large.gaps(None), []);
    }

    #[test]
    fn the_end_is_that_of_the_timeline_or_of_the_one_before() {
        let survey = survey(&["000000010000000000000009", "000000020000000000000004"]);
        let end = |timeline| survey.end_on(timeline, SegmentSize::DEFAULT);
        assert_eq!(end(2), Some(Lsn(5 << 24)));
        assert_eq!(end(1), Some(Lsn(10 << 24)));
        assert_eq!(end(3), Some(Lsn(5 << 24)));
    }

    #[test]
    fn only_what_came_after_the_backup_counts_for_its_size() {
        let name = |text| WalName::parse(text).unwrap();
        let backup = BackupWal {
            backup_id: String::new(),
            begin_wal: name("000000010000000000000002"),
            end_wal: name("000000010000000000000003"),
            waits_for_wal: false,
        };
        let mut survey = Survey::default();
        for (number, time) in [(1, 9.0), (2, 2.0), (3, 4.0), (4, 3.0)] {
            let line = format!("00000001000000000000000{number}\t{number}\t{time:?}\tNone\tNone\n");
            survey.add_line(line.as_bytes(), Some(&backup));
        }
        assert_eq!(survey.size_since_backup_bytes(), 4);
        assert_eq!(
            survey.newest(),
            Some((&name("000000010000000000000003"), 4.0))
        );
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let mut survey = Survey::default();
        for line in [
            "",
            "\n",
            "x\n",
            "000000010000000000000001\n",
            "\u{e9} 1 2\n",
        ] {
            survey.add_line(line.as_bytes(), None);
        }
        assert_eq!(survey.runs, []);
    }
}
