//! How much slower than its decoder `verify-wals` is.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::unistd::sync;

use crate::home::{Home, Tool};
use crate::probe::{self, Cost};
use crate::table::{Pairs, Row, mebibytes, seconds};
use crate::{Bench, Result, WALARCH};

/// Verifies an archive, and decodes the same stored files in memory, on all cores.
pub(crate) fn verify(bench: &Bench) -> Result<Vec<Row>> {
    let segments = &bench.corpus.segments;
    let home = Home::create(bench.path("verify"), &["compression = zstd"])?;
    home.receive(segments)?;
    home.archive(bench, Tool::Walarch, None)?;
    home.expect_stored(segments.len())?;
    let stored = stored_files(&home)?;
    let mut peak_kib = 0;
    let pairs = Pairs::collect(
        bench.runs,
        |_| {
            let cost = run(&home)?;
            peak_kib = peak_kib.max(cost.peak_kib);
            Ok(cost.wall_s)
        },
        |_| decode_all(&stored),
    )?;
    Ok(vec![Row::new(
        format!(
            "verify-wals of {} segments, zstd, against decoding them in memory",
            segments.len()
        ),
        format!("{}, {}", seconds(pairs.walarch()), mebibytes(peak_kib)),
        seconds(pairs.other()),
        pairs.ratio(),
        "at least 0.80, at most 64 MiB",
    )])
}

/// The corpus has gaps between its kinds of WAL, and so the command ends with 1.
const COMMAND: &str = r#""$0" -q -c "$1" verify-wals main 2> "$1.problems" || test $? -eq 1"#;

fn run(home: &Home) -> Result<Cost> {
    let configuration = home.configuration();
    sync();
    let arguments = ["-c", COMMAND, WALARCH].map(Path::new).into_iter();
    let cost = probe::measure("/bin/sh", arguments.chain([&*configuration]))?;
    let problems = fs::read_to_string(format!("{}.problems", configuration.display()))?;
    match problems
        .lines()
        .find(|line| !line.contains(" missing between "))
    {
        Some(other) => Err(other.into()),
        None => Ok(cost),
    }
}

fn stored_files(home: &Home) -> Result<Vec<Vec<u8>>> {
    let mut stored = Vec::new();
    for directory in fs::read_dir(home.wals())? {
        let directory = directory?.path();
        if directory.is_dir() {
            for entry in fs::read_dir(directory)? {
                stored.push(fs::read(entry?.path())?);
            }
        }
    }
    Ok(stored)
}

/// How long all cores take, in seconds.
fn decode_all(stored: &[Vec<u8>]) -> Result<f64> {
    let cores = thread::available_parallelism()?.get();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let decode = || -> Result<()> {
            let mut buffer = vec![0; 256 << 10];
            while let Some(bytes) = stored.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.as_slice())?;
                while decoder.read(&mut buffer)? > 0 {}
            }
            Ok(())
        };
        let threads: Vec<_> = (0..cores)
            .map(|_| scope.spawn(move || decode().map_err(|error| error.to_string())))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread has panicked")??;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    Ok(start.elapsed().as_secs_f64())
}
