//! `archive-wal SERVER PATH`, as PostgreSQL's `archive_command`: exit 0 is a promise, and the file stays
//! PostgreSQL's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::cluster::archived_by_walarch;
use crate::support::decode::decode;
use crate::support::home::{Files, Home, mode, names, put, time_of};
use crate::support::tool::{Run, Walarch, finish, start};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";

/// A home and, outside of it, `pg_wal` with a segment.
fn home_and_pg_wal(options: &[(&str, &str)]) -> (Home, PathBuf, Files) {
    let home = Home::with(options);
    let pg_wal = home.root().join("pgdata/pg_wal");
    fs::create_dir_all(&pg_wal).unwrap();
    let bytes = Segment::small(1).bytes();
    let path = put(&pg_wal, FIRST, &bytes);
    (home, path, Files::from([(FIRST.to_owned(), bytes)]))
}

fn archive(home: &Home, path: &str) -> Run {
    home.run(&["archive-wal", "main", path])
}

#[track_caller]
fn assert_untouched(path: &PathBuf, bytes: &[u8]) {
    let metadata = path.metadata().unwrap();
    assert!(fs::read(path).unwrap() == bytes);
    assert_eq!(
        metadata.nlink(),
        1,
        "PostgreSQL recycles segments: a second name would change with it"
    );
    assert_eq!(metadata.modified().unwrap(), time_of(FIRST));
    assert_eq!(mode(path), 0o640);
}

#[test]
fn the_file_is_archived_and_stays_where_it_is() {
    for options in [&[][..], &[("compression", "zstd")]] {
        let (home, path, files) = home_and_pg_wal(options);
        archive(&home, path.to_str().unwrap()).exits(0);
        assert!(decode(&home.archived(FIRST)).unwrap() == files[FIRST]);
        assert_eq!(
            home.archived(FIRST).metadata().unwrap().modified().unwrap(),
            time_of(FIRST)
        );
        assert_eq!(home.listed(), [FIRST]);
        assert_untouched(&path, &files[FIRST]);
    }
}

#[test]
fn a_relative_path_starts_at_the_working_directory() {
    let (home, _, _) = home_and_pg_wal(&[]);
    let mut command = Walarch.command(
        &home,
        &["archive-wal", "main", "pg_wal/000000010000000000000001"],
    );
    command.current_dir(home.root().join("pgdata"));
    finish(start(&mut command), Duration::from_secs(60)).exits(0);
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn history_files_and_labels_are_archived_too() {
    let (home, path, _) = home_and_pg_wal(&[("compression", "gzip")]);
    for (name, bytes) in [wal::history(2), wal::backup_label(&Segment::small(1))] {
        let path = put(path.parent().unwrap(), &name, &bytes);
        archive(&home, path.to_str().unwrap()).exits(0);
        assert!(decode(&home.archived(&name)).unwrap() == bytes);
    }
    assert_eq!(home.listed().len(), 2);
}

#[test]
fn waiting_files_in_incoming_are_not_touched() {
    let (home, path, _) = home_and_pg_wal(&[]);
    home.incoming_segments([7]);
    archive(&home, path.to_str().unwrap()).exits(0);
    assert_eq!(names(&home.incoming()).len(), 1);
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn the_same_content_again_is_success_and_listed_once() {
    let (home, path, files) = home_and_pg_wal(&[("compression", "zstd")]);
    for _ in 0..2 {
        archive(&home, path.to_str().unwrap()).exits(0);
    }
    assert_eq!(home.listed(), [FIRST]);
    assert_untouched(&path, &files[FIRST]);
}

#[test]
fn an_archived_file_without_its_line_is_listed_again() {
    let (home, path, _) = home_and_pg_wal(&[("compression", "zstd")]);
    archive(&home, path.to_str().unwrap()).exits(0);
    fs::write(home.xlogdb_file(), "").unwrap();
    archive(&home, path.to_str().unwrap()).exits(0);
    assert_eq!(home.listed(), [FIRST]);
}

/// Must fail, say so, change neither archive nor source, and set nothing aside.
#[track_caller]
fn assert_refused(home: &Home, path: &str) -> Run {
    let before = home.listed();
    let run = archive(home, path);
    assert!((1..=125).contains(&run.code), "{run:?}");
    assert!(run.stderr.contains("ERROR"), "{run:?}");
    assert_eq!(home.listed(), before);
    assert_eq!(names(&home.errors()), [""; 0]);
    run
}

#[test]
fn another_content_under_an_archived_name_is_refused() {
    let (home, path, files) = home_and_pg_wal(&[]);
    archive(&home, path.to_str().unwrap()).exits(0);
    let other = Segment::small(1).seed(9).bytes();
    put(path.parent().unwrap(), FIRST, &other);
    assert_refused(&home, path.to_str().unwrap());
    assert!(fs::read(home.archived(FIRST)).unwrap() == files[FIRST]);
    assert_untouched(&path, &other);
}

#[test]
fn an_invalid_segment_is_refused() {
    let (home, path, files) = home_and_pg_wal(&[]);
    for bytes in [
        &[][..],
        &files[FIRST][..8192 * 3],
        &Segment::small(5).bytes()[..],
    ] {
        put(path.parent().unwrap(), FIRST, bytes);
        assert_refused(&home, path.to_str().unwrap());
        assert!(!home.archived(FIRST).exists());
        assert_untouched(&path, bytes);
    }
}

#[test]
fn what_is_not_there_or_not_wal_is_refused() {
    let (home, path, _) = home_and_pg_wal(&[]);
    let pg_wal = path.parent().unwrap();
    assert_refused(
        &home,
        pg_wal.join("000000010000000000000009").to_str().unwrap(),
    );
    let stranger = put(pg_wal, "postgresql.conf", b"x");
    assert_refused(&home, stranger.to_str().unwrap());
    let directory = pg_wal.join("00000001000000000000000A");
    fs::create_dir(&directory).unwrap();
    assert_refused(&home, directory.to_str().unwrap());
}

#[test]
fn a_server_that_takes_no_wal_refuses() {
    let without_a_slot = &[
        ("archiver", "off"),
        ("streaming_archiver", "on"),
        ("slot_name", ""),
    ];
    for options in [&[("active", "false")][..], without_a_slot] {
        let (home, path, _) = home_and_pg_wal(options);
        let run = archive(&home, path.to_str().unwrap());
        assert_ne!(run.code, 0, "{options:?}");
        assert!(!home.archived(FIRST).exists());
    }
    let (home, path, _) = home_and_pg_wal(&[]);
    assert_ne!(
        home.run(&["archive-wal", "nobody", path.to_str().unwrap()])
            .code,
        0
    );
    assert_ne!(
        home.run(&["archive-wal", "all", path.to_str().unwrap()])
            .code,
        0
    );
}

#[test]
fn a_stop_by_the_pre_hook_is_one_error() {
    let (home, path, _) = home_and_pg_wal(&[("pre_archive_retry_script", "exit 63")]);
    let run = archive(&home, path.to_str().unwrap()).exits(1);
    assert_eq!(run.stderr.matches("ERROR").count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains(FIRST), "{}", run.stderr);
    assert!(!home.archived(FIRST).exists());
}

const ENCRYPTED: [(&str, &str); 2] = [
    ("encryption", "gpg"),
    ("encryption_key_id", "barman@example.com"),
];

#[test]
fn an_encrypted_copy_that_nobody_can_decrypt_is_refused_as_that() {
    let (home, path, files) = home_and_pg_wal(&ENCRYPTED);
    let home = home.gpg_key();
    archive(&home, path.to_str().unwrap()).exits(0);
    let run = assert_refused(&home, path.to_str().unwrap()).exits(1);
    assert!(run.stderr.contains("cannot be compared"), "{}", run.stderr);
    assert!(!run.stderr.contains("different content"), "{}", run.stderr);
    assert_untouched(&path, &files[FIRST]);
}

#[test]
fn an_encrypted_copy_is_compared_by_a_key_without_a_passphrase() {
    let (home, path, _) = home_and_pg_wal(&ENCRYPTED);
    let home = home.gpg_key_with_passphrase("");
    for _ in 0..2 {
        archive(&home, path.to_str().unwrap()).exits(0);
    }
    assert_eq!(home.listed(), [FIRST]);
    put(
        path.parent().unwrap(),
        FIRST,
        &Segment::small(1).seed(9).bytes(),
    );
    let run = assert_refused(&home, path.to_str().unwrap());
    assert!(run.stderr.contains("different content"), "{}", run.stderr);
}

#[test]
fn a_failing_codec_is_not_success() {
    let (home, path, _) = home_and_pg_wal(&[
        ("compression", "custom"),
        ("custom_compression_filter", "cat; false"),
        ("custom_decompression_filter", "cat"),
    ]);
    assert_ne!(archive(&home, path.to_str().unwrap()).code, 0);
    assert!(!home.archived(FIRST).exists());
}

#[test]
fn it_waits_for_another_archiver_instead_of_skipping() {
    let (home, path, _) = home_and_pg_wal(&[]);
    let lock = home.hold_lock(".main-archive-wal.lock");
    let mut command = Walarch.command(&home, &["archive-wal", "main", path.to_str().unwrap()]);
    let mut child = start(&mut command);
    std::thread::sleep(Duration::from_millis(500));
    assert!(
        child.try_wait().unwrap().is_none(),
        "it did not wait for the lock"
    );
    assert!(home.listed().is_empty());
    drop(lock);
    finish(child, Duration::from_secs(60)).exits(0);
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn many_at_once_all_succeed_and_are_listed_once_each() {
    let (home, path, _) = home_and_pg_wal(&[("compression", "zstd")]);
    let files: Vec<PathBuf> = (1..=6)
        .map(|number| {
            let segment = Segment::small(number);
            put(path.parent().unwrap(), &segment.name(), &segment.bytes())
        })
        .collect();
    let children: Vec<_> = files
        .iter()
        .map(|path| {
            start(&mut Walarch.command(&home, &["archive-wal", "main", path.to_str().unwrap()]))
        })
        .collect();
    for child in children {
        finish(child, Duration::from_secs(60)).exits(0);
    }
    let mut listed = home.listed();
    listed.sort();
    let expected: Vec<String> = (1..=6)
        .map(|number| Segment::small(number).name())
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn a_real_cluster_archives_by_it() {
    let home = Home::with(&[("compression", "zstd")]);
    // The server runs as another user when the tests run as root.
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("barman_user = root", "barman_user = postgres"));
    let done = archived_by_walarch(&home);
    assert!(done.len() >= 2, "{:?}", done.keys());
    for (name, bytes) in &done {
        home.assert_archived(name, bytes);
    }
}
