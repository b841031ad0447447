//! The header of a segment's first page.

use super::lsn::Lsn;

/// How many bytes of a segment [`LongPageHeader::parse`] wants to see
/// (`SizeOfXLogLongPHD` in PostgreSQL's `xlog_internal.h`).
pub const LONG_HEADER_SIZE_BYTES: usize = 40;

/// The flag of a header that carries the cluster's identity (`XLP_LONG_HEADER`).
pub(super) const LONG_HEADER_FLAG: u16 = 0x0002;

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
    fn a_page_without_the_long_header_is_none() {
        let mut page = PAGE;
        page[2] = 0;
        assert_eq!(LongPageHeader::parse(&page), None);
    }
}
