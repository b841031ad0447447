//! LZ4 frames one after the other. `lz4_flex` decodes a frame, but takes a file that stops between two blocks
//! for a complete one, and leaves the step to the next frame to its caller; both are made good here.

use std::io::{self, BufRead, Read};

use lz4_flex::frame::FrameDecoder;

/// LZ4 frame format: magic number, frame descriptor flags, block descriptor and header checksum; no frame has less.
const START_SIZE_BYTES: usize = 7;
const FRAME_MAGIC: u32 = 0x184D_2204;
/// Skippable frames use sixteen magic numbers from here on.
const SKIPPABLE_MAGIC: u32 = 0x184D_2A50;

/// Decodes every frame of a file.
pub(super) struct Lz4Frames<R: BufRead> {
    decoder: FrameDecoder<Framed<R>>,
    is_inside_frame: bool,
}

/// Gives back the start of a frame that was looked at, and notices when the decoder runs into the end.
struct Framed<R> {
    start: io::Cursor<Vec<u8>>,
    inner: R,
    /// A decoder that got its end mark asks for nothing beyond it.
    was_asked_at_end: bool,
}

impl<R: BufRead> Read for Framed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.start.read(buffer)?;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let count = self.inner.read(buffer)?;
        self.was_asked_at_end |= count == 0;
        Ok(count)
    }
}

impl<R: BufRead> Lz4Frames<R> {
    pub(super) fn new(inner: R) -> Lz4Frames<R> {
        let framed = Framed {
            start: io::Cursor::new(Vec::new()),
            inner,
            was_asked_at_end: false,
        };
        Lz4Frames {
            decoder: FrameDecoder::new(framed),
            is_inside_frame: false,
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut R {
        &mut self.decoder.get_mut().inner
    }

    /// Goes to the next frame; false at the end of the file.
    fn enter_frame(&mut self) -> io::Result<bool> {
        let framed = self.decoder.get_mut();
        loop {
            if framed.inner.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut start = [0; START_SIZE_BYTES];
            framed.inner.read_exact(&mut start)?;
            let [a, b, c, d, size @ ..] = start;
            match u32::from_le_bytes([a, b, c, d]) {
                FRAME_MAGIC => {
                    framed.start = io::Cursor::new(start.to_vec());
                    self.is_inside_frame = true;
                    return Ok(true);
                }
                magic if magic & !0xF == SKIPPABLE_MAGIC => skip(&mut framed.inner, size)?,
                _ => return Err(io::Error::other("no frame starts where one should")),
            }
        }
    }
}

/// Passes over a skippable frame, of whose four bytes of size three were read already.
fn skip(input: &mut impl BufRead, [a, b, c]: [u8; 3]) -> io::Result<()> {
    let mut last = [0];
    input.read_exact(&mut last)?;
    let [d] = last;
    let size_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    let skipped_bytes = io::copy(&mut input.take(size_bytes), &mut io::sink())?;
    match skipped_bytes == size_bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_inside_frame && !self.enter_frame()? {
                return Ok(0);
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if self.decoder.get_ref().was_asked_at_end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.is_inside_frame = false;
        }
    }
}
