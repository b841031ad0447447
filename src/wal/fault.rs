//! Evidence in a raw file that it is not what its name says.

use super::history::{InvalidHistory, TimelineHistory};
use super::lsn::{Lsn, SegmentSize};
use super::name::{WalKind, WalName};
use super::page::{FirstPageFault, LONG_HEADER_SIZE_BYTES, LongPageHeader, judge_first_page};

/// More than any history has: a hundred bytes for each promotion.
const HISTORY_SIZE_MAX_BYTES: usize = 1 << 20;

/// How much of the beginning of a plain file its judgement wants to see: of a history everything.
pub fn judged_bytes(name: &WalName) -> usize {
    match name.kind() {
        WalKind::History => HISTORY_SIZE_MAX_BYTES,
        WalKind::Segment | WalKind::Partial | WalKind::BackupLabel => LONG_HEADER_SIZE_BYTES,
    }
}

/// Why a file cannot be the segment that its name promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalFault {
    /// There is not one byte in it.
    #[error("the file is empty")]
    Empty,
    /// No cluster has segments of this size.
    #[error("the file has {0} bytes, which is no size of a segment")]
    NoSegmentSize(u64),
    /// The first page says what size every segment of the cluster has, and it is another one.
    #[error(
        "the file has {file_size_bytes} bytes, its first page says that segments have {segment_size_bytes}"
    )]
    Size {
        /// The file's size.
        file_size_bytes: u64,
        /// The size in the header.
        segment_size_bytes: u32,
    },
    /// The first page belongs to another place in the WAL.
    #[error("its first page is that of position {found}, not of {}", position_text(*.expected))]
    Address {
        /// The position in the header.
        found: Lsn,
        /// Where a segment of this name begins; `None` if no cluster has such a segment.
        expected: Option<Lsn>,
    },
    /// The first page was written on a timeline that is younger than the file's name.
    #[error("its first page was written on timeline {found}, its name is of timeline {named}")]
    Timeline {
        /// The timeline in the header.
        found: u32,
        /// The timeline in the name.
        named: u32,
    },
    /// The first page comes from another cluster.
    #[error("it comes from system {found}, this server is system {expected}")]
    SystemIdentifier {
        /// The identifier in the header.
        found: u64,
        /// The identifier that the server is known by.
        expected: u64,
    },
    /// No PostgreSQL begins a segment like this.
    #[error("{0}")]
    FirstPage(FirstPageFault),
    /// PostgreSQL would not understand the history file.
    #[error("{0}")]
    History(InvalidHistory),
}

fn position_text(expected: Option<Lsn>) -> String {
    expected.map_or("any segment of that size".to_owned(), |position| {
        position.to_string()
    })
}

/// Looks for definite evidence against a file; `head` is how it begins.
///
/// Only segments and partial segments are judged, and, but for empty ones, only where the first
/// page is one that PostgreSQL 10 to 18 writes: anything else (compressed, encrypted, of another
/// version or byte order) is not for us to condemn. A partial segment may have any size.
/// `system_identifier` is that of the cluster, if it is known.
pub fn find_fault(
    name: &WalName,
    file_size_bytes: u64,
    head: &[u8],
    system_identifier: Option<u64>,
) -> Option<WalFault> {
    let is_partial = match name.kind() {
        WalKind::Segment => false,
        WalKind::Partial => true,
        WalKind::BackupLabel | WalKind::History => return None,
    };
    if file_size_bytes == 0 && !is_partial {
        return Some(WalFault::Empty);
    }
    let header = LongPageHeader::parse(head)?;
    let segment_size = SegmentSize::new(header.segment_size_bytes.into()).ok()?;
    let expected = name.start(segment_size);
    if file_size_bytes != segment_size.bytes() && !is_partial {
        let segment_size_bytes = header.segment_size_bytes;
        Some(WalFault::Size {
            file_size_bytes,
            segment_size_bytes,
        })
    } else if expected != Some(header.page_address) {
        Some(WalFault::Address {
            found: header.page_address,
            expected,
        })
    } else if header.timeline > name.timeline() {
        Some(WalFault::Timeline {
            found: header.timeline,
            named: name.timeline(),
        })
    } else {
        system_identifier
            .filter(|&expected| expected != header.system_identifier)
            .map(|expected| WalFault::SystemIdentifier {
                found: header.system_identifier,
                expected,
            })
    }
}

/// Looks for definite evidence against a file that is known to be neither compressed nor encrypted, besides what
/// [`find_fault`] finds: PostgreSQL makes no empty files, segments of certain sizes only, begins each with a page
/// header, and gives a recovery up at a history that it cannot read. `head` has [`judged_bytes`].
///
/// Of a plain segment a damaged header condemns, where [`find_fault`] would have to take the file for
/// something else; only of a version that is not known yet it is not read any further. An empty partial segment is
/// one into which nothing was received yet; one that begins with zeros is not good for anything either.
pub fn find_fault_of_plain(
    name: &WalName,
    file_size_bytes: u64,
    head: &[u8],
    system_identifier: Option<u64>,
) -> Option<WalFault> {
    let is_partial = match name.kind() {
        WalKind::Segment => false,
        WalKind::Partial => true,
        WalKind::BackupLabel | WalKind::History if file_size_bytes == 0 => {
            return Some(WalFault::Empty);
        }
        WalKind::BackupLabel => return None,
        WalKind::History => return fault_of_history(name, file_size_bytes, head),
    };
    if file_size_bytes == 0 {
        return (!is_partial).then_some(WalFault::Empty);
    }
    let is_possible = is_partial || SegmentSize::new(file_size_bytes).is_ok();
    find_fault(name, file_size_bytes, head, system_identifier)
        .or_else(|| (!is_possible).then_some(WalFault::NoSegmentSize(file_size_bytes)))
        .or_else(|| judge_first_page(head).err().map(WalFault::FirstPage))
}

fn fault_of_history(name: &WalName, file_size_bytes: u64, content: &[u8]) -> Option<WalFault> {
    if file_size_bytes != content.len() as u64 {
        return None;
    }
    match TimelineHistory::parse(name.timeline(), content) {
        // To PostgreSQL a timeline without ancestors is one.
        Ok(_) | Err(InvalidHistory::Empty) => None,
        Err(invalid) => Some(WalFault::History(invalid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn head(timeline: u32, position: u64, system_identifier: u64) -> Vec<u8> {
        let mut head = vec![0x10, 0xD1, 0x02, 0x00];
        head.extend(timeline.to_le_bytes());
        head.extend(position.to_le_bytes());
        head.extend([0; 8]);
        head.extend(system_identifier.to_le_bytes());
        head.extend((SIZE as u32).to_le_bytes());
        head.extend(8192u32.to_le_bytes());
        head
    }

    fn fault(name: &str, size: u64, head: &[u8], system: Option<u64>) -> Option<WalFault> {
        find_fault(&WalName::parse(name).unwrap(), size, head, system)
    }

    const NAME: &str = "000000020000000000000003";

    #[test]
    fn a_segment_that_fits_its_name_is_accepted() {
        assert_eq!(fault(NAME, SIZE, &head(2, 3 * SIZE, 7), Some(7)), None);
        assert_eq!(fault(NAME, SIZE, &head(2, 3 * SIZE, 7), None), None);
    }

    fn plain(name: &str, size: u64, head: &[u8]) -> Option<WalFault> {
        find_fault_of_plain(&WalName::parse(name).unwrap(), size, head, None)
    }

    #[test]
    fn plain_files_are_judged_even_where_their_pages_are_unknown() {
        let mut unknown = head(9, 9, 9);
        unknown[0] = 0xF0;
        assert_eq!(plain(NAME, SIZE, &unknown), None);
        assert_eq!(
            plain(NAME, SIZE - 1, &unknown),
            Some(WalFault::NoSegmentSize(SIZE - 1))
        );
        assert_eq!(plain("00000002.history", 0, b""), Some(WalFault::Empty));
        assert_eq!(plain("00000002.history", 9, b"?"), None);
        assert!(matches!(
            plain("00000002.history", 9, &[0; 9]),
            Some(WalFault::History(_))
        ));
        assert_eq!(plain("000000020000000000000003.partial", 0, b""), None);
    }

    #[test]
    fn a_plain_segment_begins_with_a_page() {
        for name in [NAME, "000000020000000000000003.partial"] {
            assert_eq!(plain(name, SIZE, &head(2, 3 * SIZE, 7)), None);
            for bad in [&[0; 40][..], b"?", b"\x10\xD1", &[0xFF; 40]] {
                assert!(matches!(
                    plain(name, SIZE, bad),
                    Some(WalFault::FirstPage(_))
                ));
            }
            // Each byte that the header stands and falls with.
            for (at, byte) in [(1, 0x51), (2, 0), (33, 1), (35, 0x41), (37, 0x21)] {
                let mut bad = head(2, 3 * SIZE, 7);
                bad[at] = byte;
                assert!(
                    matches!(plain(name, SIZE, &bad), Some(WalFault::FirstPage(_))),
                    "{name} {at}"
                );
            }
        }
    }

    #[test]
    fn the_first_segment_of_a_timeline_may_begin_on_the_old_one() {
        assert_eq!(fault(NAME, SIZE, &head(1, 3 * SIZE, 7), Some(7)), None);
        let younger = fault(NAME, SIZE, &head(3, 3 * SIZE, 7), Some(7));
        assert_eq!(younger, Some(WalFault::Timeline { found: 3, named: 2 }));
    }

    #[test]
    fn each_contradiction_condemns() {
        assert_eq!(fault(NAME, 0, &[], None), Some(WalFault::Empty));
        let short = fault(NAME, SIZE - 1, &head(2, 3 * SIZE, 7), None);
        assert!(matches!(short, Some(WalFault::Size { .. })));
        let elsewhere = fault(NAME, SIZE, &head(2, 4 * SIZE, 7), None);
        assert!(matches!(elsewhere, Some(WalFault::Address { .. })));
        let stranger = fault(NAME, SIZE, &head(2, 3 * SIZE, 7), Some(8));
        assert_eq!(
            stranger,
            Some(WalFault::SystemIdentifier {
                found: 7,
                expected: 8
            })
        );
    }

    #[test]
    fn what_cannot_be_judged_is_not_condemned() {
        assert_eq!(fault(NAME, 5, b"\x1f\x8b\x08..", Some(8)), None);
        assert_eq!(fault(NAME, 1, b"\0", Some(8)), None);
        assert_eq!(fault("00000002.history", 0, &[], Some(8)), None);
        let partial = format!("{NAME}.partial");
        assert_eq!(fault(&partial, 0, &[], Some(8)), None);
        assert_eq!(fault(&partial, 8192, &head(2, 3 * SIZE, 8), Some(8)), None);
    }
}
