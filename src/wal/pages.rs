//! The headers of all pages of a segment.

use super::lsn::Lsn;
use super::name::{WalKind, WalName};
use super::page::{LongPageHeader, is_first_page_of};

/// The largest page that PostgreSQL can be built with (`XLOG_BLCKSZ`), in bytes.
pub const PAGE_SIZE_MAX_BYTES: usize = 64 << 10;

/// What is read of a page's header (`XLogPageHeaderData` in PostgreSQL's `xlog_internal.h`): magic
/// number, flags, timeline, address.
const HEADER_SIZE_BYTES: usize = 16;

static ZEROS: [u8; PAGE_SIZE_MAX_BYTES] = [0; PAGE_SIZE_MAX_BYTES];

/// Why a page cannot be where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// It does not begin as a page of that PostgreSQL.
    #[error("the page at {position} begins with {found:#06X}, the first one with {expected:#06X}")]
    Magic {
        /// Where the page is.
        position: Lsn,
        /// How it begins.
        found: u16,
        /// How the segment's first page begins.
        expected: u16,
    },
    /// It belongs to another place in the WAL.
    #[error("the page at {position} is that of position {found}")]
    Address {
        /// Where the page is.
        position: Lsn,
        /// The position in its header.
        found: Lsn,
    },
    /// It was written on a timeline that cannot be there.
    #[error("the page at {position} was written on timeline {found}, the one before on {before}")]
    Timeline {
        /// Where the page is.
        position: Lsn,
        /// The timeline in its header.
        found: u32,
        /// That of the page before it.
        before: u32,
    },
    /// PostgreSQL fills the rest of a segment with zeros when it is left early; nothing comes after.
    #[error("the page at {position} has content, though PostgreSQL had left the segment before it")]
    BehindTheEnd {
        /// Where the page is.
        position: Lsn,
    },
}

impl PageFault {
    /// Where the page is.
    pub fn position(&self) -> Lsn {
        match self {
            PageFault::Magic { position, .. }
            | PageFault::Address { position, .. }
            | PageFault::Timeline { position, .. }
            | PageFault::BehindTheEnd { position } => *position,
        }
    }
}

/// Checks the pages of one segment as they pass by.
///
/// Only complete segments that begin with a page of PostgreSQL 10 to 18, on a little-endian machine,
/// can be judged; behind the end of a partial one there may be anything.
#[derive(Debug)]
pub struct PageCheck {
    timeline_max: u32,
    judged: bool,
    /// What the first page says.
    first: Option<FirstPage>,
    position: u64,
    timeline: u32,
    is_over: bool,
    fault: Option<PageFault>,
}

#[derive(Clone, Copy, Debug)]
struct FirstPage {
    magic: u16,
    page_size_bytes: usize,
}

impl PageCheck {
    /// For a file of this name; nothing was read yet.
    pub fn new(name: &WalName) -> Self {
        PageCheck {
            timeline_max: name.timeline(),
            judged: name.kind() == WalKind::Segment,
            first: None,
            position: 0,
            timeline: 0,
            is_over: false,
            fault: None,
        }
    }

    /// Takes the next part of the file. Every part but the last must be a multiple of
    /// [`PAGE_SIZE_MAX_BYTES`] long.
    pub fn take(&mut self, part: &[u8]) {
        if !self.judged || self.fault.is_some() {
            return;
        }
        if self.first.is_none() {
            self.begin(part);
        }
        let Some(first) = self.first else {
            self.judged = false;
            return;
        };
        for page in part.chunks(first.page_size_bytes) {
            if let Err(fault) = self.page(page, first) {
                self.fault = Some(fault);
                return;
            }
            self.position = self.position.wrapping_add(page.len() as u64);
        }
    }

    /// The first page that cannot be where it is.
    pub fn fault(self) -> Option<PageFault> {
        self.fault
    }

    /// Whether the pages could be judged at all.
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// Whether a file begins as the segment of its name and size does, whichever PostgreSQL wrote it and on whatever
    /// machine.
    pub fn is_like_a_first_page(name: &WalName, file_size_bytes: u64, head: &[u8]) -> bool {
        is_first_page_of(name, file_size_bytes, head)
    }

    fn begin(&mut self, part: &[u8]) {
        let Some(header) = LongPageHeader::parse(part) else {
            return;
        };
        let page_size_bytes = header.page_size_bytes as usize;
        self.first = is_page_size(page_size_bytes).then_some(FirstPage {
            magic: magic(part),
            page_size_bytes,
        });
        self.position = header.page_address.0;
        self.timeline = header.timeline;
    }

    fn page(&mut self, page: &[u8], first: FirstPage) -> Result<(), PageFault> {
        let position = Lsn(self.position);
        if ZEROS.get(..page.len()) == Some(page) {
            self.is_over = true;
            return Ok(());
        }
        if self.is_over {
            return Err(PageFault::BehindTheEnd { position });
        }
        let expected = first.magic;
        let (Some(timeline), Some(address)) = (number(page, 4), number(page, 8)) else {
            // Too short for a header: the size is wrong, and somebody else says so.
            return Ok(());
        };
        let high = number(page, 12).unwrap_or(0);
        let found = Lsn(u64::from(high) << 32 | u64::from(address));
        if magic(page) != expected {
            let found = magic(page);
            return Err(PageFault::Magic {
                position,
                found,
                expected,
            });
        }
        if found != position {
            return Err(PageFault::Address { position, found });
        }
        if timeline < self.timeline || timeline > self.timeline_max.max(self.timeline) {
            return Err(PageFault::Timeline {
                position,
                found: timeline,
                before: self.timeline,
            });
        }
        self.timeline = timeline;
        Ok(())
    }
}

fn is_page_size(size_bytes: usize) -> bool {
    size_bytes.is_power_of_two() && (1024..=PAGE_SIZE_MAX_BYTES).contains(&size_bytes)
}

fn magic(page: &[u8]) -> u16 {
    page.first_chunk()
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn number(page: &[u8], at: usize) -> Option<u32> {
    let header = page.get(..HEADER_SIZE_BYTES)?;
    Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 8192;
    const SIZE: u32 = 1 << 20;
    const NAME: &str = "000000020000000000000003";

    /// Segment 3 of timeline 2 with segments of 1 MiB, which began on timeline 1.
    fn segment() -> Vec<u8> {
        let mut bytes = vec![7; SIZE as usize];
        for (index, page) in bytes.chunks_mut(PAGE).enumerate() {
            let address = 3 * u64::from(SIZE) + (index * PAGE) as u64;
            let timeline = if index < 5 { 1u32 } else { 2 };
            page[..2].copy_from_slice(&0xD110u16.to_le_bytes());
            page[2..4].copy_from_slice(&(if index == 0 { 2u16 } else { 0 }).to_le_bytes());
            page[4..8].copy_from_slice(&timeline.to_le_bytes());
            page[8..16].copy_from_slice(&address.to_le_bytes());
        }
        bytes[32..36].copy_from_slice(&SIZE.to_le_bytes());
        bytes[36..40].copy_from_slice(&(PAGE as u32).to_le_bytes());
        bytes
    }

    fn check(name: &str, bytes: &[u8]) -> (bool, Option<PageFault>) {
        let mut check = PageCheck::new(&WalName::parse(name).unwrap());
        for part in bytes.chunks(PAGE_SIZE_MAX_BYTES) {
            check.take(part);
        }
        (check.is_judged(), check.fault())
    }

    #[test]
    fn a_segment_whose_pages_follow_each_other_is_good() {
        assert_eq!(check(NAME, &segment()), (true, None));
        let mut switched = segment();
        switched[20 * PAGE..].fill(0);
        assert_eq!(check(NAME, &switched), (true, None));
    }

    #[test]
    fn each_contradiction_is_found_where_it_is() {
        let damaged = |change: fn(&mut [u8])| {
            let mut bytes = segment();
            change(&mut bytes[40 * PAGE..41 * PAGE]);
            check(NAME, &bytes).1
        };
        let position = Lsn(3 * u64::from(SIZE) + 40 * PAGE as u64);
        let (found, expected) = (0xD111, 0xD110);
        let magic = PageFault::Magic {
            position,
            found,
            expected,
        };
        assert_eq!(damaged(|page| page[0] ^= 1), Some(magic));
        let found = Lsn(position.0 + (1 << 40));
        let address = PageFault::Address { position, found };
        assert_eq!(damaged(|page| page[13] ^= 1), Some(address));
        for timeline in [1, 3] {
            let mut bytes = segment();
            bytes[40 * PAGE + 4] = timeline as u8;
            let (found, before) = (timeline, 2);
            let expected = PageFault::Timeline {
                position,
                found,
                before,
            };
            assert_eq!(check(NAME, &bytes).1, Some(expected));
        }
        // A page of zeros, as a disk may leave it: what follows should not be there.
        let position = Lsn(position.0 + PAGE as u64);
        let expected = PageFault::BehindTheEnd { position };
        assert_eq!(damaged(|page| page.fill(0)), Some(expected));
    }

    #[test]
    fn a_first_page_of_any_postgresql_and_machine_is_known_by_what_fits() {
        let name = WalName::parse(NAME).unwrap();
        let is_like = |bytes: &[u8]| {
            PageCheck::is_like_a_first_page(
                &name,
                bytes.len() as u64,
                &bytes[..PAGE.min(bytes.len())],
            )
        };
        let mut newer = segment();
        newer[..2].copy_from_slice(&[0xFE, 0xD1]);
        assert!(is_like(&segment()) && is_like(&newer));
        let mut big_endian = newer.clone();
        for field in [0..2, 2..4, 4..8, 8..16, 24..32, 32..36, 36..40] {
            big_endian[field].reverse();
        }
        assert!(is_like(&big_endian));
        assert!(!is_like(&newer[..newer.len() - PAGE]) && !is_like(&newer[..20]));
        assert!(!is_like(&vec![0; newer.len()]) && !is_like(&vec![0xA7; newer.len()]));
        // PostgreSQL before 9.3 has other fields there.
        let mut older = vec![0; newer.len()];
        older[..4].copy_from_slice(&[0x66, 0xD0, 2, 0]);
        assert!(is_like(&older));
        for at in [1, 2, 10, 34, 37] {
            let mut damaged = newer.clone();
            damaged[at] ^= 0xFF;
            assert!(!is_like(&damaged), "byte {at}");
        }
    }

    #[test]
    fn what_is_no_complete_segment_is_not_judged() {
        assert_eq!(check(NAME, b"\x1f\x8b\x08"), (false, None));
        assert_eq!(check("00000002.history", b"1\t0/1\tx"), (false, None));
        let mut stale = segment();
        stale[50 * PAGE..].fill(9);
        assert_eq!(check(&format!("{NAME}.partial"), &stale), (false, None));
    }

    proptest! {
        #[test]
        fn checking_pages_never_panics(
            mut bytes: Vec<u8>, page_size: u32, cut in 0usize..SIZE as usize
        ) {
            check(NAME, &bytes);
            let mut segment = segment();
            segment[36..40].copy_from_slice(&page_size.to_le_bytes());
            segment.truncate(cut);
            check(NAME, &segment);
            bytes.splice(0..0, segment);
            check(NAME, &bytes);
        }
    }
}
