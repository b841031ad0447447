//! Files whose name waits in `incoming` already.

use super::*;

#[test]
fn the_same_file_once_more_is_a_success_that_changes_nothing() {
    for tool in BOTH {
        let home = Home::new();
        let path = put(&home.incoming(), FIRST, &first());
        let inode = path.metadata().unwrap().ino();
        let run = tool.run_with_input(&home, &PUT, &stream(FIRST, &first()));
        assert_eq!(run.exits(0).stderr, "");
        assert_holds(&home, FIRST, &first());
        assert_eq!(path.metadata().unwrap().ino(), inode);
        let arguments = ["-d", "put-wal", "main"];
        let run = tool.run_with_input(&home, &arguments, &stream(FIRST, &first()));
        let expected = format!(
            "Duplicate Files with Identical Checksums. File {FIRST} already exists on server main, \
             and the checksums are identical. Skipping the file."
        );
        assert!(run.exits(0).stderr.contains(&expected));
    }
}

#[test]
fn the_same_wal_in_another_form_is_the_same() {
    let home = Home::new();
    put(&home.incoming(), FIRST, &gzipped(&first()));
    receive(&home, &stream(FIRST, &first())).exits(0);
    assert_holds(&home, FIRST, &gzipped(&first()));
    let home = Home::new();
    put(&home.incoming(), FIRST, &first());
    receive(&home, &stream(FIRST, &gzipped(&first()))).exits(0);
    assert_holds(&home, FIRST, &first());
}

#[test]
fn what_a_crash_cut_short_gives_way_to_the_good_copy() {
    for (good, length) in [
        (first(), 0),
        (first(), 1),
        (first(), 4096),
        (first(), first().len() - 1),
        (gzipped(&first()), 1000),
    ] {
        let home = Home::new();
        put(&home.incoming(), FIRST, &good[..length]);
        receive(&home, &stream(FIRST, &good)).exits(0);
        assert_holds(&home, FIRST, &good);
        assert_empty(&home.errors());
    }
    let home = Home::new();
    let (name, text) = wal::history(3);
    put(&home.incoming(), &name, &text[..10]);
    receive(&home, &stream(&name, &text)).exits(0);
    assert_holds(&home, &name, &text);
}

#[test]
fn a_damaged_file_gives_way_and_is_set_aside() {
    let mut torn = first();
    torn[..8192].fill(0);
    let mut cut = gzipped(&Segment::small(1).seed(7).bytes());
    cut.truncate(10_000);
    let elsewhere = Segment::small(2).bytes();
    let short = Segment::small(1).seed(7).bytes()[..9000].to_vec();
    for damaged in [torn, cut, elsewhere, short, vec![0; 1 << 20]] {
        for good in [first(), gzipped(&first())] {
            let home = Home::new();
            put(&home.incoming(), FIRST, &damaged);
            receive(&home, &stream(FIRST, &good)).exits(0);
            assert_holds(&home, FIRST, &good);
            let set_aside = names(&home.errors());
            assert_eq!(set_aside.len(), 1);
            assert!(set_aside[0].ends_with(".invalid"), "{set_aside:?}");
            assert!(fs::read(home.errors().join(&set_aside[0])).unwrap() == damaged);
            assert!(home.log().contains("replaced a damaged file"));
        }
    }
}

/// As a power cut leaves it that came before the content was on the disk.
#[test]
fn a_history_of_zeros_gives_way_and_is_set_aside() {
    let (name, text) = wal::history(2);
    let home = Home::new();
    put(&home.incoming(), &name, &vec![0; text.len()]);
    receive(&home, &stream(&name, &text)).exits(0);
    assert_holds(&home, &name, &text);
    let set_aside = names(&home.errors());
    assert!(set_aside[0].ends_with(".invalid"), "{set_aside:?}");
}

#[test]
fn other_good_content_is_an_error_and_nothing_is_overwritten() {
    let other = Segment::small(1).seed(9).bytes();
    for (existing, sent) in [
        (other.clone(), first()),
        (gzipped(&other), first()),
        (other, gzipped(&first())),
        // What arrives is the beginning of what is there.
        (
            b"1\t0/1\tfirst\n2\t0/2\tsecond\n".to_vec(),
            b"1\t0/1\tfirst\n".to_vec(),
        ),
    ] {
        let home = Home::new();
        let name = if sent.len() < 100 {
            "00000003.history"
        } else {
            FIRST
        };
        put(&home.incoming(), name, &existing);
        let run = receive(&home, &stream(name, &sent)).exits(1);
        let expected = format!(
            "Duplicate Files Detected with Mismatched Checksums. {} already exists with checksum {}, but \
             the checksum of the incoming file is {} in put-wal for server 'main'\nHINT: ",
            home.incoming().join(name).display(),
            sha256(&existing),
            sha256(&sent)
        );
        assert!(run.stderr.contains(&expected), "{}", run.stderr);
        assert_holds(&home, name, &existing);
        assert_empty(&home.errors());
    }
}

#[test]
fn a_whole_history_or_label_is_not_taken_for_the_beginning_of_another() {
    let (label, text) = wal::backup_label(&Segment::small(2));
    for (name, existing) in [
        ("00000003.history", b"1\t0/1\tfirst\n".to_vec()),
        (&label, text),
    ] {
        let home = Home::new();
        put(&home.incoming(), name, &existing);
        let sent = [&existing[..], b"2\t0/2\tsecond\n"].concat();
        let run = receive(&home, &stream(name, &sent)).exits(1);
        assert!(run.stderr.contains("Mismatched"), "{}", run.stderr);
        assert_holds(&home, name, &existing);
        // Cut within its line, it was.
        let cut = &existing[..existing.len() - 1];
        put(&home.incoming(), name, cut);
        receive(&home, &stream(name, &sent)).exits(0);
        assert_holds(&home, name, &sent);
    }
}

#[test]
fn a_damaged_arrival_condemns_nothing() {
    let home = Home::new();
    put(&home.incoming(), FIRST, &first());
    let mut damaged = gzipped(&first());
    damaged.truncate(10_000);
    receive(&home, &stream(FIRST, &damaged)).exits(1);
    assert_holds(&home, FIRST, &first());
}

/// Takes a minute, as long as a sender can be kept waiting.
#[test]
fn another_put_wal_that_hangs_is_not_waited_for_for_ever() {
    let home = Home::new();
    put(&home.incoming(), FIRST, &first()[..5000]);
    let _other = home.hold_lock(".main-put-wal.lock");
    let run = receive(&home, &stream(FIRST, &first())).exits(1);
    assert!(run.stderr.contains(".main-put-wal.lock"), "{}", run.stderr);
    assert!(run.stderr.contains("HINT: "), "{}", run.stderr);
    assert_holds(&home, FIRST, &first()[..5000]);
}

#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let home = Home::new();
    fs::create_dir(home.incoming().join(FIRST)).unwrap();
    let run = receive(&home, &stream(FIRST, &first())).exits(1);
    assert!(run.stderr.contains("not a regular file"), "{}", run.stderr);
    assert_eq!(names(&home.incoming()), [FIRST]);
}

/// A frame that does not say how much is in it, so that a reader must be prepared for a window of 64 MiB.
fn with_large_window(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(26).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_file_that_takes_much_memory_to_compare_is_left_alone() {
    let home = Home::new();
    let there = with_large_window(&first());
    put(&home.incoming(), FIRST, &there);
    let run = receive(&home, &stream(FIRST, &first()));
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("too much memory"), "{}", run.stderr);
    assert!(
        run.stderr.contains("HINT: let archive-wal take"),
        "{}",
        run.stderr
    );
    assert_holds(&home, FIRST, &there);
    assert_empty(&home.errors());
    // The same bytes need not be decoded.
    receive(&home, &stream(FIRST, &there)).exits(0);
    // And the hint works.
    home.archive().exits(0);
    receive(&home, &stream(FIRST, &first())).exits(0);
    home.archive().exits(0);
    assert_empty(&home.errors());
}
