//! The xlogdb: lines old and new, torn, missing, migrated, rebuilt, locked.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::support::home::{Home, names, put};
use crate::support::tool::{Walarch, finish, start};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
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

#[test]
fn a_torn_last_line_is_repaired() {
    let home = home_with_an_archive();
    let whole = text(&home);
    let last = whole.lines().last().unwrap();
    let torn = whole.strip_suffix(&format!("{}\n", &last[10..])).unwrap();
    fs::write(home.xlogdb_file(), torn).unwrap();
    home.incoming_segments([4]);
    home.archive().exits(0);
    let mut listed = home.listed();
    listed.sort();
    let mut expected: Vec<String> = whole
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned())
        .collect();
    expected.push("000000010000000000000004".to_owned());
    expected.sort();
    // The torn line's own file is whole in the archive: either its line is back or it is gone for
    // rebuild-xlogdb to find; it is never glued to the next one.
    assert!(
        listed == expected || listed.len() + 1 == expected.len(),
        "{}",
        text(&home)
    );
    assert!(text(&home).ends_with('\n'));
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    let mut listed = home.listed();
    listed.sort();
    assert_eq!(listed, expected);
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
