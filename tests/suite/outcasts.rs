//! `errors`: does it tell what is safe to remove, and remove nothing else?

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::holder::Holder;
use crate::support::home::{Home, names, put};
use crate::support::tool::{Barman, Run, Walarch, finish, start, wait_for};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
const STAMP: &str = "20260102T030405Z";

fn errors(home: &Home, arguments: &[&str]) -> Run {
    home.run(&[&["errors", "main"], arguments].concat())
}

/// Verdict by name.
fn verdicts(home: &Home) -> Vec<(String, String)> {
    let run = home.run(&["-f", "json", "errors", "main"]).exits(0);
    let answer: Value = serde_json::from_str(&run.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = answer["main"].as_array().unwrap();
    list.iter()
        .map(|found| (text(&found["file"]), text(&found["verdict"])))
        .collect()
}

/// An archive with segments 1 to 3, and in `errors`: a copy of 1, something else under the name of 2, a
/// good segment 9 that the archive does not have, a copy of the first half of 3, a stranger.
fn home_with_errors(options: &[(&str, &str)]) -> Home {
    let home = Home::with(options);
    home.incoming_segments(1..=3);
    home.archive().exits(0);
    let put = |name: &str, bytes: &[u8]| put(&home.errors(), name, bytes);
    let name = |number| Segment::small(number).name();
    put(
        &format!("{}.{STAMP}.duplicate", name(1)),
        &Segment::small(1).bytes(),
    );
    put(
        &format!("{}.{STAMP}.duplicate", name(2)),
        &Segment::small(2).seed(50).bytes(),
    );
    put(
        &format!("{}.{STAMP}.2.duplicate", name(2)),
        &Segment::small(2).system_id(5).bytes(),
    );
    put(
        &format!("{}.{STAMP}.invalid", name(3)),
        &Segment::small(3).bytes()[..500_000],
    );
    put(
        &format!("{}.{STAMP}.unknown", name(9)),
        &Segment::small(9).bytes(),
    );
    put(&format!("stranger.{STAMP}.unknown"), b"?");
    home
}

fn expected() -> Vec<(String, String)> {
    let name = |number| Segment::small(number).name();
    [
        (format!("{}.{STAMP}.duplicate", name(1)), "archived"),
        (format!("{}.{STAMP}.2.duplicate", name(2)), "different"),
        (format!("{}.{STAMP}.duplicate", name(2)), "different"),
        (format!("{}.{STAMP}.invalid", name(3)), "different"),
        (format!("{}.{STAMP}.unknown", name(9)), "not_archived"),
        (format!("stranger.{STAMP}.unknown"), "no_wal"),
    ]
    .map(|(name, verdict)| (name, verdict.to_owned()))
    .into()
}

#[test]
fn each_object_is_compared_with_the_archive() {
    for options in [
        &[][..],
        &[("compression", "zstd")],
        &[("compression", "bzip2")],
    ] {
        let home = home_with_errors(options);
        assert_eq!(verdicts(&home), expected());
        let run = errors(&home, &[]).exits(0);
        let line = format!("\t{FIRST}.{STAMP}.duplicate: the archive holds the same WAL\n");
        assert!(run.stdout.contains(&line), "{}", run.stdout);
        assert!(
            run.stdout.contains("the file has 500000 bytes"),
            "{}",
            run.stdout
        );
        assert!(
            run.stdout.contains("6 in all, 1 of them safe"),
            "{}",
            run.stdout
        );
        assert_eq!(names(&home.errors()).len(), 6, "looking removes nothing");
    }
}

#[test]
fn explaining_tells_where_files_differ_and_what_to_do() {
    let home = home_with_errors(&[("compression", "zstd")]);
    let file = format!("{}.{STAMP}.2.duplicate", Segment::small(2).name());
    let run = errors(&home, &["--explain", &file]).exits(0);
    for text in [
        "why: the archive had other content under its name",
        "since: 20260102T030405Z",
        "first difference: at byte 24",
        "begins with: system 5, timeline 1, position 0/200000, PostgreSQL 15",
        "HINT: ",
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    assert!(!run.stdout.contains("stranger"), "{}", run.stdout);
    let run = errors(&home, &["nothing"]).exits(1);
    assert!(
        run.stderr.contains("nothing is not there"),
        "{}",
        run.stderr
    );
}

#[test]
fn the_end_of_a_timeline_that_was_left_is_known_as_the_only_copy_of_its_wal() {
    let home = home_with_errors(&[("compression", "zstd")]);
    let partial = format!("{}.partial", Segment::small(4).name());
    let file = format!("{partial}.{STAMP}.superseded");
    put(&home.errors(), &file, &Segment::small(4).bytes());
    let run = errors(&home, &["--resolve", "--explain", &file]).exits(0);
    for text in [
        "why: receive-wal --reset left its timeline",
        "the archive has no file of this name",
        "HINT: it may be the only copy of that WAL",
        "keep it until a newer base backup is complete",
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    assert!(home.errors().join(&file).exists());
    for command in ["check", "status"] {
        let run = home.run(&[command, "main"]);
        assert!(run.stdout.contains("superseded: 1"), "{}", run.stdout);
        assert!(!run.stdout.contains("unknown failure"), "{}", run.stdout);
    }
    // Archived after all, it may go.
    put(&home.incoming(), &partial, &Segment::small(4).bytes());
    home.archive().exits(0);
    errors(&home, &["--resolve", &file]).exits(0);
    assert!(!home.errors().join(&file).exists());
}

#[test]
fn only_what_is_proven_to_be_in_the_archive_is_removed() {
    let home = home_with_errors(&[("compression", "zstd")]);
    // The archived copy is not listed: a run was killed after it had published it.
    let text = fs::read_to_string(home.xlogdb_file()).unwrap();
    let others: String = text.split_inclusive('\n').skip(1).collect();
    fs::write(home.xlogdb_file(), others).unwrap();
    let left: Vec<String> = expected()
        .into_iter()
        .skip(1)
        .map(|(name, _)| name)
        .collect();
    // Naming others removes none of them.
    errors(&home, &["--resolve", &left[0], &left[4]]).exits(0);
    assert_eq!(names(&home.errors()).len(), 6);
    let run = errors(&home, &["--resolve"]).exits(0);
    assert!(
        run.stdout
            .contains("the archive holds the same WAL: removed")
    );
    assert!(run.stdout.contains("1 of 6 removed"), "{}", run.stdout);
    let mut found = names(&home.errors());
    found.sort();
    let mut left = left;
    left.sort();
    assert_eq!(found, left);
    assert!(home.listed().contains(&FIRST.to_owned()));
    home.assert_archived(FIRST, &Segment::small(1).bytes());
    let run = errors(&home, &["--resolve"]).exits(0);
    assert!(run.stdout.contains("0 of 5 removed"), "{}", run.stdout);
}

#[test]
fn whoever_is_waited_for_is_named() {
    let home = home_with_errors(&[]);
    let archiver = Holder::start(&home, ".main-archive-wal.lock");
    let arguments = ["errors", "main", "--resolve"];
    let child = start(&mut Walarch.command(&home, &arguments));
    let waiting = format!(
        "Waiting for archive-wal of server main (PID {})",
        archiver.pid
    );
    wait_for("the line", || home.log().contains(&waiting).then_some(()));
    assert_eq!(names(&home.errors()).len(), 6);
    drop(archiver);
    let run = finish(child, Duration::from_secs(60)).exits(0);
    assert!(run.stdout.contains(&waiting), "{}", run.stdout);
    assert_eq!(names(&home.errors()).len(), 5);
}

#[test]
fn a_damaged_archived_copy_keeps_the_one_in_errors() {
    let home = home_with_errors(&[("compression", "zstd")]);
    let path = home.archived(FIRST);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(verdicts(&home)[0].1, "failed");
    let run = errors(&home, &["--resolve", "--explain"]).exits(0);
    assert!(
        run.stdout.contains("this may be the only good copy"),
        "{}",
        run.stdout
    );
    assert_eq!(names(&home.errors()).len(), 6);
}

#[test]
fn what_cannot_be_decrypted_cannot_be_compared() {
    let options = [
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
    ];
    let home = Home::with(&options).gpg_key();
    home.incoming_segments([1]);
    home.archive().exits(0);
    put(
        &home.errors(),
        &format!("{FIRST}.{STAMP}.duplicate"),
        &Segment::small(1).bytes(),
    );
    assert_eq!(verdicts(&home)[0].1, "incomparable");
    errors(&home, &["--resolve"]).exits(0);
    assert_eq!(names(&home.errors()).len(), 1);
}

#[test]
fn what_barman_has_set_aside_is_understood() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments([1]);
    home.archive().exits(0);
    put(&home.incoming(), FIRST, &Segment::small(1).seed(9).bytes());
    put(&home.incoming(), "stranger", b"?");
    fs::create_dir(home.incoming().join("directory")).unwrap();
    Barman.run(&home, &["archive-wal", "main"]).exits(0);
    let verdicts: Vec<String> = verdicts(&home)
        .into_iter()
        .map(|(_, verdict)| verdict)
        .collect();
    assert_eq!(verdicts, ["different", "no_wal", "no_wal"]);
}

#[test]
fn names_that_would_steer_a_terminal_are_shown_without_that() {
    let home = Home::new();
    let name = "\x1b[2J\nERROR: forged";
    put(&home.incoming(), name, b"?");
    for run in [home.archive().exits(0), errors(&home, &[]).exits(0)] {
        let printed = run.stdout + &run.stderr + &home.log();
        assert!(
            printed.contains("\u{fffd}[2J\u{fffd}ERROR: forged"),
            "{printed}"
        );
        assert!(
            !printed.contains('\x1b') && !printed.contains("\nERROR"),
            "{printed}"
        );
    }
}

#[test]
fn what_encrypted_wal_was_refused_for_is_explained_and_undone() {
    let home = Home::new();
    let bytes = Segment::small(1).bytes();
    let encrypted: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x5A).collect();
    put(&home.incoming(), FIRST, &encrypted);
    home.archive().exits(1);
    let run = errors(&home, &["--explain"]).exits(0);
    for text in [
        "why: it was not what its name said",
        "it does not begin with a page of WAL",
        "set validate_wal = \"off\" in walarch.toml, and move it to ",
        home.incoming().to_str().unwrap(),
    ] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    // As it says.
    let home = home.walarch_toml("[walarch]\nvalidate_wal = \"off\"\n");
    let run = errors(&home, &["--explain"]).exits(0);
    let hint = format!("HINT: move it to {}", home.incoming().display());
    assert!(run.stdout.contains(&hint), "{}", run.stdout);
    let file = home.errors().join(&names(&home.errors())[0]);
    fs::rename(file, home.incoming().join(FIRST)).unwrap();
    home.archive().exits(0);
    home.assert_archived(FIRST, &encrypted);
}

#[test]
fn what_is_of_no_use_is_not_called_encrypted() {
    let home = Home::new();
    put(&home.incoming(), FIRST, &Segment::small(7).bytes());
    home.archive().exits(1);
    let run = errors(&home, &["--explain"]).exits(0);
    assert!(
        run.stdout
            .contains("nothing can be recovered from it under this name"),
        "{}",
        run.stdout
    );
}

#[test]
fn nobody_waits_for_whoever_reads_what_was_removed() {
    const COPIES: usize = 1500;
    let home = Home::new();
    let (history, content) = wal::history(2);
    put(&home.incoming(), &history, &content);
    home.archive().exits(0);
    for number in 0..COPIES {
        let copy = format!("{history}.{STAMP}.{number}.duplicate");
        put(&home.errors(), &copy, &content);
    }
    let arguments = ["errors", "main", "--resolve"];
    let child = start(&mut Walarch.command(&home, &arguments));
    wait_for("a full pipe", || {
        let wchan = fs::read_to_string(format!("/proc/{}/wchan", child.id())).ok()?;
        wchan.contains("pipe").then_some(())
    });
    drop(home.hold_lock(".main-archive-wal.lock"));
    let run = finish(child, Duration::from_secs(60)).exits(0);
    let said = run
        .stdout
        .matches("the archive holds the same WAL: removed\n");
    assert_eq!(said.count(), COPIES);
    assert_eq!(names(&home.errors()), [""; 0]);
}

#[test]
fn an_errors_directory_without_anything_says_so() {
    let home = Home::new();
    let run = errors(&home, &[]).exits(0);
    assert!(run.stdout.contains("no file found"), "{}", run.stdout);
    fs::remove_dir(home.errors()).unwrap();
    errors(&home, &["--resolve"]).exits(0);
}
