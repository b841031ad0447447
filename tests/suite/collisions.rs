//! What if the archive has something under the file's name already, or if another file takes that name
//! while the first one is archived?

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::support::home::{Home, names, put};
use crate::support::tool::{Walarch, finish, start, wait_for};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_file_that_takes_the_place_of_one_being_archived_stays_for_the_next_run() {
    let home = Home::new();
    let first = home.incoming_segments([1]);
    let lock = home.hold_lock(".main-xlogdb.lock");
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    wait_for("the archived file", || {
        home.archived(FIRST).exists().then_some(())
    });
    // As a sender does that tries again.
    let other = Segment::small(1).seed(9).bytes();
    let arrived = put(home.root(), "arrived", &other);
    fs::rename(arrived, home.incoming().join(FIRST)).unwrap();
    drop(lock);
    finish(child, LIMIT).exits(0);
    assert!(fs::read(home.incoming().join(FIRST)).unwrap() == other);
    home.assert_archived(FIRST, &first[FIRST]);
    home.archive().exits(0);
    let errors = names(&home.errors());
    assert!(
        matches!(&errors[..], [one] if one.ends_with("Z.duplicate")),
        "{errors:?}"
    );
    assert!(fs::read(home.errors().join(&errors[0])).unwrap() == other);
    home.assert_archived(FIRST, &first[FIRST]);
}

#[test]
fn a_file_that_is_written_to_while_it_is_archived_is_not_taken_for_archived() {
    let home = Home::new();
    home.incoming_segments([1]);
    let lock = home.hold_lock(".main-xlogdb.lock");
    let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
    wait_for("the archived file", || {
        home.archived(FIRST).exists().then_some(())
    });
    // As a sender does that tries again without a temporary name.
    let other = Segment::small(1).seed(9).bytes();
    fs::write(home.incoming().join(FIRST), &other).unwrap();
    drop(lock);
    let run = finish(child, LIMIT).exits(1);
    assert!(run.stderr.contains("was written to"), "{}", run.stderr);
    assert!(fs::read(home.incoming().join(FIRST)).unwrap() == other);
    home.archive().exits(0);
    home.assert_archived(FIRST, &other);
    assert_eq!(home.listed(), [FIRST]);
    assert_eq!(names(&home.incoming()), [""; 0]);
}

#[test]
fn a_sender_that_goes_on_after_a_killed_run_does_not_write_to_the_archive() {
    let home = Home::new();
    let files = home.incoming_segments([1]);
    // What a run leaves that is killed after it has published an adopted file.
    let (source, archived) = (home.incoming().join(FIRST), home.archived(FIRST));
    fs::create_dir(archived.parent().unwrap()).unwrap();
    fs::hard_link(&source, &archived).unwrap();
    let mut sender = OpenOptions::new().write(true).open(&source).unwrap();
    home.archive().exits(0);
    sender.write_all(b"something else").unwrap();
    home.assert_archived(FIRST, &files[FIRST]);
    assert_eq!(home.listed(), [FIRST]);
    assert_eq!(names(&home.incoming()), [""; 0]);
}

#[test]
fn a_cut_archived_copy_does_not_condemn_the_good_source() {
    for kept_bytes in [0, 3 * 8192] {
        let home = Home::new();
        home.incoming_segments([1]);
        home.archive().exits(0);
        let stored = fs::read(home.archived(FIRST)).unwrap();
        fs::write(home.archived(FIRST), &stored[..kept_bytes]).unwrap();
        let files = home.incoming_segments(1..=2);
        home.archive().exits(1);
        assert_eq!(names(&home.incoming()), [FIRST], "{kept_bytes}");
        assert!(fs::read(home.incoming().join(FIRST)).unwrap() == files[FIRST]);
        assert_eq!(names(&home.errors()), [""; 0], "{kept_bytes}");
        home.assert_archived(SECOND, &files[SECOND]);
    }
}

#[test]
fn an_archived_copy_that_get_wal_would_refuse_does_not_condemn_the_good_source() {
    let (history, text) = wal::history(2);
    let headless = {
        let mut bytes = Segment::small(1).bytes();
        bytes[..8192].fill(0);
        bytes
    };
    for (name, good, archived) in [
        (FIRST, Segment::small(1).bytes(), vec![0; 1 << 20]),
        (FIRST, Segment::small(1).bytes(), headless),
        (FIRST, Segment::small(1).bytes(), b"short garbage".to_vec()),
        (&history, text.clone(), Vec::new()),
        (&history, text.clone(), vec![0; text.len()]),
        // The end of its last line is missing.
        (&history, text.clone(), text[..text.len() - 5].to_vec()),
    ] {
        let home = Home::new();
        put(&home.incoming(), name, &good);
        home.archive().exits(0);
        fs::write(home.archived(name), &archived).unwrap();
        let source = put(&home.incoming(), name, &good);
        let by_path = home.run(&["archive-wal", "main", source.to_str().unwrap()]);
        for run in [by_path.exits(1), home.archive().exits(1)] {
            let location = home.archived(name);
            let location = location.to_str().unwrap();
            assert!(run.stderr.contains(location), "{}", run.stderr);
        }
        assert!(fs::read(&source).unwrap() == good);
        assert_eq!(names(&home.errors()), [""; 0]);
        // Nor one that was set aside.
        let aside = format!("{name}.20260102T030405Z.duplicate");
        fs::rename(&source, home.errors().join(&aside)).unwrap();
        let run = home.run(&["errors", "main", "--explain"]).exits(0);
        for text in ["cannot be used: ", "HINT: this may be the only good copy"] {
            assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
        }
    }
}

/// A receiver makes room for a partial segment before anything comes, and nothing may have come.
#[test]
fn a_partial_segment_that_was_archived_blank_does_not_hold_up_the_next_one() {
    let home = Home::new();
    let partial = format!("{FIRST}.partial");
    put(&home.incoming(), &partial, &[0; 1 << 20]);
    home.archive().exits(0);
    put(&home.incoming(), &partial, &Segment::small(1).bytes());
    home.archive().exits(0);
    assert_eq!(names(&home.incoming()), [""; 0]);
    let errors = names(&home.errors());
    assert!(
        matches!(&errors[..], [one] if one.ends_with("Z.duplicate")),
        "{errors:?}"
    );
}

#[test]
fn what_cannot_be_read_under_an_archived_name_does_not_keep_the_files_behind_it() {
    for has_xlogdb in [true, false] {
        let home = Home::new();
        if has_xlogdb {
            fs::write(home.xlogdb_file(), "").unwrap();
        }
        let files = home.incoming_segments(1..=5);
        let names_in_order: Vec<&str> = files.keys().map(String::as_str).collect();
        let [directory, dangling, looping, pipe, good] = names_in_order[..] else {
            panic!("not five segments");
        };
        let group = home.wals().join("0000000100000000");
        fs::create_dir_all(group.join(directory)).unwrap();
        symlink("nowhere", group.join(dangling)).unwrap();
        symlink(looping, group.join(looping)).unwrap();
        mkfifo(&group.join(pipe), Mode::S_IRUSR).unwrap();
        let child = start(&mut Walarch.command(&home, &["archive-wal", "main"]));
        let run = finish(child, LIMIT).exits(1);
        for name in [directory, dangling, looping, pipe] {
            assert!(run.stderr.contains(name), "{}", run.stderr);
            assert!(fs::read(home.incoming().join(name)).unwrap() == files[name]);
            assert!(!home.archived(name).is_file(), "{name}");
        }
        assert_eq!(names(&home.errors()), [""; 0]);
        assert_eq!(home.listed(), [good], "{}", run.stderr);
        home.assert_archived(good, &files[good]);
    }
}

#[test]
fn a_failing_passphrase_command_is_blamed_and_not_the_archived_file() {
    let home = Home::with(&[
        ("encryption", "gpg"),
        ("encryption_key_id", "barman@example.com"),
        ("encryption_passphrase_command", "exit 7"),
    ])
    .gpg_key();
    home.incoming_segments([1]);
    home.archive().exits(0);
    home.incoming_segments([1]);
    let run = home.archive().exits(1);
    assert!(
        run.stderr
            .contains("encryption_passphrase_command exited with status 7"),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("damaged"), "{}", run.stderr);
    assert_eq!(names(&home.incoming()), [FIRST]);
    assert_eq!(names(&home.errors()), [""; 0]);
}
