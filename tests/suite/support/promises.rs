//! Whether a receiver told the server only of WAL that outlasts a crash, by its system calls.
//!
//! "Flushed" may be said of a position when all before it was written, when a sync that began after the write has
//! succeeded, and when the directory was synchronised after the file got its first name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::trace::{Call, Effect};

/// The calls to be traced.
pub const TRACED: &str =
    "openat,write,pwrite64,lseek,fsync,fdatasync,?rename,?renameat,renameat2,sendto";

/// Positions that were reported, and which of them were not true.
#[derive(Debug, Default)]
pub struct Promises {
    pub reports: usize,
    pub last_flushed: u64,
    pub broken: Vec<String>,
}

/// A position that only grows, with the lines from which on it was so far.
#[derive(Debug, Default)]
struct Progress(Vec<(usize, u64)>);

impl Progress {
    fn at(&self, line: usize) -> u64 {
        let before = self.0.iter().rev().find(|(since, _)| *since < line);
        before.map_or(0, |(_, position)| *position)
    }

    fn last(&self) -> u64 {
        self.at(usize::MAX)
    }

    fn reach(&mut self, line: usize, position: u64) {
        self.0.push((line, position.max(self.last())));
    }
}

/// What has become of a segment since it was opened.
#[derive(Debug, Default)]
struct Segment {
    opened: usize,
    /// Where `write` goes on.
    cursor: u64,
    /// From its beginning, without holes.
    written: Progress,
    durable: Progress,
    /// A sync has failed: no later one says anything of what was written before.
    is_doubtful: bool,
}

impl Segment {
    fn write(&mut self, call: &Call) {
        // Room for WAL that is to come, and no WAL: of that nothing has so many zeros as strace shows, unless the
        // segment was ended early.
        if call.bytes(1).iter().all(|byte| *byte == 0) {
            return;
        }
        let size = call.returned.unwrap_or(0);
        let start = match call.name.as_str() {
            "pwrite64" => call.number(3).unwrap(),
            _ => self.cursor,
        };
        if call.name == "write" {
            self.cursor += size;
        }
        if start <= self.written.last() {
            self.written.reach(call.end, start + size);
        }
    }

    fn sync(&mut self, call: &Call) {
        self.is_doubtful |= !call.succeeded || call.injected;
        if !self.is_doubtful {
            self.durable.reach(call.end, self.written.at(call.begin));
        }
    }
}

/// Follows a receiver that writes segments of this size into the directory.
pub fn judge(calls: &[Call], directory: &Path, segment_size: u64) -> Promises {
    let mut files = Files {
        directory: directory.to_owned(),
        segment_size,
        segments: BTreeMap::new(),
        directory_syncs: Vec::new(),
    };
    let mut promises = Promises::default();
    for call in calls {
        if call.name == "sendto" {
            for flushed in flushed_positions(&call.bytes(1)) {
                promises.reports += 1;
                promises.last_flushed = flushed;
                promises.broken.extend(files.doubts(flushed, call.begin));
            }
        } else if call.succeeded || matches!(call.effect(), Effect::Sync { .. }) {
            files.take(call);
        }
    }
    promises
}

/// What is in a directory by now.
struct Files {
    directory: PathBuf,
    segment_size: u64,
    segments: BTreeMap<PathBuf, Segment>,
    /// When the directory was synchronised: from which line to which.
    directory_syncs: Vec<(usize, usize)>,
}

impl Files {
    fn take(&mut self, call: &Call) {
        match call.effect() {
            // To synchronise a file, PostgreSQL opens it once more.
            Effect::Open {
                path,
                creates: true,
            } if path.parent() == Some(&self.directory) => {
                let opened = call.end;
                self.segments.insert(
                    path,
                    Segment {
                        opened,
                        ..Segment::default()
                    },
                );
            }
            Effect::Rename { from, to, .. } => {
                if let Some(segment) = self.segments.remove(&from) {
                    self.segments.insert(to, segment);
                }
            }
            Effect::Sync { path } if path == self.directory => {
                if call.succeeded && !call.injected {
                    self.directory_syncs.push((call.begin, call.end));
                }
            }
            effect => {
                let path = effect.path().map(Path::to_owned).or_else(|| call.fd(0));
                let Some(segment) = path.and_then(|path| self.segments.get_mut(&path)) else {
                    return;
                };
                match effect {
                    Effect::Write { .. } => segment.write(call),
                    Effect::Sync { .. } => segment.sync(call),
                    _ if call.name == "lseek" => {
                        segment.cursor = call.returned.unwrap_or(segment.cursor);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Why not all before this position outlasts a crash on that line.
    fn doubts(&self, flushed: u64, line: usize) -> Vec<String> {
        let mut doubts = Vec::new();
        let starts = self
            .segments
            .iter()
            .filter_map(|(path, segment)| Some((start_of(path, self.segment_size)?, segment)));
        let segments: BTreeMap<u64, &Segment> = starts.collect();
        let Some(mut start) = segments.keys().next().copied() else {
            return doubts;
        };
        while start < flushed {
            let owed = (flushed - start).min(self.segment_size);
            let segment = segments.get(&start);
            let durable = segment.map_or(0, |segment| segment.durable.at(line));
            let has_name = segment.is_some_and(|segment| {
                let syncs = &mut self.directory_syncs.iter();
                syncs.any(|(begin, end)| segment.opened < *begin && *end < line)
            });
            if durable < owed || !has_name {
                doubts.push(format!(
                    "line {line}: {flushed:X} is flushed, but of {start:X} only {durable} bytes are, with a name: \
                     {has_name}"
                ));
            }
            start += self.segment_size;
        }
        doubts
    }
}

/// The position at which the segment in this file begins.
fn start_of(path: &Path, segment_size: u64) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".partial").unwrap_or(name);
    let numbers = (name.len() == 24).then(|| u64::from_str_radix(&name[8..], 16).ok())??;
    let (high, low) = (numbers >> 32, numbers & 0xFFFF_FFFF);
    Some((high << 32) + low * segment_size)
}

/// What status updates in these bytes say of flushed WAL.
fn flushed_positions(mut bytes: &[u8]) -> Vec<u64> {
    let mut positions = Vec::new();
    while let [kind, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
        let (body, after) = rest.split_at(length.min(rest.len()));
        if let (b'd', [b'r', numbers @ ..]) = (kind, body) {
            positions.push(u64::from_be_bytes(numbers[8..16].try_into().unwrap()));
        }
        bytes = after;
    }
    positions
}
