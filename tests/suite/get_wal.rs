//! `get-wal`: what is delivered, from where, in which form; and what is not.

mod damage;
mod divided;
mod encrypted;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::cluster::real_wal;
use crate::support::decode::filter;
use crate::support::home::{Home, mode, names, put};
use crate::support::tool::{Barman, Tool, Walarch, in_home};
use crate::support::wal::{self, Filler, MIB, Segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const CODECS: [&str; 9] = [
    "none", "gzip", "bzip2", "xz", "zstd", "lz4", "snappy", "pigz", "custom",
];

/// What a run wrote, byte for byte.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    stdout: Vec<u8>,
    stderr: String,
    code: i32,
}

fn get(tool: Tool, home: &Home, arguments: &[&str]) -> Got {
    let arguments = [&["get-wal"], arguments].concat();
    got(&mut tool.command(home, &arguments))
}

fn got(command: &mut Command) -> Got {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Got {
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap(),
    }
}

/// A home with one archived segment and a history file, stored by this codec.
fn stored_by(codec: &str) -> Home {
    let mut options = vec![("compression", codec)];
    if codec == "none" {
        options.clear();
    }
    if codec == "custom" {
        options.extend([
            ("custom_compression_filter", "gzip -c"),
            ("custom_decompression_filter", "gzip -dc"),
        ]);
    }
    let home = Home::with(&options);
    home.incoming_segments([1]);
    let (history, text) = wal::history(2);
    put(&home.incoming(), &history, &text);
    home.archive().exits(0);
    home
}

fn segment(number: u64) -> Vec<u8> {
    Segment::small(number).bytes()
}

#[test]
fn every_codec_is_delivered_as_barman_delivers_it() {
    for codec in CODECS {
        let home = stored_by(codec);
        for name in [FIRST, "00000002.history"] {
            let ours = get(Walarch, &home, &["main", name]);
            let theirs = get(Barman, &home, &["main", name]);
            assert!(
                ours == theirs,
                "{codec} {name}: {}, {}",
                ours.stderr,
                theirs.stderr
            );
            assert_eq!(ours.code, 0);
        }
        assert!(
            get(Walarch, &home, &["main", FIRST]).stdout == segment(1),
            "{codec}"
        );
    }
}

#[test]
fn the_asked_compression_is_delivered_whatever_is_stored() {
    for codec in ["none", "gzip", "bzip2", "zstd"] {
        let home = stored_by(codec);
        for (option, program) in [
            ("-z", "gzip"),
            ("-x", "gzip"),
            ("--gzip", "gzip"),
            ("-j", "bzip2"),
            ("--bzip2", "bzip2"),
        ] {
            for tool in [Walarch, Barman] {
                let got = get(tool, &home, &[option, "main", FIRST]);
                assert_eq!((got.code, got.stderr.as_str()), (0, ""), "{codec} {option}");
                let plain = filter(&home, program, &["-dc"], got.stdout);
                assert!(plain == segment(1), "{tool:?} {codec} {option}");
            }
        }
        // Of two, the last one counts.
        let got = get(Walarch, &home, &["-z", "-j", "main", FIRST]);
        assert!(filter(&home, "bzip2", &["-dc"], got.stdout) == segment(1));
        let kept = get(Walarch, &home, &["--keep-compression", "main", FIRST]);
        assert_eq!(
            kept,
            get(Barman, &home, &["--keep-compression", "main", FIRST])
        );
        assert!(
            kept.stdout == fs::read(home.archived(FIRST)).unwrap(),
            "{codec}"
        );
    }
}

#[test]
fn a_directory_gets_the_file_under_its_name_and_nothing_else() {
    let home = stored_by("zstd");
    for tool in [Walarch, Barman] {
        let goal = tempfile::tempdir().unwrap();
        let directory = goal.path().to_str().unwrap();
        let got = get(tool, &home, &["-o", directory, "main", FIRST]);
        assert_eq!((got.code, got.stderr.as_str()), (0, ""));
        assert_eq!(
            String::from_utf8(got.stdout).unwrap(),
            format!("Sending WAL '{FIRST}' for server 'main' into '{directory}/{FIRST}' file\n")
        );
        assert_eq!(names(goal.path()), [FIRST]);
        assert!(fs::read(goal.path().join(FIRST)).unwrap() == segment(1));
        let ordinary = goal.path().join("ordinary");
        fs::write(&ordinary, "").unwrap();
        assert_eq!(mode(&goal.path().join(FIRST)), mode(&ordinary));
    }
}

#[test]
fn a_file_that_is_there_already_is_replaced_only_by_a_whole_one() {
    let home = stored_by("zstd");
    let goal = tempfile::tempdir().unwrap();
    let directory = goal.path().to_str().unwrap();
    let path = goal.path().join(FIRST);
    fs::write(&path, "old").unwrap();
    damage(&home, FIRST, |bytes| bytes.truncate(bytes.len() / 2));
    assert_eq!(
        get(Walarch, &home, &["-o", directory, "main", FIRST]).code,
        4
    );
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(goal.path()), [FIRST]);
    fs::remove_file(home.archived(FIRST)).unwrap();
    put(&home.incoming(), FIRST, &segment(1));
    assert_eq!(
        get(Walarch, &home, &["-o", directory, "main", FIRST]).code,
        0
    );
    assert!(fs::read(&path).unwrap() == segment(1));
    assert_eq!(names(goal.path()), [FIRST]);
}

#[test]
fn messages_and_exit_codes_are_barman_s() {
    let home = stored_by("zstd");
    let cases: &[&[&str]] = &[
        &["main", SECOND],
        &["main", "00000007.history"],
        &["-P", "main", SECOND],
        &["main", "nonsense"],
        &["main", "000000010000000000000001.gz"],
        &["-o", ".", "main", SECOND],
        &["-t", "main", "nonsense"],
        &["--test", "main", FIRST],
        &["-p", "5", "main", FIRST],
        &["--peek", "1", "main", SECOND],
        &["-p", "2", "main", "nonsense"],
        &["-p", "2", "main", "00000002.history"],
    ];
    for arguments in cases {
        for ssh in [None, Some("10.1.2.3 55555 10.1.2.4 22")] {
            let run = |tool: Tool| {
                let arguments = [&["get-wal"], *arguments].concat();
                let mut command = tool.command(&home, &arguments);
                command.envs(ssh.map(|connection| ("SSH_CONNECTION", connection)));
                got(&mut command)
            };
            assert_eq!(run(Walarch), run(Barman), "{arguments:?}");
        }
    }
    let log = home.log();
    let line = format!("WAL file '{SECOND}' not found in server 'main' (SSH host: 10.1.2.3)");
    assert_eq!(log.matches(&line).count(), 6, "{log}");
}

#[test]
fn json_is_barman_s_and_never_among_the_bytes() {
    let home = stored_by("none");
    let run = |tool: Tool, arguments: &[&str]| {
        got(&mut tool.command(&home, &[&["-f", "json", "get-wal"], arguments].concat()))
    };
    for arguments in [&["-p", "3", "main", FIRST][..], &["-t", "main", FIRST]] {
        assert_eq!(run(Walarch, arguments), run(Barman, arguments));
    }
    let got = run(Walarch, &["main", FIRST]);
    assert!(got.stdout == segment(1));
    let absent = run(Walarch, &["main", SECOND]);
    assert_eq!((absent.stdout.as_slice(), absent.code), (&b""[..], 1));
    assert!(absent.stderr.contains("not found in server"));
}

#[test]
fn what_a_restore_must_not_take_for_an_absent_file_has_another_exit_code() {
    let home = stored_by("zstd");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["main", "nonsense"], 3, "is not a valid wal file name"),
        (&["-o", "/nonexistent", "main", FIRST], 3, "Unable to open"),
        (
            &["-o", "/nonexistent", "main", FIRST],
            3,
            "\nHINT: check the directory",
        ),
        (&["other", FIRST], 5, "Unknown server 'other'"),
        (&["all", FIRST], 5, "single server context"),
        (
            &["-z", "--keep-compression", "main", FIRST],
            2,
            "not allowed",
        ),
        (
            &["-p", "0", "main", FIRST],
            2,
            "not a valid positive integer",
        ),
        (&["main"], 2, "WAL_NAME"),
    ];
    for (arguments, code, text) in cases {
        let got = get(Walarch, &home, arguments);
        assert_eq!((got.code, got.stdout.len()), (*code, 0), "{arguments:?}");
        assert!(got.stderr.contains(text), "{arguments:?}: {}", got.stderr);
    }
    fs::rename(home.wals(), home.root().join("away")).unwrap();
    for arguments in [&["main", FIRST][..], &["-p", "1", "main", FIRST]] {
        let got = get(Walarch, &home, arguments);
        assert_eq!((got.code, got.stdout.len()), (6, 0), "{arguments:?}");
    }
    home.write_config_text("[barman]\nbarman_home = {root}/home\n[main]\nbroken\n");
    assert_eq!(get(Walarch, &home, &["main", FIRST]).code, 5);
}

#[test]
fn the_places_are_searched_in_barman_s_order() {
    let home = Home::with(&[("streaming_archiver", "on")]);
    let (archived, incoming, streaming) = (
        Segment::small(1),
        Segment::small(1).seed(7),
        Segment::small(1).seed(8),
    );
    put(&home.incoming(), FIRST, &archived.bytes());
    home.archive().exits(0);
    put(&home.incoming(), FIRST, &incoming.bytes());
    put(&home.streaming(), FIRST, &streaming.bytes());
    let agree_on = |expected: &Segment, name: &str, options: &[&str]| {
        let arguments = [options, &["main", name]].concat();
        let ours = get(Walarch, &home, &arguments);
        assert!(ours.stdout == expected.bytes(), "{}", ours.stderr);
        assert_eq!(ours, get(Barman, &home, &arguments));
    };
    agree_on(&archived, FIRST, &[]);
    fs::remove_file(home.archived(FIRST)).unwrap();
    agree_on(&incoming, FIRST, &[]);
    fs::remove_file(home.incoming().join(FIRST)).unwrap();
    agree_on(&streaming, FIRST, &[]);
    // A complete segment goes before its beginning, wherever that is.
    let partial = Segment::small(1).seed(9);
    put(
        &home.streaming(),
        &format!("{FIRST}.partial"),
        &partial.bytes(),
    );
    agree_on(&streaming, FIRST, &["-P"]);
    fs::remove_file(home.streaming().join(FIRST)).unwrap();
    // The complete one is listed, so it is not one that was never there.
    for options in [&[][..], &["-P"]] {
        let got = get(Walarch, &home, &[options, &["main", FIRST]].concat());
        assert_eq!(got.code, 4, "{options:?}");
    }
    fs::write(home.xlogdb_file(), "").unwrap();
    agree_on(&partial, FIRST, &["-P"]);
    agree_on(&partial, FIRST, &["--partial"]);
}

#[test]
fn an_archived_partial_segment_is_delivered_decoded() {
    // Barman sends it as it is stored: a known bug.
    let home = Home::with(&[("compression", "zstd")]);
    let name = format!("{FIRST}.partial");
    put(&home.incoming(), &name, &segment(1));
    home.archive().exits(0);
    let got = get(Walarch, &home, &["-P", "main", FIRST]);
    assert_eq!((got.code, got.stderr.as_str()), (0, ""));
    assert!(got.stdout == segment(1));
    assert!(get(Walarch, &home, &["main", &name]).stdout == segment(1));
    assert_eq!(get(Walarch, &home, &["main", FIRST]).code, 1);
}

#[test]
fn a_partial_segment_is_delivered_only_where_there_is_no_complete_one() {
    let home = Home::new();
    let name = format!("{FIRST}.partial");
    put(&home.incoming(), &name, &segment(1));
    home.archive().exits(0);
    let archived = home.archived(FIRST);
    put(archived.parent().unwrap(), FIRST, b"damaged");
    let got = get(Walarch, &home, &["-P", "main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (4, 0), "{}", got.stderr);
    fs::remove_file(archived).unwrap();
    // Another partial one that is of no use does not stand in its way.
    put(&home.streaming(), &name, b"");
    assert!(get(Walarch, &home, &["-P", "main", FIRST]).stdout == segment(1));
}

#[test]
fn a_partial_segment_that_is_not_preallocated_is_filled_up() {
    let home = Home::new();
    let whole = segment(1);
    put(
        &home.streaming(),
        &format!("{FIRST}.partial"),
        &whole[..100_000],
    );
    let mut expected = whole[..100_000].to_vec();
    expected.resize(whole.len(), 0);
    assert!(get(Walarch, &home, &["-P", "main", FIRST]).stdout == expected);
    let packed = get(Walarch, &home, &["-z", "-P", "main", FIRST]);
    assert!(filter(&home, "gzip", &["-dc"], packed.stdout) == expected);
}

#[test]
fn a_partial_segment_into_which_nothing_was_received_is_none() {
    let home = stored_by("none");
    fs::write(home.xlogdb_file(), "").unwrap();
    fs::remove_file(home.archived(FIRST)).unwrap();
    let name = format!("{FIRST}.partial");
    let nothing = |home: &Home, bytes: &[u8]| {
        put(&home.streaming(), &name, bytes);
        for options in [&["-P"][..], &["-P", "-z"], &["-P", "--keep-compression"]] {
            let got = get(Walarch, home, &[options, &["main", FIRST]].concat());
            assert_eq!((got.code, got.stdout.len()), (1, 0), "{}", got.stderr);
            assert_eq!(
                got.stderr,
                format!("ERROR: WAL file '{FIRST}' not found in server 'main'\n")
            );
        }
    };
    nothing(&home, b"");
    // The room that a receiver makes, as large as a segment.
    nothing(&home, &[0; MIB as usize]);
    nothing(&home, &vec![0; 64 * MIB as usize]);
    // An archived one is of use, and so is what a queue brings after it.
    put(&home.incoming(), &name, &segment(1));
    assert!(get(Walarch, &home, &["-P", "main", FIRST]).stdout == segment(1));
    fs::remove_file(home.incoming().join(&name)).unwrap();
    // What was written over, or cut within its first page, is not blank.
    let mut bad = segment(1);
    bad[..8192].fill(0);
    put(&home.streaming(), &name, &bad);
    assert_eq!(get(Walarch, &home, &["-P", "main", FIRST]).code, 4);
    put(&home.streaming(), &name, b"garbage");
    assert_eq!(get(Walarch, &home, &["-P", "main", FIRST]).code, 4);
}

#[test]
fn options_may_be_repeated_and_abbreviated() {
    let home = stored_by("zstd");
    for arguments in [
        &["-P", "-P", "main", FIRST][..],
        &["-z", "-z", "main", FIRST],
        &["--part", "--gz", "main", FIRST],
        &["--keep", "--keep", "main", FIRST],
        &["-p", "1", "--pe", "2", "main", FIRST],
        &["--te", "-t", "main", FIRST],
    ] {
        let [ours, theirs] = [Walarch, Barman].map(|tool| get(tool, &home, arguments));
        assert_eq!(
            (ours.code, theirs.code),
            (0, 0),
            "{arguments:?}: {}",
            ours.stderr
        );
        // A compressor may choose other bytes.
        assert_eq!(ours.stdout.len() > 100, theirs.stdout.len() > 100);
    }
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [first, second] = [first.path(), second.path()];
    let directories = [first, second].map(|path| path.to_str().unwrap());
    let arguments = ["-o", directories[0], "--out", directories[1], "main", FIRST];
    assert_eq!(get(Walarch, &home, &arguments).code, 0);
    assert_eq!(names(first), [""; 0]);
    assert_eq!(names(second), [FIRST]);
}

#[test]
fn files_in_the_queues_are_delivered_whatever_the_sender_made_of_them() {
    let home = Home::with(&[("compression", "zstd")]);
    let gzip = filter(&home, "gzip", &["-c"], segment(1));
    put(&home.incoming(), FIRST, &gzip);
    put(&home.streaming(), SECOND, &segment(2));
    for (name, number) in [(FIRST, 1), (SECOND, 2)] {
        let got = get(Walarch, &home, &["main", name]);
        assert_eq!((got.code, got.stderr.as_str()), (0, ""));
        assert!(got.stdout == segment(number));
    }
    let real = real_wal();
    for (name, bytes) in &real.archived {
        put(&home.incoming(), name, bytes);
        assert!(
            get(Walarch, &home, &["main", name]).stdout == *bytes,
            "{name}"
        );
    }
}

#[test]
fn a_list_of_names_goes_on_into_the_next_log_and_stops_at_a_gap() {
    let home = Home::new();
    // 1 MiB segments: 4096 in a log.
    home.incoming_segments([4094, 4095, 4096, 4097, 4099]);
    home.archive().exits(0);
    home.streaming_segments([4098]);
    put(
        &home.streaming(),
        "000000010000000100000004.partial",
        &segment(4100),
    );
    for (from, size) in [
        (4094, "10"),
        (4094, "3"),
        (4096, "1"),
        (4099, "10"),
        (4100, "10"),
    ] {
        let name = Segment::small(from).name();
        let ours = get(Walarch, &home, &["-p", size, "main", &name]);
        assert_eq!(ours, get(Barman, &home, &["-p", size, "main", &name]));
        let listed = String::from_utf8(ours.stdout).unwrap().lines().count();
        let expected = [
            (4094, "10", 6),
            (4094, "3", 3),
            (4096, "1", 1),
            (4099, "10", 1),
        ];
        let expected = expected
            .iter()
            .find(|case| (case.0, case.1) == (from, size));
        assert_eq!(listed, expected.map_or(0, |case| case.2), "{from} {size}");
    }
}

const GPG: [(&str, &str); 3] = [
    ("encryption", "gpg"),
    ("encryption_key_id", "barman@example.com"),
    ("compression", "gzip"),
];

#[test]
fn inactive_servers_give_their_wal_back_too() {
    let home = stored_by("zstd");
    let mut text = fs::read_to_string(home.config_file()).unwrap();
    text.push_str("active = false\n");
    home.write_config_text(&text);
    for tool in [Walarch, Barman] {
        let got = get(tool, &home, &["main", FIRST]);
        assert!(got.code == 0 && got.stdout == segment(1), "{}", got.stderr);
    }
}

#[test]
fn many_segments_can_be_asked_for_while_they_are_archived() {
    let home = Home::with(&[("compression", "zstd")]);
    let files = home.incoming_segments(1..=30);
    let archiver = Walarch
        .command(&home, &["-q", "archive-wal", "main"])
        .spawn();
    for (name, bytes) in &files {
        let got = get(Walarch, &home, &["main", name]);
        assert!(
            got.code == 0 && got.stdout == *bytes,
            "{name}: {}",
            got.stderr
        );
    }
    assert!(archiver.unwrap().wait().unwrap().success());
    std::io::stdout().flush().unwrap();
}

/// Changes the stored bytes of an archived file.
fn damage(home: &Home, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(home.archived(name)).unwrap();
    change(&mut bytes);
    fs::write(home.archived(name), bytes).unwrap();
}

/// Nothing at all comes out, to a stream or into a directory, and the exit code is that of damage.
#[track_caller]
fn assert_refused(home: &Home, name: &str, text: &str) {
    for options in [&[][..], &["-z"], &["--keep-compression"]] {
        let got = get(Walarch, home, &[options, &["main", name]].concat());
        assert_eq!(
            (got.code, got.stdout.len()),
            (4, 0),
            "{options:?}: {}",
            got.stderr
        );
        assert!(got.stderr.starts_with("ERROR: "), "{}", got.stderr);
        assert!(got.stderr.contains("\nHINT: "), "{}", got.stderr);
        assert!(got.stderr.contains(text), "{}", got.stderr);
    }
    let goal = tempfile::tempdir().unwrap();
    let got = get(
        Walarch,
        home,
        &["-o", goal.path().to_str().unwrap(), "main", name],
    );
    assert_eq!(got.code, 4);
    assert_eq!(names(goal.path()), [""; 0]);
}
