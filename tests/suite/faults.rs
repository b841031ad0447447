//! What if the run is killed, or one of its calls fails, at any point? And does an undisturbed run keep the
//! order of the commit protocol? See `support::faults` for the invariants, `support::order` for the order.

use std::fs;
use std::path::Path;

use crate::support::faults::{Fault, Scenario};
use crate::support::home::{Files, Home, names, put};
use crate::support::order::Protocol;
use crate::support::tool::Walarch;
use crate::support::trace::{record, traced};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
/// One worker: the calls come in the same order every time.
const ONE_JOB: &str = "[walarch]\njobs = 1\n";
const TWO_JOBS: &str = "[walarch]\njobs = 2\n";
const ALL_FAULTS: [Fault; 3] = [Fault::Kill, Fault::NoSpace, Fault::IoError];

/// Sweeps all faults over the archiving of two segments and a history file from `incoming`.
#[track_caller]
fn sweep_incoming(options: &[(&str, &str)], walarch_toml: &str) {
    let home = Home::with(options).walarch_toml(walarch_toml);
    let mut originals = home.incoming_segments(1..=2);
    let (history, text) = wal::history(2);
    put(&home.incoming(), &history, &text);
    originals.insert(history, text);
    sweep(Scenario {
        tool: Walarch,
        home,
        originals,
        command_file: None,
    });
}

#[track_caller]
fn sweep(scenario: Scenario) {
    for fault in ALL_FAULTS {
        let struck = scenario.sweep(fault);
        assert!(
            struck > 0,
            "no {fault:?} struck: the sweep has shown nothing"
        );
    }
}

#[test]
fn no_fault_loses_uncompressed_wal() {
    sweep_incoming(&[], ONE_JOB);
}

#[test]
fn no_fault_loses_compressed_wal() {
    sweep_incoming(&[("compression", "zstd")], ONE_JOB);
}

#[test]
fn no_fault_loses_wal_with_two_workers() {
    sweep_incoming(&[("compression", "gzip")], TWO_JOBS);
}

#[test]
fn no_fault_loses_wal_between_hooks() {
    sweep_incoming(
        &[
            ("compression", "lz4"),
            ("pre_archive_script", "true"),
            ("post_archive_script", "true"),
        ],
        ONE_JOB,
    );
}

#[test]
fn no_fault_loses_wal_compressed_by_a_command() {
    sweep_incoming(&[("compression", "pigz")], ONE_JOB);
}

#[test]
fn no_fault_loses_streamed_wal() {
    let options = [
        ("archiver", "off"),
        ("streaming_archiver", "on"),
        ("compression", "zstd"),
    ];
    let home = Home::with(&options).walarch_toml(ONE_JOB);
    let originals = home.streaming_segments(1..=2);
    let current = Segment::small(3);
    put(
        &home.streaming(),
        &format!("{}.partial", current.name()),
        &current.bytes(),
    );
    sweep(Scenario {
        tool: Walarch,
        home,
        originals,
        command_file: None,
    });
}

#[test]
fn no_fault_loses_wal_or_breaks_the_promise_of_archive_command() {
    for options in [&[][..], &[("compression", "zstd")]] {
        let home = Home::with(options).walarch_toml(ONE_JOB);
        let folder = tempfile::tempdir().unwrap();
        let bytes = Segment::small(1).bytes();
        let path = put(folder.path(), FIRST, &bytes);
        let originals = Files::from([(FIRST.to_owned(), bytes)]);
        sweep(Scenario {
            tool: Walarch,
            home,
            originals,
            command_file: Some(path),
        });
    }
}

#[test]
fn no_fault_loses_an_identical_copy() {
    let home = Home::with(&[("compression", "zstd")]).walarch_toml(ONE_JOB);
    home.incoming_segments(1..=2);
    Walarch.run(&home, &["archive-wal", "main"]).exits(0);
    // One copy is listed, the other was archived by a run that did not live to list it.
    let lines = fs::read_to_string(home.xlogdb_file()).unwrap();
    fs::write(
        home.xlogdb_file(),
        lines.split_inclusive('\n').next().unwrap(),
    )
    .unwrap();
    let originals = home.incoming_segments(1..=2);
    sweep(Scenario {
        tool: Walarch,
        home,
        originals,
        command_file: None,
    });
}

#[test]
fn one_unreadable_file_does_not_stop_the_others() {
    let home = Home::with(&[("compression", "zstd")]).walarch_toml(ONE_JOB);
    home.incoming_segments(1..=3);
    let source = home.incoming().join(FIRST);
    for error in ["EACCES", "EIO"] {
        let home = home.copy();
        let options = [
            "-P".to_owned(),
            home.incoming().join(FIRST).to_str().unwrap().to_owned(),
            "-e".to_owned(),
            "trace=openat".to_owned(),
            "-e".to_owned(),
            format!("inject=openat:error={error}"),
        ];
        let (run, _) = traced(Walarch, &home, &["archive-wal", "main"], &options);
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains(FIRST), "{run:?}");
        assert_eq!(home.listed().len(), 2);
        assert_eq!(names(&home.incoming()), [FIRST]);
    }
    assert!(source.exists());
}

#[test]
fn a_rebuild_that_fails_anywhere_keeps_every_line() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments(1..=3);
    Walarch.run(&home, &["archive-wal", "main"]).exits(0);
    let expected = home.listed();
    let rebuild = ["rebuild-xlogdb", "main"];
    let (_, calls) = record(Walarch, &home.copy(), &rebuild);
    let mut counts = std::collections::BTreeMap::<(u32, &str), usize>::new();
    for call in calls.iter().filter(|call| call.changes()) {
        *counts.entry((call.thread, &call.name)).or_default() += 1;
    }
    assert!(!counts.is_empty());
    for ((_, name), count) in counts {
        for when in 1..=count {
            for effect in ["signal=KILL", "error=ENOSPC", "error=EIO"] {
                let home = home.copy();
                let options = [
                    "-e".to_owned(),
                    format!("trace={name}"),
                    "-e".to_owned(),
                    format!("inject={name}:{effect}:when={when}"),
                ];
                traced(Walarch, &home, &rebuild, &options);
                assert_eq!(home.listed(), expected, "{effect} at {name} {when}");
                Walarch.run(&home, &rebuild).exits(0);
                assert_eq!(
                    home.listed(),
                    expected,
                    "rerun after {effect} at {name} {when}"
                );
                let left = names(&home.wals());
                assert_eq!(left.len(), 2, "left over: {left:?}");
            }
        }
    }
}

#[track_caller]
fn assert_order(home: &Home) {
    let protocol = Protocol::before(home);
    let (run, calls) = record(Walarch, home, &["archive-wal", "main"]);
    run.exits(0);
    let violations = protocol.violations(&calls);
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn the_order_is_kept_for_groups_of_every_codec() {
    for options in [
        &[][..],
        &[("compression", "gzip")],
        &[("compression", "zstd")],
        &[("compression", "pigz")],
        &[
            ("compression", "custom"),
            ("custom_compression_filter", "gzip -c"),
            ("custom_decompression_filter", "gzip -dc"),
        ],
    ] {
        let home = Home::with(options);
        // Two groups of 256 and both timelines: four directories.
        home.incoming_segments(1..=12);
        let (history, text) = wal::history(2);
        put(&home.incoming(), &history, &text);
        for number in [5000, 5001] {
            let segment = Segment::small(number).timeline(2);
            put(&home.incoming(), &segment.name(), &segment.bytes());
        }
        assert_order(&home);
        home.incoming_segments(13..=14);
        assert_order(&home);
    }
}

#[test]
fn the_order_is_kept_with_gpg() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
    ])
    .gpg_key();
    home.incoming_segments(1..=2);
    assert_order(&home);
}

#[test]
fn the_order_is_kept_between_hooks() {
    let home = Home::with(&[
        ("pre_archive_script", "true"),
        ("post_archive_retry_script", "true"),
    ]);
    home.incoming_segments(1..=3);
    assert_order(&home);
}

#[test]
fn the_order_is_kept_for_streamed_files() {
    let home = Home::with(&[("streaming_archiver", "on"), ("compression", "zstd")]);
    home.streaming_segments(1..=4);
    home.incoming_segments(2..=6);
    assert_order(&home);
}

#[test]
fn the_order_is_kept_for_copies_strangers_and_invalid_segments() {
    let home = Home::with(&[("compression", "zstd")]);
    home.incoming_segments(1..=3);
    assert_order(&home);
    home.incoming_segments(1..=2);
    put(
        &home.incoming(),
        "000000010000000000000003",
        &Segment::small(3).seed(8).bytes(),
    );
    put(&home.incoming(), "stranger", b"?");
    // A run that was killed between publishing and listing.
    let lines = fs::read_to_string(home.xlogdb_file()).unwrap();
    fs::write(
        home.xlogdb_file(),
        lines.split_inclusive('\n').next().unwrap(),
    )
    .unwrap();
    assert_order(&home);
}

#[test]
fn the_order_is_kept_across_file_systems() {
    let shm = tempfile::Builder::new()
        .prefix("walarch-in.")
        .tempdir_in("/dev/shm")
        .unwrap();
    let home = Home::with(&[("wals_directory", shm.path().to_str().unwrap())]);
    fs::remove_dir(home.wals()).unwrap();
    std::os::unix::fs::symlink(shm.path(), home.wals()).unwrap();
    home.incoming_segments(1..=3);
    assert_order(&home);
}

#[test]
fn the_order_is_kept_as_archive_command() {
    let assert_command_order = |home: &Home, path: &Path| {
        let protocol = Protocol::before_command(home, path);
        let arguments = ["archive-wal", "main", path.to_str().unwrap()];
        let (run, calls) = record(Walarch, home, &arguments);
        run.exits(0);
        let violations = protocol.violations(&calls);
        assert!(violations.is_empty(), "{violations:#?}");
    };
    for options in [&[][..], &[("compression", "zstd")]] {
        let home = Home::with(options);
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), FIRST, &Segment::small(1).bytes());
        assert_command_order(&home, &path);
        // Once more: success must mean durable then, too.
        fs::write(home.xlogdb_file(), "").unwrap();
        assert_command_order(&home, &path);
    }
}
