//! What the commands ask of the store, and what they remember.

use std::fs;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest, Md5};

use super::credentials::{accepting_store, stored, tokens};
use super::{CloudHome, key};
use crate::support::fake_s3::{FakeS3, Fault};
use crate::support::home::{names, put, tree};
use crate::support::tool::wait_for;
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
pub fn settled(s3: &FakeS3, options: &[(&str, &str)], toml: &str) -> CloudHome {
    let home = CloudHome::s3(&s3.endpoint(), options, toml);
    put(&home.home.incoming(), "00000009.history", b"1\t0/1\tx\n");
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
fn s3_encrypts_with_its_own_key_if_asked() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[("aws_encryption", "AES256")], "");
    home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    let put = s3.take_puts().pop().unwrap();
    assert_eq!(put.header("x-amz-server-side-encryption"), Some("AES256"));
}

#[test]
fn a_key_without_the_encryption_that_uses_it_is_refused_in_barmans_words() {
    let home = CloudHome::s3("http://127.0.0.1:9", &[("aws_sse_kms_key_id", "key-1")], "");
    home.home.incoming_segments(1..=1);
    let run = home.archive().exits(1);
    let sentence = "aws_encryption must be \"aws:kms\" if aws_sse_kms_key_id is specified";
    assert!(run.stderr.contains(sentence), "{}", run.stderr);
}

#[test]
fn azure_and_google_get_conditions_digests_and_options_too() {
    let toml = "cloud_storage_class = \"COLD\"\ncloud_tags = { kind = \"wal\" }\n";
    let metadata = tokens("/computeMetadata/v1/instance/service-accounts/default/token");
    for (url, condition, expected) in [
        (
            "https://account.blob.core.windows.net/wal/pre",
            ("if-none-match", "*"),
            &[
                ("x-ms-access-tier", "COLD"),
                ("x-ms-tags", "kind=wal"),
                ("x-ms-blob-type", "BlockBlob"),
            ][..],
        ),
        (
            "gs://wal/pre",
            ("x-goog-if-generation-match", "0"),
            &[("x-goog-storage-class", "COLD")][..],
        ),
    ] {
        let store = accepting_store();
        let home = CloudHome::new(
            url,
            &store.url(),
            Vec::new(),
            &[("compression", "none")],
            toml,
        )
        .env("AZURE_STORAGE_KEY", "c2VjcmV0LWtleQ==")
        .env("GCE_METADATA_HOST", metadata.url().replace("http://", ""));
        let put = stored(&home, &store);
        assert_eq!(put.header(condition.0), Some(condition.1), "{url}");
        let digest = Md5::digest(Segment::small(1).bytes());
        assert_eq!(
            put.header("content-md5"),
            Some(&*BASE64_STANDARD.encode(digest)),
            "{url}"
        );
        for (name, value) in expected {
            assert_eq!(put.header(name), Some(*value), "{url}: {name}");
        }
    }
}

#[test]
fn the_checksum_that_s3_verifies_can_be_chosen() {
    for (checksum, header) in [
        ("sha256", Some("x-amz-checksum-sha256")),
        ("crc64nvme", Some("x-amz-checksum-crc64nvme")),
        ("none", None),
    ] {
        let s3 = FakeS3::start();
        let home = settled(&s3, &[], &format!("cloud_checksum = \"{checksum}\"\n"));
        home.home.incoming_segments(1..=1);
        home.archive().exits(0);
        let put = s3.take_puts().pop().unwrap();
        let sent: Vec<&str> = put
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with("x-amz-checksum-"))
            .collect();
        assert_eq!(sent, Vec::from_iter(header));
    }
}

#[test]
fn the_read_timeout_of_the_options_is_kept() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[("aws_read_timeout", "1")], "cloud_retries = 0\n");
    home.home.incoming_segments(1..=1);
    s3.delay(Duration::from_secs(20));
    let start = Instant::now();
    home.archive().exits(1);
    assert!(start.elapsed() < Duration::from_secs(15));
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
fn what_was_sent_to_one_store_is_sent_to_another_all_the_same() {
    let (first, second) = (FakeS3::start(), FakeS3::start());
    let home = settled(&first, &[], "");
    let directory = pg_wal(&home, &small(1..=2));
    send(&home, &directory, ONE, "2").exits(0);
    let toml = home.home.root().join("walarch.toml");
    let moved = fs::read_to_string(&toml)
        .unwrap()
        .replace(&first.endpoint(), &second.endpoint());
    fs::write(toml, moved).unwrap();
    let two = Segment::small(2).name();
    send(&home, &directory, &two, "2").exits(0);
    assert_eq!(second.keys(), [key(&two, ".zst")]);
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
fn with_hook_scripts_only_the_requested_file_travels() {
    let s3 = FakeS3::start();
    let hook = "echo $BARMAN_SEGMENT >>{root}/hook.log";
    let home = settled(&s3, &[("post_archive_script", hook)], "");
    let directory = pg_wal(&home, &small(1..=3));
    send(&home, &directory, ONE, "3").exits(0);
    assert_eq!(home.listed(), ["00000009.history", ONE]);
    let seen = fs::read_to_string(home.home.root().join("hook.log")).unwrap();
    assert_eq!(seen.lines().last(), Some(ONE));
}

#[test]
fn an_inactive_server_archives_nothing_and_says_so() {
    let s3 = FakeS3::start();
    let home = CloudHome::s3(&s3.endpoint(), &[("active", "off")], "");
    let directory = pg_wal(&home, &small(1..=1));
    let run = send(&home, &directory, ONE, "1").exits(1);
    assert!(run.stderr.contains("was not archived"), "{}", run.stderr);
    assert!(s3.keys().is_empty());
}

#[test]
fn look_ahead_goes_past_gaps() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let segments = [1, 3, 7].map(Segment::small);
    let directory = pg_wal(&home, &segments);
    send(&home, &directory, ONE, "4").exits(0);
    let sent: Vec<String> = segments.iter().map(Segment::name).collect();
    assert_eq!(home.listed()[1..], sent);
}

#[test]
fn files_are_fetched_ahead_and_delivered_from_the_spool() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let files = home.home.incoming_segments(1..=4);
    home.archive().exits(0);
    let spool = home.home.root().join("spool");
    let restore = |name: &str| {
        let goal = home.home.root().join("goal");
        home.run(&[
            "cloud-wal-restore",
            "main",
            name,
            goal.to_str().unwrap(),
            "-p",
            "2",
            "--spool-dir",
            spool.to_str().unwrap(),
        ])
        .exits(0);
        fs::read(goal).unwrap()
    };
    assert!(restore(ONE) == files[ONE]);
    let next = Segment::small(2).name();
    wait_for("the next file", || {
        tree(&spool)
            .iter()
            .any(|path| path.ends_with(&next))
            .then_some(())
    });
    s3.fail(|_| Fault::Cut);
    assert!(restore(&next) == files[&next]);
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
