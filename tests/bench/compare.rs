//! Pairs walarch with the real Barman and pgBackRest on the same real segments, in one run, and
//! prints a table of ratios next to the goals of the project. It measures; it judges nothing.
//!
//! ```text
//! cargo bench --bench compare                            # everything, 7 runs
//! cargo bench --bench compare -- --runs 3 zstd gzip      # two rows, 3 runs
//! ```
//!
//! Barman's virtual environment is `$WALARCH_BARMAN_VENV`, else `target/barman-venv`. The segments
//! come from a throw-away PostgreSQL 15 cluster, or from `$WALARCH_BENCH_WAL`, a directory whose
//! subdirectories hold real segments. Homes are made under `target/tmp`, which must be on a disk:
//! what synchronising costs is part of the truth.

// It talks to a terminal, and what it makes and removes is thrown away anyway.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods)]

#[path = "compare/check.rs"]
mod check;
#[path = "compare/corpus.rs"]
mod corpus;
#[path = "compare/cpu.rs"]
mod cpu;
#[path = "compare/fetch.rs"]
mod fetch;
#[path = "compare/home.rs"]
mod home;
#[path = "compare/memory.rs"]
mod memory;
#[path = "compare/probe.rs"]
mod probe;
#[path = "compare/put.rs"]
mod put;
#[path = "compare/queue.rs"]
mod queue;
#[path = "compare/receive.rs"]
mod receive;
#[path = "compare/single.rs"]
mod single;
#[path = "compare/sshd.rs"]
mod sshd;
#[path = "compare/stream.rs"]
mod stream;
#[path = "compare/table.rs"]
mod table;
#[path = "compare/throughput.rs"]
mod throughput;
#[path = "compare/verify.rs"]
mod verify;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

use corpus::Corpus;
use table::Row;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The binary under test, built with the bench profile.
const WALARCH: &str = env!("CARGO_BIN_EXE_walarch");

type Measure = fn(&Bench) -> Result<Vec<Row>>;

/// The rows that can be asked for by name.
const ROWS: &[(&str, Measure)] = &[
    ("zstd", throughput::zstd),
    ("gzip", throughput::gzip),
    ("none", throughput::none),
    ("idle", throughput::idle),
    ("single", single::single),
    ("cpu", cpu::cpu),
    ("put", put::put),
    ("memory", memory::memory),
    ("queue", queue::queue),
    ("receive", receive::receive),
    ("catch-up", stream::catch_up),
    ("commit", stream::commit),
    ("straight", stream::straight),
    ("prompt", stream::prompt),
    ("check", check::check),
    ("verify", verify::verify),
    ("get", fetch::get),
    ("restore", fetch::restore),
    ("fetch-memory", memory::fetch_memory),
];

/// What every measurement needs.
struct Bench {
    runs: usize,
    /// A directory on a disk, removed at the end.
    directory: PathBuf,
    corpus: Corpus,
    barman: PathBuf,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

struct Options {
    runs: usize,
    rows: Vec<(&'static str, Measure)>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, command)) if first == probe::FLAG => probe::answer(command),
        _ => options(&arguments).and_then(|options| run(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        runs: 7,
        rows: Vec::new(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo says this to every benchmark.
            "--bench" => {}
            "--runs" => options.runs = arguments.next().ok_or("--runs N")?.parse()?,
            name => {
                let known = || ROWS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
                let row = ROWS.iter().find(|(known, _)| *known == name);
                let row = row.ok_or_else(|| format!("no row {name}; rows: {}", known().join(" ")));
                options.rows.push(*row?);
            }
        }
    }
    if options.runs == 0 {
        return Err("--runs takes 1 or more".into());
    }
    if options.rows.is_empty() {
        options.rows = ROWS.to_vec();
    }
    Ok(options)
}

fn run(options: &Options) -> Result<()> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(parent)?;
    let barman = std::env::var_os("WALARCH_BARMAN_VENV")
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/barman-venv"),
            PathBuf::from,
        )
        .join("bin/barman");
    if !barman.exists() {
        let hint = "set WALARCH_BARMAN_VENV to a virtual environment with Barman 3.19.1";
        return Err(format!("no Barman at {}; {hint}", barman.display()).into());
    }
    eprintln!("taking real segments");
    let bench = Bench {
        runs: options.runs,
        directory: directory.path().to_owned(),
        corpus: Corpus::obtain(directory.path())?,
        barman,
    };
    let surroundings = surroundings(&bench);
    let mut table = Vec::new();
    for (name, measure) in &options.rows {
        eprintln!("measuring {name}");
        match measure(&bench) {
            Ok(rows) => table.extend(rows),
            // One tool that is missing must not cost the other rows.
            Err(error) => table.push(Row::failed(name, &*error)),
        }
        for row in table.iter().skip_while(|row| row.is_said.replace(true)) {
            eprintln!("{row}");
        }
    }
    println!("{surroundings}\n");
    println!("{}", table::HEAD);
    for row in &table {
        println!("{row}");
    }
    Ok(())
}

/// Versions and machine, for whoever reads the table later.
fn surroundings(bench: &Bench) -> String {
    let first_line = |program: &Path, argument: &str| {
        let output = Command::new(program).arg(argument).output();
        output.ok().map_or("not found".to_owned(), |output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().next().unwrap_or_default().to_owned()
        })
    };
    format!(
        "{}; Barman {}; {}; {} cores; {} segments of {}; {} runs, medians, interleaved; \
         ratios are medians of the pairs' ratios, with the smallest and the largest.",
        first_line(Path::new(WALARCH), "--version"),
        first_line(&bench.barman, "--version"),
        first_line(Path::new("pgbackrest"), "version"),
        thread::available_parallelism().map_or(1, usize::from),
        bench.corpus.segments.len(),
        bench.corpus.origin,
        bench.runs,
    )
}
