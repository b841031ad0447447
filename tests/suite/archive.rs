//! What `archive-wal SERVER` does with each kind of file. Where Barman does the same, `side_by_side` shows
//! it; here stands what must hold even where Barman does otherwise.

mod commands;
mod duplicates;
mod queue;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::unistd::getuid;

use crate::support::cluster::real_wal;
use crate::support::decode::{decode, filter};
use crate::support::home::{Home, mode, names, put, put_at, time_of};
use crate::support::wal::{self, Filler, MIB, Segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const THIRD: &str = "000000010000000000000003";

fn put_segment(home: &Home, number: u64) {
    home.incoming_segments([number]);
}

#[test]
fn files_are_archived_and_listed_in_the_order_of_their_names() {
    let home = Home::with(&[("compression", "zstd")]);
    let files = home.incoming_segments([5, 2, 9, 1, 7, 3]);
    let run = home.archive().exits(0);
    let expected: Vec<String> = files.keys().cloned().collect();
    let printed: Vec<&str> = run.stdout.lines().skip(1).map(str::trim_start).collect();
    assert_eq!(printed, expected);
    assert_eq!(home.listed(), expected);
    assert_eq!(names(&home.incoming()), [""; 0]);
    for (name, bytes) in &files {
        home.assert_archived(name, bytes);
    }
}

#[test]
fn an_empty_queue_says_so() {
    let run = Home::new().archive().exits(0);
    assert_eq!(
        run.stdout,
        "Processing xlog segments from file archival for main\n\tno file found\n"
    );
}

#[test]
fn real_wal_of_a_busy_cluster_comes_back_byte_for_byte() {
    let home = Home::with(&[("compression", "zstd")]);
    fs::write(
        home.dir("identity.json"),
        format!(
            "{{\"systemid\": \"{}\", \"version\": \"15\"}}",
            real_wal().system_id
        ),
    )
    .unwrap();
    for (name, bytes) in &real_wal().archived {
        put(&home.incoming(), name, bytes);
    }
    home.archive().exits(0);
    for (name, bytes) in &real_wal().archived {
        home.assert_archived(name, bytes);
    }
}

#[test]
fn history_files_lie_at_the_root_and_all_others_in_their_group() {
    let home = Home::new();
    let (history, text) = wal::history(2);
    put(&home.incoming(), &history, &text);
    let (label, text) = wal::backup_label(&Segment::small(1));
    put(&home.incoming(), &label, &text);
    put_segment(&home, 1);
    home.archive().exits(0);
    assert_eq!(
        names(&home.wals()),
        ["0000000100000000", "00000002.history", "main-xlog.db"]
    );
    assert_eq!(
        names(&home.wals().join("0000000100000000")),
        [FIRST, &label]
    );
}

#[test]
fn time_mode_and_owner_of_the_source_stay_with_the_archived_file() {
    let codecs = [
        "none", "gzip", "pygzip", "pigz", "bzip2", "pybzip2", "xz", "zstd", "lz4", "snappy",
        "custom", "gpg",
    ];
    for codec in codecs {
        let home = match codec {
            "none" => Home::new(),
            "gpg" => Home::with(&[
                ("encryption", "gpg"),
                ("encryption_key_id", "barman@example.com"),
            ])
            .gpg_key(),
            _ => Home::with(&[
                ("compression", codec),
                ("custom_compression_filter", "gzip -c"),
                ("custom_decompression_filter", "gzip -dc"),
            ]),
        };
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 987_654_321);
        let bytes = Segment::small(1).bytes();
        let source = put_at(&home.incoming(), FIRST, &bytes, time, 0o604);
        if getuid().is_root() {
            chown(&source, Some(4711), Some(4712)).unwrap();
        }
        let owner = owner_of(&source);
        home.archive().exits(0);
        let archived = home.archived(FIRST);
        assert_eq!(
            archived.metadata().unwrap().modified().unwrap(),
            time,
            "{codec}"
        );
        assert_eq!(mode(&archived), 0o604, "{codec}");
        assert_eq!(owner_of(&archived), owner, "{codec}");
    }
}

fn owner_of(path: &Path) -> (u32, u32) {
    let metadata = path.metadata().unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn an_errors_directory_that_is_missing_is_made() {
    let home = Home::new();
    fs::remove_dir(home.errors()).unwrap();
    put(&home.incoming(), "stranger", b"?");
    home.archive().exits(0);
    assert_eq!(names(&home.errors()).len(), 1);
}

#[test]
fn brackets_in_the_path_of_incoming_hide_nothing() {
    let home = Home::with(&[("incoming_wals_directory", "{root}/in[1]*")]);
    let incoming = home.root().join("in[1]*");
    fs::create_dir(&incoming).unwrap();
    let bytes = Segment::small(1).bytes();
    put(&incoming, FIRST, &bytes);
    home.archive().exits(0);
    home.assert_archived(FIRST, &bytes);
}

#[test]
fn incoming_on_another_file_system_is_archived_whole() {
    let shm = tempfile::Builder::new()
        .prefix("walarch-in.")
        .tempdir_in("/dev/shm")
        .unwrap();
    for compression in [None, Some("lz4")] {
        let mut options = vec![("incoming_wals_directory", shm.path().to_str().unwrap())];
        options.extend(compression.map(|codec| ("compression", codec)));
        let home = Home::with(&options);
        assert_ne!(
            shm.path().metadata().unwrap().dev(),
            home.wals().metadata().unwrap().dev()
        );
        let bytes = Segment::small(1).bytes();
        put(shm.path(), FIRST, &bytes);
        home.archive().exits(0);
        home.assert_archived(FIRST, &bytes);
        assert_eq!(
            home.archived(FIRST).metadata().unwrap().modified().unwrap(),
            time_of(FIRST)
        );
        assert_eq!(names(shm.path()), [""; 0]);
    }
}

#[test]
fn segments_of_every_size_are_archived() {
    let home = Home::with(&[("compression", "zstd")]);
    for size in [MIB, 64 * MIB, 1024 * MIB] {
        let segment = Segment::of_size(size, 3).filler(Filler::Switched);
        put(&home.incoming(), &segment.name(), &segment.bytes());
        home.archive().exits(0);
        assert!(
            decode(&home.archived(&segment.name())).unwrap() == segment.bytes(),
            "{size}"
        );
        fs::remove_dir_all(home.wals()).unwrap();
        fs::create_dir(home.wals()).unwrap();
    }
}

#[test]
fn what_killed_runs_left_behind_does_not_disturb() {
    let home = Home::with(&[("compression", "gzip")]);
    let group = home.wals().join("0000000100000000");
    fs::create_dir(&group).unwrap();
    for name in [
        format!("{FIRST}.compressed"),
        format!("{FIRST}.uncompressed"),
        format!("{FIRST}.gpg"),
        format!(".{FIRST}.tmp"),
    ] {
        put(&group, &name, b"half");
    }
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    home.assert_archived(FIRST, &files[FIRST]);
    assert!(!group.join(format!(".{FIRST}.tmp")).exists());
}

#[test]
fn every_archived_segment_has_its_line_in_the_log() {
    let home = Home::new();
    home.incoming_segments(1..=2);
    home.archive().exits(0);
    let log = home.log();
    for expected in [
        "Found 2 xlog segments from file archival for main. Archive all segments in one run.",
        "Archiving segment 1 of 2 from file archival: main/000000010000000000000001",
        "Archiving segment 2 of 2 from file archival: main/000000010000000000000002",
    ] {
        assert!(log.contains(expected), "{expected}\n{log}");
    }
}

#[test]
fn a_file_still_growing_under_a_temporary_name_is_archived_once_renamed() {
    let home = Home::new();
    let bytes = Segment::small(1).bytes();
    let path = home.incoming().join(format!("{FIRST}.tmp"));
    let mut file = File::create(&path).unwrap();
    file.write_all(&bytes[..1000]).unwrap();
    home.archive().exits(0);
    assert_eq!(home.listed(), [""; 0]);
    file.write_all(&bytes[1000..]).unwrap();
    fs::rename(&path, home.incoming().join(FIRST)).unwrap();
    home.archive().exits(0);
    home.assert_archived(FIRST, &bytes);
}
