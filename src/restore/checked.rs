//! A plain WAL file passing by: is it what its name says?

use std::io::{self, Read};

use crate::wal::{
    LONG_HEADER_SIZE_BYTES, LongPageHeader, WalFault, WalKind, WalName, find_fault_of_plain,
    judge_first_page, judged_bytes,
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
    /// How the file begins.
    head: Vec<u8>,
    head_max_bytes: usize,
    size_bytes: u64,
    /// Whether anything but zeros came.
    has_content: bool,
    fills: bool,
    ended: bool,
}

impl<R: Read> Checked<R> {
    /// `name` is what is wanted; `is_incomplete` means that this is, at best, a partial segment.
    pub(super) fn new(inner: R, name: &WalName, is_incomplete: bool) -> Self {
        Checked {
            inner,
            head: Vec::with_capacity(LONG_HEADER_SIZE_BYTES),
            head_max_bytes: judged_bytes(name),
            size_bytes: 0,
            has_content: false,
            fills: is_incomplete && name.kind() == WalKind::Segment,
            ended: false,
        }
    }

    /// What is wrong, once everything was read. An empty file is wrong even where nothing is validated.
    pub(super) fn fault(&self, name: &WalName, validation: Option<Validation>) -> Option<WalFault> {
        match validation {
            Some(Validation { system_identifier }) => {
                find_fault_of_plain(name, self.size_bytes, &self.head, system_identifier)
            }
            None if name.kind() == WalKind::Partial => None,
            None => (self.size_bytes == 0).then_some(WalFault::Empty),
        }
    }

    /// What is wrong with the beginning of a segment, as soon as that has passed by.
    pub(super) fn fault_of_first_page(&self) -> Option<WalFault> {
        judge_first_page(&self.head).err().map(WalFault::FirstPage)
    }

    /// Whether nothing was ever written into what has passed by: it is empty, or room that was made for WAL to come.
    pub(super) fn is_blank(&self) -> bool {
        !self.has_content
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
        let wanted = self.head_max_bytes.saturating_sub(self.head.len());
        self.head.extend(piece.iter().take(wanted));
        self.has_content = self.has_content || piece.iter().any(|byte| *byte != 0);
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
        let mut checked = Checked::new(stored, &name(asked), stored_name == PARTIAL);
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
    fn a_history_is_one_that_postgresql_can_read() {
        const HISTORY: &str = "00000003.history";
        for good in [
            "1\t0/1\treason\n2\t0/2\treason\n",
            "# nothing\n\n",
            "\n1 0/1",
        ] {
            assert_eq!(read(good.as_bytes(), HISTORY, HISTORY).1, None, "{good:?}");
        }
        for bad in ["<html>", "1\t0/1\treason\n3\t0/2\treason\n", "\0\0"] {
            let fault = read(bad.as_bytes(), HISTORY, HISTORY).1;
            assert!(matches!(fault, Some(WalFault::History(_))), "{bad:?}");
        }
    }

    #[test]
    fn zeros_are_no_content() {
        let is_blank = |stored: &[u8]| {
            let mut checked = Checked::new(stored, &name(SEGMENT), true);
            io::copy(&mut checked, &mut io::sink()).unwrap();
            checked.is_blank()
        };
        assert!(is_blank(b"") && is_blank(&[0; 100]));
        assert!(!is_blank(b"\0\0\x01"));
        assert!(!is_blank(&first_page(1 << 20, 2)));
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
