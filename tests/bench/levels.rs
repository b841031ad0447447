//! Measures what low, medium and high mean, against the real Barman on the same files.
//!
//! ```text
//! WALARCH_BARMAN_VENV=... cargo bench --bench levels -- DIRECTORY [--codecs zstd,gzip] [--files 4] [--rounds 5] [--threads 1]
//! ```
//!
//! `DIRECTORY` holds one directory for each kind of WAL, each with segments in it. Every measurement reads files and
//! writes one file, and is taken alternately on both sides, `--rounds` times; the table has the medians of the CPU
//! time; `--threads` is how many our side may use for a file. Without a Python that has Barman it shows our side only.

// The table is what this program is for.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use walarch::codec::{CodecOptions, Encoder, Roomless};
use walarch::config::{Compression, CompressionLevel};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORDS: [(&str, CompressionLevel); 3] = [
    ("low", CompressionLevel::Low),
    ("medium", CompressionLevel::Medium),
    ("high", CompressionLevel::High),
];

struct Arguments {
    directory: PathBuf,
    codecs: Vec<Compression>,
    files_per_kind: usize,
    rounds: usize,
    threads: NonZeroUsize,
}

impl Arguments {
    fn parse() -> Result<Arguments> {
        let mut parsed = Arguments {
            directory: PathBuf::new(),
            codecs: Compression::ALL
                .into_iter()
                .filter(|codec| !matches!(codec.name(), "custom" | "pygzip" | "pybzip2"))
                .collect(),
            files_per_kind: 3,
            rounds: 3,
            threads: NonZeroUsize::MIN,
        };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--codecs" => {
                    parsed.codecs = value()?
                        .split(',')
                        .map(|name| name.parse().map_err(|()| format!("no codec {name}")))
                        .collect::<std::result::Result<_, _>>()?;
                }
                "--files" => parsed.files_per_kind = value()?.parse()?,
                "--rounds" => parsed.rounds = value()?.parse()?,
                "--threads" => parsed.threads = value()?.parse()?,
                _ => parsed.directory = PathBuf::from(word),
            }
        }
        Ok(parsed)
    }
}

/// CPU seconds and total size in bytes of the stored files.
#[derive(Clone, Copy)]
struct Measurement(f64, u64);

/// CPU time of this process and of the commands it waited for.
fn cpu_seconds() -> Result<f64> {
    let own = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |whole: i64, micros: i64| whole as f64 + micros as f64 * 1e-6;
    let (user, system) = (children.user_time(), children.system_time());
    Ok(own.tv_sec() as f64
        + own.tv_nsec() as f64 * 1e-9
        + seconds(user.tv_sec(), user.tv_usec())
        + seconds(system.tv_sec(), system.tv_usec()))
}

fn ours(
    encoder: &Encoder,
    threads: NonZeroUsize,
    output: &Path,
    files: &[PathBuf],
) -> Result<Measurement> {
    let mut stored_bytes = 0;
    let started = cpu_seconds()?;
    for name in files {
        let mut source = File::open(name)?;
        let size_bytes = source.metadata()?.len();
        let mut sink = File::create(output)?;
        encoder.encode_on_threads(
            threads,
            &mut source,
            size_bytes,
            None,
            &mut Roomless(&mut sink),
        )?;
        stored_bytes += sink.metadata()?.len();
    }
    Ok(Measurement(cpu_seconds()? - started, stored_bytes))
}

/// A Python that answers for Barman.
struct Barman {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Barman {
    fn start() -> Result<Option<Barman>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = std::env::var_os("WALARCH_BARMAN_VENV")
            .map_or(root.join("target/barman-venv"), PathBuf::from)
            .join("bin/python");
        if !python.exists() {
            return Ok(None);
        }
        let mut child = Command::new(python)
            .arg(root.join("tests/bench/barman_levels.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = child.stdin.take().ok_or("no pipe")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Some(Barman {
            child,
            questions,
            answers,
        }))
    }

    fn measure(
        &mut self,
        codec: Compression,
        word: &str,
        output: &Path,
        files: &[PathBuf],
    ) -> Result<Option<Measurement>> {
        write!(self.questions, "{codec}\t{word}\t{}", output.display())?;
        for name in files {
            write!(self.questions, "\t{}", name.display())?;
        }
        writeln!(self.questions)?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim().split_once(' ') {
            Some((seconds, bytes)) => Ok(Some(Measurement(seconds.parse()?, bytes.parse()?))),
            None => Ok(None),
        }
    }
}

impl Drop for Barman {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(measurements: &mut [Measurement]) -> Option<Measurement> {
    measurements.sort_by(|a, b| a.0.total_cmp(&b.0));
    measurements.get(measurements.len() / 2).copied()
}

fn sorted_entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// At most `limit` files, spread over the directory.
fn some_files(directory: &Path, limit: usize) -> Result<Vec<PathBuf>> {
    let files = sorted_entries(directory)?;
    let step = files.len().div_ceil(limit.max(1)).max(1);
    Ok(files.into_iter().step_by(step).collect())
}

fn print_row(label: &str, source_bytes: u64, ours: Measurement, theirs: Option<Measurement>) {
    let speed = |m: Measurement| source_bytes as f64 * 1e-6 / m.0;
    let ratio = |m: Measurement| source_bytes as f64 / m.1 as f64;
    match theirs {
        Some(theirs) => println!(
            "| {label} | {:.1} | {:.1} | {:.2} | {:.3} | {:.3} | {:+.2} % |",
            speed(ours),
            speed(theirs),
            theirs.0 / ours.0,
            ratio(ours),
            ratio(theirs),
            (ours.1 as f64 / theirs.1 as f64 - 1.0) * 100.0
        ),
        None => println!(
            "| {label} | {:.1} | | | {:.3} | | |",
            speed(ours),
            ratio(ours)
        ),
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse()?;
    if arguments.directory.as_os_str().is_empty() {
        // `cargo test --benches` and the like come here.
        println!(
            "usage: cargo bench --bench levels -- DIRECTORY [--codecs A,B] [--files N] [--rounds N] \
             [--threads N]"
        );
        return Ok(());
    }
    let mut barman = Barman::start()?;
    let scratch = match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm")?,
        false => tempfile::tempdir()?,
    };
    let (our_output, their_output) = (scratch.path().join("ours"), scratch.path().join("theirs"));
    println!(
        "| codec, level, WAL | MB/s | Barman MB/s | faster by | ratio | Barman ratio | size |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for &codec in &arguments.codecs {
        for (word, level) in WORDS {
            let encoder = Encoder::with_options(&CodecOptions {
                compression: Some(codec),
                compression_level: level,
                ..CodecOptions::default()
            })?;
            for kind in sorted_entries(&arguments.directory)? {
                let files = some_files(&kind, arguments.files_per_kind)?;
                let mut source_bytes = 0;
                for file in &files {
                    source_bytes += fs::metadata(file)?.len();
                }
                let (mut our_runs, mut their_runs) = (Vec::new(), Vec::new());
                // The first round warms caches and buffers, and is not counted.
                for round in 0..=arguments.rounds {
                    let our_run = ours(&encoder, arguments.threads, &our_output, &files)?;
                    let their_run = match &mut barman {
                        Some(barman) => barman.measure(codec, word, &their_output, &files)?,
                        None => None,
                    };
                    if round > 0 || arguments.rounds == 0 {
                        our_runs.push(our_run);
                        their_runs.extend(their_run);
                    }
                }
                let name = kind
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let label = format!("{codec}, {word}, {name}");
                if let Some(ours) = median(&mut our_runs) {
                    print_row(&label, source_bytes, ours, median(&mut their_runs));
                }
            }
            if codec == Compression::Snappy {
                break;
            }
        }
    }
    Ok(())
}
