//! Segments that cannot be what their name says are refused: set aside, loudly, with an exit code.

use std::fs;

use crate::support::home::{Home, names, put};
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
    let unknown_magic = Segment::small(1).magic(0xBEEF).bytes();
    put(&home.incoming(), FIRST, &unknown_magic);
    put(
        &home.incoming(),
        SECOND,
        b"not a page of any known PostgreSQL",
    );
    home.archive().exits(0);
    home.assert_archived(FIRST, &unknown_magic);
    home.assert_archived(SECOND, b"not a page of any known PostgreSQL");
}

#[test]
fn validation_can_be_switched_off() {
    let home = Home::new().walarch_toml("[walarch]\nvalidate_wal = false\n");
    let bytes = Segment::small(7).bytes();
    put(&home.incoming(), FIRST, &bytes);
    home.archive().exits(0);
    home.assert_archived(FIRST, &bytes);
}
