//! The Snappy framing format, whose streams have no end mark: whether one was cut between two chunks has to
//! be seen from its content.

use std::io::{self, BufRead, Read};

/// Snappy framing format, 4.1: the stream identifier chunk, the least a stream has.
const IDENTIFIER_SIZE_BYTES: u64 = 10;
/// Snappy framing format, 4.2: no chunk holds more; all writers fill every chunk but the last.
const CHUNK_CONTENT_SIZE_BYTES: u64 = 65536;

/// Decodes a stream, and judges at its end whether it was whole.
///
/// Three things are recognised as cut: a chunk that is not complete, a stream without any chunk, and a WAL
/// segment that does not have the size its own first page states. What stays undetected is a cut exactly between two
/// chunks of something else that is longer than 64 KiB.
pub(super) struct SnappyStream<R: BufRead> {
    decoder: snap::read::FrameDecoder<Counted<R>>,
    first_bytes: Vec<u8>,
    content_bytes: u64,
}

struct Counted<R> {
    inner: R,
    read_bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read_bytes += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> SnappyStream<R> {
    pub(super) fn new(inner: R) -> SnappyStream<R> {
        let counted = Counted {
            inner,
            read_bytes: 0,
        };
        SnappyStream {
            decoder: snap::read::FrameDecoder::new(counted),
            first_bytes: Vec::new(),
            content_bytes: 0,
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.decoder.get_mut().inner
    }

    fn check_end(&self) -> io::Result<()> {
        let cut = |detail: String| Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        if self.decoder.get_ref().read_bytes <= IDENTIFIER_SIZE_BYTES {
            return cut("there is no chunk behind the stream identifier".to_owned());
        }
        if !self.content_bytes.is_multiple_of(CHUNK_CONTENT_SIZE_BYTES) {
            return Ok(());
        }
        match stated_segment_size_bytes(&self.first_bytes) {
            Some(stated) if self.content_bytes < stated => cut(format!(
                "{} bytes of a WAL segment of {stated}",
                self.content_bytes
            )),
            _ => Ok(()),
        }
    }

    fn keep_first_bytes(&mut self, content: &[u8]) {
        let missing = LONG_HEADER_SIZE_BYTES.saturating_sub(self.first_bytes.len());
        self.first_bytes.extend(content.iter().take(missing));
    }
}

impl<R: BufRead> Read for SnappyStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.check_end()?;
        }
        self.content_bytes += count as u64;
        self.keep_first_bytes(super::flow::head(buffer, count));
        Ok(count)
    }
}

/// PostgreSQL's `XLogLongPageHeaderData`.
const LONG_HEADER_SIZE_BYTES: usize = 40;

/// `xlp_seg_size` of the long header on a segment's first page, when that is what `content` starts with.
fn stated_segment_size_bytes(content: &[u8]) -> Option<u64> {
    let magic: [u8; 2] = *content.first_chunk()?;
    let info: [u8; 2] = *content.get(2..)?.first_chunk()?;
    let size: [u8; 4] = *content.get(32..)?.first_chunk()?;
    // In the byte order of the server; the high byte of xlp_magic is 0xD0 or 0xD1 in every release.
    let (info, size) = match magic {
        [_, 0xD0 | 0xD1] => (u16::from_le_bytes(info), u32::from_le_bytes(size)),
        [0xD0 | 0xD1, _] => (u16::from_be_bytes(info), u32::from_be_bytes(size)),
        _ => return None,
    };
    const LONG_HEADER: u16 = 0x0002;
    let is_size_valid = size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size);
    (info & LONG_HEADER != 0 && is_size_valid).then_some(u64::from(size))
}
