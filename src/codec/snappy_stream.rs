//! The Snappy framing format. Its streams have no end mark, so a cut between two chunks leaves a valid stream; that is
//! left to [`SegmentSize`](super::segment_size::SegmentSize), except for a stream without any chunk.

use std::io::{self, BufRead, Read};

/// Snappy framing format, 4.1: the stream identifier chunk, the least a stream has.
const IDENTIFIER_SIZE_BYTES: u64 = 10;

/// Decodes a stream.
pub(super) struct SnappyStream<R: BufRead> {
    decoder: snap::read::FrameDecoder<Counted<R>>,
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
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.decoder.get_mut().inner
    }
}

impl<R: BufRead> Read for SnappyStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer)?;
        let is_at_end = count == 0 && !buffer.is_empty();
        if is_at_end && self.decoder.get_ref().read_bytes <= IDENTIFIER_SIZE_BYTES {
            let detail = "there is no chunk behind the stream identifier";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        }
        Ok(count)
    }
}
