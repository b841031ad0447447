//! Segments that are stored in two parts, as those of the usual size are with zstd.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};

use super::{FIRST, damage, get};
use crate::support::home::{Home, put};
use crate::support::tool::{Barman, Tool, Walarch};
use crate::support::trace::{take_calls, traced_command};
use crate::support::wal::{MIB, Segment};

/// The last of the three blocks that make a seam.
const RESET: [u8; 10] = [0x3C, 0, 0, 0, 1, 0x54, 0, 2, 0, 0b100];

fn segment() -> Vec<u8> {
    Segment::of_size(16 * MIB, 1).bytes()
}

fn home() -> Home {
    let home = Home::with(&[("compression", "zstd")]);
    put(&home.incoming(), FIRST, &segment());
    home.archive().exits(0);
    let stored = fs::read(home.archived(FIRST)).unwrap();
    let is_divided = stored.windows(RESET.len()).any(|bytes| bytes == RESET);
    assert!(is_divided, "it is not in two parts");
    home
}

fn into(home: &Home, tool: Tool, file: File) -> i32 {
    let mut command: Command = tool.command(home, &["get-wal", "main", FIRST]);
    command.stdout(file).status().unwrap().code().unwrap()
}

#[test]
fn barman_and_zstd_read_what_is_stored_in_two_parts() {
    let home = home();
    for tool in [Walarch, Barman] {
        let got = get(tool, &home, &["main", FIRST]);
        assert_eq!((got.code, got.stderr.as_str()), (0, ""), "{tool:?}");
        assert!(got.stdout == segment(), "{tool:?}");
    }
    let zstd = Command::new("zstd")
        .arg("-dcq")
        .arg(home.archived(FIRST))
        .output()
        .unwrap();
    assert!(zstd.status.success() && zstd.stdout == segment());
}

#[test]
fn it_is_delivered_into_a_file_behind_other_bytes_and_before_others() {
    let home = home();
    let path = home.root().join("got");
    let append = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap()
    };
    let mut file = File::create(&path).unwrap();
    file.write_all(b"before").unwrap();
    assert_eq!(into(&home, Walarch, file.try_clone().unwrap()), 0);
    // Who gave us the file goes on behind what we wrote.
    file.write_all(b"between").unwrap();
    assert_eq!(into(&home, Walarch, append()), 0);
    let whole = segment();
    let expected = [b"before", &whole[..], b"between", &whole].concat();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn of_a_damaged_one_nothing_stays_in_the_file() {
    for at in [2, 4, 5] {
        let home = home();
        damage(&home, FIRST, |bytes| {
            let at = bytes.len() / 6 * at;
            bytes[at] ^= 0xFF;
        });
        let path = home.root().join("got");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"before").unwrap();
        assert_eq!(into(&home, Walarch, file), 4, "{at}");
        assert_eq!(fs::read(&path).unwrap(), b"before", "{at}");
    }
}

/// `get-wal > file` may leave a file behind when it is killed. Its size may be that of a segment; its first page is
/// there only if all of it is.
#[test]
fn whenever_it_is_killed_the_file_is_whole_or_has_no_first_page() {
    let home = home();
    let path = home.root().join("got");
    let run = |what: &str| {
        let options = ["-e", what].map(str::to_owned);
        let mut command = traced_command(Walarch, &home, &["get-wal", "main", FIRST], &options);
        command.stdout(File::create(&path).unwrap());
        let status = command.stdin(Stdio::null()).status().unwrap();
        (status.success(), take_calls(&home).len())
    };
    let (is_whole, writes) = run("trace=pwrite64");
    assert!(is_whole && fs::read(&path).unwrap() == segment());
    assert!(writes > 8, "{writes}");
    let mut killed = 0;
    // Each of the two threads has a count of its own.
    for count in [1, 2, 5, writes / 2 - 1, writes / 2] {
        let (is_whole, _) = run(&format!("inject=pwrite64:signal=KILL:when={count}"));
        let found = fs::read(&path).unwrap();
        let has_first_page = found.iter().take(8192).any(|byte| *byte != 0);
        assert_eq!(is_whole, found == segment(), "killed at {count}");
        assert_eq!(is_whole, has_first_page, "killed at {count}");
        killed += usize::from(!is_whole);
    }
    assert!(killed > 2, "{killed}");
}

/// The same of what is decoded in the order of its bytes.
#[test]
fn of_a_damaged_one_no_whole_segment_is_ever_in_the_file() {
    for codec in ["lz4", "gzip"] {
        let home = Home::with(&[("compression", codec)]);
        put(&home.incoming(), FIRST, &segment());
        home.archive().exits(0);
        // The last byte of the checksum (lz4), and of the size (gzip).
        damage(&home, FIRST, |bytes| *bytes.last_mut().unwrap() ^= 0xFF);
        let path = home.root().join("got");
        let options = ["-e", "inject=ftruncate:signal=KILL"].map(str::to_owned);
        let mut command = traced_command(Walarch, &home, &["get-wal", "main", FIRST], &options);
        command.stdout(File::create(&path).unwrap());
        assert!(!command.stdin(Stdio::null()).status().unwrap().success());
        let left_bytes = fs::metadata(&path).unwrap().len();
        assert!(left_bytes > 0, "{codec}: it was not killed where it should");
        assert!(left_bytes < 16 * MIB, "{codec}: {left_bytes} bytes");
    }
}

#[test]
fn a_size_that_says_nothing_is_damage_and_another_place_may_have_a_good_copy() {
    let home = home();
    damage(&home, FIRST, |bytes| bytes[6..10].fill(0));
    let path = home.root().join("got");
    assert_eq!(into(&home, Walarch, File::create(&path).unwrap()), 4);
    put(&home.incoming(), FIRST, &segment());
    assert_eq!(into(&home, Walarch, File::create(&path).unwrap()), 0);
    assert!(fs::read(&path).unwrap() == segment());
}

#[test]
fn without_room_on_the_disk_nothing_stays_in_the_file() {
    let home = home();
    let path = home.root().join("got");
    for (call, error) in [
        ("fallocate", "ENOSPC"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
    ] {
        let options = ["-e", &format!("inject={call}:error={error}:when=1")].map(str::to_owned);
        let mut command = traced_command(Walarch, &home, &["get-wal", "main", FIRST], &options);
        command.stdout(File::create(&path).unwrap());
        let status = command.stdin(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(3), "{call} {error}");
        assert!(take_calls(&home).iter().any(|call| call.injected));
        assert_eq!(fs::read(&path).unwrap(), b"", "{call} {error}");
    }
}
