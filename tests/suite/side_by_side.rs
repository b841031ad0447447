//! walarch and the real Barman, started alike in two copies of one home, must leave the same behind; and
//! each must be able to go on where the other stopped.

use std::fs;

use crate::support::compare::{Outcome, assert_same, both_do_the_same, outcome};
use crate::support::decode::{decode_with_tools, filter};
use crate::support::home::{Home, names, put, put_at, time_of};
use crate::support::tool::{Barman, Tool, Walarch};
use crate::support::wal::{self, Filler, Segment};

const ARCHIVE: [&str; 2] = ["archive-wal", "main"];
const FIRST: &str = "000000010000000000000001";
const STREAMING: [(&str, &str); 2] = [("archiver", "off"), ("streaming_archiver", "on")];

/// One of each kind of WAL file that may arrive.
fn put_every_kind(home: &Home) {
    home.incoming_segments([1, 2]);
    let (history, text) = wal::history(2);
    put(&home.incoming(), &history, &text);
    let (label, text) = wal::backup_label(&Segment::small(2));
    put(&home.incoming(), &label, &text);
    let partial = Segment::small(3);
    put(
        &home.incoming(),
        &format!("{}.partial", partial.name()),
        &partial.bytes(),
    );
    let switched = Segment::small(4).timeline(2).filler(Filler::Switched);
    put(&home.incoming(), &switched.name(), &switched.bytes());
    let noise = Segment::small(0x1234).timeline(2).filler(Filler::Noise);
    put(&home.incoming(), &noise.name(), &noise.bytes());
}

/// Archives every kind of file with these options in both homes, then lets each tool fetch, recognise and
/// rebuild what the other one wrote.
#[track_caller]
fn same_and_interchangeable(options: &[(&str, &str)]) {
    let home = Home::with(options);
    put_every_kind(&home);
    let (theirs, ours) = both_do_the_same(&home, &ARCHIVE);
    goes_on_after(Walarch, &theirs);
    goes_on_after(Barman, &ours);
    barman_reads_back(&home, &ours);
}

/// The tool recognises every archived file of the other one as identical, and rebuilds the same xlogdb.
#[track_caller]
fn goes_on_after(tool: Tool, home: &Home) {
    let mut lines = home.xlogdb();
    for line in &mut lines {
        // A file does not tell which program compressed it.
        let codec = match line.compression.as_str() {
            "pigz" | "pygzip" => "gzip",
            "pybzip2" => "bzip2",
            other => other,
        };
        line.compression = codec.to_owned();
    }
    lines.sort();
    put_every_kind(home);
    tool.run(home, &ARCHIVE).exits(0);
    assert_eq!(
        names(&home.incoming()),
        [""; 0],
        "{tool:?} does not recognise the copies"
    );
    assert_eq!(
        names(&home.errors()),
        [""; 0],
        "{tool:?} takes identical copies for different ones"
    );
    tool.run(home, &["rebuild-xlogdb", "main"]).exits(0);
    let mut rebuilt = home.xlogdb();
    rebuilt.sort();
    // Barman forgets partial files when it rebuilds.
    lines.retain(|line| tool == Walarch || !line.name.ends_with(".partial"));
    assert_eq!(rebuilt, lines, "{tool:?} rebuilds another xlogdb");
}

#[track_caller]
fn barman_reads_back(originals: &Home, home: &Home) {
    for name in names(&originals.incoming()) {
        if name.ends_with(".partial") {
            continue; // Barman sends archived partial files as they are stored
        }
        let target = home.root().join("fetched");
        fs::create_dir_all(&target).unwrap();
        Barman
            .run(
                home,
                &["get-wal", "-o", target.to_str().unwrap(), "main", &name],
            )
            .exits(0);
        let fetched = fs::read(target.join(&name)).unwrap();
        assert!(
            fetched == fs::read(originals.incoming().join(&name)).unwrap(),
            "{name}"
        );
    }
}

macro_rules! codecs {
    ($($test:ident: $options:expr,)*) => {
        $(#[test]
        fn $test() {
            same_and_interchangeable(&$options);
        })*
    };
}

codecs! {
    without_compression: [("archiver", "on")],
    gzip: [("compression", "gzip")],
    gzip_low: [("compression", "gzip"), ("compression_level", "low")],
    pygzip: [("compression", "pygzip")],
    pigz: [("compression", "pigz")],
    bzip2: [("compression", "bzip2")],
    pybzip2: [("compression", "pybzip2")],
    xz: [("compression", "xz"), ("compression_level", "1")],
    zstd: [("compression", "zstd")],
    zstd_high: [("compression", "zstd"), ("compression_level", "high")],
    lz4: [("compression", "lz4")],
    snappy: [("compression", "snappy")],
    custom: [
        ("compression", "custom"),
        ("custom_compression_filter", "xz -c -0"),
        ("custom_decompression_filter", "xz -dc"),
        ("custom_compression_magic", "0xfd377a585a00"),
    ],
}

#[test]
fn gpg() {
    for compression in [None, Some(("compression", "zstd"))] {
        let mut options = vec![
            ("encryption", "gpg"),
            ("encryption_key_id", "barman@example.com"),
        ];
        options.extend(compression);
        let home = Home::with(&options).gpg_key();
        home.incoming_segments([1, 2]);
        let (history, text) = wal::history(2);
        put(&home.incoming(), &history, &text);
        let (_, ours) = both_do_the_same(&home, &ARCHIVE);
        assert_eq!(ours.xlogdb()[0].encryption, "gpg");
        // Neither can compare an encrypted copy without a passphrase.
        ours.incoming_segments([1]);
        both_do_the_same(&ours, &ARCHIVE);
    }
}

#[test]
fn barman_decrypts_what_walarch_encrypted() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("encryption_passphrase_command", "echo secret"),
        ("compression", "gzip"),
    ])
    .gpg_key();
    let files = home.incoming_segments([1]);
    Walarch.run(&home, &ARCHIVE).exits(0);
    let target = home.root().join("fetched");
    fs::create_dir(&target).unwrap();
    Barman
        .run(
            &home,
            &["get-wal", "-o", target.to_str().unwrap(), "main", FIRST],
        )
        .exits(0);
    assert!(fs::read(target.join(FIRST)).unwrap() == files[FIRST]);
}

#[test]
fn strangers_and_directories() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments([1]);
    put(&home.incoming(), "stranger", b"?");
    put(&home.incoming(), "000000010000000000000002.tmp", b"half");
    put(&home.incoming(), "00000001000000000000000X", b"?");
    fs::create_dir(home.incoming().join("directory")).unwrap();
    put(&home.incoming().join("directory"), "inside", b"!");
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn duplicates_same_and_different() {
    for codec in ["gzip", "zstd", "lz4"] {
        let home = Home::with(&[("compression", codec)]);
        home.incoming_segments(1..=3);
        Barman.run(&home, &ARCHIVE).exits(0);
        home.incoming_segments(2..=4);
        put(&home.incoming(), FIRST, &Segment::small(1).seed(9).bytes());
        let (theirs, _) = both_do_the_same(&home, &ARCHIVE);
        assert_eq!(names(&theirs.errors()).len(), 1);
        assert_eq!(theirs.listed().len(), 4);
    }
}

#[test]
fn files_that_arrive_compressed() {
    let home = Home::with(&[("compression", "gzip")]);
    for (number, program) in [
        (1, "gzip"),
        (2, "bzip2"),
        (3, "xz"),
        (4, "zstd"),
        (5, "lz4"),
    ] {
        let segment = Segment::small(number);
        let bytes = filter(&home, program, &["-c"], segment.bytes());
        put(&home.incoming(), &segment.name(), &bytes);
    }
    let (theirs, _) = both_do_the_same(&home, &ARCHIVE);
    assert_eq!(theirs.xlogdb()[3].compression, "zstd");
}

#[test]
fn a_compressed_arrival_of_what_is_archived_already() {
    let home = Home::with(&[("compression", "zstd")]);
    home.incoming_segments([1]);
    Barman.run(&home, &ARCHIVE).exits(0);
    let bytes = filter(&home, "gzip", &["-c"], Segment::small(1).bytes());
    put(&home.incoming(), FIRST, &bytes);
    let (theirs, _) = both_do_the_same(&home, &ARCHIVE);
    assert_eq!(names(&theirs.errors()), [""; 0]);
}

#[test]
fn batches() {
    for batch in ["0", "1", "2", "5", "6"] {
        let home = Home::with(&[("archiver_batch_size", batch)]);
        home.incoming_segments(1..=5);
        both_do_the_same(&home, &ARCHIVE);
    }
}

/// Between 2 and the number of files Barman looks for the last segment in the batch instead of in
/// the directory, and so takes one file less than it may.
#[test]
fn batches_of_streamed_files_that_hold_the_whole_directory() {
    for batch in ["0", "4", "9"] {
        let mut options = STREAMING.to_vec();
        options.push(("streaming_archiver_batch_size", batch));
        let home = Home::with(&options);
        home.streaming_segments(1..=4);
        both_do_the_same(&home, &ARCHIVE);
    }
}

#[test]
fn streamed_files_with_partial_and_history() {
    let home = Home::with(&[&STREAMING[..], &[("compression", "gzip")]].concat());
    home.streaming_segments(1..=2);
    let (history, text) = wal::history(2);
    put(&home.streaming(), &history, &text);
    let partial = Segment::small(3).timeline(2);
    put(
        &home.streaming(),
        &format!("{}.partial", partial.name()),
        &partial.bytes(),
    );
    put(&home.streaming(), "stranger", b"?");
    fs::create_dir(home.streaming().join("directory")).unwrap();
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn older_partial_files() {
    let home = Home::with(&STREAMING);
    for number in 1..=3 {
        let segment = Segment::small(number);
        put(
            &home.streaming(),
            &format!("{}.partial", segment.name()),
            &segment.bytes(),
        );
    }
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn both_archivers() {
    let home = Home::with(&[("streaming_archiver", "on"), ("compression", "zstd")]);
    home.incoming_segments(1..=3);
    home.streaming_segments(2..=5);
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn nothing_to_do() {
    both_do_the_same(&Home::new(), &ARCHIVE);
    both_do_the_same(&Home::with(&[("streaming_archiver", "on")]), &ARCHIVE);
    both_do_the_same(&Home::with(&STREAMING), &ARCHIVE);
}

#[test]
fn no_archiver_at_all() {
    let home = Home::with(&[("archiver", "off")]);
    home.incoming_segments([1]);
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn a_held_lock() {
    let home = Home::new();
    home.incoming_segments([1]);
    let [barmans, walarchs] = [Barman, Walarch].map(|tool| {
        let home = home.copy();
        let _lock = home.hold_lock(".main-archive-wal.lock");
        Outcome::of(&home, &tool.run(&home, &ARCHIVE))
    });
    assert!(barmans.stdout[0].starts_with("Another archive-wal process is already running"));
    assert_same(&barmans, &walarchs);
}

#[test]
fn servers_that_are_not_to_be_served() {
    for options in [("active", "false"), ("disabled", "true")] {
        let home = Home::with(&[options]);
        home.incoming_segments([1]);
        both_do_the_same(&home, &ARCHIVE);
    }
    let home = Home::with_servers(&[("main", &[]), ("other", &[])]);
    home.incoming_segments([1]);
    both_do_the_same(&home, &["archive-wal", "nobody"]);
    both_do_the_same(&home, &["archive-wal", "all"]);
    both_do_the_same(&home, &["archive-wal", "other"]);
}

#[test]
fn two_servers_whose_directories_collide() {
    let home = Home::with_servers(&[
        ("main", &[]),
        (
            "other",
            &[("incoming_wals_directory", "{root}/home/main/incoming")],
        ),
    ]);
    home.incoming_segments([1]);
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn options_of_the_global_section_and_of_models() {
    let home = Home::new();
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("[barman]\n", "[barman]\ncompression = gzip\n"));
    home.incoming_segments([1]);
    let (theirs, _) = both_do_the_same(&home, &ARCHIVE);
    assert_eq!(theirs.xlogdb()[0].compression, "gzip");
}

#[test]
fn invalid_values() {
    let home = Home::with(&[
        ("compression", "brotli"),
        ("archiver_batch_size", "-3"),
        ("unknown_option", "1"),
    ]);
    home.incoming_segments([1]);
    both_do_the_same(&home, &ARCHIVE);
}

#[test]
fn quietly() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments([1]);
    put(&home.incoming(), "stranger", b"?");
    both_do_the_same(&home, &["-q", "archive-wal", "main"]);
}

#[test]
fn as_json() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments([1]);
    Barman.run(&home, &ARCHIVE).exits(0);
    put(&home.incoming(), FIRST, &Segment::small(1).seed(3).bytes());
    put(&home.incoming(), "stranger", b"?");
    home.incoming_segments([2]);
    for arguments in [
        &["-f", "json", "archive-wal", "main"][..],
        &["-f", "json", "archive-wal", "x"],
    ] {
        let [barmans, walarchs] = [Barman, Walarch].map(|tool| {
            let (_, mut outcome) = outcome(tool, &home, arguments);
            // The order of keys and the spacing are nobody's contract.
            let text = outcome.stdout.join("\n");
            let value: serde_json::Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{tool:?} prints no JSON: {error}\n{text}"));
            outcome.stdout = vec![format!("{value:#}")];
            outcome
        });
        assert_same(&barmans, &walarchs);
    }
}

#[test]
fn rebuild_of_an_archive_with_everything_in_it() {
    let home = Home::with(&[("compression", "gzip")]);
    put_every_kind(&home);
    fs::remove_file(home.incoming().join("000000010000000000000003.partial")).unwrap();
    Barman.run(&home, &ARCHIVE).exits(0);
    put(&home.wals(), "stranger", b"?");
    put(&home.wals().join("0000000100000000"), "stranger", b"?");
    let (theirs, _) = both_do_the_same(&home, &["rebuild-xlogdb", "main"]);
    assert_eq!(theirs.listed().len(), 6);
    fs::write(home.xlogdb_file(), "").unwrap();
    both_do_the_same(&home, &["rebuild-xlogdb", "main"]);
    both_do_the_same(&home, &["rebuild-xlogdb", "all"]);
}

#[test]
fn a_home_shared_turn_by_turn() {
    let home = Home::with(&[("compression", "zstd"), ("archiver_batch_size", "2")]);
    let files = home.incoming_segments(1..=8);
    for tool in [Walarch, Barman, Barman, Walarch] {
        tool.run(&home, &ARCHIVE).exits(0);
    }
    assert_eq!(home.listed(), files.keys().cloned().collect::<Vec<_>>());
    for (name, bytes) in &files {
        assert!(decode_with_tools(&home, &home.archived(name)) == *bytes);
    }
}

#[test]
fn times_with_many_digits_are_written_as_barman_writes_them() {
    use std::time::{Duration, SystemTime};
    let home = Home::new();
    let times = [
        (0, 0),
        (1, 0),
        (1_700_000_000, 0),
        (1_700_000_000, 1),
        (1_700_000_000, 999_999_999),
        (1_700_000_000, 100_000_000),
        (1_234_567_890, 123_456_789),
        (4_102_444_800, 500_000),
    ];
    for (number, (seconds, nanoseconds)) in times.into_iter().enumerate() {
        let segment = Segment::small(number as u64 + 1);
        let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        put_at(
            &home.incoming(),
            &segment.name(),
            &segment.bytes(),
            time,
            0o600,
        );
    }
    put_at(
        &home.incoming(),
        "00000002.history",
        b"1\t0/1\tx\n",
        time_of("x"),
        0o600,
    );
    both_do_the_same(&home, &ARCHIVE);
}
