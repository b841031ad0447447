//! `list-wals`, `verify-wals` and `check-wal-archive`: is seen what is there, damaged and missing?

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::real_wal;
use crate::support::compare::masked;
use crate::support::home::{Home, put, tree};
use crate::support::tool::{Barman, Run, Walarch, finish, start, wait_for};
use crate::support::wal::{self, Filler, Segment};

const LIMIT: Duration = Duration::from_secs(120);

pub fn name(number: u64) -> String {
    Segment::small(number).name()
}

/// Segments 1 to 3 of timeline 1, whose end timeline 2 left within segment 4 and continues to 6; a
/// partial segment, a backup label and the history.
pub fn home_with_an_archive(options: &[(&str, &str)]) -> Home {
    let home = Home::with(options);
    fill(&home);
    home
}

fn fill(home: &Home) {
    home.incoming_segments(1..=3);
    let put = |name: &str, bytes: &[u8]| put(&home.incoming(), name, bytes);
    for number in 4..=6 {
        // As PostgreSQL makes the first segment of a timeline: the beginning is a copy of the parent's.
        let segment = Segment::small(number).timeline(2);
        let mut bytes = segment.bytes();
        if number == 4 {
            let parent = Segment::small(4).bytes();
            bytes[..5 * 8192].copy_from_slice(&parent[..5 * 8192]);
        }
        put(&segment.name(), &bytes);
    }
    let mut partial = Segment::small(4).bytes();
    partial[300_000..].fill(0xAA); // what an older segment has left there
    put(&format!("{}.partial", name(4)), &partial);
    put(
        "00000002.history",
        b"1\t0/408000\tno recovery target specified\n",
    );
    let (label, text) = wal::backup_label(&Segment::small(2));
    put(&label, &text);
    home.archive().exits(0);
}

fn json_of(home: &Home, arguments: &[&str], code: i32) -> Value {
    let run = home.run(&[&["-f", "json"], arguments].concat()).exits(code);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stdout))
}

fn verify(home: &Home, arguments: &[&str]) -> Run {
    home.run(&[&["verify-wals", "main"], arguments].concat())
}

/// Kind and name of each problem that `verify-wals` finds.
#[track_caller]
pub fn problems(home: &Home, arguments: &[&str]) -> Vec<(String, String)> {
    let arguments = [&["verify-wals", "main"], arguments].concat();
    let run = home.run(&[&["-f", "json"][..], &arguments].concat());
    let answer: Value = serde_json::from_str(&run.stdout).unwrap();
    let found = answer["main"]["problems"].as_array().unwrap();
    assert_eq!(run.code, i32::from(!found.is_empty()), "{answer}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found
        .iter()
        .map(|problem| (text(&problem["kind"]), text(&problem["name"])))
        .collect()
}

pub fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    owned.collect()
}

// list-wals

#[test]
fn every_file_is_listed_with_what_is_known_of_it() {
    let home = home_with_an_archive(&[("compression", "gzip")]);
    let run = home.run(&["list-wals", "main"]).exits(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 9 + 2, "{}", run.stdout);
    let columns =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(
        columns(lines[0]),
        ["NAME", "SIZE", "RATIO", "CODEC", "TIME", "TIMELINE"]
    );
    let first = columns(lines[1]);
    assert_eq!(first[0], name(1));
    assert_eq!(first[2], "KiB");
    assert!(first[3].parse::<f64>().unwrap() > 1.5, "{first:?}");
    assert_eq!((first[4].as_str(), first[7].as_str()), ("gzip", "1"));
    assert!(first[5].starts_with("2025-"), "{first:?}");
    assert!(lines[10].starts_with("9 WAL files"), "{}", run.stdout);
    assert!(lines[10].ends_with("no gaps"), "{}", run.stdout);

    let answer = json_of(&home, &["list-wals", "main"], 0);
    // The option may come behind the command, too.
    let behind = home.run(&["list-wals", "main", "-f", "json"]).exits(0);
    assert_eq!(
        serde_json::from_str::<Value>(&behind.stdout).unwrap(),
        answer
    );
    let wals = answer["main"]["wals"].as_array().unwrap();
    assert_eq!((wals.len(), &answer["main"]["files"]), (9, &json!(9)));
    let stored = home.archived(&name(1)).metadata().unwrap().len();
    let wal = &wals[0];
    assert_eq!(wal["name"], name(1));
    assert_eq!(wal["size_bytes"], stored);
    assert_eq!(wal["compression"], "gzip");
    assert_eq!(wal["encryption"], Value::Null);
    assert_eq!(wal["timeline"], 1);
    assert_eq!(wal["gap_before"], Value::Null);
    let ratio = wal::MIB as f64 / stored as f64;
    assert!((wal["ratio"].as_f64().unwrap() - ratio).abs() < 1e-9);
    let listed: Vec<&str> = wals
        .iter()
        .map(|wal| wal["name"].as_str().unwrap())
        .collect();
    assert_eq!(listed, home.listed());
}

#[test]
fn gaps_are_marked_where_they_are_in_whatever_order_files_came() {
    let home = Home::new();
    home.incoming_segments([1, 2, 6]);
    home.archive().exits(0);
    home.incoming_segments([4]); // late
    home.archive().exits(0);
    let run = home.run(&["list-wals", "main"]).exits(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let at = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    let gap_5 = format!(
        "-- 1 segment missing between {} and {} --",
        name(4),
        name(6)
    );
    let gap_3 = format!(
        "-- 1 segment missing between {} and {} --",
        name(2),
        name(4)
    );
    assert_eq!(
        lines[at(&gap_5) + 1].split(' ').next(),
        Some(name(6).as_str())
    );
    assert_eq!(
        lines[at(&gap_3) + 1].split(' ').next(),
        Some(name(4).as_str())
    );
    assert!(run.stdout.ends_with("2 gaps (2 segments missing)\n"));
    let answer = json_of(&home, &["list-wals", "main"], 0);
    assert_eq!(answer["main"]["gaps"], 2);
    assert_eq!(answer["main"]["missing_segments"], 2);
    let six = &answer["main"]["wals"][2];
    assert_eq!(
        six["gap_before"],
        json!({ "after": name(4), "segments": 1 })
    );
}

#[test]
fn a_part_can_be_listed() {
    let home = home_with_an_archive(&[]);
    let second = Segment::small(5).timeline(2).name();
    let answer = json_of(
        &home,
        &["list-wals", "main", "--from", &name(3), "--to", &second],
        0,
    );
    let mut names: Vec<&str> = answer["main"]["wals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wal| wal["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    let first = Segment::small(4).timeline(2).name();
    let partial = format!("{}.partial", name(4));
    assert_eq!(
        names,
        [&name(3), &partial, "00000002.history", &first, &second]
    );
    home.run(&["list-wals", "main", "--from", "x"]).exits(2);
}

#[test]
fn an_archive_without_anything_lists_nothing() {
    let home = Home::new();
    let run = home.run(&["list-wals", "main"]).exits(0);
    assert!(run.stdout.contains("0 WAL files"), "{}", run.stdout);
    let answer = json_of(&home, &["list-wals", "main"], 0);
    assert_eq!(answer["main"]["wals"], json!([]));
    assert!(
        !home.xlogdb_file().exists(),
        "looking must not make an xlogdb"
    );
}

#[test]
fn a_long_listing_takes_little_memory_and_holds_no_lock() {
    let home = home_with_an_archive(&[]);
    let mut text = fs::read_to_string(home.xlogdb_file()).unwrap();
    for number in 0..200_000u64 {
        let (log, segment) = (1 + number / 4096, number % 4096);
        writeln!(
            text,
            "00000002{log:08X}{segment:08X}\t4711\t1750000000.5\tzstd\tNone"
        )
        .unwrap();
    }
    fs::write(home.xlogdb_file(), &text).unwrap();
    for format in ["console", "json"] {
        let mut command = Walarch.command(&home, &["-f", format, "list-wals", "main"]);
        let child = start(&mut command);
        let status = format!("/proc/{}/status", child.id());
        let peak_kib = || -> Option<u64> {
            let status = fs::read_to_string(&status).ok()?;
            let peak = status.lines().find(|line| line.starts_with("VmHWM"))?;
            peak.split_whitespace().nth(1)?.parse().ok()
        };
        // Nobody reads what it prints: it must wait, but nobody for it.
        wait_for("a full pipe", || {
            let wchan = fs::read_to_string(format!("/proc/{}/wchan", child.id())).ok()?;
            wchan.contains("pipe").then_some(())
        });
        drop(home.hold_lock(".main-xlogdb.lock"));
        let peak_kib = peak_kib().unwrap();
        assert!(peak_kib < 24 << 10, "{format}: {peak_kib} KiB");
        let run = finish(child, LIMIT).exits(0);
        assert!(run.stdout.contains("000000020000003100000400"));
    }
}

#[test]
fn lines_that_cannot_be_read_are_told() {
    let home = home_with_an_archive(&[]);
    let text = fs::read_to_string(home.xlogdb_file()).unwrap();
    fs::write(home.xlogdb_file(), format!("what?\n{text}")).unwrap();
    let run = home.run(&["list-wals", "main"]).exits(0);
    assert!(run.stdout.contains("9 WAL files"));
    assert!(run.stderr.contains("rebuild-xlogdb main"), "{}", run.stderr);
}

// verify-wals

#[test]
fn a_good_archive_of_any_codec_has_no_problems() {
    for options in [
        &[][..],
        &[("compression", "zstd")],
        &[("compression", "gzip")],
        &[("compression", "lz4")],
        &[("compression", "xz"), ("compression_level", "low")],
        &[
            ("compression", "custom"),
            ("custom_compression_filter", "gzip -c"),
            ("custom_decompression_filter", "gzip -dc"),
        ],
    ] {
        let home = home_with_an_archive(options);
        let paths = tree(&home.barman_home());
        let run = verify(&home, &[]).exits(0);
        assert!(
            run.stdout.contains("Verified 9 WAL files"),
            "{}",
            run.stdout
        );
        assert!(run.stdout.contains("no problems"), "{}", run.stdout);
        assert_eq!(run.stderr, "");
        assert_eq!(
            tree(&home.barman_home()),
            paths,
            "verifying changes nothing"
        );
    }
}

#[test]
fn what_postgresql_wrote_has_no_problems() {
    let real = real_wal();
    for options in [&[][..], &[("compression", "zstd")]] {
        let home = Home::with(options);
        for (name, bytes) in &real.archived {
            put(&home.incoming(), name, bytes);
        }
        let (partial, bytes) = &real.partial;
        put(&home.incoming(), partial, bytes);
        home.archive().exits(0);
        assert_eq!(problems(&home, &[]), []);
        let run = home.run(&["list-wals", "main"]).exits(0);
        assert!(run.stdout.ends_with("no gaps\n"), "{}", run.stdout);
    }
}

#[test]
fn an_encrypted_archive_is_verified_too() {
    let options = [
        ("compression", "zstd"),
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("encryption_passphrase_command", "echo secret"),
    ];
    let home = Home::with(&options).gpg_key();
    fill(&home);
    let run = verify(&home, &[]).exits(0);
    assert!(run.stdout.contains("no problems"), "{}", run.stdout);
    let path = home.archived(&name(2));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(problems(&home, &[]), pairs(&[("undecodable", &name(2))]));
}

/// One file of the archive is replaced by what `change` makes of its content.
#[track_caller]
fn assert_found(options: &[(&str, &str)], file: &str, change: fn(Vec<u8>) -> Vec<u8>, kind: &str) {
    let home = home_with_an_archive(options);
    let path = home.archived(file);
    let before = fs::read(&path).unwrap();
    let bytes = change(before.clone());
    let same_size = bytes.len() == before.len();
    fs::write(&path, bytes).unwrap();
    let mut expected = pairs(&[(kind, file)]);
    if !same_size {
        expected.insert(0, ("listed_size".to_owned(), file.to_owned()));
    }
    assert_eq!(problems(&home, &[]), expected);
    let run = verify(&home, &[]).exits(1);
    assert!(
        run.stderr.contains(&format!("ERROR: {file}: ")),
        "{}",
        run.stderr
    );
}

#[test]
fn each_kind_of_damage_is_found() {
    let zstd = [("compression", "zstd")];
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    assert_found(&zstd, &name(2), cut, "undecodable");
    let flip = |mut bytes: Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        bytes
    };
    assert_found(&zstd, &name(2), flip, "undecodable");
    assert_found(&[("compression", "gzip")], &name(2), flip, "undecodable");
    assert_found(&[], &name(2), cut, "invalid");
    assert_found(&[], &name(2), |_| Vec::new(), "invalid");
    assert_found(&[], &name(2), |_| Segment::small(3).bytes(), "invalid");
    assert_found(
        &[],
        &name(2),
        |_| Segment::small(2).system_id(7).bytes(),
        "invalid",
    );
    let page = |mut bytes: Vec<u8>| {
        bytes.copy_within(10 * 8192..11 * 8192, 40 * 8192);
        bytes
    };
    assert_found(&[], &name(2), page, "page");
    let hole = |mut bytes: Vec<u8>| {
        bytes[40 * 8192..41 * 8192].fill(0);
        bytes
    };
    assert_found(&[], &name(2), hole, "page");
    assert_found(
        &[],
        "00000002.history",
        |_| b"2\t0/1\tnonsense of the same size......\n...........\n".to_vec(),
        "history",
    );
    let (label, _) = wal::backup_label(&Segment::small(2));
    assert_found(&[], &label, |_| Vec::new(), "invalid");
}

#[test]
fn a_segment_without_its_first_page_is_a_problem() {
    let headless = |mut bytes: Vec<u8>| {
        bytes[..8192].fill(0);
        bytes
    };
    assert_found(&[], &name(2), headless, "invalid");
    assert_found(&[], &name(2), |bytes| vec![0; bytes.len()], "invalid");
    let noise = |bytes: Vec<u8>| bytes.iter().map(|byte| byte ^ 0x5A).collect();
    assert_found(&[], &name(2), noise, "invalid");
    assert_found(&[], &name(2), |_| b"short garbage".to_vec(), "invalid");
    let zstd = [("compression", "zstd")];
    fn compressed(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }
    let zeros = |_| compressed(&[0; wal::MIB as usize]);
    assert_found(&zstd, &name(2), zeros, "invalid");
    assert_found(&zstd, &name(2), |_| compressed(b"short garbage"), "invalid");
}

#[test]
fn a_segment_of_a_newer_postgresql_is_only_decoded() {
    let home = home_with_an_archive(&[]);
    let newer = Segment::small(2).magic(0xD1FE).bytes();
    fs::write(home.archived(&name(2)), newer).unwrap();
    let run = verify(&home, &[]).exits(0);
    assert!(run.stdout.contains("no problems"), "{}", run.stdout);
    assert!(
        run.stderr.contains("WARNING: 1 segments were only decoded"),
        "{}",
        run.stderr
    );
    let answer = json_of(&home, &["verify-wals", "main"], 0);
    assert_eq!(answer["main"]["unjudged"], 1);
}

#[test]
fn what_is_missing_is_found() {
    let archive = home_with_an_archive(&[("compression", "zstd")]);
    let home = archive.copy();
    fs::remove_file(home.archived(&name(2))).unwrap();
    assert_eq!(
        problems(&home, &[]),
        pairs(&[("not_there", &name(2)), ("gap", "")])
    );
    // Neither in the archive nor listed: only its neighbours tell.
    let gone = Segment::small(4).timeline(2).name();
    let home = archive.copy();
    fs::remove_file(home.archived(&gone)).unwrap();
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert_eq!(problems(&home, &[]), pairs(&[("gap", "")]));
    let run = verify(&home, &[]).exits(1);
    let expected = format!(
        "ERROR: 1 segment missing between {} and {}\n",
        name(3),
        Segment::small(5).timeline(2).name()
    );
    assert!(run.stderr.contains(&expected), "{}", run.stderr);
    // Not in the catalogue.
    let home = archive.copy();
    let text = fs::read_to_string(home.xlogdb_file()).unwrap();
    let others: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with(&name(3)))
        .collect();
    fs::write(home.xlogdb_file(), others).unwrap();
    assert_eq!(problems(&home, &[]), pairs(&[("not_listed", &name(3))]));
    // The history.
    let home = archive.copy();
    fs::remove_file(home.archived("00000002.history")).unwrap();
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert_eq!(problems(&home, &[]), pairs(&[("no_history", "")]));
}

#[test]
fn damage_of_xlogdb_itself_is_found() {
    let archive = home_with_an_archive(&[("compression", "zstd")]);
    let text = fs::read_to_string(archive.xlogdb_file()).unwrap();
    let with_lines = |more: &str| {
        let home = archive.copy();
        fs::write(home.xlogdb_file(), format!("{text}{more}")).unwrap();
        home
    };
    let unreadable = pairs(&[("unreadable_lines", "")]);
    let home = with_lines("what?\nand what else?\n");
    assert_eq!(problems(&home, &[]), unreadable);
    let run = verify(&home, &[]).exits(1);
    assert!(
        run.stderr
            .contains("xlogdb has 2 lines that cannot be read")
    );
    // Torn by a crash, and not mended yet.
    assert_eq!(problems(&with_lines("00000002"), &[]), unreadable);
    let second = text
        .lines()
        .find(|line| line.starts_with(&name(2)))
        .unwrap();
    let home = with_lines(&format!("{second}\n"));
    assert_eq!(problems(&home, &[]), pairs(&[("listed_twice", &name(2))]));
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert_eq!(problems(&home, &[]), []);
}

#[test]
fn a_file_in_the_wrong_place_is_found() {
    let home = home_with_an_archive(&[("compression", "zstd")]);
    let wrong = home.wals().join("0000000100000007").join(name(2));
    fs::create_dir(wrong.parent().unwrap()).unwrap();
    fs::rename(home.archived(&name(2)), &wrong).unwrap();
    let at_the_root = home.wals().join(name(3));
    fs::copy(home.archived(&name(3)), &at_the_root).unwrap();
    assert_eq!(
        problems(&home, &[]),
        pairs(&[
            ("not_there", &name(2)),
            ("misplaced", &name(3)),
            ("misplaced", &name(2)),
            ("gap", ""),
        ])
    );
    let run = verify(&home, &[]).exits(1);
    assert!(
        run.stderr.contains(wrong.to_str().unwrap()),
        "{}",
        run.stderr
    );
}

#[test]
fn of_very_many_absent_files_those_without_a_name_are_counted() {
    let home = home_with_an_archive(&[]);
    let mut lines = fs::read_to_string(home.xlogdb_file()).unwrap();
    for number in 0..10_002 {
        writeln!(lines, "00000009{number:016X}\t16777216\t1.0\tNone").unwrap();
    }
    fs::write(home.xlogdb_file(), lines).unwrap();
    let run = verify(&home, &[]).exits(1);
    let said = |text: &str| {
        run.stderr
            .lines()
            .filter(|line| line.contains(text))
            .count()
    };
    assert_eq!(
        said("xlogdb lists it, but it is not in the archive"),
        10_000
    );
    let more = "xlogdb lists 2 more that are not in the archive; their names are not shown";
    assert_eq!(said(more), 1, "{}", run.stderr);
    assert!(run.stdout.contains(": 10002 problems"), "{}", run.stdout);
}

#[test]
fn a_part_can_be_verified() {
    let home = home_with_an_archive(&[("compression", "zstd")]);
    fs::write(home.archived(&name(1)), b"?").unwrap();
    assert_eq!(problems(&home, &[]).len(), 2, "it can fail");
    assert_eq!(problems(&home, &["--from", &name(2)]), []);
    assert_eq!(problems(&home, &["--from", &name(2), "--to", &name(3)]), []);
    assert_eq!(problems(&home, &["--to", &name(1)]).len(), 2);
    let beyond = Segment::small(9).timeline(2).name();
    assert_eq!(
        problems(&home, &["--from", &name(2), "--to", &beyond]),
        pairs(&[("no_end", &beyond)])
    );
}

#[test]
fn digits_of_either_case_are_the_same_name() {
    let home = Home::new();
    for number in 9..=12 {
        let segment = Segment::small(number);
        let name = match number {
            10 => segment.name().to_lowercase(),
            _ => segment.name(),
        };
        put(&home.incoming(), &name, &segment.bytes());
    }
    home.archive().exits(0);
    assert_eq!(problems(&home, &[]), []);
}

#[test]
fn segments_that_were_left_early_and_large_ones_are_good() {
    let home = Home::with(&[("compression", "zstd")]);
    for number in 1..=2 {
        let segment = Segment::of_size(16 * wal::MIB, number).filler(Filler::Switched);
        put(&home.incoming(), &segment.name(), &segment.bytes());
    }
    home.archive().exits(0);
    assert_eq!(problems(&home, &[]), []);
}

#[test]
fn an_empty_archive_verifies() {
    let home = Home::new();
    let run = verify(&home, &[]).exits(0);
    assert!(
        run.stdout.contains("Verified 0 WAL files"),
        "{}",
        run.stdout
    );
}

#[test]
fn the_archive_of_an_inactive_server_is_read_like_any_other() {
    let home = home_with_an_archive(&[("active", "off")]);
    assert!(!home.archived(&name(1)).exists(), "nothing archives for it");
    fs::create_dir_all(home.archived(&name(1)).parent().unwrap()).unwrap();
    fs::write(home.archived(&name(1)), b"garbage").unwrap();
    assert_eq!(problems(&home, &[]), pairs(&[("invalid", &name(1))]));
    let answer = json_of(&home, &["list-wals", "main"], 0);
    assert_eq!(answer["main"]["wals"][0]["name"], name(1));
    let aside = format!("{}.20260102T030405Z.duplicate", name(1));
    put(&home.errors(), &aside, &Segment::small(1).bytes());
    let run = home.run(&["errors", "main"]).exits(0);
    assert!(run.stdout.contains(&aside), "{}", run.stdout);
    // Not to do what changes something is an error.
    for arguments in [
        &["errors", "main", "--resolve"][..],
        &["delete-wals", "main", "--keep-size", "0"],
    ] {
        let run = home.run(arguments).exits(1);
        assert_eq!(run.stderr, "ERROR: Inactive server: main\n");
    }
}

#[test]
fn verifying_and_archiving_do_not_disturb_each_other() {
    let home = Home::with(&[("compression", "zstd")]);
    home.incoming_segments(1..=20);
    home.archive().exits(0);
    let end = Instant::now() + Duration::from_secs(3);
    let mut number = 21;
    while Instant::now() < end {
        let verifying = start(&mut Walarch.command(&home, &["verify-wals", "main"]));
        home.incoming_segments(number..number + 3);
        number += 3;
        home.archive().exits(0);
        finish(verifying, LIMIT).exits(0);
    }
}

#[test]
fn where_nothing_was_archived_yet_nothing_is_wrong() {
    let home = Home::new();
    fs::remove_dir(home.wals()).unwrap();
    for arguments in [
        &["list-wals", "main"][..],
        &["verify-wals", "main"],
        &["delete-wals", "main", "--keep-size", "1 MiB"],
    ] {
        let run = home.run(arguments).exits(0);
        assert_eq!(run.stderr, "", "{arguments:?}");
    }
    assert!(!home.wals().exists());
    home.run(&["rebuild-xlogdb", "main"]).exits(1);
}

// check-wal-archive

#[track_caller]
fn same_answer(home: &Home, arguments: &[&str]) {
    for format in [&[][..], &["-f", "json"], &["-q"]] {
        let arguments = [format, &["check-wal-archive", "main"], arguments].concat();
        let theirs = Barman.run(home, &arguments);
        let ours = Walarch.run(home, &arguments);
        assert_eq!(ours.code, theirs.code, "{arguments:?}");
        assert_eq!(masked(&ours.stdout, home), masked(&theirs.stdout, home));
        let errors = |run: &Run| -> Vec<String> {
            let lines = run.stderr.lines().filter(|line| line.starts_with("ERROR"));
            lines.map(|line| masked(line, home)).collect()
        };
        assert_eq!(errors(&ours), errors(&theirs), "{arguments:?}");
    }
}

#[test]
fn an_archive_is_checked_for_a_new_server_as_barman_checks_it() {
    let home = Home::new();
    // Before anything was archived there is no directory for it.
    fs::remove_dir(home.wals()).unwrap();
    same_answer(&home, &[]);
    fs::create_dir_all(home.wals()).unwrap();
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    same_answer(&home, &[]);
    same_answer(&home, &["--timeline", "1"]);
    fill(&home);
    same_answer(&home, &[]);
    for timeline in ["1", "2", "3", "99999999999"] {
        same_answer(&home, &["--timeline", timeline]);
    }
    for timeline in ["0", "-1", "x"] {
        let arguments = ["check-wal-archive", "main", "--timeline", timeline];
        assert_eq!(Walarch.run(&home, &arguments).code, 2);
        assert_eq!(Barman.run(&home, &arguments).code, 2);
    }
    let text = fs::read_to_string(home.xlogdb_file()).unwrap();
    fs::write(
        home.xlogdb_file(),
        format!("{text}stranger\t1\t1.0\tNone\tNone\n"),
    )
    .unwrap();
    same_answer(&home, &["--timeline", "3"]);
    same_answer(&home, &[]);
}

#[test]
fn an_xlogdb_that_has_lost_everything_does_not_hide_the_archive() {
    let home = home_with_an_archive(&[]);
    fs::write(home.xlogdb_file(), "").unwrap();
    let check = |more: &[&str]| home.run(&[&["check-wal-archive", "main"], more].concat());
    let run = check(&[]).exits(1);
    assert!(
        run.stderr.contains("Expected empty archive"),
        "{}",
        run.stderr
    );
    let run = check(&["--timeline", "2"]).exits(1);
    assert!(
        run.stderr.contains("Found 4 files in WAL archive"),
        "{}",
        run.stderr
    );
    check(&["--timeline", "3"]).exits(0);
    let run = home.run(&["list-wals", "main"]).exits(0);
    assert!(
        run.stderr.contains("HINT: 'walarch rebuild-xlogdb main'"),
        "{}",
        run.stderr
    );
}
