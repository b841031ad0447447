//! Where receiving goes on, and what is missing before it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::Catalog;
use crate::config::ServerConfig;
use crate::durable;
use crate::wal::{Lsn, SegmentSize, WalKind, WalName};

/// Permissions of a new marker, as `pg_receivewal` creates its files.
const MARKER_MODE: u32 = 0o600;

/// A segment and the position of its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The segment.
    pub segment: WalName,
    /// Where it begins.
    pub start: Lsn,
}

impl Position {
    /// The segment that holds a position.
    pub fn of(timeline: u32, position: Lsn, segment_size: SegmentSize) -> Self {
        Position {
            segment: WalName::of_segment(timeline, position, segment_size),
            start: Lsn(position.0 - position.0 % segment_size.bytes()),
        }
    }

    /// The segment of a complete or partial file.
    pub fn of_name(name: &WalName, segment_size: SegmentSize) -> Option<Self> {
        let start = name.start(segment_size)?;
        Some(Position::of(name.timeline(), start, segment_size))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.segment, self.start)
    }
}

/// A complete or partial segment in `streaming_wals_directory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) name: WalName,
    pub(super) path: PathBuf,
    pub(super) position: Position,
}

impl Received {
    pub(super) fn is_partial(&self) -> bool {
        self.name.kind() == WalKind::Partial
    }

    /// Where a receiver goes on that finds this file.
    pub(super) fn next(&self, segment_size: SegmentSize) -> Position {
        if self.is_partial() {
            return self.position.clone();
        }
        let next = Lsn(self.position.start.0.saturating_add(segment_size.bytes()));
        Position::of(self.name.timeline(), next, segment_size)
    }
}

/// What has been received and lies there still, in the order in which `pg_receivewal` looks at it:
/// the last one tells it where to go on (`FindStreamingStart` in `pg_receivewal.c`).
pub(super) fn received(directory: &Path, segment_size: SegmentSize) -> io::Result<Vec<Received>> {
    let mut received = Vec::new();
    for name in wal_names(directory)? {
        if let WalKind::Segment | WalKind::Partial = name.kind()
            && let Some(position) = Position::of_name(&name, segment_size)
        {
            let path = directory.join(name.as_str());
            received.push(Received {
                name,
                path,
                position,
            });
        }
    }
    received.sort_by_key(|file| {
        let complete = file.name.kind() == WalKind::Segment;
        (file.position.start, file.name.timeline(), complete)
    });
    Ok(received)
}

/// The empty partial segment that makes a receiver begin here.
pub(super) fn marker_path(directory: &Path, start: &Position) -> PathBuf {
    directory.join(format!("{}.partial", start.segment))
}

/// Creates it, durably; one that is there already stays.
pub(super) fn create_marker(directory: &Path, start: &Position) -> io::Result<()> {
    durable::create_file(&marker_path(directory, start), b"", MARKER_MODE).map(drop)
}

/// The WAL files of a directory; none where there is no such directory.
pub(super) fn wal_names(directory: &Path) -> io::Result<Vec<WalName>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|name| WalName::parse(name).ok()));
    }
    Ok(names)
}

/// Segments that nobody has and nobody will receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The newest segment before it.
    pub before: Position,
    /// The first one that is missing.
    pub first: Position,
    /// The last one that is missing.
    pub last: Position,
    /// How many are missing.
    pub count: u64,
}

impl Gap {
    fn between(before: Position, start: &Position, segment_size: SegmentSize) -> Option<Self> {
        let first = before.start.0.checked_add(segment_size.bytes())?;
        let missing = start.start.0.checked_sub(first)?;
        let last = start.start.0.checked_sub(segment_size.bytes())?;
        let position = |at| Position::of(start.segment.timeline(), Lsn(at), segment_size);
        (missing > 0).then(|| Gap {
            before,
            first: position(first),
            last: position(last),
            count: missing / segment_size.bytes(),
        })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "segment {} is missing", self.first)?,
            count => write!(
                f,
                "{count} segments are missing, {} to {}",
                self.first, self.last
            )?,
        }
        write!(
            f,
            ": the newest one before is {}\nHINT: a recovery that needs what is missing stops \
             there. If the segments are found elsewhere, put them into the incoming directory; \
             take a base backup in any case",
            self.before.segment
        )
    }
}

/// What is missing between the WAL that this host has, archived or waiting to be, and the segment
/// with which receiving begins.
pub(super) fn gap_before(
    start: &Position,
    server: &ServerConfig,
    segment_size: SegmentSize,
) -> Result<Option<Gap>, String> {
    let mut newest: Option<Position> = None;
    let mut look = |name: WalName| {
        if name.kind() == WalKind::Segment
            && name.timeline() <= start.segment.timeline()
            && let Some(position) = Position::of_name(&name, segment_size)
            && position.start < start.start
            && newest
                .as_ref()
                .is_none_or(|newest| newest.start < position.start)
        {
            newest = Some(position);
        }
    };
    Catalog::of(server)
        .visit_names(|name| WalName::parse(name).into_iter().for_each(&mut look))
        .map_err(|error| error.to_string())?;
    for directory in [
        &server.streaming_wals_directory,
        &server.incoming_wals_directory,
    ] {
        wal_names(directory)
            .map_err(|error| format!("cannot read {}: {error}", directory.display()))?
            .into_iter()
            .for_each(&mut look);
    }
    Ok(newest.and_then(|before| Gap::between(before, start, segment_size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;

    fn at(name: &str) -> Position {
        Position::of_name(&WalName::parse(name).unwrap(), SIZE).unwrap()
    }

    #[test]
    fn a_gap_is_counted_across_logs_and_named_after_the_timeline_that_goes_on() {
        let gap = Gap::between(
            at("0000000100000000000000FD"),
            &at("000000020000000100000002"),
            SIZE,
        );
        let gap = gap.unwrap();
        assert_eq!(gap.count, 4);
        assert_eq!(gap.first.segment.as_str(), "0000000200000000000000FE");
        assert_eq!(gap.last.segment.as_str(), "000000020000000100000001");
        assert_eq!(gap.first.start, Lsn(0xFE00_0000));
    }

    #[test]
    fn neighbours_have_no_gap_between() {
        let start = at("000000010000000000000004");
        for before in ["000000010000000000000003", "000000010000000000000004"] {
            assert_eq!(Gap::between(at(before), &start, SIZE), None, "{before}");
        }
    }

    #[test]
    fn the_receiver_goes_on_where_pg_receivewal_would() {
        let folder = tempfile::tempdir().unwrap();
        let next = || {
            let received = received(folder.path(), SIZE).unwrap();
            received
                .last()
                .map(|file| file.next(SIZE).segment.to_string())
        };
        let put = |name: &str| fs::write(folder.path().join(name), b"").unwrap();
        assert_eq!(next(), None);
        put("00000002.history");
        put("000000010000000000000003.partial");
        assert_eq!(next().unwrap(), "000000010000000000000003");
        put("000000010000000000000003");
        assert_eq!(next().unwrap(), "000000010000000000000004");
        put("000000020000000000000003.partial");
        assert_eq!(next().unwrap(), "000000020000000000000003");
        put("000000010000000000000005.partial");
        assert_eq!(next().unwrap(), "000000010000000000000005");
    }
}
