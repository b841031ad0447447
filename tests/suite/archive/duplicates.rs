//! Files whose name is in the archive already.

use super::*;

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
