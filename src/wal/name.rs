//! The names of WAL files.

use std::fmt;

use super::lsn::{Lsn, SegmentSize};

/// What a WAL file's name says it is (`IsXLogFileName` and its relatives in PostgreSQL's
/// `xlog_internal.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalKind {
    /// `TTTTTTTTLLLLLLLLSSSSSSSS`: a complete segment.
    Segment,
    /// `TTTTTTTTLLLLLLLLSSSSSSSS.partial`: a segment that was still being written.
    Partial,
    /// `TTTTTTTTLLLLLLLLSSSSSSSS.OOOOOOOO.backup`: the label of a base backup.
    BackupLabel,
    /// `TTTTTTTT.history`: where a timeline branched off.
    History,
}

/// A valid name of a WAL file, as it was written (hexadecimal digits of either case).
///
/// Names order as their bytes do, which is the order in which PostgreSQL made the files of one
/// timeline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalName(Box<str>);

/// A text that is not the name of a WAL file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the name of a WAL file")]
pub struct NotAWalName(String);

impl WalName {
    /// Recognises a name, without any directory before it.
    ///
    /// Returns [`NotAWalName`] for everything that is not exactly of one of the four forms of
    /// [`WalKind`]; a trailing newline or a digit outside ASCII does not pass.
    pub fn parse(text: &str) -> Result<Self, NotAWalName> {
        match kind_of(text.as_bytes()) {
            Some(_) => Ok(WalName(text.into())),
            None => Err(NotAWalName(text.to_owned())),
        }
    }

    /// The name of the segment that holds a position.
    pub fn of_segment(timeline: u32, position: Lsn, segment_size: SegmentSize) -> Self {
        let log = position.0 >> 32;
        let segment = (position.0 & 0xFFFF_FFFF) / segment_size.bytes();
        WalName(format!("{timeline:08X}{log:08X}{segment:08X}").into())
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What kind of file this is.
    pub fn kind(&self) -> WalKind {
        kind_of(self.0.as_bytes()).unwrap_or(WalKind::Segment)
    }

    /// The timeline in the name.
    pub fn timeline(&self) -> u32 {
        self.hexadecimal(0)
    }

    /// The position of the first byte of the segment that the name speaks of.
    ///
    /// `None` for a history file, and where no cluster with segments of this size has a segment
    /// of that number.
    pub fn start(&self, segment_size: SegmentSize) -> Option<Lsn> {
        let segment = u64::from(self.hexadecimal(16));
        let possible = self.kind() != WalKind::History && segment < segment_size.segments_per_log();
        let log_start = u64::from(self.hexadecimal(8)) << 32;
        possible.then(|| Lsn(log_start + segment * segment_size.bytes()))
    }

    /// The middle and the last eight digits as one number, which orders segments of all timelines
    /// by their positions, whatever their size. `None` for a history file.
    pub fn ordinal(&self) -> Option<u64> {
        (self.kind() != WalKind::History)
            .then(|| u64::from(self.hexadecimal(8)) << 32 | u64::from(self.hexadecimal(16)))
    }

    /// The directory below `wals_directory` where Barman keeps the file: timeline and log number
    /// in upper case, 4 GiB of WAL together; none for history files.
    pub fn hash_directory(&self) -> Option<String> {
        (self.kind() != WalKind::History)
            .then(|| format!("{:08X}{:08X}", self.timeline(), self.hexadecimal(8)))
    }

    /// The eight hexadecimal digits from `start` on; the constructor made sure that they are there.
    fn hexadecimal(&self, start: usize) -> u32 {
        let digits = self.0.get(start..start + 8).unwrap_or("0");
        u32::from_str_radix(digits, 16).unwrap_or(0)
    }
}

impl fmt::Display for WalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn kind_of(name: &[u8]) -> Option<WalKind> {
    let hexadecimal = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    let (numbers, kind) = match name.len() {
        16 => (name.strip_suffix(b".history")?, WalKind::History),
        24 => (name, WalKind::Segment),
        32 => (name.strip_suffix(b".partial")?, WalKind::Partial),
        40 => {
            let (segment, offset) = name.strip_suffix(b".backup")?.split_at_checked(24)?;
            let digits = offset.strip_prefix(b".")?;
            (
                hexadecimal(digits).then_some(segment)?,
                WalKind::BackupLabel,
            )
        }
        _ => return None,
    };
    hexadecimal(numbers).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_segment_size() -> impl Strategy<Value = SegmentSize> {
        (20u32..=30).prop_map(|bits| SegmentSize::new(1 << bits).unwrap())
    }

    proptest! {
        #[test]
        fn a_segment_holds_the_position_it_was_named_after(
            timeline in 1u32.., position: u64, size in any_segment_size()
        ) {
            let name = WalName::of_segment(timeline, Lsn(position), size);
            prop_assert_eq!(name.kind(), WalKind::Segment);
            prop_assert_eq!(name.timeline(), timeline);
            let start = name.start(size).unwrap().0;
            prop_assert!(start <= position && position - start < size.bytes());
            prop_assert_eq!(WalName::parse(name.as_str()), Ok(name));
        }

        #[test]
        fn names_order_as_positions_do(a: u64, b: u64, size in any_segment_size()) {
            let (name_a, name_b) =
                (WalName::of_segment(1, Lsn(a), size), WalName::of_segment(1, Lsn(b), size));
            prop_assert_eq!(name_a.cmp(&name_b), name_a.start(size).cmp(&name_b.start(size)));
        }

        #[test]
        fn parsing_a_name_never_panics(text in "\\PC{0,48}") {
            let _ = WalName::parse(&text);
        }
    }

    #[test]
    fn the_four_kinds_are_told_apart() {
        let kind = |text| WalName::parse(text).map(|name| name.kind());
        assert_eq!(kind("00000001000000AB000000CD"), Ok(WalKind::Segment));
        assert_eq!(kind("00000001000000ab000000cD"), Ok(WalKind::Segment));
        assert_eq!(
            kind("00000001000000AB000000CD.partial"),
            Ok(WalKind::Partial)
        );
        assert_eq!(
            kind("00000001000000AB000000CD.00000028.backup"),
            Ok(WalKind::BackupLabel)
        );
        assert_eq!(kind("0000000A.history"), Ok(WalKind::History));
    }

    #[test]
    fn what_is_almost_a_name_is_none() {
        for bad in [
            "",
            "00000001000000AB000000C",
            "00000001000000AB000000CD\n",
            "00000001000000AB000000CG",
            "00000001000000AB000000CD.tmp",
            "00000001000000AB000000CD.partial.gz",
            "00000001000000AB000000CD.0000002G.backup",
            "00000001000000AB000000CD000000028.backup",
            "0000000A.HISTORY",
            "0000000١000000AB000000C",
        ] {
            assert!(WalName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn files_lie_in_the_directory_barman_puts_them_in() {
        let directory = |text| WalName::parse(text).unwrap().hash_directory();
        let expected = Some("0000000A000000AB".to_owned());
        assert_eq!(directory("0000000a000000ab000000cd"), expected);
        assert_eq!(
            directory("0000000A000000AB000000CD.00000028.backup"),
            expected
        );
        assert_eq!(directory("0000000A.history"), None);
    }

    #[test]
    fn a_segment_number_beyond_the_log_has_no_position() {
        let name = WalName::parse("000000010000000000000100").unwrap();
        assert_eq!(name.start(SegmentSize::DEFAULT), None);
        assert_eq!(
            name.start(SegmentSize::new(1 << 20).unwrap()),
            Some(Lsn(0x100 << 20))
        );
    }
}
