//! Under which ending a file is stored, and what happens to a name that lies under another one.

use std::fs;

use super::commands::settled;
use super::{CloudHome, key};
use crate::support::fake_s3::FakeS3;
use crate::support::home::{names, put};
use crate::support::wal::Segment;

const ONE: &str = "000000010000000000000001";

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

/// What was stored before a change of codec is still compared, not stored beside it, once runs have gone well.
#[test]
fn different_content_is_refused_whatever_the_codec_was_then() {
    let s3 = FakeS3::start();
    let home = CloudHome::s3(&s3.endpoint(), &[("compression", "gzip")], "");
    let files = home.home.incoming_segments(1..=3);
    home.archive().exits(0);
    let text = fs::read_to_string(home.home.config_file()).unwrap();
    let changed = text.replace("compression = gzip", "compression = zstd");
    home.home.write_config_text(&changed);
    home.home.incoming_segments(4..=5);
    home.archive().exits(0);
    refuses_others(&home, &Segment::small(1));
    refuses_others(&home, &Segment::small(3));
    home.assert_holds(&files);
    let endings: Vec<String> = s3.keys().iter().map(|key| ending(key)).collect();
    assert_eq!(endings, ["gz", "gz", "gz", "zst", "zst"]);
    // What follows is stored by one request all the same.
    s3.take_asked();
    home.home.incoming_segments(6..=6);
    home.archive().exits(0);
    assert_eq!(s3.take_asked().len(), 1);
}

/// A sender may compress by itself; then the key has another ending than usual.
#[test]
fn different_content_is_refused_where_the_sender_had_compressed() {
    let s3 = FakeS3::start();
    let home = settled(&s3, &[], "");
    let segment = Segment::small(5);
    put(&home.home.incoming(), &segment.name(), &gzipped(&segment));
    home.archive().exits(0);
    assert!(s3.keys().contains(&key(&segment.name(), ".gz")));
    refuses_others(&home, &segment);
    // The same content is recognised.
    put(&home.home.incoming(), &segment.name(), &segment.bytes());
    home.archive().exits(0);
    assert_eq!(names(&home.home.errors()), [] as [&str; 0]);
    assert_eq!(home.listed().len(), 2);
    assert_eq!(home.restored(&segment.name()), segment.bytes());
}

fn gzipped(segment: &Segment) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &segment.bytes()).unwrap();
    encoder.finish().unwrap()
}

fn ending(key: &str) -> String {
    key.rsplit('.').next().unwrap().to_owned()
}

/// A segment of this name with other content is an error, and changes nothing.
#[track_caller]
fn refuses_others(home: &CloudHome, segment: &Segment) {
    let listed = home.listed();
    let mut bytes = segment.bytes();
    *bytes.last_mut().unwrap() ^= 1;
    let path = put(home.home.root(), &segment.name(), &bytes);
    let run = home
        .run(&["cloud-wal-archive", "main", path.to_str().unwrap()])
        .exits(1);
    assert!(run.stderr.contains("different content"), "{}", run.stderr);
    assert_eq!(home.listed(), listed);
    assert_eq!(home.restored(&segment.name()), segment.bytes());
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
