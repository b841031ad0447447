//! Zstandard (RFC 8878): one frame for each file, with the size and a checksum of its content. That of a segment of the
//! usual size has two parts, which can be decoded at the same time (see `zstd_parts`), if it is compressed in one go.
//!
//! The checksum (4 bytes, XXH64) is what Barman's files lack: without it, altered bytes can decode to other content
//! unnoticed. On WAL it costs less than can be measured here, under 2 % of the time at the fastest level.

use std::io::Write;
use std::mem;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::thread;

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, ResetDirective};

use super::compress::failed;
use super::error::CodecError;
use super::flow::{Sink, Source, head};
use super::level::ZstdSetting;
use super::memory::Memory;
use super::zstd_parts::Seam;

/// Sources up to this size, the usual size of a segment, are compressed in one go where that is fast.
///
/// zstd then finds its matches in our buffer; given piece by piece it first copies everything into a ring of its own,
/// and searches that in two halves. On segments of 16 MiB this saves a tenth of the time. Two threads
/// doing so need 48 MiB.
const WHOLE_SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much is handed over at a time otherwise.
const PIECE_SIZE_BYTES: usize = 1024 * 1024;

/// A lone source that is larger is cut into jobs of this size, which zstd's own threads compress to one frame. Each job
/// sees a quarter of a MiB or more of what comes before it: on WAL the frame is 0.03 % larger than one of a single job.
const JOB_SIZE_BYTES: u32 = 2 * 1024 * 1024;

/// Each thread has its own memory, about 6 MiB.
const THREADS_MAX: u32 = 4;

/// Sources of this size and more become frames of two parts, which `get-wal` decodes on two threads. Half of it is more
/// than the window of every setting that is light, so that the parts have one.
const DIVIDED_SIZE_BYTES_MIN: usize = 8 * 1024 * 1024;

/// Room for what a source becomes in one go. A source that does not shrink to this, such as pages that are
/// compressed already, is compressed piece by piece after all.
const OUTPUT_SIZE_BYTES: usize = 8 * 1024 * 1024;

impl ZstdSetting {
    /// How much of a source of `whole_size_bytes` to read at a time.
    pub(super) fn input_size_bytes(self, whole_size_bytes: usize) -> usize {
        match self.is_light() && whole_size_bytes <= WHOLE_SIZE_BYTES_MAX {
            true => whole_size_bytes.max(PIECE_SIZE_BYTES),
            false => PIECE_SIZE_BYTES,
        }
    }

    /// What to set for so many threads: 0 workers are the caller's own thread. A hard search looks further back than
    /// jobs can, and would find less.
    fn workers(self, threads: NonZeroUsize) -> u32 {
        match threads.get() {
            2.. if self.is_light() => u32::try_from(threads.get())
                .unwrap_or(THREADS_MAX)
                .min(THREADS_MAX),
            _ => 0,
        }
    }
}

/// Pieces of this size, spread over what is in memory, tell whether it will shrink enough. Trying them takes half a
/// percent of the time that the source itself takes.
const SAMPLE_SIZE_BYTES: usize = 16 * 1024;
const SAMPLE_COUNT: usize = 4;

/// A context, and room for what it writes.
pub(super) struct ZstdScratch {
    setting: ZstdSetting,
    context: CCtx<'static>,
    workers: u32,
    /// For what is compressed in one go, where the sink has no room for it.
    output: Vec<u8>,
    /// For what is compressed piece by piece, which then does not fill the memory above as well.
    output_piece: Vec<u8>,
}

impl ZstdScratch {
    pub(super) fn new(setting: ZstdSetting) -> Result<ZstdScratch, CodecError> {
        let context = CCtx::try_create().ok_or_else(|| failed("zstd", "out of memory"))?;
        let mut scratch = ZstdScratch {
            setting,
            context,
            workers: 0,
            output: Vec::new(),
            output_piece: Vec::with_capacity(CCtx::out_size()),
        };
        scratch.set([
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(true),
        ])?;
        scratch.set(setting.parameters())?;
        Ok(scratch)
    }

    /// Sets what holds for the next frame on.
    fn set(&mut self, parameters: impl IntoIterator<Item = CParameter>) -> Result<(), CodecError> {
        self.give_up_frame()?;
        for parameter in parameters {
            self.context.set_parameter(parameter).map_err(zstd_failed)?;
        }
        Ok(())
    }

    /// Ends a frame for which there was not enough room. Until then zstd refuses most of what is set.
    fn give_up_frame(&mut self) -> Result<(), CodecError> {
        let reset = self.context.reset(ResetDirective::SessionOnly);
        reset.map(drop).map_err(zstd_failed)
    }

    /// Chooses how many threads zstd itself has for the next frame.
    fn employ(&mut self, workers: u32) -> Result<(), CodecError> {
        if workers != self.workers {
            self.set([
                CParameter::NbWorkers(workers),
                CParameter::JobSize(JOB_SIZE_BYTES),
            ])?;
            self.workers = workers;
        }
        Ok(())
    }

    pub(super) fn run(
        &mut self,
        threads: NonZeroUsize,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        input: &mut [u8],
    ) -> Result<(), CodecError> {
        let first = source.next(input)?;
        if source.is_complete() {
            self.employ(0)?;
            if self.will_fit(first)? && self.compress_whole(first, threads, sink)? {
                return source.next(input).map(drop);
            }
        }
        self.employ(self.setting.workers(threads))?;
        // It may have been too much for one go.
        self.give_up_frame()?;
        self.context
            .set_pledged_src_size(Some(source.expected_bytes()))
            .map_err(zstd_failed)?;
        // Told with the last piece that it is the last, zstd need not finish the frame in another call.
        let mut is_last = source.is_complete();
        self.compress_piece(first, is_last, sink)?;
        while !is_last {
            let piece = source.next(input)?;
            is_last = source.is_complete();
            self.compress_piece(piece, is_last, sink)?;
        }
        source.next(input).map(drop)
    }

    /// Whether there is room for what the content will become, as far as samples can tell.
    fn will_fit(&mut self, content: &[u8]) -> Result<bool, CodecError> {
        if content.len() < OUTPUT_SIZE_BYTES {
            return Ok(true);
        }
        let distance_bytes = (content.len() / SAMPLE_COUNT).max(SAMPLE_SIZE_BYTES);
        let (mut read_bytes, mut written_bytes) = (0, 0);
        for stretch in content.chunks(distance_bytes) {
            let sample = head(stretch, SAMPLE_SIZE_BYTES);
            read_bytes += sample.len();
            written_bytes += self
                .context
                .compress2(&mut self.output_piece, sample)
                .map_err(zstd_failed)?;
        }
        Ok(content.len() / read_bytes.max(1) * written_bytes <= OUTPUT_SIZE_BYTES)
    }

    /// False when the output does not fit; nothing was written then.
    fn compress_whole(
        &mut self,
        content: &[u8],
        threads: NonZeroUsize,
        sink: &mut Sink<'_>,
    ) -> Result<bool, CodecError> {
        if let Some(room) = sink.room(OUTPUT_SIZE_BYTES) {
            let compressed = self.compress_into(room, content, threads)?;
            return Ok(compressed.map(|size_bytes| sink.fill(size_bytes)).is_some());
        }
        let mut output = mem::take(&mut self.output);
        if output.is_empty() {
            output = vec![0; OUTPUT_SIZE_BYTES];
        }
        let compressed = self.compress_into(&mut output, content, threads)?;
        if let Some(size_bytes) = compressed {
            sink.write_all(head(&output, size_bytes))
                .map_err(|error| failed("zstd", error))?;
        }
        self.output = output;
        Ok(compressed.is_some())
    }

    /// One frame, in two parts if the content is worth it. `None` when there is not enough room.
    fn compress_into(
        &mut self,
        room: &mut [u8],
        content: &[u8],
        threads: NonZeroUsize,
    ) -> Result<Option<usize>, CodecError> {
        let Some(seam) = self.seam(content) else {
            // An error that is not about room comes back when the content is compressed piece by piece.
            return Ok(self.context.compress2(room, content).ok());
        };
        self.set([CParameter::ChecksumFlag(false)])?;
        let joined = match threads.get() {
            1 => self.compress_parts(&seam, room, content),
            _ => self.compress_parts_at_once(&seam, room, content),
        };
        self.set([CParameter::ChecksumFlag(true)])?;
        Ok(joined)
    }

    fn compress_parts(&mut self, seam: &Seam, room: &mut [u8], content: &[u8]) -> Option<usize> {
        let (first, second) = seam.parts(content);
        let first_bytes = self.context.compress2(room, first).ok()?;
        seam.join(content, room, first_bytes, |room| {
            self.context.compress2(room, second).ok()
        })
    }

    /// The same on two threads, to the same bytes; on one where the system has no second one to give.
    fn compress_parts_at_once(
        &mut self,
        seam: &Seam,
        room: &mut [u8],
        content: &[u8],
    ) -> Option<usize> {
        let (first, second) = seam.parts(content);
        let Some((mut other, mut output)) = self.for_another_thread() else {
            return self.compress_parts(seam, room, content);
        };
        let context = &mut self.context;
        let compressed = thread::scope(|scope| {
            let compressing = thread::Builder::new().spawn_scoped(scope, || {
                other.context.compress2(&mut output[..], second).ok()
            });
            let compressing = compressing.ok()?;
            let first_bytes = context.compress2(room, first).ok();
            let second_bytes = compressing.join();
            Some((
                first_bytes,
                second_bytes.unwrap_or_else(|panic| resume_unwind(panic)),
            ))
        });
        let Some((first_bytes, second_bytes)) = compressed else {
            return self.compress_parts(seam, room, content);
        };
        let second_bytes = second_bytes?;
        seam.join(content, room, first_bytes?, |room| {
            let frame = head(&output, second_bytes);
            room.get_mut(..second_bytes)?.copy_from_slice(frame);
            Some(second_bytes)
        })
    }

    /// What it takes to compress a part beside this one.
    fn for_another_thread(&self) -> Option<(ZstdScratch, Memory)> {
        let mut other = ZstdScratch::new(self.setting).ok()?;
        other.set([CParameter::ChecksumFlag(false)]).ok()?;
        Some((other, Memory::new(OUTPUT_SIZE_BYTES).ok()?))
    }

    /// For content that is worth to be decoded on two threads.
    fn seam(&self, content: &[u8]) -> Option<Seam> {
        let is_worth_it = content.len() >= DIVIDED_SIZE_BYTES_MIN;
        is_worth_it.then(|| Seam::find(content)).flatten()
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
            let mut output = OutBuffer::around(&mut self.output_piece);
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

fn zstd_failed(code: usize) -> CodecError {
    failed("zstd", zstd_safe::get_error_name(code))
}
