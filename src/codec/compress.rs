//! In-process compression: reads a source to its end and writes one complete stream.

use std::io::{BufWriter, Read, Write};
use std::sync::{Mutex, PoisonError};

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::error::CodecError;
use super::flow::{Broken, Sink, Source, flush_all};
use super::level::Setting;

/// How much is read, and handed to a codec, at a time.
const INPUT_SIZE_BYTES: usize = 1024 * 1024;

/// Codecs that write in small pieces get this buffer between them and the sink.
const OUTPUT_SIZE_BYTES: usize = 256 * 1024;

/// Buffers and contexts that are expensive to set up and are used again for the next file.
#[derive(Default)]
pub(super) struct ScratchPool(Mutex<Vec<Scratch>>);

/// What one run needs; as many exist as runs went on at the same time.
struct Scratch {
    input: Vec<u8>,
    zstd: Option<ZstdScratch>,
}

struct ZstdScratch {
    context: CCtx<'static>,
    output: Vec<u8>,
}

impl ScratchPool {
    fn take(&self) -> Scratch {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.pop().unwrap_or_else(|| Scratch {
            input: vec![0; INPUT_SIZE_BYTES],
            zstd: None,
        })
    }

    fn give_back(&self, scratch: Scratch) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push(scratch);
    }
}

/// Reads `source` to its end and writes it to `sink`, compressed as `setting` says; `None` copies it.
pub(super) fn compress(
    setting: Option<&Setting>,
    source: &mut (dyn Read + Send),
    source_size_bytes: u64,
    sink: &mut (dyn Write + Send),
    pool: &ScratchPool,
) -> Result<(), CodecError> {
    let mut scratch = pool.take();
    let broken = Broken::default();
    let mut source = Source::new(source, source_size_bytes, &broken);
    let mut guarded = Sink::new(sink, &broken);
    let result = run(setting, &mut source, &mut guarded, &mut scratch);
    guarded.conclude(result)?;
    flush_all(sink)?;
    // A context that failed half-way is not used again.
    pool.give_back(scratch);
    Ok(())
}

fn run(
    setting: Option<&Setting>,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    scratch: &mut Scratch,
) -> Result<(), CodecError> {
    let input = scratch.input.as_mut_slice();
    match setting {
        Some(Setting::Gzip { level }) => gzip(*level, source, sink, input),
        Some(Setting::Bzip2 { level }) => bzip2(*level, source, sink, input),
        Some(Setting::Xz(setting)) => {
            let stream = setting
                .stream(source.expected_bytes())
                .map_err(|error| failed("xz", error))?;
            let mut encoder = xz2::write::XzEncoder::new_stream(buffered(sink), stream);
            feed("xz", source, input, &mut encoder)?;
            let inner = encoder.finish().map_err(|error| failed("xz", error))?;
            finish_buffer("xz", inner)
        }
        Some(Setting::Zstd { level }) => {
            let zstd = match &mut scratch.zstd {
                Some(zstd) => zstd,
                none => none.insert(ZstdScratch::new(*level)?),
            };
            zstd.run(source, sink, input)
        }
        Some(Setting::Lz4 { level: 0 | 1 }) => lz4_fast(source, sink, input),
        Some(Setting::Lz4 { level }) => lz4_high(*level, source, sink, input),
        Some(Setting::Snappy) => snappy(source, sink, input),
        // External commands; they get the bytes as they are.
        Some(Setting::Pigz { .. } | Setting::Custom) | None => feed("none", source, input, sink),
    }
}

/// RFC 1952. No file name and no time, so that equal sources give equal files.
fn gzip(
    level: u32,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    let level = flate2::Compression::new(level);
    let mut encoder = flate2::GzBuilder::new().write(buffered(sink), level);
    feed("gzip", source, input, &mut encoder)?;
    let inner = encoder.finish().map_err(|error| failed("gzip", error))?;
    finish_buffer("gzip", inner)
}

fn bzip2(
    level: u32,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    let level = bzip2::Compression::new(level);
    let mut encoder = bzip2::write::BzEncoder::new(buffered(sink), level);
    feed("bzip2", source, input, &mut encoder)?;
    let inner = encoder.finish().map_err(|error| failed("bzip2", error))?;
    finish_buffer("bzip2", inner)
}

/// LZ4 frame format, by the pure Rust encoder, which has the fast level only.
fn lz4_fast(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new()
        .block_size(BlockSize::Max64KB)
        .block_mode(BlockMode::Linked)
        .content_checksum(true)
        .content_size(Some(source.expected_bytes()));
    let mut encoder = FrameEncoder::with_frame_info(info, buffered(sink));
    feed("lz4", source, input, &mut encoder)?;
    let inner = encoder.finish().map_err(|error| failed("lz4", error))?;
    finish_buffer("lz4", inner)
}

/// LZ4 frame format, by liblz4, for the levels that search longer.
fn lz4_high(
    level: u32,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    let mut encoder = lz4::EncoderBuilder::new()
        .level(level)
        .block_size(lz4::BlockSize::Max4MB)
        .block_mode(lz4::BlockMode::Linked)
        .block_checksum(lz4::liblz4::BlockChecksum::NoBlockChecksum)
        .checksum(lz4::ContentChecksum::ChecksumEnabled)
        .content_size(source.expected_bytes())
        .build(buffered(sink))
        .map_err(|error| failed("lz4", error))?;
    feed("lz4", source, input, &mut encoder)?;
    let (inner, result) = encoder.finish();
    result.map_err(|error| failed("lz4", error))?;
    finish_buffer("lz4", inner)
}

/// Snappy framing format. It has no end mark, so an empty source gets one empty chunk: a stream identifier
/// alone is then always a file that was cut.
fn snappy(
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    const EMPTY_STREAM: &[u8] = b"\xff\x06\x00\x00sNaPpY\x01\x04\x00\x00\xd8\xea\x82\xa2";
    let is_empty = source.expected_bytes() == 0;
    let mut encoder = snap::write::FrameEncoder::new(buffered(sink));
    feed("snappy", source, input, &mut encoder)?;
    let mut inner = encoder
        .into_inner()
        .map_err(|error| failed("snappy", error.error()))?;
    if is_empty {
        inner
            .write_all(EMPTY_STREAM)
            .map_err(|error| failed("snappy", error))?;
    }
    finish_buffer("snappy", inner)
}

impl ZstdScratch {
    fn new(level: i32) -> Result<ZstdScratch, CodecError> {
        let mut context = CCtx::try_create().ok_or_else(|| failed("zstd", "out of memory"))?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).map_err(zstd_failed)?;
        }
        Ok(ZstdScratch {
            context,
            output: Vec::with_capacity(zstd_safe::compress_bound(INPUT_SIZE_BYTES)),
        })
    }

    /// RFC 8878: one frame that carries the size of its content.
    fn run(
        &mut self,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        input: &mut [u8],
    ) -> Result<(), CodecError> {
        self.context
            .reset(ResetDirective::SessionOnly)
            .map_err(zstd_failed)?;
        self.context
            .set_pledged_src_size(Some(source.expected_bytes()))
            .map_err(zstd_failed)?;
        loop {
            let piece = source.next(input)?;
            // Told with the last piece that it is the last, zstd need not finish the frame in another call.
            let is_last = source.is_complete();
            self.compress_piece(piece, is_last, sink)?;
            if is_last {
                return source.next(input).map(drop);
            }
        }
    }

    fn compress_piece(
        &mut self,
        piece: &[u8],
        is_last: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), CodecError> {
        let directive = match is_last {
            true => ZSTD_EndDirective::ZSTD_e_end,
            false => ZSTD_EndDirective::ZSTD_e_continue,
        };
        let mut piece = InBuffer::around(piece);
        loop {
            let mut output = OutBuffer::around(&mut self.output);
            let unflushed_bytes = self
                .context
                .compress_stream2(&mut output, &mut piece, directive)
                .map_err(zstd_failed)?;
            sink.write_all(output.as_slice())
                .map_err(|error| failed("zstd", error))?;
            let is_done = match is_last {
                true => unflushed_bytes == 0,
                false => piece.pos() == piece.src.len(),
            };
            if is_done {
                return Ok(());
            }
        }
    }
}

/// Hands the whole source to an encoder.
fn feed(
    codec: &'static str,
    source: &mut Source<'_>,
    input: &mut [u8],
    encoder: &mut dyn Write,
) -> Result<(), CodecError> {
    loop {
        let piece = source.next(input)?;
        if piece.is_empty() {
            return Ok(());
        }
        encoder
            .write_all(piece)
            .map_err(|error| failed(codec, error))?;
    }
}

fn buffered<'a, 'b>(sink: &'a mut Sink<'b>) -> BufWriter<&'a mut Sink<'b>> {
    BufWriter::with_capacity(OUTPUT_SIZE_BYTES, sink)
}

fn finish_buffer(
    codec: &'static str,
    mut buffer: BufWriter<&mut Sink<'_>>,
) -> Result<(), CodecError> {
    buffer.flush().map_err(|error| failed(codec, error))
}

/// An encoder's complaint. When a failing sink is behind it, `Sink::conclude` puts the sink's own error in its place.
fn failed(codec: &'static str, error: impl ToString) -> CodecError {
    CodecError::Codec {
        codec,
        detail: error.to_string(),
    }
}

fn zstd_failed(code: usize) -> CodecError {
    failed("zstd", zstd_safe::get_error_name(code))
}
