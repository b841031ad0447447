//! A plain WAL file passing by: is it what its name says?

use std::io::{self, Read};

use crate::wal::{
    LONG_HEADER_SIZE_BYTES, LongPageHeader, WalFault, WalKind, WalName, find_fault_of_plain,
};

/// How segments are judged.
#[derive(Clone, Copy, Debug)]
pub struct Validation {
    /// That of the cluster, if it is known.
    pub system_identifier: Option<u64>,
}

/// Reads a plain WAL file, fills a partial segment up with zeros, and keeps what the judgement needs.
pub(super) struct Checked<R> {
    inner: R,
    head: Vec<u8>,
    size_bytes: u64,
    fills: bool,
    ended: bool,
}

impl<R: Read> Checked<R> {
    /// `fills` means that this is an incomplete segment, wanted under the name of the complete one.
    pub(super) fn new(inner: R, fills: bool) -> Self {
        Checked {
            inner,
            head: Vec::with_capacity(LONG_HEADER_SIZE_BYTES),
            size_bytes: 0,
            fills,
            ended: false,
        }
    }

    /// What is wrong, once everything was read. An empty file is wrong even where nothing is validated.
    pub(super) fn fault(&self, name: &WalName, validation: Option<Validation>) -> Option<WalFault> {
        fault(name, self.size_bytes, &self.head, validation)
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// PostgreSQL refuses a segment that is not of full size; behind what was received there is nothing.
    fn missing_bytes(&self) -> u64 {
        let header = LongPageHeader::parse(&self.head).filter(|_| self.fills);
        header.map_or(0, |header| {
            u64::from(header.segment_size_bytes).saturating_sub(self.size_bytes)
        })
    }

    fn note(&mut self, piece: &[u8]) {
        let wanted = LONG_HEADER_SIZE_BYTES.saturating_sub(self.head.len());
        self.head.extend(piece.iter().take(wanted));
        self.size_bytes += piece.len() as u64;
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.ended {
            let count = self.inner.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                self.note(buffer.get(..count).unwrap_or_default());
                return Ok(count);
            }
            self.ended = true;
        }
        let zeros = usize::try_from(self.missing_bytes()).unwrap_or(usize::MAX);
        let zeros = zeros.min(buffer.len());
        if let Some(room) = buffer.get_mut(..zeros) {
            room.fill(0);
        }
        self.size_bytes += zeros as u64;
        Ok(zeros)
    }
}

/// What is wrong with a plain file of this size that begins with `head`.
pub(super) fn fault(
    name: &WalName,
    size_bytes: u64,
    head: &[u8],
    validation: Option<Validation>,
) -> Option<WalFault> {
    match validation {
        Some(Validation { system_identifier }) => {
            find_fault_of_plain(name, size_bytes, head, system_identifier)
        }
        None if name.kind() == WalKind::Partial => None,
        None => (size_bytes == 0).then_some(WalFault::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_page(segment_size_bytes: u32, number: u64) -> Vec<u8> {
        let mut page = vec![0x10, 0xD1, 0x02, 0x00, 1, 0, 0, 0];
        page.extend((number * u64::from(segment_size_bytes)).to_le_bytes());
        page.extend([0; 8]);
        page.extend(7u64.to_le_bytes());
        page.extend(segment_size_bytes.to_le_bytes());
        page.extend(8192u32.to_le_bytes());
        page
    }

    fn name(text: &str) -> WalName {
        WalName::parse(text).unwrap()
    }

    const SEGMENT: &str = "000000010000000000000002";
    const PARTIAL: &str = "000000010000000000000002.partial";

    fn read(stored: &[u8], stored_name: &str, asked: &str) -> (Vec<u8>, Option<WalFault>) {
        let fills = (stored_name, asked) == (PARTIAL, SEGMENT);
        let mut checked = Checked::new(stored, fills);
        let mut read = Vec::new();
        checked.read_to_end(&mut read).unwrap();
        let validation = Validation {
            system_identifier: Some(7),
        };
        let fault = checked.fault(&name(asked), Some(validation));
        (read, fault)
    }

    #[test]
    fn a_partial_segment_is_filled_up_when_the_segment_was_asked_for() {
        let page = first_page(1 << 20, 2);
        let (bytes, fault) = read(&page, PARTIAL, SEGMENT);
        assert_eq!((bytes.len(), fault), (1 << 20, None));
        assert!(bytes.starts_with(&page));
        assert!(bytes[page.len()..].iter().all(|&byte| byte == 0));
        let (bytes, fault) = read(&page, PARTIAL, PARTIAL);
        assert_eq!((bytes, fault), (page, None));
    }

    #[test]
    fn a_short_segment_is_not_filled_up_but_found_out() {
        let page = first_page(1 << 20, 2);
        let (bytes, fault) = read(&page, SEGMENT, SEGMENT);
        assert_eq!(bytes, page);
        assert!(matches!(fault, Some(WalFault::Size { .. })));
    }

    #[test]
    fn no_file_is_empty() {
        for asked in [
            SEGMENT,
            "00000002.history",
            "000000010000000000000002.00000028.backup",
        ] {
            assert_eq!(read(b"", asked, asked).1, Some(WalFault::Empty));
        }
        assert_eq!(read(b"", PARTIAL, SEGMENT).1, Some(WalFault::Empty));
    }
}
