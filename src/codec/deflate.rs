//! gzip by libdeflate, which compresses whole buffers: a member (RFC 1952, 2.2) for every piece of the source.
//! A file of several members is read as one by every gzip reader.

use std::io::Write;

use libdeflater::{CompressionLvl, Compressor};

use super::compress::failed;
use super::error::CodecError;
use super::flow::{Sink, Source};
use super::level::DeflateSetting;

/// What one member holds at most, if there is memory for two of that. Each member begins with an empty 32 KiB window,
/// which costs 0.01 % here, and 0.1 % of a MiB.
pub(super) const MEMBER_SIZE_BYTES: usize = 8 * 1024 * 1024;

/// Pieces of this size, spread over a member, tell how well it compresses.
const SAMPLE_SIZE_BYTES: usize = 64 * 1024;
const SAMPLE_COUNT: usize = 4;

/// Compressors, and room for one member.
pub(super) struct DeflateScratch {
    /// What most members are written with.
    usual: Compressor,
    by_ratio: Option<ByRatio>,
    output: Vec<u8>,
}

/// For the settings that choose by how well a member compresses.
struct ByRatio {
    sampler: Compressor,
    /// From this ratio on, something compresses well.
    well_compressed_ratio: usize,
    for_well_compressed: Compressor,
    /// Whether every second member is written so, however it compresses.
    and_every_second: bool,
}

impl DeflateScratch {
    pub(super) fn new(setting: DeflateSetting) -> Result<DeflateScratch, CodecError> {
        let (usual, by_ratio) = match setting {
            DeflateSetting::Level(level) => (compressor(level)?, None),
            DeflateSetting::Medium => (compressor(6)?, Some(ByRatio::new(3, 7, true)?)),
            DeflateSetting::High => (compressor(10)?, Some(ByRatio::new(5, 9, false)?)),
        };
        Ok(DeflateScratch {
            usual,
            by_ratio,
            output: Vec::new(),
        })
    }

    /// Writes a member for every time that `input` is full.
    pub(super) fn run(
        &mut self,
        source: &mut Source<'_>,
        sink: &mut Sink<'_>,
        input: &mut [u8],
    ) -> Result<(), CodecError> {
        for number in 0.. {
            let piece = source.next(input)?;
            // An empty source, too, makes a file of one member.
            if piece.is_empty() && number > 0 {
                break;
            }
            self.write_member(piece, number, sink)?;
        }
        Ok(())
    }

    fn write_member(
        &mut self,
        piece: &[u8],
        number: usize,
        sink: &mut Sink<'_>,
    ) -> Result<(), CodecError> {
        let bound_bytes = self.usual.gzip_compress_bound(piece.len());
        if self.output.len() < bound_bytes {
            self.output = vec![0; bound_bytes];
        }
        let compressor = match &mut self.by_ratio {
            Some(by_ratio) => match by_ratio.applies(piece, number, &mut self.output)? {
                true => &mut by_ratio.for_well_compressed,
                false => &mut self.usual,
            },
            None => &mut self.usual,
        };
        let size_bytes = compressor
            .gzip_compress(piece, &mut self.output)
            .map_err(|error| failed("gzip", error))?;
        sink.write_all(super::flow::head(&self.output, size_bytes))
            .map_err(|error| failed("gzip", error))
    }
}

impl ByRatio {
    fn new(
        well_compressed_ratio: usize,
        level: i32,
        and_every_second: bool,
    ) -> Result<ByRatio, CodecError> {
        let (sampler, for_well_compressed) = (compressor(1)?, compressor(level)?);
        Ok(ByRatio {
            sampler,
            well_compressed_ratio,
            for_well_compressed,
            and_every_second,
        })
    }

    fn applies(
        &mut self,
        piece: &[u8],
        number: usize,
        output: &mut [u8],
    ) -> Result<bool, CodecError> {
        if self.and_every_second && number % 2 == 1 {
            return Ok(true);
        }
        let distance_bytes = (piece.len() / SAMPLE_COUNT).max(SAMPLE_SIZE_BYTES);
        let (mut read_bytes, mut written_bytes) = (0, 0);
        for stretch in piece.chunks(distance_bytes) {
            let sample = super::flow::head(stretch, SAMPLE_SIZE_BYTES);
            read_bytes += sample.len();
            written_bytes += self
                .sampler
                .gzip_compress(sample, output)
                .map_err(|error| failed("gzip", error))?;
        }
        Ok(read_bytes > self.well_compressed_ratio * written_bytes)
    }
}

fn compressor(level: i32) -> Result<Compressor, CodecError> {
    let level = CompressionLvl::new(level)
        .map_err(|_| failed("gzip", format!("libdeflate has no level {level}")))?;
    Ok(Compressor::new(level))
}
