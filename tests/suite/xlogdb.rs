//! The xlogdb: lines old and new, torn, missing, migrated, rebuilt, locked.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::support::home::{Home, names, put};
use crate::support::tool::{Walarch, finish, start, wait_for};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";
const LIMIT: Duration = Duration::from_secs(60);

fn text(home: &Home) -> String {
    fs::read_to_string(home.xlogdb_file()).unwrap()
}

/// A home that has archived the segments 1 to 3, a label and a history file.
fn home_with_an_archive() -> Home {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments(1..=3);
    for (name, bytes) in [wal::history(2), wal::backup_label(&Segment::small(2))] {
        put(&home.incoming(), &name, &bytes);
    }
    home.archive().exits(0);
    home
}

#[test]
fn lines_of_older_versions_stay_as_they_are() {
    let home = Home::new();
    let old = "000000010000000000000008\t16777216\t1406019022.4\n\
               000000010000000000000009\t16777216\t1406019022.4\tgzip\n\
               00000001000000000000000A\t16777216\t1406019022.4\tNone\tNone\n";
    fs::write(home.xlogdb_file(), old).unwrap();
    home.incoming_segments([11]);
    home.archive().exits(0);
    assert!(text(&home).starts_with(old));
    assert_eq!(text(&home).lines().count(), 4);
}

/// The line of the file comes last and is cut after so many bytes, and this follows it; the next run must
/// leave every file with the one line that it had.
#[track_caller]
fn assert_repaired(archive: &Home, name: &str, kept_bytes: usize, tail: &str) {
    let home = archive.copy();
    let whole = text(&home);
    let (torn, others): (Vec<&str>, Vec<&str>) = whole
        .split_inclusive('\n')
        .partition(|line| line.starts_with(&format!("{name}\t")));
    let torn = &torn[0][..kept_bytes.min(torn[0].len())];
    fs::write(
        home.xlogdb_file(),
        format!("{}{torn}{tail}", others.concat()),
    )
    .unwrap();
    let new = home.incoming_segments([4]).into_keys().next().unwrap();
    home.archive().exits(0);
    let repaired = text(&home);
    let mut expected: Vec<&str> = whole.lines().collect();
    expected.sort_unstable();
    let mut found: Vec<&str> = repaired
        .lines()
        .filter(|line| !line.starts_with(&new))
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected, "torn: {torn:?}, then {tail:?}");
    assert_eq!(repaired.matches(&new).count(), 1, "{repaired}");
    assert!(repaired.ends_with('\n'));
}

#[test]
fn a_torn_last_line_is_written_anew_although_its_source_is_gone() {
    let archive = home_with_an_archive();
    // Inside the name, at its end, inside the size, before the newline.
    for kept_bytes in [1, 10, 23, 24, 25, 27, 59] {
        assert_repaired(&archive, SECOND, kept_bytes, "");
    }
    let last = text(&archive);
    let last = last
        .lines()
        .find(|line| line.starts_with("00000001") && line.contains("03\t"));
    assert_repaired(&archive, THIRD, last.unwrap().len(), "");
    assert_repaired(&archive, "00000002.history", 12, "");
}

#[test]
fn a_torn_last_line_of_a_label_is_not_taken_for_its_segments() {
    let archive = home_with_an_archive();
    let (label, _) = wal::backup_label(&Segment::small(2));
    for kept_bytes in [
        23,
        24,
        25,
        30,
        label.len() - 1,
        label.len(),
        label.len() + 1,
    ] {
        assert_repaired(&archive, &label, kept_bytes, "");
    }
}

#[test]
fn zeros_of_a_power_cut_after_a_torn_line_are_cut_off() {
    let archive = home_with_an_archive();
    for zeros in [1, 5000] {
        for kept_bytes in [0, 10, 30, usize::MAX] {
            assert_repaired(&archive, SECOND, kept_bytes, &"\0".repeat(zeros));
        }
    }
}

#[test]
fn the_old_name_migrates() {
    let home = home_with_an_archive();
    let lines = text(&home);
    fs::rename(home.xlogdb_file(), home.wals().join("xlog.db")).unwrap();
    home.incoming_segments([4]);
    home.archive().exits(0);
    assert!(!home.wals().join("xlog.db").exists());
    let mut listed = home.listed();
    listed.sort();
    assert_eq!(listed.len(), lines.lines().count() + 1);
    listed.dedup();
    assert_eq!(listed.len(), lines.lines().count() + 1);
}

#[test]
fn a_missing_file_is_rebuilt_from_the_archive() {
    let home = home_with_an_archive();
    let mut lines: Vec<_> = home.xlogdb();
    fs::remove_file(home.xlogdb_file()).unwrap();
    home.archive().exits(0);
    home.incoming_segments([4]);
    home.archive().exits(0);
    let rebuilt: Vec<_> = home
        .xlogdb()
        .into_iter()
        .filter(|line| !line.name.ends_with("04"))
        .collect();
    lines.sort();
    let mut sorted = rebuilt;
    sorted.sort();
    assert_eq!(sorted, lines);
}

#[test]
fn rebuild_finds_what_is_in_the_archive_and_counts_it() {
    let home = home_with_an_archive();
    let mut before = home.xlogdb();
    before.sort();
    fs::write(home.xlogdb_file(), "").unwrap();
    let run = home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert_eq!(
        run.stdout,
        "Rebuilding xlogdb for server main\n\
         Done rebuilding xlogdb for server main (history: 1, backup_labels: 1, wal_file: 3)\n"
    );
    let mut after = home.xlogdb();
    after.sort();
    assert_eq!(after, before);
}

/// A home that has archived a file and keeps xlogdb in a directory of its own.
fn home_with_xlogdb_elsewhere() -> (Home, PathBuf) {
    let home = Home::with(&[("xlogdb_directory", "{root}/elsewhere")]);
    fs::create_dir(home.root().join("elsewhere")).unwrap();
    home.incoming_segments([1]);
    home.archive().exits(0);
    let xlogdb = home.root().join("elsewhere/main-xlog.db");
    (home, xlogdb)
}

#[test]
fn nothing_is_archived_in_the_place_of_an_archive_that_has_gone() {
    let (home, xlogdb) = home_with_xlogdb_elsewhere();
    let lines = fs::read_to_string(&xlogdb).unwrap();
    fs::rename(home.wals(), home.root().join("unmounted")).unwrap();
    let files = home.incoming_segments([2]);
    for arguments in [&["archive-wal", "main"][..], &["rebuild-xlogdb", "main"]] {
        home.run(arguments).exits(1);
        assert!(!home.wals().exists(), "{arguments:?}");
        assert_eq!(fs::read_to_string(&xlogdb).unwrap(), lines);
        assert_eq!(
            names(&home.incoming()),
            files.keys().cloned().collect::<Vec<_>>()
        );
    }
}

#[test]
fn an_empty_archive_does_not_empty_the_xlogdb() {
    let (home, xlogdb) = home_with_xlogdb_elsewhere();
    let lines = fs::read_to_string(&xlogdb).unwrap();
    fs::rename(home.wals(), home.root().join("unmounted")).unwrap();
    fs::create_dir(home.wals()).unwrap();
    home.run(&["rebuild-xlogdb", "main"]).exits(1);
    assert_eq!(fs::read_to_string(&xlogdb).unwrap(), lines);
    assert_eq!(names(xlogdb.parent().unwrap()), ["main-xlog.db"]);
}

#[test]
fn the_first_file_of_all_is_listed_with_its_own_codecs() {
    let encrypted = [
        ("compression", "zstd"),
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
    ];
    let cases = [
        (&encrypted[..], "zstd", "gpg"),
        (&[("compression", "pygzip")], "pygzip", "None"),
        (&[], "None", "None"),
    ];
    for (options, compression, encryption) in cases {
        let home = Home::with(options).gpg_key();
        home.incoming_segments([1]);
        home.archive().exits(0);
        let line = home.xlogdb().remove(0);
        assert_eq!(
            (&*line.name, &*line.compression, &*line.encryption),
            (FIRST, compression, encryption)
        );
    }
}

#[test]
fn a_file_that_a_rebuild_has_listed_meanwhile_gets_no_second_line() {
    let home = Home::new();
    home.incoming_segments([1]);
    home.archive().exits(0);
    let lock = home.hold_lock(".main-xlogdb.lock");
    home.incoming_segments([2]);
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    wait_for("the archived file", || {
        home.archived(SECOND).exists().then_some(())
    });
    // As Barman's rebuild does: in place, and with what it finds in the archive.
    let line = text(&home);
    fs::write(
        home.xlogdb_file(),
        format!("{line}{}", line.replace(FIRST, SECOND)),
    )
    .unwrap();
    drop(lock);
    finish(child, LIMIT).exits(0);
    assert_eq!(home.listed(), [FIRST, SECOND]);
    assert_eq!(names(&home.incoming()), [""; 0]);
}

#[test]
fn rebuild_keeps_partial_files() {
    let home = Home::with(&[("archiver", "off"), ("streaming_archiver", "on")]);
    for number in [1, 2] {
        let name = format!("{}.partial", Segment::small(number).name());
        put(&home.streaming(), &name, &Segment::small(number).bytes());
    }
    home.archive().exits(0);
    assert_eq!(home.listed(), [format!("{FIRST}.partial")]);
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert_eq!(home.listed(), [format!("{FIRST}.partial")]);
}

#[test]
fn a_directory_of_its_own_is_honoured() {
    let home = Home::with(&[("xlogdb_directory", "{root}/elsewhere")]);
    fs::create_dir(home.root().join("elsewhere")).unwrap();
    home.incoming_segments([1]);
    home.archive().exits(0);
    let lines = fs::read_to_string(home.root().join("elsewhere/main-xlog.db")).unwrap();
    assert!(lines.starts_with(FIRST));
    assert!(!home.xlogdb_file().exists());
}

#[test]
fn appending_waits_for_whoever_holds_the_lock() {
    let home = Home::new();
    let files = home.incoming_segments([1]);
    let lock = home.hold_lock(".main-xlogdb.lock");
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    thread::sleep(Duration::from_millis(700));
    assert_eq!(home.listed(), [""; 0]);
    assert!(
        home.incoming().join(FIRST).exists(),
        "the source went before its line was written"
    );
    drop(lock);
    finish(child, LIMIT).exits(0);
    assert_eq!(home.listed(), files.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn a_lock_file_unlinked_while_waiting_protects_nothing() {
    let home = Home::new();
    home.incoming_segments([1]);
    let old = home.hold_lock(".main-xlogdb.lock");
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    thread::sleep(Duration::from_millis(500));
    // As Barman's cron does: the file is unlinked, and somebody locks its successor.
    fs::remove_file(home.barman_home().join(".main-xlogdb.lock")).unwrap();
    let new = home.hold_lock(".main-xlogdb.lock");
    drop(old);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(
        home.listed(),
        [""; 0],
        "it wrote while another process held the lock"
    );
    drop(new);
    finish(child, LIMIT).exits(0);
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn a_brief_probe_of_the_lock_does_not_make_a_run_skip() {
    let home = Home::new();
    home.incoming_segments([1]);
    // As every start of Barman does: it takes each free lock for an instant.
    let probe = home.hold_lock(".main-archive-wal.lock");
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    thread::sleep(Duration::from_millis(30));
    drop(probe);
    finish(child, LIMIT).exits(0);
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn two_servers_runs_at_once_lose_no_line() {
    let home = Home::with(&[("compression", "zstd")]);
    let mut expected = Vec::new();
    for round in 0..5u64 {
        let first = round * 10 + 1;
        expected.extend(home.incoming_segments(first..first + 6).into_keys());
        let children =
            [(); 3].map(|()| start(&mut Walarch.command(&home, &["archive-wal", "main"])));
        for child in children {
            finish(child, LIMIT).exits(0);
        }
        home.archive().exits(0);
    }
    let mut listed = home.listed();
    listed.sort();
    assert_eq!(listed, expected);
}

#[test]
fn a_line_appended_by_another_process_meanwhile_stays() {
    let home = Home::new();
    home.incoming_segments([1]);
    home.archive().exits(0);
    let lock = home.hold_lock(".main-xlogdb.lock");
    home.incoming_segments([2]);
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    thread::sleep(Duration::from_millis(300));
    let mut file = OpenOptions::new()
        .append(true)
        .open(home.xlogdb_file())
        .unwrap();
    file.write_all(b"000000010000000000000009\t16777216\t1406019022.4\tNone\tNone\n")
        .unwrap();
    drop(lock);
    finish(child, LIMIT).exits(0);
    assert_eq!(home.listed(), [FIRST, "000000010000000000000009", SECOND]);
    assert_eq!(names(&home.incoming()), [""; 0]);
}
