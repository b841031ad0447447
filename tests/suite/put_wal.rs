//! `put-wal`: a tar stream becomes a durable file in `incoming`, or an error and nothing.

mod existing;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::home::{Home, mode, names, put};
use crate::support::tarball::{
    DIRECTORY, EXTENDED, REGULAR, SYMBOLIC_LINK, TIME_S, Tarball, sha256, stream, stream_by_tools,
};
use crate::support::tool::{Barman, Run, Tool, Walarch, finish, input_of, start_with, wait_for};
use crate::support::trace::{CHANGING, Effect, traced_with};
use crate::support::wal::{self, MIB, Segment};

const PUT: [&str; 2] = ["put-wal", "main"];
const FIRST: &str = "000000010000000000000001";
const BOTH: [Tool; 2] = [Barman, Walarch];

fn receive(home: &Home, stream: &[u8]) -> Run {
    Walarch.run_with_input(home, &PUT, stream)
}

fn first() -> Vec<u8> {
    Segment::small(1).bytes()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `incoming` holds this file and nothing else, hidden or not.
#[track_caller]
fn assert_holds(home: &Home, name: &str, bytes: &[u8]) {
    assert_eq!(names(&home.incoming()), [name]);
    let found = fs::read(home.incoming().join(name)).unwrap();
    assert!(found == bytes, "{} bytes, not {}", found.len(), bytes.len());
}

#[track_caller]
fn assert_empty(directory: &Path) {
    assert_eq!(names(directory), [""; 0]);
}

#[test]
fn a_file_is_received_as_barman_receives_it() {
    let [(barman, barmans_log), (walarch, walarchs_log)] = BOTH.map(|tool| {
        let home = Home::new();
        let run = tool.run_with_input(&home, &PUT, &stream(FIRST, &first()));
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
        assert_holds(&home, FIRST, &first());
        let file = home.incoming().join(FIRST);
        let time = file.metadata().unwrap().mtime();
        assert_eq!(time, i64::try_from(TIME_S).unwrap());
        ((run.code, mode(&file)), messages(&home.log()))
    });
    assert_eq!(barman, walarch);
    assert_eq!(barman.0, 0);
    assert_eq!(barmans_log, walarchs_log);
    let sum = sha256(&first());
    let line =
        format!("Received file '{FIRST}' with checksum '{sum}' by put-wal for server 'main'");
    assert!(walarchs_log.contains(&line), "{walarchs_log:?}");
}

/// The texts of a log about put-wal, without what differs from run to run.
fn messages(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.contains("put-wal"))
        .filter_map(|line| line.split_once(": ").map(|(_, text)| text.to_owned()))
        .collect()
}

#[test]
fn the_client_behind_ssh_is_named() {
    for tool in BOTH {
        let home = Home::new();
        let mut command = tool.command(&home, &PUT);
        command.env("SSH_CONNECTION", "192.0.2.7 40000 192.0.2.1 22");
        let input = input_of(&home, &stream(FIRST, &first()));
        assert!(command.stdin(input).status().unwrap().success());
        let log = home.log();
        assert!(
            log.contains("by put-wal for server 'main' (SSH host: 192.0.2.7)"),
            "{tool:?}: {log}"
        );
    }
}

#[test]
fn every_kind_of_wal_file_is_received_and_archived() {
    let home = Home::with(&[("compression", "zstd")]);
    let (history, text) = wal::history(2);
    let (label, label_text) = wal::backup_label(&Segment::small(2));
    let partial = format!("{}.partial", Segment::small(3).name());
    let files = [
        (FIRST.to_owned(), first()),
        (history, text),
        (label, label_text),
        (partial, Segment::small(3).bytes()),
    ];
    for (name, bytes) in &files {
        receive(&home, &stream(name, bytes)).exits(0);
    }
    home.archive().exits(0);
    for (name, bytes) in &files {
        home.assert_archived(name, bytes);
    }
}

#[test]
fn what_standard_tools_make_is_received() {
    for tool in BOTH {
        let home = Home::new();
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=2 {
            let segment = Segment::small(number);
            put(folder.path(), &segment.name(), &segment.bytes());
        }
        let stream = stream_by_tools(&home, folder.path().to_str().unwrap());
        tool.run_with_input(&home, &PUT, &stream).exits(0);
        assert_eq!(names(&home.incoming()).len(), 2);
        assert!(fs::read(home.incoming().join(FIRST)).unwrap() == first());
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let home = Home::new();
    let record = "30 mtime=1750000000.123456789\n";
    let stream = Tarball::new()
        .member("PaxHeaders/x", EXTENDED, record.as_bytes())
        .file(FIRST, &first())
        .stream();
    receive(&home, &stream).exits(0);
    let metadata = home.incoming().join(FIRST).metadata().unwrap();
    let time = (metadata.mtime(), metadata.mtime_nsec());
    assert_eq!(time, (1_750_000_000, 123_456_789));
}

#[test]
fn a_line_that_is_no_checksum_is_a_warning() {
    for tool in BOTH {
        let home = Home::new();
        let stream = Tarball::new()
            .sum_line("# made by hand")
            .file(FIRST, &first())
            .stream();
        let run = tool.run_with_input(&home, &PUT, &stream).exits(0);
        assert_eq!(
            run.stderr,
            "WARNING: Bad checksum line '# made by hand' found in put-wal for server 'main'\n"
        );
        assert_holds(&home, FIRST, &first());
    }
}

#[test]
fn streams_that_barman_refuses_are_refused_with_its_words() {
    let sum = sha256(&first());
    let unsums = |line: &str| Tarball::new().sum_line(line);
    for (stream, message) in [
        (
            Tarball::new().member("sub", DIRECTORY, b"").stream(),
            "Unsupported file type 'b'5'' for file 'sub'".to_owned(),
        ),
        (
            Tarball::new().member(FIRST, SYMBOLIC_LINK, b"").stream(),
            format!("Unsupported file type 'b'2'' for file '{FIRST}'"),
        ),
        (
            stream(&format!("sub/{FIRST}"), &first()),
            format!("Unsupported filename 'sub/{FIRST}'"),
        ),
        (
            stream(&format!("../{FIRST}"), &first()),
            format!("Unsupported filename '../{FIRST}'"),
        ),
        (
            stream(&format!("/{FIRST}"), &first()),
            format!("Unsupported filename '/{FIRST}'"),
        ),
        (
            unsums("0 *000000010000000000000002")
                .file(FIRST, &first())
                .stream(),
            "Checksum without corresponding file '000000010000000000000002'".to_owned(),
        ),
        (
            unsums(&format!("{:064} *{FIRST}", 0))
                .member(FIRST, REGULAR, &first())
                .stream(),
            format!(
                "Bad file checksum '{sum}' (should be {:064}) for file '{FIRST}'",
                0
            ),
        ),
        (
            Tarball::new().member(FIRST, REGULAR, &first()).stream(),
            format!("Missing checksum for file '{FIRST}'"),
        ),
        (
            Tarball::new().member(FIRST, REGULAR, &first()).end(),
            format!("Missing checksum for file '{FIRST}'"),
        ),
    ] {
        for tool in BOTH {
            let home = Home::new();
            let run = tool.run_with_input(&home, &PUT, &stream).exits(1);
            let expected = format!("ERROR: {message} in put-wal for server 'main'");
            assert_eq!(run.stderr.lines().next(), Some(&*expected), "{tool:?}");
            if tool == Walarch {
                assert_empty(&home.incoming());
            }
        }
    }
}

#[test]
fn hostile_streams_leave_nothing() {
    let big = Tarball::new().member_of_size(FIRST, REGULAR, 3 << 30, &first());
    let long_header = Tarball::new().member_of_size("x", EXTENDED, 1 << 30, &[b' '; 4096]);
    let long_sums = Tarball::new().member_of_size("SHA256SUMS", REGULAR, 1 << 30, &[b'\n'; 4096]);
    let many = (0..100).fold(Tarball::new(), |tarball, number| {
        tarball.file(&format!("{number:08X}.history"), b"1\t0/1\tx\n")
    });
    for (stream, message) in [
        (stream(".bashrc", b"id"), "Unsupported filename '.bashrc'"),
        (stream("..", b"id"), "Unsupported filename '..'"),
        (stream("", b"id"), "Unsupported filename ''"),
        (
            stream(&format!("{FIRST}\n"), &first()),
            "Unsupported filename",
        ),
        (
            stream(&format!("{FIRST}.tmp"), &first()),
            "Unsupported filename",
        ),
        (
            stream("\x1b[2J", b"id"),
            "Unsupported filename '\u{fffd}[2J'",
        ),
        (big.stream(), "Unsupported size of 3221225472 bytes"),
        (
            long_header.stream(),
            "an extended header of 1073741824 bytes",
        ),
        (long_sums.stream(), "Unsupported size"),
        (many.stream(), "Unexpected file '00000040.history'"),
        (
            Tarball::new()
                .file(FIRST, &first())
                .file(FIRST, &first())
                .stream(),
            "Unexpected file",
        ),
        (Tarball::new().end(), "no WAL file"),
        (Tarball::new().stream(), "no WAL file"),
        (Vec::new(), "no WAL file"),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "cannot read the tar stream",
        ),
        (vec![b'x'; 4096], "cannot read the tar stream"),
    ] {
        let home = Home::new();
        let run = receive(&home, &stream).exits(1);
        assert!(run.stderr.starts_with("ERROR: "), "{}", run.stderr);
        assert!(run.stderr.contains(message), "{message}: {}", run.stderr);
        assert!(!run.stderr.contains('\x1b'));
        assert_empty(&home.incoming());
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn a_broken_stream_leaves_nothing_wherever_it_breaks() {
    let (name, text) = wal::history(2);
    let whole = stream(&name, &text);
    // The last two blocks are the end, which nobody needs.
    let needed = whole.len() - 1024;
    for length in (0..needed).step_by(100) {
        let home = Home::new();
        receive(&home, &whole[..length]).exits(1);
        assert_empty(&home.incoming());
    }
    let home = Home::new();
    receive(&home, &whole[..needed]).exits(0);
    assert_holds(&home, &name, &text);
}

#[test]
fn a_segment_that_cannot_be_what_its_name_says_is_refused() {
    let short = first()[..MIB as usize / 2].to_vec();
    let elsewhere = Segment::small(2).bytes();
    for (bytes, reason) in [
        (short, "segments have 1048576"),
        (elsewhere, "its first page is that of position 0/200000"),
        (Vec::new(), "the file is empty"),
    ] {
        let home = Home::new();
        let run = receive(&home, &stream(FIRST, &bytes)).exits(1);
        assert!(run.stderr.contains(reason), "{}", run.stderr);
        assert!(run.stderr.contains("HINT: "), "{}", run.stderr);
        assert_empty(&home.incoming());
        let home = Home::new().walarch_toml("[walarch]\nvalidate_wal = false\n");
        receive(&home, &stream(FIRST, &bytes)).exits(0);
        assert_holds(&home, FIRST, &bytes);
    }
}

#[test]
fn what_get_wal_would_refuse_is_refused() {
    let (history, _) = wal::history(2);
    let (label, _) = wal::backup_label(&Segment::small(2));
    for (name, bytes) in [
        (FIRST, &b"short garbage"[..]),
        (&history, b""),
        (&history, &[0; 41]),
        (&label, b""),
    ] {
        let home = Home::new();
        let run = receive(&home, &stream(name, bytes)).exits(1);
        assert!(run.stderr.contains("Invalid file"), "{}", run.stderr);
        assert_empty(&home.incoming());
    }
    let home = Home::new();
    let partial = format!("{FIRST}.partial");
    receive(&home, &stream(&partial, b"")).exits(0);
    assert_holds(&home, &partial, b"");
}

#[test]
fn wal_of_another_cluster_is_refused() {
    let home = Home::new();
    fs::write(
        home.barman_home().join("main/identity.json"),
        "{\"systemid\": \"1\"}",
    )
    .unwrap();
    let run = receive(&home, &stream(FIRST, &first())).exits(1);
    assert!(
        run.stderr.contains("this server is system 1"),
        "{}",
        run.stderr
    );
    assert_empty(&home.incoming());
}

#[test]
fn what_dead_processes_left_is_swept_and_nothing_else() {
    let home = Home::new();
    let mut child = Command::new("true").spawn().unwrap();
    let dead = child.id();
    child.wait().unwrap();
    let alive = std::process::id();
    let stays = [
        format!(".{alive}-{FIRST}"),
        ".hidden".to_owned(),
        ".1x-y".to_owned(),
    ];
    for name in &stays {
        put(&home.incoming(), name, b"half");
    }
    put(&home.incoming(), &format!(".{dead}-{FIRST}"), b"half");
    receive(&home, &stream(FIRST, &first())).exits(0);
    let mut expected = stays.to_vec();
    expected.push(FIRST.to_owned());
    expected.sort();
    assert_eq!(names(&home.incoming()), expected);
}

/// A process in another PID namespace looks dead from here, or like ourselves.
#[test]
fn what_a_process_of_another_namespace_is_writing_is_not_swept() {
    let home = Home::new();
    let mut child = Command::new("true").spawn().unwrap();
    let elsewhere = child.id();
    child.wait().unwrap();
    let path = put(&home.incoming(), &format!(".{elsewhere}-{FIRST}"), b"half");
    let writer = File::open(&path).unwrap();
    writer.lock().unwrap();
    receive(&home, &stream(FIRST, &first())).exits(0);
    assert_eq!(fs::read(&path).unwrap(), b"half");
    drop(writer);
    receive(&home, &stream(FIRST, &first())).exits(0);
    assert_holds(&home, FIRST, &first());
}

#[test]
fn what_put_wal_writes_is_marked_as_in_use() {
    let home = Home::new();
    let whole = stream(FIRST, &first());
    let (reader, mut sender) = std::io::pipe().unwrap();
    let child = start_with(&mut Walarch.command(&home, &PUT), reader.into());
    sender.write_all(&whole[..whole.len() / 2]).unwrap();
    let temporary = home.incoming().join(format!(".{}-{FIRST}", child.id()));
    wait_for("the temporary file", || {
        let file = File::open(&temporary).ok()?;
        file.try_lock().is_err().then_some(())
    });
    sender.write_all(&whole[whole.len() / 2..]).unwrap();
    drop(sender);
    finish(child, Duration::from_secs(60)).exits(0);
    assert_holds(&home, FIRST, &first());
}

#[test]
fn of_senders_at_the_same_time_only_those_whose_file_is_there_succeed() {
    for before in [None, Some(&first()[..5000]), Some(&[0; 5000][..])] {
        let home = Home::new();
        if let Some(before) = before {
            put(&home.incoming(), FIRST, before);
        }
        let contents = [first(), Segment::small(1).seed(9).bytes()];
        let inputs = [0, 1].map(|which| {
            let path = home.root().join(format!("input.{which}"));
            fs::write(&path, stream(FIRST, &contents[which])).unwrap();
            path
        });
        let senders: Vec<_> = (0..8)
            .map(|number| {
                let which = number % 2;
                let input = File::open(&inputs[which]).unwrap();
                let child = start_with(&mut Walarch.command(&home, &PUT), input.into());
                (which, child)
            })
            .collect();
        let succeeded: Vec<usize> = senders
            .into_iter()
            .filter_map(|(which, child)| {
                let run = finish(child, Duration::from_secs(60));
                (run.code == 0).then_some(which)
            })
            .collect();
        let found = fs::read(home.incoming().join(FIRST)).unwrap();
        assert!(!succeeded.is_empty());
        assert!(succeeded.iter().all(|which| contents[*which] == found));
        assert_eq!(names(&home.incoming()), [FIRST]);
    }
}

#[test]
fn a_missing_incoming_directory_is_made() {
    for tool in BOTH {
        let home = Home::new();
        fs::remove_dir(home.incoming()).unwrap();
        tool.run_with_input(&home, &PUT, &stream(FIRST, &first()))
            .exits(0);
        assert_holds(&home, FIRST, &first());
    }
}

#[test]
fn servers_are_chosen_as_barman_chooses_them() {
    let servers: &[(&str, &[(&str, &str)])] = &[
        ("main", &[]),
        ("idle", &[("active", "off")]),
        (
            "wrong",
            &[("streaming_wals_directory", "{root}/home/wrong/incoming")],
        ),
    ];
    for arguments in [
        &["put-wal", "main", "--test"][..],
        &["put-wal", "-t", "main"],
        &["put-wal", "-t", "--te", "main"],
        &["-q", "put-wal", "--test", "main"],
        &["-f", "json", "put-wal", "--test", "main"],
        &["put-wal", "--test", "idle"],
        &["put-wal", "idle"],
        &["put-wal", "wrong"],
        &["put-wal", "unknown"],
        &["put-wal", "all"],
    ] {
        let home = Home::with_servers(servers);
        let [barman, walarch] = BOTH.map(|tool| {
            let run = tool.run_with_input(&home, arguments, b"");
            (run.code, run.stdout, run.stderr)
        });
        assert_eq!(barman, walarch, "{arguments:?}");
    }
    let home = Home::new();
    let run = Walarch.run(&home, &["put-wal", "main", "--test"]).exits(0);
    assert_eq!(
        run.stdout,
        "Ready to accept WAL files for the server main\n"
    );
}

#[test]
fn a_name_is_given_to_durable_bytes_only_and_then_made_durable() {
    let home = Home::new();
    let options = ["-e".to_owned(), format!("trace={CHANGING}")];
    let input = input_of(&home, &stream(FIRST, &first()));
    let (run, calls) = traced_with(Walarch, &home, &PUT, &options, input);
    run.exits(0);
    let goal = home.incoming().join(FIRST);
    let at = |wanted: &dyn Fn(&Effect) -> bool| {
        calls
            .iter()
            .position(|call| call.succeeded && wanted(&call.effect()))
            .unwrap()
    };
    let written = |effect: &Effect| matches!(effect, Effect::Write { path, .. } if path.starts_with(home.incoming()));
    let last_write = calls.iter().rposition(|call| written(&call.effect()));
    let renamed =
        at(&|effect| matches!(effect, Effect::Rename { to, replaces: false, .. } if *to == goal));
    let synced = at(
        &|effect| matches!(effect, Effect::Sync { path } if path.parent() == Some(&home.incoming())),
    );
    let directory_synced =
        at(&|effect| matches!(effect, Effect::Sync { path } if *path == home.incoming()));
    assert!(last_write.unwrap() < synced);
    assert!(synced < renamed);
    assert!(renamed < directory_synced);
}
