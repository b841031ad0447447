//! What is taken from the queues, and how much of it.

use super::*;

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
