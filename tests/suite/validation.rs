//! Segments that cannot be what their name says are refused: set aside, loudly, with an exit code.

use std::fs::{self, File};
use std::io::Write;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::support::home::{Home, names, put, put_at};
use crate::support::tool::{Walarch, finish, start};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

/// Archives the damaged first segment and a good second one; the first must be refused, loudly, and the
/// second archived.
#[track_caller]
fn assert_refused(home: &Home, bytes: &[u8]) {
    put(&home.incoming(), FIRST, bytes);
    let good = home.incoming_segments([2]);
    home.archive().exits(1);
    let errors = names(&home.errors());
    assert!(
        matches!(&errors[..], [one] if one.starts_with(FIRST) && one.ends_with("Z.invalid")),
        "{errors:?}"
    );
    assert!(fs::read(home.errors().join(&errors[0])).unwrap() == bytes);
    assert_eq!(home.listed(), [SECOND]);
    home.assert_archived(SECOND, &good[SECOND]);
}

#[test]
fn an_empty_segment_is_refused() {
    assert_refused(&Home::new(), b"");
}

#[test]
fn a_wrong_file_that_arrived_just_now_and_nobody_writes_to_is_refused() {
    for kept_bytes in [0, 8192] {
        let home = Home::new();
        let bytes = &Segment::small(1).bytes()[..kept_bytes];
        put_at(&home.incoming(), FIRST, bytes, SystemTime::now(), 0o640);
        home.archive().exits(1);
        let errors = names(&home.errors());
        assert!(
            matches!(&errors[..], [one] if one.starts_with(FIRST) && one.ends_with("Z.invalid")),
            "{errors:?}"
        );
        assert_eq!(names(&home.incoming()), [""; 0]);
    }
}

#[test]
fn a_file_that_is_still_being_written_is_left_alone() {
    let home = Home::new();
    let bytes = Segment::small(1).bytes();
    let mut file = File::create(home.incoming().join(FIRST)).unwrap();
    let mut child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    let mut pages = bytes.chunks(1024);
    while child.try_wait().unwrap().is_none() {
        file.write_all(pages.next().expect("it waits for the whole file"))
            .unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    finish(child, Duration::from_secs(60)).exits(0);
    assert_eq!(names(&home.incoming()), [FIRST]);
    assert_eq!(names(&home.errors()), [""; 0]);
    assert_eq!(home.listed(), [""; 0]);
    for page in pages {
        file.write_all(page).unwrap();
    }
    home.archive().exits(0);
    home.assert_archived(FIRST, &bytes);
}

#[test]
fn a_truncated_segment_is_refused() {
    let bytes = Segment::small(1).bytes();
    assert_refused(
        &Home::with(&[("compression", "zstd")]),
        &bytes[..bytes.len() / 2],
    );
}

#[test]
fn a_segment_of_another_address_is_refused() {
    assert_refused(&Home::new(), &Segment::small(7).bytes());
}

#[test]
fn a_segment_of_another_cluster_is_refused() {
    let home = Home::new();
    fs::write(
        home.dir("identity.json"),
        format!(
            "{{\"systemid\": \"{}\", \"version\": \"15\"}}",
            wal::SYSTEM_ID
        ),
    )
    .unwrap();
    assert_refused(&home, &Segment::small(1).system_id(42).bytes());
}

#[test]
fn what_cannot_be_judged_is_archived() {
    let home = Home::new();
    let unknown_magic = Segment::small(1).magic(0xD1FE).bytes();
    put(&home.incoming(), FIRST, &unknown_magic);
    home.archive().exits(0);
    home.assert_archived(FIRST, &unknown_magic);
    // What a sender has wrapped, or may have.
    let gpg = b"-----BEGIN PGP MESSAGE-----\n";
    let custom = [
        ("compression", "custom"),
        ("custom_compression_filter", "cat"),
        ("custom_decompression_filter", "cat"),
    ];
    for (options, bytes) in [(&[][..], &gpg[..]), (&custom, b"made by the filter?")] {
        let home = Home::with(options);
        put(&home.incoming(), FIRST, bytes);
        home.archive().exits(0);
        home.assert_archived(FIRST, bytes);
    }
}

#[test]
fn what_get_wal_would_refuse_is_refused() {
    assert_refused(&Home::new(), b"short garbage");
    let (history, _) = wal::history(2);
    let (label, _) = wal::backup_label(&Segment::small(2));
    // What a power cut may leave of a history.
    let (zeros, cut_number) = ([0; 700], b"1\t0/1000000\treason\n2\t0/");
    for (name, bytes, text) in [
        (&history, &b""[..], "the file is empty"),
        (&label, b"", "the file is empty"),
        (&history, &zeros, "it is not text"),
        (&history, cut_number, "line 2 does not begin with"),
    ] {
        let home = Home::new();
        let path = put(&home.incoming(), name, bytes);
        let path = path.to_str().unwrap();
        let run = home.run(&["archive-wal", "main", path]).exits(1);
        assert!(run.stderr.contains(text), "{}", run.stderr);
        home.archive().exits(1);
        let errors = names(&home.errors());
        assert!(
            matches!(&errors[..], [one] if one.starts_with(name) && one.ends_with(".invalid")),
            "{errors:?}"
        );
        assert_eq!(home.listed(), [""; 0]);
    }
    // Nothing of a partial segment may have been received yet.
    let home = Home::new();
    put(&home.incoming(), &format!("{FIRST}.partial"), b"");
    put(&home.incoming(), &format!("{SECOND}.partial"), &[0; 8192]);
    home.archive().exits(0);
}

#[test]
fn validation_can_be_switched_off() {
    let home = Home::new().walarch_toml("[walarch]\nvalidate_wal = false\n");
    let bytes = Segment::small(7).bytes();
    put(&home.incoming(), FIRST, &bytes);
    home.archive().exits(0);
    home.assert_archived(FIRST, &bytes);
}
