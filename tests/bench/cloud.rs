//! `cloud-wal-archive` beside the real Barman's, against an S3 in this process that counts requests and can be slow.
//!
//! ```text
//! cargo bench --bench cloud                # the table
//! cargo bench --bench cloud -- 3           # medians of 3 runs instead of 5
//! cargo bench --bench cloud -- 21 one      # one part alone: memory, start, one or backlog
//! ```
//!
//! Barman's virtual environment is `$WALARCH_BARMAN_VENV`, else `target/barman-venv`. It measures; it judges nothing.

// It talks to a terminal, and what it makes and removes is thrown away anyway.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    missing_docs
)]

#[path = "../suite/support"]
mod support {
    pub mod fake_s3;
    pub mod http;
    pub mod object_stores;
    pub mod wal;
}

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use support::fake_s3::{FakeS3, Fault};
use support::object_stores::s3_environment;
use support::wal::{Filler, MIB, Segment};

const BACKLOG: u64 = 64;
const LATENCY: Duration = Duration::from_millis(30);

struct Home {
    folder: TempDir,
    s3: FakeS3,
}

impl Home {
    fn new(compression: &str) -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let s3 = FakeS3::start();
        let root = folder.path().display();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap()
            .name;
        for directory in ["base", "errors", "incoming", "meta", "streaming"] {
            fs::create_dir_all(folder.path().join("main").join(directory)).unwrap();
        }
        let text = format!(
            "[barman]\nbarman_home = {root}\nbarman_user = {user}\nlog_file = {root}/log\n\
             [main]\nconninfo = host=/nonexistent\narchiver = on\nbackup_method = local-to-cloud\n\
             basebackups_directory = s3://wal/pre\nwals_directory = s3://wal/pre\n\
             compression = {compression}\n"
        );
        fs::write(folder.path().join("barman.conf"), text).unwrap();
        let home = Home { folder, s3 };
        // So that it is known how this home stores its files.
        fs::write(
            home.path("main/incoming").join("00000009.history"),
            "history",
        )
        .unwrap();
        home.run(Tool::Walarch, &["archive-wal", "main"]);
        home.s3.take_asked();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, tool: Tool, arguments: &[&str]) -> Command {
        let mut command = Command::new(match tool {
            Tool::Walarch => PathBuf::from(env!("CARGO_BIN_EXE_walarch")),
            Tool::Barman => venv().join("bin/barman"),
        });
        command
            .arg("-c")
            .arg(self.path("barman.conf"))
            .args(arguments)
            // Nothing of whoever measures: certificates that are named in the environment take time to read.
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .envs(s3_environment())
            .env("AWS_ENDPOINT_URL", self.s3.endpoint())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn run(&self, tool: Tool, arguments: &[&str]) -> Duration {
        let start = Instant::now();
        let status = self.command(tool, arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
        start.elapsed()
    }

    /// What the kernel calls the high water mark, looked at until the end: the accounting of a process that has ended
    /// counts what this one was when it started it.
    fn peak_kib(&self, arguments: &[&str]) -> u64 {
        let mut child = self.command(Tool::Walarch, arguments).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().unwrap().is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let mark = mark.and_then(|mark| mark.trim().trim_end_matches(" kB").parse().ok());
            peak = mark.unwrap_or(0).max(peak);
            std::thread::sleep(Duration::from_millis(1));
        }
        peak
    }

    /// Ready segments in a `pg_wal`.
    fn pg_wal(&self, count: u64) -> Vec<PathBuf> {
        let directory = self.path("pg_wal");
        let status = directory.join("archive_status");
        fs::create_dir_all(&status).unwrap();
        (1..=count)
            .map(|number| {
                let segment = Segment::of_size(16 * MIB, number);
                fs::write(status.join(format!("{}.ready", segment.name())), "").unwrap();
                let path = directory.join(segment.name());
                fs::write(&path, segment.bytes()).unwrap();
                path
            })
            .collect()
    }
}

#[derive(Clone, Copy)]
enum Tool {
    Walarch,
    Barman,
}

fn venv() -> PathBuf {
    std::env::var_os("WALARCH_BARMAN_VENV").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/barman-venv"),
        PathBuf::from,
    )
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

/// The medians of both, which take turns: what else the machine does is the same for both.
fn paired(runs: usize, mut measure: impl FnMut(Tool) -> Duration) -> (Duration, Duration) {
    let times = (0..runs).map(|_| (measure(Tool::Walarch), measure(Tool::Barman)));
    let (walarch, barman) = times.unzip();
    (median(walarch), median(barman))
}

fn one_segment(runs: usize) {
    let mut asked = 0;
    let (walarch, barman) = paired(runs, |tool| {
        let home = Home::new("zstd");
        let path = home.pg_wal(1).pop().unwrap();
        let time = home.run(tool, &["cloud-wal-archive", "main", path.to_str().unwrap()]);
        if matches!(tool, Tool::Walarch) {
            asked = home.s3.take_asked().len();
        }
        time
    });
    row(
        "one 16 MiB segment, zstd",
        walarch,
        barman,
        &format!("{asked} request"),
        "at least 8 times, one request",
    );
}

fn backlog(runs: usize) {
    let (walarch, barman) = paired(runs, |tool| {
        let home = Home::new("zstd");
        let paths = home.pg_wal(BACKLOG);
        home.s3.delay(LATENCY);
        let mut total = Duration::ZERO;
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let path_text = path.to_str().unwrap();
            total += home.run(tool, &["cloud-wal-archive", "main", path_text, "-p", "4"]);
            // As PostgreSQL does after each success.
            let status = path.with_file_name("archive_status");
            let file = |ending| status.join(format!("{name}.{ending}"));
            fs::rename(file("ready"), file("done")).unwrap();
        }
        // Barman's parallel workers share one connection, and some of what they send breaks.
        if matches!(tool, Tool::Walarch) {
            assert_eq!(home.s3.keys().len() as u64, BACKLOG + 1);
        }
        total
    });
    row(
        "backlog of 64, -p 4, 30 ms per request",
        walarch,
        barman,
        "",
        "at least 4 times",
    );
}

fn cold_start(runs: usize) {
    let home = Home::new("zstd");
    let path = home.pg_wal(1).pop().unwrap();
    home.run(
        Tool::Walarch,
        &["cloud-wal-archive", "main", path.to_str().unwrap()],
    );
    let goal = home.path("goal");
    let start = || {
        let first = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&first);
        home.s3.fail(move |_| {
            seen.lock().unwrap().get_or_insert_with(Instant::now);
            Fault::None
        });
        let start = Instant::now();
        let name = path.file_name().unwrap().to_str().unwrap();
        home.run(
            Tool::Walarch,
            &["cloud-wal-restore", "main", name, goal.to_str().unwrap()],
        );
        let first = first.lock().unwrap().unwrap();
        first - start
    };
    let time = median((0..runs.max(15)).map(|_| start()).collect());
    println!("| start to first request | {time:.1?} | | | under 40 ms |");
}

fn memory() {
    for (what, compression, filler) in [
        ("zstd, real-looking", "zstd", Filler::Records),
        ("none", "none", Filler::Noise),
        ("zstd, incompressible", "zstd", Filler::Noise),
    ] {
        let home = Home::new(compression);
        for number in 1..=8 {
            let segment = Segment {
                filler,
                ..Segment::of_size(16 * MIB, number)
            };
            fs::write(
                home.path("main/incoming").join(segment.name()),
                segment.bytes(),
            )
            .unwrap();
        }
        let peak_kib = home.peak_kib(&["archive-wal", "main"]);
        println!(
            "| peak memory, 4 at a time, 16 MiB, {what} | {} MiB | | | 96 MiB |",
            peak_kib / 1024
        );
    }
}

fn row(what: &str, walarch: Duration, barman: Duration, note: &str, bar: &str) {
    let ratio = barman.as_secs_f64() / walarch.as_secs_f64();
    println!("| {what} | {walarch:.1?} | {barman:.1?} | {ratio:.1} {note} | {bar} |");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = arguments.iter().find_map(|argument| argument.parse().ok());
    let runs = number.unwrap_or(5);
    let parts = ["memory", "start", "one", "backlog"];
    let chosen = parts
        .iter()
        .find(|part| arguments.iter().any(|argument| argument == *part));
    let is_wanted = |part| chosen.is_none_or(|chosen| *chosen == part);
    println!("| what | walarch | Barman | times as fast | bar |\n|---|---|---|---|---|");
    if is_wanted("memory") {
        memory();
    }
    if is_wanted("start") {
        cold_start(runs);
    }
    if is_wanted("one") {
        one_segment(runs);
    }
    if is_wanted("backlog") {
        backlog(runs.min(2));
    }
}
