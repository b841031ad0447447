//! What the commands ask of the store, and what they remember.

use std::fs;

use super::{CloudHome, key};
use crate::support::fake_s3::FakeS3;
use crate::support::home::{names, put};
use crate::support::wal::Segment;

const ONE: &str = "000000010000000000000001";

/// A `pg_wal` with ready segments.
fn pg_wal(home: &CloudHome, segments: &[Segment]) -> std::path::PathBuf {
    let directory = home.home.root().join("pg_wal");
    let status = directory.join("archive_status");
    fs::create_dir_all(&status).unwrap();
    for segment in segments {
        put(&directory, &segment.name(), &segment.bytes());
        fs::write(status.join(format!("{}.ready", segment.name())), "").unwrap();
    }
    directory
}

fn small(numbers: std::ops::RangeInclusive<u64>) -> Vec<Segment> {
    numbers.map(Segment::small).collect()
}

fn send(
    home: &CloudHome,
    directory: &std::path::Path,
    name: &str,
    parallel: &str,
) -> crate::support::tool::Run {
    let path = directory.join(name);
    home.run(&[
        "cloud-wal-archive",
        "main",
        path.to_str().unwrap(),
        "-p",
        parallel,
    ])
}

/// A home that has archived before, so that it knows how its files are stored.
fn settled(s3: &FakeS3, options: &[(&str, &str)], toml: &str) -> CloudHome {
    let home = CloudHome::s3(&s3.endpoint(), options, toml);
    put(&home.home.incoming(), "00000009.history", b"history");
    home.archive().exits(0);
    s3.take_asked();
    s3.take_puts();
    home
}

#[test]
fn one_request_stores_a_segment_and_one_restores_it() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let directory = pg_wal(&home, &small(1..=1));
    send(&home, &directory, ONE, "1").exits(0);
    assert_eq!(s3.take_asked(), [format!("PUT /wal/{}", key(ONE, ".zst"))]);
    assert_eq!(home.restored(ONE), Segment::small(1).bytes());
    assert_eq!(s3.take_asked(), [format!("GET /wal/{}", key(ONE, ".zst"))]);
}

#[test]
fn a_put_is_conditional_and_carries_what_the_options_say() {
    let s3 = FakeS3::start();
    let options = [
        ("aws_encryption", "aws:kms"),
        ("aws_sse_kms_key_id", "key-1"),
    ];
    let toml = "cloud_storage_class = \"STANDARD_IA\"\ncloud_tags = { kind = \"wal\" }\n";
    let home = settled(&s3, &options, toml);
    home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    let put = s3.take_puts().pop().unwrap();
    for (name, value) in [
        ("if-none-match", "*"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "key-1"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-tagging", "kind=wal"),
    ] {
        assert_eq!(put.header(name), Some(value), "{name}");
    }
    assert!(put.header("x-amz-checksum-sha256").is_some());
    assert!(put.header("x-amz-meta-mtime").is_some());
}

#[test]
fn ready_segments_travel_along_and_are_not_sent_again() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let directory = pg_wal(&home, &small(1..=6));
    send(&home, &directory, ONE, "4").exits(0);
    assert_eq!(s3.take_asked().len(), 4);
    assert_eq!(
        home.listed()[1..],
        small(1..=4).iter().map(Segment::name).collect::<Vec<_>>()
    );
    for number in 2..=4 {
        send(&home, &directory, &Segment::small(number).name(), "4").exits(0);
    }
    assert_eq!(s3.take_asked(), [] as [&str; 0]);
    assert_eq!(home.listed().len(), 5);
    send(&home, &directory, &Segment::small(5).name(), "4").exits(0);
    assert_eq!(home.listed().len(), 7);
}

#[test]
fn a_remembered_name_with_other_content_is_not_taken_for_sent() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let directory = pg_wal(&home, &small(1..=2));
    send(&home, &directory, ONE, "2").exits(0);
    // A cluster that was initialised anew uses the name again.
    let other = Segment {
        system_id: 42,
        ..Segment::small(2)
    };
    put(&directory, &other.name(), &other.bytes());
    let run = send(&home, &directory, &other.name(), "2").exits(1);
    assert!(run.stderr.contains("different content"), "{}", run.stderr);
    assert_eq!(home.restored(&other.name()), Segment::small(2).bytes());
}

#[test]
fn a_late_segment_of_an_older_timeline_is_sent() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let late = Segment::small(3);
    let newer = [Segment::small(4).timeline(2), Segment::small(5).timeline(2)];
    let directory = pg_wal(&home, &newer);
    send(&home, &directory, &newer[0].name(), "2").exits(0);
    put(&directory, &late.name(), &late.bytes());
    send(&home, &directory, &late.name(), "2").exits(0);
    assert_eq!(home.restored(&late.name()), late.bytes());
}

#[test]
fn archive_wal_by_path_looks_ahead_too() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[("cloud_wal_archive_parallel", "3")], "");
    let directory = pg_wal(&home, &small(1..=3));
    let path = directory.join(ONE);
    home.run(&["archive-wal", "main", path.to_str().unwrap()])
        .exits(0);
    assert_eq!(home.listed().len(), 4);
    assert_eq!(names(&directory).len(), 4, "sources are only read");
}

#[test]
fn only_the_requested_file_decides_the_exit_code() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let directory = pg_wal(&home, &small(1..=3));
    s3.put(&key(&Segment::small(2).name(), ".zst"), b"not even zstd");
    let run = send(&home, &directory, ONE, "3").exits(0);
    assert!(
        run.stderr.contains("WARNING: Prefetch of WAL file"),
        "{}",
        run.stderr
    );
    send(&home, &directory, &Segment::small(2).name(), "3").exits(1);
}

#[test]
fn a_file_that_lies_under_another_ending_is_recognised_after_a_change_of_codec() {
    let s3 = FakeS3::start();
    let gzip = CloudHome::s3(&s3.endpoint(), &[("compression", "gzip")], "");
    let files = gzip.home.incoming_segments(1..=1);
    gzip.archive().exits(0);
    let zstd = CloudHome::s3(&s3.endpoint(), &[], "");
    zstd.home.incoming_segments(1..=2);
    zstd.archive().exits(0);
    let two = Segment::small(2).name();
    assert_eq!(s3.keys(), [key(ONE, ".gz"), key(&two, ".zst")]);
    assert_eq!(zstd.listed(), [ONE, &two]);
    zstd.assert_holds(&files);
}

#[test]
fn encrypted_files_have_an_ending_that_barman_never_takes_for_its_own() {
    let s3 = FakeS3::start();
    let options = [
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("encryption_passphrase_command", "echo secret"),
    ];
    let mut home = CloudHome::s3(&s3.endpoint(), &options, "");
    home.home = home.home.gpg_key();
    let files = home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    assert_eq!(s3.keys(), [key(ONE, ".zst.gpg")]);
    assert_eq!(home.xlogdb()[0].encryption, "gpg");
    home.assert_holds(&files);
    home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    assert_eq!(names(&home.home.errors()), [] as [&str; 0]);
}

#[test]
fn codecs_that_need_a_command_are_refused_with_barmans_reason() {
    for codec in [
        [
            ("compression", "pigz"),
            ("description", "x"),
            ("active", "true"),
        ],
        [
            ("compression", "custom"),
            ("custom_compression_filter", "cat"),
            ("custom_decompression_filter", "cat"),
        ],
    ] {
        let home = CloudHome::s3("http://127.0.0.1:9", &codec, "");
        home.home.incoming_segments(1..=1);
        let run = home.archive().exits(1);
        assert!(
            run.stderr.contains("only supports in-memory compression"),
            "{}",
            run.stderr
        );
        assert_eq!(names(&home.home.incoming()).len(), 1);
    }
}

#[test]
fn a_local_archive_is_refused_by_the_cloud_commands() {
    let home = crate::support::home::Home::new();
    let path = put(home.root(), ONE, &Segment::small(1).bytes());
    let run = home
        .run(&["cloud-wal-archive", "main", path.to_str().unwrap()])
        .exits(1);
    assert!(
        run.stderr.contains("no cloud storage configuration is set"),
        "{}",
        run.stderr
    );
    let run = home
        .run(&["cloud-wal-restore", "main", ONE, "/tmp/nowhere"])
        .exits(5);
    assert!(
        run.stderr.contains("no cloud storage configuration is set"),
        "{}",
        run.stderr
    );
}

#[test]
fn what_is_no_wal_file_is_refused_in_barmans_words() {
    let home = CloudHome::s3("http://127.0.0.1:9", &[], "");
    for (path, text) in [
        ("/tmp", "wal_path cannot be a directory: /tmp"),
        (
            "/nonexistent/000000010000000000000001",
            "WAL file does not exist: ",
        ),
        ("/etc/passwd", "File is not a valid WAL file: /etc/passwd"),
    ] {
        let run = home.run(&["cloud-wal-archive", "main", path]).exits(1);
        assert!(run.stderr.contains(text), "{}", run.stderr);
    }
}
