//! Do the decoder of replication messages and the reader of history files hold against whatever a peer sends? The
//! bounded form of `tests/fuzz`; `tests/fuzz/run.sh` says how to run the full one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::tool::{Run, finish, start_with};

/// Begins without what earlier runs found, so that every run is the same.
fn fuzz(target: &str, runs: u64) -> Run {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(root.join("tests/fuzz/run.sh"));
    command
        .arg(target)
        .arg("-seed=1")
        .arg("-max_len=512")
        .arg(format!("-runs={runs}"))
        .arg(format!("-artifact_prefix={}/", folder.path().display()))
        .env("WALARCH_FUZZ_CORPUS", folder.path());
    // Building libFuzzer takes its time, once.
    finish(
        start_with(&mut command, Stdio::null()),
        Duration::from_secs(600),
    )
}

/// How many edges were reached when this line was printed.
#[track_caller]
fn coverage(run: &Run, word: &str) -> u32 {
    let line = run.stderr.lines().find(|line| line.contains(word));
    let line = line.unwrap_or_else(|| panic!("no {word}: {run:?}"));
    let (_, rest) = line.split_once("cov: ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn no_message_breaks_the_decoder_or_is_read_otherwise_than_the_manual_says() {
    let run = fuzz("replication_message", 2_000_000).exits(0);
    let (before, after) = (coverage(&run, "INITED"), coverage(&run, "DONE"));
    assert!(after > before + 10, "hardly guided: {before}, {after}");
}

#[test]
fn no_history_file_breaks_its_reader_or_is_read_otherwise_than_postgresql_writes_it() {
    let run = fuzz("timeline_history", 1_000_000).exits(0);
    let (before, after) = (coverage(&run, "INITED"), coverage(&run, "DONE"));
    assert!(after > before + 10, "hardly guided: {before}, {after}");
}

#[test]
fn a_planted_panic_is_found_that_chance_would_not_meet() {
    let run = fuzz("planted", 100_000_000);
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("the planted panic"), "{run:?}");
}
