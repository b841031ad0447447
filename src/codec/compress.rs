//! In-process compression: reads a source to its end and writes one complete stream.

use std::io::{BufWriter, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use super::deflate::{DeflateScratch, MEMBER_SIZE_BYTES};
use super::error::CodecError;
use super::flow::{Broken, Output, Sink, Source, flush_all};
use super::level::{Setting, XzSetting};
use super::memory::Memory;
use super::zstd_frame::ZstdScratch;

/// How much is read, and handed to a codec, at a time, unless the codec is faster with more.
const INPUT_SIZE_BYTES: usize = 1024 * 1024;

/// Codecs that write in small pieces get this buffer between them and the sink.
const OUTPUT_SIZE_BYTES: usize = 256 * 1024;

/// So many runs at a time may hold a whole segment in memory; with more workers the others go piece by piece.
const WHOLE_SEGMENTS_MAX: usize = 2;

/// Buffers and contexts that are expensive to set up and are used again for the next file.
pub(super) struct ScratchPool {
    shelf: Mutex<Shelf>,
    whole_segments_max: usize,
    member_size_bytes: usize,
}

#[derive(Default)]
struct Shelf {
    idle: Vec<Scratch>,
    made: usize,
}

/// What one run needs; as many exist as runs went on at the same time.
#[derive(Default)]
struct Scratch {
    may_hold_segment: bool,
    member_size_bytes: usize,
    input: Option<Memory>,
    zstd: Option<ZstdScratch>,
    deflate: Option<DeflateScratch>,
}

impl ScratchPool {
    pub(super) fn ample() -> Self {
        ScratchPool {
            shelf: Mutex::default(),
            whole_segments_max: WHOLE_SEGMENTS_MAX,
            member_size_bytes: MEMBER_SIZE_BYTES,
        }
    }

    /// One in which every run goes piece by piece.
    pub(super) fn scarce() -> Self {
        ScratchPool {
            shelf: Mutex::default(),
            whole_segments_max: 0,
            member_size_bytes: INPUT_SIZE_BYTES,
        }
    }

    fn take(&self) -> Scratch {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(idle) = shelf.idle.pop() {
            return idle;
        }
        shelf.made += 1;
        Scratch {
            may_hold_segment: shelf.made <= self.whole_segments_max,
            member_size_bytes: self.member_size_bytes,
            ..Scratch::default()
        }
    }

    fn give_back(&self, scratch: Scratch) {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.idle.push(scratch);
    }
}

/// Room for the next piece of the source, at least `size_bytes` long. That for a whole segment is filled faster than small
/// pages are found for it.
fn room(input: &mut Option<Memory>, size_bytes: usize) -> Result<&mut [u8], CodecError> {
    let roomy = input.take().filter(|room| room.len() >= size_bytes);
    let room = match roomy {
        Some(room) => room,
        None => Memory::new(size_bytes).map_err(|error| failed("the compressor", error))?,
    };
    Ok(input.insert(room))
}

/// Reads `source` to its end and writes it to `sink`, compressed as `setting` says; `None` copies it.
pub(super) fn compress(
    setting: Option<&Setting>,
    threads: NonZeroUsize,
    source: &mut (dyn Read + Send),
    source_size_bytes: u64,
    sink: &mut dyn Output,
    pool: &ScratchPool,
) -> Result<(), CodecError> {
    let mut scratch = pool.take();
    let broken = Broken::default();
    let mut source = Source::new(source, source_size_bytes, &broken);
    let mut guarded = Sink::new(sink, &broken);
    let result = run(setting, threads, &mut source, &mut guarded, &mut scratch);
    pool.give_back(scratch);
    guarded.conclude(result)?;
    flush_all(sink)
}

fn run(
    setting: Option<&Setting>,
    threads: NonZeroUsize,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    scratch: &mut Scratch,
) -> Result<(), CodecError> {
    let whole_size_bytes = usize::try_from(source.expected_bytes()).unwrap_or(usize::MAX);
    let input_size_bytes = match setting {
        Some(Setting::Zstd(setting)) if scratch.may_hold_segment => {
            setting.input_size_bytes(whole_size_bytes)
        }
        // One byte more shows in the same read that the source has ended.
        Some(Setting::Deflate(_)) => whole_size_bytes
            .saturating_add(1)
            .min(scratch.member_size_bytes),
        _ => INPUT_SIZE_BYTES,
    };
    let input = room(&mut scratch.input, input_size_bytes)?;
    match setting {
        Some(Setting::Deflate(setting)) => {
            let deflate = match &mut scratch.deflate {
                Some(deflate) => deflate,
                none => none.insert(DeflateScratch::new(*setting)?),
            };
            deflate.run(source, sink, input)
        }
        Some(Setting::Zstd(setting)) => {
            let zstd = match &mut scratch.zstd {
                Some(zstd) => zstd,
                none => none.insert(ZstdScratch::new(*setting)?),
            };
            let result = zstd.run(threads, source, sink, input);
            if result.is_err() {
                // Its threads may still be at the file that failed.
                scratch.zstd = None;
            }
            result
        }
        Some(Setting::Gzip { level }) => gzip(*level, source, sink, input),
        Some(Setting::Bzip2 { level }) => bzip2(*level, source, sink, input),
        Some(Setting::Xz(setting)) => xz(setting, source, sink, input),
        Some(Setting::Lz4 { level }) => lz4(*level, source, sink, input),
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

fn xz(
    setting: &XzSetting,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    let stream = setting
        .stream(source.expected_bytes())
        .map_err(|error| failed("xz", error))?;
    let mut encoder = xz2::write::XzEncoder::new_stream(buffered(sink), stream);
    feed("xz", source, input, &mut encoder)?;
    let inner = encoder.finish().map_err(|error| failed("xz", error))?;
    finish_buffer("xz", inner)
}

/// LZ4 frame format, by liblz4: at the fast level, too, it is smaller and faster than `lz4_flex`.
///
/// Blocks refer to the ones before. With blocks as large as our pieces liblz4 compresses right from our buffer; 1 MiB
/// is 14 % faster than 4 MiB blocks, and no larger.
fn lz4(
    level: u32,
    source: &mut Source<'_>,
    sink: &mut Sink<'_>,
    input: &mut [u8],
) -> Result<(), CodecError> {
    let mut encoder = lz4::EncoderBuilder::new()
        .level(level)
        .block_size(lz4::BlockSize::Max1MB)
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
pub(super) fn failed(codec: &'static str, error: impl ToString) -> CodecError {
    CodecError::Codec {
        codec,
        detail: error.to_string(),
    }
}
