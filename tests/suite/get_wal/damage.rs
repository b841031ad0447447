//! What is damaged, cut or not what its name says, and a reader that cannot take it.

use super::*;

#[test]
fn nothing_of_a_file_that_was_cut_is_delivered() {
    for codec in CODECS {
        let home = stored_by(codec);
        let whole = fs::read(home.archived(FIRST)).unwrap().len();
        for keep in [whole - 1, 5000, 9, 1, 0] {
            damage(&home, FIRST, |bytes| bytes.truncate(keep));
            assert_refused(&home, FIRST, FIRST);
        }
    }
}

#[test]
fn nothing_of_a_file_whose_checksum_does_not_fit_is_delivered() {
    for codec in ["gzip", "bzip2", "xz", "zstd", "lz4", "snappy"] {
        let home = stored_by(codec);
        damage(&home, FIRST, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        assert_refused(&home, FIRST, "damaged");
    }
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_not_delivered() {
    for codec in ["none", "zstd"] {
        let home = stored_by(codec);
        fs::rename(home.archived(FIRST), home.archived(SECOND)).unwrap();
        assert_refused(&home, SECOND, "position");
        let home = home.walarch_toml("[walarch]\nvalidate_wal = false\n");
        assert!(get(Walarch, &home, &["main", SECOND]).stdout == segment(1));
    }
    let home = stored_by("none");
    let identity = r#"{"systemid": "42", "version": "15"}"#;
    fs::write(home.barman_home().join("main/identity.json"), identity).unwrap();
    assert_refused(&home, FIRST, "system");
}

/// Puts these bytes into the archive in the place of the stored file, as its codec would have stored them.
fn store(home: &Home, codec: &str, name: &str, plain: Vec<u8>) {
    let stored = match codec {
        "none" => plain,
        program => filter(home, program, &["-c"], plain),
    };
    fs::write(home.archived(name), stored).unwrap();
}

#[test]
fn a_segment_whose_first_page_is_damaged_is_not_delivered() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 6] = [
        |plain| plain.fill(0),
        |plain| plain[..8192].fill(0),
        // The magic number, the flag of a first page, the size of segments, the size of pages.
        |plain| plain[1] ^= 0x80,
        |plain| plain[2] = 0,
        |plain| plain[33] ^= 1,
        |plain| plain[36] ^= 1,
    ];
    for codec in ["none", "zstd"] {
        let home = stored_by(codec);
        for damage in damages {
            let mut plain = segment(1);
            damage(&mut plain);
            store(&home, codec, FIRST, plain);
            assert_refused(&home, FIRST, FIRST);
        }
    }
}

#[test]
fn of_a_large_segment_that_begins_with_zeros_nothing_gets_out() {
    let home = Home::with(&[("compression", "zstd")]);
    let large = Segment::of_size(64 * MIB, 1);
    put(&home.incoming(), &large.name(), &large.bytes());
    home.archive().exits(0);
    let mut plain = large.bytes();
    plain[..8192].fill(0);
    store(&home, "zstd", &large.name(), plain);
    assert_refused(&home, &large.name(), "does not begin with a page");
}

#[test]
fn a_segment_of_a_version_that_is_not_known_yet_is_delivered() {
    let home = stored_by("zstd");
    let unknown = Segment::small(1).magic(0xD1F0).bytes();
    store(&home, "zstd", FIRST, unknown.clone());
    assert!(get(Walarch, &home, &["main", FIRST]).stdout == unknown);
    // On a machine that writes the other byte first.
    let mut other = segment(1);
    for (from, to) in [
        (0, 2),
        (2, 4),
        (4, 8),
        (8, 16),
        (24, 32),
        (32, 36),
        (36, 40),
    ] {
        other[from..to].reverse();
    }
    store(&home, "zstd", FIRST, other.clone());
    assert!(get(Walarch, &home, &["main", FIRST]).stdout == other);
}

#[test]
fn a_history_that_postgresql_could_not_read_is_not_delivered() {
    const HISTORY: &str = "00000002.history";
    let home = stored_by("none");
    for bad in [
        "<html>502 Bad Gateway</html>\n",
        "1\n",
        "2\t0/1\tx\n",
        "1\t0/1\t\0",
    ] {
        fs::write(home.archived(HISTORY), bad).unwrap();
        assert_refused(&home, HISTORY, HISTORY);
    }
    for good in [
        "# a comment\n\n1\t0/3000000\treason\n",
        "1 0/3000000",
        "#\n",
    ] {
        fs::write(home.archived(HISTORY), good).unwrap();
        let got = get(Walarch, &home, &["main", HISTORY]);
        assert_eq!((got.code, got.stdout.as_slice()), (0, good.as_bytes()));
    }
}

#[test]
fn an_archive_that_is_not_there_is_not_one_without_the_file() {
    let home = stored_by("zstd");
    put(&home.incoming(), SECOND, &segment(2));
    let away = home.root().join("away");
    fs::rename(home.wals(), &away).unwrap();
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (6, 0), "{}", got.stderr);
    assert!(
        got.stderr.contains("/wals does not exist"),
        "{}",
        got.stderr
    );
    assert!(got.stderr.contains("HINT: "), "{}", got.stderr);
    // What waits elsewhere is there all the same.
    assert!(get(Walarch, &home, &["main", SECOND]).stdout == segment(2));
    // What is left where a file system is not mounted.
    fs::create_dir(home.wals()).unwrap();
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (6, 0), "{}", got.stderr);
    assert!(got.stderr.contains("/wals is empty"), "{}", got.stderr);
    fs::remove_dir(home.wals()).unwrap();
    fs::rename(&away, home.wals()).unwrap();
    assert!(get(Walarch, &home, &["main", FIRST]).stdout == segment(1));
}

#[test]
fn a_file_that_is_gone_although_it_is_listed_is_not_one_that_was_never_there() {
    let home = stored_by("zstd");
    for name in [FIRST, "00000002.history"] {
        fs::remove_file(home.archived(name)).unwrap();
        let got = get(Walarch, &home, &["main", name]);
        assert_eq!((got.code, got.stdout.len()), (4, 0), "{}", got.stderr);
        assert!(got.stderr.contains("xlog.db lists it"), "{}", got.stderr);
        assert!(got.stderr.contains("HINT: "), "{}", got.stderr);
    }
    let never = get(Walarch, &home, &["main", SECOND]);
    assert_eq!(never, get(Barman, &home, &["main", SECOND]));
    assert_eq!(never.code, 1);
}

#[test]
fn no_partial_segment_is_delivered_in_the_place_of_one_that_is_gone() {
    let home = stored_by("zstd");
    let partial = format!("{FIRST}.partial");
    put(&home.streaming(), &partial, &segment(1)[..100_000]);
    fs::remove_file(home.archived(FIRST)).unwrap();
    let got = get(Walarch, &home, &["-P", "main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (4, 0), "{}", got.stderr);
    fs::rename(home.wals(), home.root().join("away")).unwrap();
    let got = get(Walarch, &home, &["-P", "main", FIRST]);
    assert_eq!((got.code, got.stdout.len()), (6, 0), "{}", got.stderr);
    // Behind them, where nothing was archived yet, it is what there is.
    fs::rename(home.root().join("away"), home.wals()).unwrap();
    let partial = format!("{SECOND}.partial");
    put(&home.streaming(), &partial, &segment(2));
    assert!(get(Walarch, &home, &["-P", "main", SECOND]).stdout == segment(2));
}

#[test]
fn without_a_readable_xlogdb_no_file_is_said_never_to_have_been_there() {
    let home = stored_by("zstd");
    fs::remove_file(home.xlogdb_file()).unwrap();
    fs::create_dir(home.xlogdb_file()).unwrap();
    assert!(get(Walarch, &home, &["main", FIRST]).stdout == segment(1));
    let got = get(Walarch, &home, &["main", SECOND]);
    assert_eq!((got.code, got.stdout.len()), (4, 0), "{}", got.stderr);
    assert!(got.stderr.contains("HINT: only xlogdb"), "{}", got.stderr);
}

#[test]
fn an_empty_file_is_no_file() {
    let home = stored_by("none");
    fs::write(home.archived("00000002.history"), "").unwrap();
    assert_refused(&home, "00000002.history", "empty");
}

#[test]
fn a_good_copy_in_the_next_place_is_delivered_in_place_of_a_damaged_one() {
    let home = stored_by("zstd");
    damage(&home, FIRST, |bytes| bytes.truncate(bytes.len() / 2));
    put(&home.incoming(), FIRST, &segment(1));
    let got = get(Walarch, &home, &["main", FIRST]);
    assert_eq!((got.code, got.stderr.as_str()), (0, ""));
    assert!(got.stdout == segment(1));
    assert!(home.log().contains("is damaged"), "{}", home.log());
}

#[test]
fn of_a_large_damaged_segment_the_end_stays_behind() {
    let home = Home::with(&[("compression", "zstd")]);
    let large = Segment::of_size(64 * MIB, 1).filler(Filler::Records);
    put(&home.incoming(), &large.name(), &large.bytes());
    home.archive().exits(0);
    let got = get(Walarch, &home, &["main", &large.name()]);
    assert!(got.code == 0 && got.stdout == large.bytes());
    let packed = get(Walarch, &home, &["-z", "main", &large.name()]);
    assert!(filter(&home, "gzip", &["-dc"], packed.stdout) == large.bytes());
    damage(&home, &large.name(), |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    let got = get(Walarch, &home, &["main", &large.name()]);
    assert_eq!(got.code, 4, "{}", got.stderr);
    assert!(got.stdout.len() as u64 <= 56 * MIB);
    // Where everything is read before anything is sent, nothing gets out at all.
    assert_eq!(
        get(Walarch, &home, &["-z", "main", &large.name()]).stdout,
        b""
    );
}

#[test]
fn from_a_file_a_damaged_segment_is_taken_back() {
    let home = Home::with(&[("compression", "zstd")]);
    let large = Segment::of_size(32 * MIB, 1);
    put(&home.incoming(), &large.name(), &large.bytes());
    home.archive().exits(0);
    let goal = home.root().join("goal");
    let redirected = |operator: &str| {
        let script = format!("exec \"$0\" \"$@\" {operator} {}", goal.display());
        let walarch = Walarch.command(&home, &["get-wal", "main", &large.name()]);
        let mut command = in_home(Command::new("sh"), &home);
        command.args(["-c", &script]).arg(walarch.get_program());
        got(command.args(walarch.get_args())).code
    };
    assert_eq!(redirected(">"), 0);
    assert!(fs::read(&goal).unwrap() == large.bytes());
    damage(&home, &large.name(), |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    assert_eq!(redirected(">"), 4);
    assert_eq!(fs::read(&goal).unwrap(), b"");
    // What was there before stays.
    fs::write(&goal, "before").unwrap();
    assert_eq!(redirected(">>"), 4);
    assert!(fs::read(&goal).unwrap().starts_with(b"before"));
    // A good copy in the next place begins where the damaged one began.
    put(&home.incoming(), &large.name(), &large.bytes());
    assert_eq!(redirected(">"), 0);
    assert!(fs::read(&goal).unwrap() == large.bytes());
}

#[test]
fn a_reader_that_goes_away_is_not_success() {
    let home = stored_by("zstd");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Walarch.command(&home, &["get-wal", "main", FIRST]);
    let output = command
        .stdin(Stdio::null())
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
}

#[test]
fn a_full_disk_is_not_success() {
    let home = stored_by("zstd");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Walarch.command(&home, &["get-wal", "main", FIRST]);
    let output = command.stdin(Stdio::null()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}
