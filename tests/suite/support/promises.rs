//! Whether a receiver told the server only of WAL that outlasts a crash, by its system calls.
//!
//! "Flushed" may be said of a position when all before it was written, when a sync that began after the write has
//! succeeded, and when the directory was synchronised after the file got its first name.

use std::collections::BTreeMap;
use std::path::Path;

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
    let mut segments = BTreeMap::<u64, Segment>::new();
    let mut directory_syncs: Vec<&Call> = Vec::new();
    let mut promises = Promises::default();
    let start_of = |path: &Path| start_of(path, directory, segment_size);
    for call in calls {
        let effect = call.effect();
        let path = effect.path().map(Path::to_owned).or_else(|| call.fd(0));
        let start = path.as_deref().and_then(start_of);
        let segment = start.and_then(|start| segments.get_mut(&start));
        match (effect, start, segment) {
            // To synchronise a file, PostgreSQL opens it once more.
            (Effect::Open { creates: true, .. }, Some(start), _) if call.succeeded => {
                let opened = call.end;
                segments.insert(
                    start,
                    Segment {
                        opened,
                        ..Segment::default()
                    },
                );
            }
            (Effect::Write { .. }, _, Some(segment)) if call.succeeded => segment.write(call),
            (Effect::Sync { .. }, _, Some(segment)) => segment.sync(call),
            (Effect::Sync { path }, ..)
                if path == directory && call.succeeded && !call.injected =>
            {
                directory_syncs.push(call);
            }
            (Effect::Nothing, _, Some(segment)) if call.name == "lseek" => {
                segment.cursor = call.returned.unwrap_or(segment.cursor);
            }
            _ if call.name == "sendto" => {
                for flushed in flushed_positions(&call.bytes(1)) {
                    promises.reports += 1;
                    promises.last_flushed = flushed;
                    let broken = segments.iter().filter_map(|(start, segment)| {
                        let owed = flushed.saturating_sub(*start).min(segment_size);
                        let has_name = directory_syncs
                            .iter()
                            .any(|sync| segment.opened < sync.begin && sync.end < call.begin);
                        let durable = segment.durable.at(call.begin);
                        (owed > 0 && (owed > durable || !has_name)).then(|| {
                            let line = call.begin;
                            format!(
                                "line {line}: {flushed:X} is flushed, but of {start:X} {durable} bytes are, \
                                 with a name: {has_name}"
                            )
                        })
                    });
                    promises.broken.extend(broken);
                }
            }
            _ => {}
        }
    }
    promises
}

/// The position at which the segment in this file begins.
fn start_of(path: &Path, directory: &Path, segment_size: u64) -> Option<u64> {
    let name = path.strip_prefix(directory).ok()?.to_str()?;
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
