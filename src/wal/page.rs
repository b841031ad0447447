//! The header of a segment's first page.

use super::lsn::{Lsn, SegmentSize};
use super::name::WalName;
use super::pages::PAGE_SIZE_MAX_BYTES;

/// How many bytes of a segment [`LongPageHeader::parse`] wants to see
/// (`SizeOfXLogLongPHD` in PostgreSQL's `xlog_internal.h`).
pub const LONG_HEADER_SIZE_BYTES: usize = 40;

/// The flag of a header that carries the cluster's identity (`XLP_LONG_HEADER`).
const LONG_HEADER_FLAG: u16 = 0x0002;

/// The header of a segment's first page (`XLogLongPageHeaderData` in PostgreSQL's
/// `xlog_internal.h`), as a server on a little-endian machine writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPageHeader {
    /// The timeline on which the page was first written; at most that of the file's name, because
    /// a new timeline begins with a copy of the old one's last segment.
    pub timeline: u32,
    /// The position of the page's first byte.
    pub page_address: Lsn,
    /// Identifies the cluster since its `initdb`.
    pub system_identifier: u64,
    /// The cluster's segment size.
    pub segment_size_bytes: u32,
    /// The cluster's page size (`XLOG_BLCKSZ`).
    pub page_size_bytes: u32,
    /// The major version of the PostgreSQL that wrote it.
    pub postgres_major_version: u8,
}

impl LongPageHeader {
    /// Reads the first bytes of a segment.
    ///
    /// `None` where they are not the first page of a PostgreSQL 10 to 18 segment: too short,
    /// another magic number, or a page without the long header.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let two = |at| Some(u16::from_le_bytes(*page.get(at..)?.first_chunk()?));
        let four = |at| Some(u32::from_le_bytes(*page.get(at..)?.first_chunk()?));
        let eight = |at| Some(u64::from_le_bytes(*page.get(at..)?.first_chunk()?));
        let postgres_major_version = postgres_major_version(two(0)?)?;
        if page.len() < LONG_HEADER_SIZE_BYTES || two(2)? & LONG_HEADER_FLAG == 0 {
            return None;
        }
        Some(LongPageHeader {
            timeline: four(4)?,
            page_address: Lsn(eight(8)?),
            system_identifier: eight(24)?,
            segment_size_bytes: four(32)?,
            page_size_bytes: four(36)?,
            postgres_major_version,
        })
    }
}

/// The major version that writes this `XLOG_PAGE_MAGIC` (`xlog_internal.h` of each release
/// branch); `None` for versions before 10 and after 18.
pub fn postgres_major_version(page_magic: u16) -> Option<u8> {
    Some(match page_magic {
        0xD097 => 10,
        0xD098 => 11,
        0xD101 => 12,
        0xD106 => 13,
        0xD10D => 14,
        0xD110 => 15,
        0xD113 => 16,
        0xD116 => 17,
        0xD118 => 18,
        _ => return None,
    })
}

/// Why bytes cannot be the first page of a segment, of whatever version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirstPageFault {
    /// They do not begin as a page does.
    #[error("it does not begin with a page of WAL")]
    NoPage,
    /// They begin as a page inside of a segment does.
    #[error("its first page is not the first page of a segment")]
    NotFirst,
    /// No cluster can have such sizes.
    #[error(
        "its first page says that segments have {segment_size_bytes} bytes and pages {page_size_bytes}, which no cluster can have"
    )]
    Sizes {
        /// The size of segments in the header.
        segment_size_bytes: u32,
        /// The size of pages in the header.
        page_size_bytes: u32,
    },
}

/// The upper byte of every `XLOG_PAGE_MAGIC` so far. The lower one counts on with each change of the format.
const MAGIC_FAMILIES: [u16; 2] = [0xD0, 0xD1];

/// The smallest page that PostgreSQL can be built with (`XLOG_BLCKSZ`), in bytes.
const PAGE_SIZE_MIN_BYTES: u32 = 1 << 10;

/// `XLOG_PAGE_MAGIC` of PostgreSQL 9.3, the first one whose header has its fields where today's has them.
const OLDEST_MAGIC: u16 = 0xD075;

/// Looks at the first bytes of a segment as any PostgreSQL, on any machine, may have written them.
pub fn judge_first_page(page: &[u8]) -> Result<(), FirstPageFault> {
    let [little, big] = FirstPage::read(page).map(|read| read.map_or(NO_PAGE, FirstPage::judge));
    match (little, big) {
        (Ok(()), _) | (_, Ok(())) => Ok(()),
        (NO_PAGE, fault) | (fault, _) => fault,
    }
}

/// Whether these are, of any PostgreSQL and machine, the first bytes of the segment of a name and size.
pub(super) fn is_first_page_of(name: &WalName, file_size_bytes: u64, page: &[u8]) -> bool {
    let mut read = FirstPage::read(page).into_iter().flatten();
    read.any(|first| first.judge().is_ok() && first.is_of(name, file_size_bytes))
}

const NO_PAGE: Result<(), FirstPageFault> = Err(FirstPageFault::NoPage);

/// What stands at the beginning of a segment, in one of the byte orders.
#[derive(Clone, Copy)]
struct FirstPage {
    magic: u16,
    flags: u16,
    address: u64,
    segment_size_bytes: u32,
    page_size_bytes: u32,
}

impl FirstPage {
    /// Little-endian and big-endian; `None` where there is not enough of it.
    fn read(page: &[u8]) -> [Option<Self>; 2] {
        [
            FirstPage::read_as(
                page,
                u16::from_le_bytes,
                u32::from_le_bytes,
                u64::from_le_bytes,
            ),
            FirstPage::read_as(
                page,
                u16::from_be_bytes,
                u32::from_be_bytes,
                u64::from_be_bytes,
            ),
        ]
    }

    fn read_as(
        page: &[u8],
        two: fn([u8; 2]) -> u16,
        four: fn([u8; 4]) -> u32,
        eight: fn([u8; 8]) -> u64,
    ) -> Option<Self> {
        let two = |at| Some(two(*page.get(at..)?.first_chunk()?));
        let four = |at| Some(four(*page.get(at..)?.first_chunk()?));
        Some(FirstPage {
            magic: two(0)?,
            flags: two(2)?,
            address: eight(*page.get(8..)?.first_chunk()?),
            segment_size_bytes: four(32)?,
            page_size_bytes: four(36)?,
        })
    }

    fn judge(self) -> Result<(), FirstPageFault> {
        if !MAGIC_FAMILIES.contains(&(self.magic >> 8)) {
            return NO_PAGE;
        }
        if self.flags & LONG_HEADER_FLAG == 0 {
            return Err(FirstPageFault::NotFirst);
        }
        let (segment_size_bytes, page_size_bytes) = (self.segment_size_bytes, self.page_size_bytes);
        let is_possible = SegmentSize::new(segment_size_bytes.into()).is_ok()
            && page_size_bytes.is_power_of_two()
            && (PAGE_SIZE_MIN_BYTES..=PAGE_SIZE_MAX_BYTES as u32).contains(&page_size_bytes);
        if self.is_read_right() && !is_possible {
            return Err(FirstPageFault::Sizes {
                segment_size_bytes,
                page_size_bytes,
            });
        }
        Ok(())
    }

    /// Whether the fields are those that PostgreSQL wrote there.
    fn is_read_right(self) -> bool {
        self.magic >= OLDEST_MAGIC
    }

    /// Whether nothing speaks against the name and size of the segment.
    fn is_of(self, name: &WalName, file_size_bytes: u64) -> bool {
        let segment_size = SegmentSize::new(self.segment_size_bytes.into()).ok();
        let start = segment_size.and_then(|segment_size| name.start(segment_size));
        let fits = start == Some(Lsn(self.address))
            && u64::from(self.segment_size_bytes) == file_size_bytes;
        fits || !self.is_read_right()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a segment that PostgreSQL 15 wrote.
    const PAGE: [u8; LONG_HEADER_SIZE_BYTES] = [
        0x10, 0xD1, 0x02, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x53, 0x94, 0x2B, 0x5F, 0x24, 0x80, 0xC2, 0x65, 0, 0, 0, 0x01, 0, 0x20, 0, 0,
    ];

    #[test]
    fn the_first_page_of_a_segment_is_read() {
        let header = LongPageHeader::parse(&PAGE).unwrap();
        assert_eq!(header.timeline, 1);
        assert_eq!(header.page_address, Lsn(0x0100_0000));
        assert_eq!(header.system_identifier, 0x65C2_8024_5F2B_9453);
        assert_eq!(header.segment_size_bytes, 16 << 20);
        assert_eq!(header.page_size_bytes, 8192);
        assert_eq!(header.postgres_major_version, 15);
    }

    #[test]
    fn every_shorter_piece_is_no_header() {
        for length in 0..LONG_HEADER_SIZE_BYTES {
            assert_eq!(LongPageHeader::parse(&PAGE[..length]), None);
        }
    }

    #[test]
    fn pages_of_any_version_and_byte_order_are_first_pages() {
        assert_eq!(judge_first_page(&PAGE), Ok(()));
        let mut unknown = PAGE;
        unknown[0] = 0xFE;
        assert_eq!(judge_first_page(&unknown), Ok(()));
        let mut big = [0; LONG_HEADER_SIZE_BYTES];
        big[..4].copy_from_slice(&[0xD1, 0x10, 0, 2]);
        big[32..].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0x20, 0]);
        assert_eq!(judge_first_page(&big), Ok(()));
        big[35] = 1;
        let sizes = FirstPageFault::Sizes {
            segment_size_bytes: (16 << 20) + 1,
            page_size_bytes: 8192,
        };
        assert_eq!(judge_first_page(&big), Err(sizes));
    }

    #[test]
    fn other_bytes_are_no_first_page() {
        for length in 0..LONG_HEADER_SIZE_BYTES {
            let judged = judge_first_page(&PAGE[..length]);
            assert_eq!(judged, Err(FirstPageFault::NoPage));
        }
        let zeros = [0; LONG_HEADER_SIZE_BYTES];
        assert_eq!(judge_first_page(&zeros), Err(FirstPageFault::NoPage));
        let mut inside = PAGE;
        inside[2] = 1;
        assert_eq!(judge_first_page(&inside), Err(FirstPageFault::NotFirst));
    }

    #[test]
    fn a_page_without_the_long_header_is_none() {
        let mut page = PAGE;
        page[2] = 0;
        assert_eq!(LongPageHeader::parse(&page), None);
    }
}
