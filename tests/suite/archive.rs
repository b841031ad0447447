//! What `archive-wal SERVER` does with each kind of file. Where Barman does the same, `side_by_side` shows
//! it; here stands what must hold even where Barman does otherwise.

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
fn strangers_and_directories_go_to_errors_and_the_rest_is_archived() {
    let home = Home::new();
    put(&home.incoming(), "stranger", b"?");
    fs::create_dir(home.incoming().join("directory")).unwrap();
    put_segment(&home, 1);
    let run = home.archive().exits(0);
    assert!(run.stdout.ends_with(
        "Some unknown objects have been found while processing xlog segments for main. \
         Objects moved to errors directory:\n\tdirectory\n\tstranger\n"
    ));
    let errors = names(&home.errors());
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].starts_with("directory.") && errors[0].ends_with("Z.unknown"));
    assert!(errors[1].starts_with("stranger.") && errors[1].ends_with("Z.unknown"));
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn temporary_and_hidden_files_are_left_alone() {
    let home = Home::new();
    for name in [
        "000000010000000000000001.tmp",
        ".4711-000000010000000000000001",
        ".hidden",
    ] {
        put(&home.incoming(), name, b"half");
    }
    let before = names(&home.incoming());
    home.archive().exits(0);
    assert_eq!(names(&home.incoming()), before);
    assert_eq!(names(&home.errors()), [""; 0]);
}

#[test]
fn names_that_only_look_like_wal_are_strangers() {
    let home = Home::new();
    let arabic_digits = "00000001000000000000000\u{661}";
    for name in [
        "000000010000000000000001\n",
        arabic_digits,
        "0000000100000000000000012",
    ] {
        put(&home.incoming(), name, b"x");
    }
    let not_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(home.incoming().join(not_utf8), b"x").unwrap();
    put_segment(&home, 2);
    home.archive().exits(0);
    assert_eq!(home.listed(), [SECOND]);
    assert_eq!(names(&home.errors()).len(), 4);
    assert!(
        names(&home.errors())
            .iter()
            .all(|name| name.ends_with(".unknown"))
    );
}

#[test]
fn lower_case_names_are_wal() {
    let home = Home::new();
    let bytes = Segment::small(10).bytes();
    put(&home.incoming(), "00000001000000000000000a", &bytes);
    home.archive().exits(0);
    home.assert_archived("00000001000000000000000a", &bytes);
}

#[test]
fn compressed_arrivals_are_stored_as_they_are_under_their_own_codec() {
    let home = Home::with(&[("compression", "zstd")]);
    let plain = Segment::small(1).bytes();
    let compressed = filter(&home, "gzip", &["-c"], plain.clone());
    put(&home.incoming(), FIRST, &compressed);
    home.archive().exits(0);
    assert!(fs::read(home.archived(FIRST)).unwrap() == compressed);
    assert_eq!(home.xlogdb()[0].compression, "gzip");
}

#[test]
fn of_several_partial_files_only_the_newest_stays() {
    let home = Home::with(&[
        ("archiver", "off"),
        ("streaming_archiver", "on"),
        ("compression", "gzip"),
    ]);
    let segment = Segment::small(1).bytes();
    for number in [1, 2] {
        put(
            &home.streaming(),
            &format!("{}.partial", Segment::small(number).name()),
            &segment,
        );
    }
    home.archive().exits(0);
    assert_eq!(names(&home.streaming()), [format!("{SECOND}.partial")]);
    home.assert_archived(&format!("{FIRST}.partial"), &segment);
}

#[test]
fn without_a_partial_file_the_last_full_segment_stays() {
    let home = Home::with(&[("archiver", "off"), ("streaming_archiver", "on")]);
    home.streaming_segments(1..=2);
    let (history, text) = wal::history(2);
    put(&home.streaming(), &history, &text);
    home.archive().exits(0);
    // The receiver finds its place by it; a history file, although its name is the last, would not do.
    assert_eq!(names(&home.streaming()), [SECOND]);
    assert_eq!(home.listed().len(), 2);
}

#[test]
fn a_streaming_batch_of_one_makes_progress() {
    let home = Home::with(&[
        ("archiver", "off"),
        ("streaming_archiver", "on"),
        ("streaming_archiver_batch_size", "1"),
    ]);
    home.streaming_segments(1..=3);
    home.archive().exits(0);
    home.archive().exits(0);
    assert_eq!(names(&home.streaming()), [THIRD]);
}

#[test]
fn temporary_files_do_not_use_up_the_batch() {
    let home = Home::with(&[("archiver_batch_size", "2")]);
    for number in 0..4 {
        put(
            &home.incoming(),
            &format!("0000000000000000000000{number:02}.tmp"),
            b"half",
        );
    }
    home.incoming_segments(1..=3);
    home.archive().exits(0);
    assert_eq!(home.listed(), [FIRST, SECOND]);
}

#[test]
fn an_identical_copy_is_recognised_under_every_codec() {
    for codec in ["none", "gzip", "bzip2", "xz", "zstd", "lz4", "snappy"] {
        let home = match codec {
            "none" => Home::new(),
            _ => Home::with(&[("compression", codec)]),
        };
        put_segment(&home, 1);
        home.archive().exits(0);
        let stored = fs::read(home.archived(FIRST)).unwrap();
        put_segment(&home, 1);
        home.archive().exits(0);
        assert_eq!(names(&home.incoming()), [""; 0], "{codec}");
        assert_eq!(names(&home.errors()), [""; 0], "{codec}");
        assert_eq!(home.listed(), [FIRST], "{codec}");
        assert!(fs::read(home.archived(FIRST)).unwrap() == stored, "{codec}");
    }
}

#[test]
fn an_identical_copy_brings_back_a_missing_xlogdb_line() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments(1..=2);
    home.archive().exits(0);
    let lines = fs::read_to_string(home.xlogdb_file()).unwrap();
    let (first, second) = lines.split_once('\n').unwrap();
    fs::write(home.xlogdb_file(), second).unwrap();
    put_segment(&home, 1);
    home.archive().exits(0);
    let repaired = fs::read_to_string(home.xlogdb_file()).unwrap();
    assert!(repaired.lines().any(|line| line == first), "{repaired}");
    assert_eq!(repaired.lines().count(), 2);
}

#[test]
fn another_content_under_the_same_name_time_and_size_is_set_aside() {
    let home = Home::new();
    put_segment(&home, 1);
    home.archive().exits(0);
    let first = fs::read(home.archived(FIRST)).unwrap();
    let other = Segment::small(1).seed(99).bytes();
    put_at(&home.incoming(), FIRST, &other, time_of(FIRST), 0o640);
    let run = home.archive().exits(0);
    assert!(run.stdout.contains(&format!(
        "\tError: {FIRST} is already present in server main. File moved to errors directory.\n"
    )));
    let errors = names(&home.errors());
    assert!(
        matches!(&errors[..], [one] if one.ends_with("Z.duplicate")),
        "{errors:?}"
    );
    assert!(fs::read(home.errors().join(&errors[0])).unwrap() == other);
    assert!(fs::read(home.archived(FIRST)).unwrap() == first);
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn two_collisions_in_one_second_keep_both_files() {
    let home = Home::with(&[("streaming_archiver", "on")]);
    put_segment(&home, 1);
    home.archive().exits(0);
    put(&home.incoming(), FIRST, &Segment::small(1).seed(50).bytes());
    put(
        &home.streaming(),
        FIRST,
        &Segment::small(1).seed(51).bytes(),
    );
    home.streaming_segments([2]);
    home.archive().exits(0);
    let errors = names(&home.errors());
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors.iter().all(|name| name.ends_with(".duplicate")),
        "{errors:?}"
    );
}

#[test]
fn a_damaged_archived_copy_stops_nothing_behind_it() {
    let home = Home::with(&[("compression", "gzip")]);
    put_segment(&home, 1);
    home.archive().exits(0);
    let stored = fs::read(home.archived(FIRST)).unwrap();
    fs::write(home.archived(FIRST), &stored[..stored.len() / 2]).unwrap();
    let files = home.incoming_segments(1..=2);
    home.archive();
    home.assert_archived(SECOND, &files[SECOND]);
    // The good copy must still be somewhere.
    let kept: Vec<_> = [home.incoming(), home.errors()]
        .iter()
        .flat_map(|dir| {
            names(dir)
                .into_iter()
                .map(|name| dir.join(name))
                .collect::<Vec<_>>()
        })
        .chain([home.archived(FIRST)])
        .filter(|path| decode(path).is_ok_and(|bytes| bytes == files[FIRST]))
        .collect();
    assert!(!kept.is_empty());
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
fn a_failing_compressor_consumes_nothing_and_leaves_nothing() {
    let home = Home::with(&[
        ("compression", "custom"),
        ("custom_compression_filter", "false"),
        ("custom_decompression_filter", "cat"),
    ]);
    let files = home.incoming_segments(1..=2);
    home.archive().exits(1);
    assert_eq!(
        names(&home.incoming()),
        files.keys().cloned().collect::<Vec<_>>()
    );
    assert_eq!(home.listed(), [""; 0]);
    let left = names(&home.wals().join("0000000100000000"));
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_filter_that_fails_for_one_file_does_not_keep_the_others() {
    let home = home_with_filter(
        "input=$(mktemp {root}/input.XXXXXX) && cat > $input && ! cmp -s $input {root}/bad \
         && gzip -c $input",
        &[],
    );
    let files = home.incoming_segments(1..=5);
    put(home.root(), "bad", &files[SECOND]);
    let run = home.archive().exits(1);
    assert_eq!(run.stderr.matches("ERROR").count(), 1, "{}", run.stderr);
    assert_eq!(names(&home.incoming()), [SECOND]);
    assert!(fs::read(home.incoming().join(SECOND)).unwrap() == files[SECOND]);
    for (name, bytes) in files.iter().filter(|(name, _)| *name != SECOND) {
        home.assert_archived(name, bytes);
    }
    assert_eq!(home.listed().len(), 4);
}

#[test]
fn a_filter_that_always_fails_ends_the_run_after_a_few_files() {
    // One by one between hooks, in groups without.
    for (hook, failed_max) in [("true", 3), ("", 64)] {
        let home = home_with_filter("cat > /dev/null; exit 4", &[("post_archive_script", hook)]);
        for timeline in 2..200 {
            let (name, text) = wal::history(timeline);
            put(&home.incoming(), &name, &text);
        }
        let before = names(&home.incoming());
        let run = home.archive().exits(1);
        let failed = run.stderr.matches("ERROR").count();
        assert!((3..=failed_max).contains(&failed), "{}", run.stderr);
        assert_eq!(names(&home.incoming()), before);
        assert_eq!(home.listed(), [""; 0]);
    }
}

/// A home that compresses by a script with this body.
fn home_with_filter(body: &str, further: &[(&str, &str)]) -> Home {
    let mut options = further.to_vec();
    options.extend([
        ("compression", "custom"),
        ("custom_compression_filter", "{root}/filter"),
        ("custom_decompression_filter", "gzip -dc"),
    ]);
    let home = Home::with(&options);
    home.script("filter", body);
    home
}

#[test]
fn a_passive_server_archives_nothing() {
    let home = Home::with(&[("primary_ssh_command", "ssh barman@primary.invalid")]);
    let files = home.incoming_segments(1..=2);
    home.archive().exits(0);
    assert_eq!(
        names(&home.incoming()),
        files.into_keys().collect::<Vec<_>>()
    );
    assert_eq!(names(&home.wals()), [""; 0]);
}

#[test]
fn a_pipeline_as_custom_filter_gets_the_whole_file() {
    let home = Home::with(&[
        ("compression", "custom"),
        ("custom_compression_filter", "gzip -c | cat"),
        ("custom_decompression_filter", "gzip -dc | cat"),
        ("custom_compression_magic", "0x1f8b08"),
    ]);
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    // Barman stores the plain file: its redirections reach only the last command.
    assert!(
        fs::read(home.archived(FIRST))
            .unwrap()
            .starts_with(b"\x1f\x8b")
    );
    home.assert_archived(FIRST, &files[FIRST]);
    home.incoming_segments([1]);
    home.archive().exits(0);
    assert_eq!(names(&home.errors()), [""; 0]);
}

#[test]
fn a_failing_gpg_consumes_nothing_and_is_quoted() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "nobody@example.com"),
    ])
    .gpg_key();
    put_segment(&home, 1);
    let run = home.archive().exits(1);
    assert!(run.stderr.contains("nobody@example.com"), "{}", run.stderr);
    assert!(run.stderr.contains("No public key") || home.log().contains("No public key"));
    assert_eq!(names(&home.incoming()), [FIRST]);
    assert_eq!(home.listed(), [""; 0]);
}

#[test]
fn an_identical_encrypted_copy_is_recognised_when_the_passphrase_is_known() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("encryption_passphrase_command", "echo secret"),
        ("compression", "zstd"),
    ])
    .gpg_key();
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    home.assert_archived(FIRST, &files[FIRST]);
    put_segment(&home, 1);
    home.archive().exits(0);
    assert_eq!(names(&home.errors()), [""; 0]);
    assert_eq!(home.listed(), [FIRST]);
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
