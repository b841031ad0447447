//! How much of the CPU time of a run is compression.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::home::{Home, Tool};
use crate::probe;
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result};

type Parameters = [CParameter; 5];

/// What walarch's `medium` is for zstd, one or the other for each file: see `codec::level`.
const MEDIUM: [Parameters; 2] = [
    [
        CParameter::CompressionLevel(1),
        CParameter::MinMatch(0),
        CParameter::HashLog(0),
        CParameter::WindowLog(21),
        CParameter::MaxBlockSize(0),
    ],
    [
        CParameter::CompressionLevel(1),
        CParameter::MinMatch(5),
        CParameter::HashLog(15),
        CParameter::WindowLog(22),
        CParameter::MaxBlockSize(64 * 1024),
    ],
];

/// A segment in memory, and what walarch compressed it with.
struct Segment {
    content: Vec<u8>,
    parameters: Parameters,
}

/// The other side compresses the same bytes to the same bytes, checksum included, on as many threads, which
/// share the processor's caches as walarch's do; all that it lacks is reading, storing and keeping safe.
pub(crate) fn cpu(bench: &Bench) -> Result<Vec<Row>> {
    let segments = in_memory(bench)?;
    let pairs = Pairs::collect(
        bench.runs,
        |_| {
            let home = Home::create(bench.path("cpu"), &["compression = zstd"])?;
            home.receive(&bench.corpus.segments)?;
            let cost = home.archive(bench, Tool::Walarch, None)?;
            home.expect_stored(segments.len())?;
            Ok(cost.cpu_s)
        },
        |_| compress(&segments),
    )?;
    Ok(vec![Row::new(
        format!(
            "CPU time of {} segments, zstd, against compressing them in memory",
            segments.len()
        ),
        seconds(pairs.walarch()),
        seconds(pairs.other()),
        pairs.inverse(),
        "at most 1.25",
    )])
}

/// Archives everything once, and finds out by the sizes which parameters were chosen.
fn in_memory(bench: &Bench) -> Result<Vec<Segment>> {
    let home = Home::create(bench.path("cpu"), &["compression = zstd"])?;
    home.receive(&bench.corpus.segments)?;
    home.archive(bench, Tool::Walarch, None)?;
    let mut segments = Vec::new();
    for path in &bench.corpus.segments {
        let content = fs::read(path)?;
        let stored = fs::metadata(home.stored_path(path)?)?.len();
        let mut nearest = (u64::MAX, MEDIUM[0]);
        for parameters in MEDIUM {
            let size_bytes = compressor(parameters)?.compress(&content)?.len() as u64;
            let distance = size_bytes.abs_diff(stored);
            if distance < nearest.0 {
                nearest = (distance, parameters);
            }
        }
        segments.push(Segment {
            content,
            parameters: nearest.1,
        });
    }
    Ok(segments)
}

fn compressor(parameters: Parameters) -> Result<Compressor<'static>> {
    let mut compressor = Compressor::new(1)?;
    for parameter in parameters {
        compressor.set_parameter(parameter)?;
    }
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

/// The CPU seconds that a thread for each core takes for all segments.
fn compress(segments: &[Segment]) -> Result<f64> {
    let largest = segments.iter().map(|segment| segment.content.len()).max();
    let room_bytes = compress_bound(largest.unwrap_or_default());
    let next = AtomicUsize::new(0);
    let work = || -> std::io::Result<()> {
        let mut output = vec![0; room_bytes];
        let mut compressor = Compressor::new(1)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
            for parameter in segment.parameters {
                compressor.set_parameter(parameter)?;
            }
            compressor.compress_to_buffer(&segment.content, output.as_mut_slice())?;
        }
        Ok(())
    };
    let start = probe::process_cpu()?;
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    Ok((probe::process_cpu()? - start).as_secs_f64())
}
