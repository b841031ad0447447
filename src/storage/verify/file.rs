//! Verifying one file.

use std::io::{self, Read};

use super::Problem;
use super::produce::Job;
use crate::codec::CodecError;
use crate::storage::PlainWal;
use crate::wal::{
    InvalidHistory, LONG_HEADER_SIZE_BYTES, PAGE_SIZE_MAX_BYTES, PageCheck, PageFault,
    TimelineHistory, WalFault, WalKind, WalName, find_fault, find_fault_of_plain,
};

/// How much is decoded at a time: it should stay in the cache while its pages are checked.
const PART_SIZE_BYTES: usize = 4 * PAGE_SIZE_MAX_BYTES;

/// A history file is kept whole, up to this size.
const HISTORY_SIZE_MAX_BYTES: usize = PART_SIZE_BYTES;

/// What came of a file.
pub(super) struct Verified {
    pub(super) name: WalName,
    pub(super) stored_size_bytes: u64,
    pub(super) wal_size_bytes: u64,
    /// False for a complete segment of a PostgreSQL, a fork or a machine whose pages we cannot read.
    pub(super) is_judged: bool,
    pub(super) history: Option<TimelineHistory>,
    pub(super) problems: Vec<Problem>,
}

/// What is known of the cluster that the WAL comes from.
#[derive(Clone, Copy)]
pub(super) struct Cluster {
    pub(super) system_identifier: Option<u64>,
    pub(super) segment_size_bytes: Option<u64>,
    /// Segments may begin as no PostgreSQL begins them: its WAL is encrypted, or it is a fork.
    pub(super) has_pages_of_its_own: bool,
}

/// What is seen of a file while it is decoded.
struct Seen {
    size_bytes: u64,
    head: Vec<u8>,
    is_judged: bool,
    fault: Option<PageFault>,
}

pub(super) fn buffer() -> Vec<u8> {
    vec![0; PART_SIZE_BYTES]
}

/// `None` if the file has been deleted meanwhile.
pub(super) fn verify(
    plain: &PlainWal<'_>,
    job: &Job,
    cluster: Cluster,
    buffer: &mut [u8],
) -> Option<Verified> {
    let name = &job.name;
    let undecodable = |source| Problem::Undecodable {
        name: name.clone(),
        source,
    };
    let mut verified = Verified {
        name: name.clone(),
        stored_size_bytes: 0,
        wal_size_bytes: 0,
        is_judged: true,
        history: None,
        problems: Vec::new(),
    };
    let stored = match plain.storage.find(name) {
        Ok(stored) => stored?,
        Err(error) => {
            let error = CodecError::ReadSource(error.source);
            verified.problems.push(undecodable(error));
            return Some(verified);
        }
    };
    verified.stored_size_bytes = stored.info.size_bytes;
    verified
        .problems
        .extend(listed_problem(job, stored.info.size_bytes));
    match plain.read(&stored, |plain| see(name, plain, buffer)) {
        Ok(seen) => {
            verified.wal_size_bytes = seen.size_bytes;
            verified.judge(seen, cluster);
        }
        Err(CodecError::ReadSource(error)) if error.kind() == io::ErrorKind::NotFound => {
            return None;
        }
        Err(error) => verified.problems.push(undecodable(error)),
    }
    Some(verified)
}

fn listed_problem(job: &Job, stored_size_bytes: u64) -> Option<Problem> {
    let name = job.name.clone();
    match job.listed_size_bytes {
        None => Some(Problem::NotListed { name }),
        Some(listed_size_bytes) => {
            (listed_size_bytes != stored_size_bytes).then_some(Problem::ListedSize {
                name,
                listed_size_bytes,
                stored_size_bytes,
            })
        }
    }
}

/// Decodes to the end.
fn see(name: &WalName, plain: &mut dyn Read, buffer: &mut [u8]) -> io::Result<Seen> {
    let wanted = match name.kind() {
        WalKind::History => HISTORY_SIZE_MAX_BYTES,
        _ => LONG_HEADER_SIZE_BYTES,
    };
    let mut pages = PageCheck::new(name);
    let mut seen = Seen {
        size_bytes: 0,
        head: Vec::new(),
        is_judged: false,
        fault: None,
    };
    loop {
        let size = fill(plain, buffer)?;
        let part = buffer.get(..size).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        let missing = wanted.saturating_sub(seen.head.len());
        seen.head.extend(part.iter().take(missing));
        pages.take(part);
        seen.size_bytes += part.len() as u64;
    }
    seen.is_judged = pages.is_judged();
    seen.fault = pages.fault();
    Ok(seen)
}

/// Reads until the buffer is full or the file ends.
fn fill(plain: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match plain.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Verified {
    /// Adds the first thing that is wrong with what was seen; what follows from it is left out.
    fn judge(&mut self, seen: Seen, cluster: Cluster) {
        let name = self.name.clone();
        let segment_size_bytes = match name.kind() {
            WalKind::Segment => cluster.segment_size_bytes.unwrap_or(seen.size_bytes),
            _ => seen.size_bytes,
        };
        let find = match name.kind() {
            // The room for it may be all that there is: nothing need have been received.
            WalKind::Partial => find_fault,
            // What is seen here is decoded: nothing else can hide in it.
            _ => find_fault_of_plain,
        };
        let system_identifier = cluster.system_identifier;
        // Zeros are nobody's pages, but what a disk has lost.
        let is_anything = cluster.has_pages_of_its_own && seen.head.iter().any(|&byte| byte != 0);
        let fault = find(&name, seen.size_bytes, &seen.head, system_identifier)
            .filter(|fault| !(is_anything && matches!(fault, WalFault::FirstPage(_))));
        let says_nothing = name.kind() == WalKind::Segment && !seen.is_judged;
        if let Some(WalFault::History(fault)) = fault {
            self.problems.push(Problem::History { name, fault });
        } else if let Some(fault) = fault {
            self.problems.push(Problem::Fault { name, fault });
        } else if seen.size_bytes != segment_size_bytes {
            self.problems.push(Problem::SegmentSize {
                name,
                wal_size_bytes: seen.size_bytes,
                segment_size_bytes,
            });
        } else if says_nothing {
            // Restored, PostgreSQL would take it for the end of the WAL.
            let is_possible =
                is_anything || PageCheck::is_like_a_first_page(&name, seen.size_bytes, &seen.head);
            self.is_judged = !is_possible;
            if self.is_judged {
                self.problems.push(Problem::NoFirstPage { name });
            }
        } else if let Some(fault) = seen.fault {
            self.problems.push(Problem::Page { name, fault });
        } else if name.kind() == WalKind::History {
            match history(name.timeline(), &seen.head) {
                Ok(history) => self.history = Some(history),
                Err(fault) => self.problems.push(Problem::History { name, fault }),
            }
        }
    }
}

/// To PostgreSQL a timeline whose history names no ancestor has none.
fn history(timeline: u32, content: &[u8]) -> Result<TimelineHistory, InvalidHistory> {
    match TimelineHistory::parse(timeline, content) {
        Err(InvalidHistory::Empty) => Ok(TimelineHistory {
            timeline,
            ancestors: Vec::new(),
        }),
        parsed => parsed,
    }
}
