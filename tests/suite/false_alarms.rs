//! `verify-wals`: what looks damaged and is not, and the damage right beside it.

use std::fs;

use crate::inspection::{home_with_an_archive, name, pairs, problems};
use crate::support::home::{Home, put};
use crate::support::wal::Segment;

const PAGE: usize = 8192;

/// Segment 4 of timeline 1 as a standby archives it when its upstream is promoted at 0/408000: behind that position are
/// the pages that the file had as segment 1.
fn end_of_a_timeline() -> Vec<u8> {
    let mut bytes = Segment::small(4).bytes();
    let recycled = Segment::small(1).bytes();
    bytes[4 * PAGE..].copy_from_slice(&recycled[4 * PAGE..]);
    bytes
}

/// Timeline 1, which timeline 2 left in segment 4, to that segment and whatever else `more` sends.
fn home_of_a_standby(more: &[Segment]) -> Home {
    let home = home_with_an_archive(&[]);
    put(&home.incoming(), &name(4), &end_of_a_timeline());
    for segment in more {
        put(&home.incoming(), &segment.name(), &segment.bytes());
    }
    home.archive().exits(0);
    home
}

#[test]
fn what_lies_behind_the_end_of_a_timeline_is_no_problem() {
    let home = home_of_a_standby(&[]);
    assert_eq!(problems(&home, &[]), []);
    // The history lies outside of the range.
    assert_eq!(problems(&home, &["--to", &name(4)]), []);
}

#[test]
fn damage_before_the_end_of_a_timeline_is_found() {
    let home = home_of_a_standby(&[]);
    let mut damaged = end_of_a_timeline();
    damaged.copy_within(PAGE..2 * PAGE, 3 * PAGE);
    fs::write(home.archived(&name(4)), damaged).unwrap();
    let expected = pairs(&[("page", &name(4))]);
    assert_eq!(problems(&home, &[]), expected);
    assert_eq!(problems(&home, &["--to", &name(4)]), expected);
}

#[test]
fn damage_where_no_timeline_is_known_to_end_is_found() {
    // The old server went on, so that somebody may want to recover it to a later time.
    let home = home_of_a_standby(&[Segment::small(5)]);
    assert_eq!(problems(&home, &[]), pairs(&[("page", &name(4))]));
    let part = ["--to", &name(4)];
    assert_eq!(problems(&home, &part), pairs(&[("page", &name(4))]));
    let home = home_of_a_standby(&[]);
    fs::write(home.archived("00000002.history"), b"1\t0/50800\tx\n").unwrap();
    assert!(problems(&home, &[]).contains(&("page".to_owned(), name(4))));
    fs::remove_file(home.archived("00000002.history")).unwrap();
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    let expected = pairs(&[("page", &name(4)), ("no_history", "")]);
    assert_eq!(problems(&home, &[]), expected);
}

#[test]
fn all_damage_is_told_even_if_only_a_history_might_have_explained_it() {
    let home = Home::new();
    let segments = [(1, 3), (1, 4), (2, 5), (2, 6)].map(|(timeline, number)| {
        let segment = Segment::small(number).timeline(timeline);
        let mut bytes = segment.bytes();
        bytes.copy_within(PAGE..2 * PAGE, 3 * PAGE);
        put(&home.incoming(), &segment.name(), &bytes);
        segment.name()
    });
    home.archive().exits(0);
    // Those at the end of a timeline come behind the others.
    let order = [0, 2, 1, 3].map(|at: usize| ("page", segments[at].as_str()));
    let expected = [pairs(&order), pairs(&[("no_history", "")])].concat();
    assert_eq!(problems(&home, &[]), expected);
}

#[test]
fn what_does_not_begin_as_postgresql_begins_it_is_only_decoded_where_nothing_is_validated() {
    let encrypted = |number| -> Vec<u8> {
        let bytes = Segment::small(number).bytes();
        bytes.iter().map(|byte| byte ^ 0x5A).collect()
    };
    let mut unusual = Segment::small(3).magic(0x4242).bytes();
    unusual[9 * PAGE..].fill(0x42);
    let home = Home::new().walarch_toml("[walarch]\nvalidate_wal = \"off\"\n");
    for (number, bytes) in [(1, encrypted(1)), (2, encrypted(2)), (3, unusual)] {
        put(&home.incoming(), &name(number), &bytes);
    }
    home.archive().exits(0);
    assert_eq!(problems(&home, &[]), []);
    let run = home.run(&["verify-wals", "main"]).exits(0);
    let warning = "WARNING: 3 segments were only decoded";
    assert!(run.stderr.contains(warning), "{}", run.stderr);
    // A disk loses data whatever is in it.
    let path = home.archived(&name(2));
    fs::write(&path, vec![0; encrypted(2).len()]).unwrap();
    assert_eq!(problems(&home, &[]), pairs(&[("invalid", &name(2))]));
    fs::write(&path, encrypted(2)).unwrap();
    let home = home.walarch_toml("");
    let invalid = [1, 2, 3].map(name);
    let invalid = [0, 1, 2].map(|at: usize| ("invalid", invalid[at].as_str()));
    assert_eq!(problems(&home, &[]), pairs(&invalid));
}

#[test]
fn a_history_without_ancestors_is_one() {
    let home = home_with_an_archive(&[]);
    let path = home.archived("00000002.history");
    let size = fs::read(&path).unwrap().len();
    fs::write(&path, format!("{:<1$}\n", "# nothing", size - 1)).unwrap();
    assert_eq!(problems(&home, &[]), []);
    fs::write(&path, "").unwrap();
    assert!(problems(&home, &[]).contains(&("invalid".to_owned(), "00000002.history".to_owned())));
}

#[test]
fn a_segment_of_an_old_postgresql_is_only_decoded() {
    // Before 9.3 the header's fields had other places.
    let mut bytes = vec![0x42; Segment::small(1).bytes().len()];
    bytes[..4].copy_from_slice(&[0x66, 0xD0, 2, 0]);
    let home = Home::new();
    put(&home.incoming(), &name(1), &bytes);
    home.archive().exits(0);
    assert_eq!(problems(&home, &[]), []);
}
