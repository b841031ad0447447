//! `wal-restore`: the client on the database host, over a real sshd, and beside the archive.

mod ahead;
mod apart;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::home::{Home, names, put, time_of};
use crate::support::sshd::{HOST, Sshd};
use crate::support::tool::{Barman, Run, Tool, Walarch, barman_venv, finish, start, wait_for};
use crate::support::wal::{self, SYSTEM_ID, Segment};

const FIRST: &str = "000000010000000000000001";

/// A database host: a data directory with the identity of the cluster that the segments are of, and a spool.
struct DatabaseHost {
    folder: TempDir,
}

impl DatabaseHost {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-db.")
            .tempdir()
            .unwrap();
        let host = Self { folder };
        fs::create_dir_all(host.data().join("pg_wal")).unwrap();
        fs::create_dir(host.data().join("global")).unwrap();
        host.be_cluster(SYSTEM_ID);
        host
    }

    fn be_cluster(&self, system_id: u64) {
        fs::write(
            self.data().join("global/pg_control"),
            system_id.to_ne_bytes(),
        )
        .unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    /// The one spool directory of this host.
    fn spooled(&self) -> PathBuf {
        let [directory] = &names(&self.spool())[..] else {
            panic!("not one spool: {:?}", names(&self.spool()));
        };
        self.spool().join(directory)
    }

    /// The segments that lie complete in the spool.
    fn spooled_segments(&self) -> Vec<String> {
        let names = names(&self.spooled()).into_iter();
        names.filter(|name| name.len() == 24).collect()
    }

    fn wait_for_spooled(&self, segments: &[String]) {
        wait_for("the spool", || {
            (self.spooled_segments() == segments).then_some(())
        });
    }

    fn received(&self) -> PathBuf {
        self.data().join("pg_wal/RECOVERYXLOG")
    }

    /// The client of one or the other, as PostgreSQL runs it: in the data directory.
    fn client(&self, tool: Tool, sshd: &Sshd, arguments: &[&str]) -> Command {
        let mut command = match tool {
            Walarch => {
                let mut command = Command::new(Walarch.program());
                command.arg("wal-restore");
                command
            }
            Barman => Command::new(barman_venv().join("bin/barman-wal-restore")),
        };
        let user = sshd.user();
        command
            .args(["-U", &user, "--spool-dir", self.spool().to_str().unwrap()])
            .args(arguments)
            .current_dir(self.data())
            .env_clear()
            .env("LANG", "C.UTF-8");
        sshd.reachable_from(&mut command);
        command
    }

    fn run(&self, tool: Tool, sshd: &Sshd, arguments: &[&str]) -> Run {
        run(&mut self.client(tool, sshd, arguments))
    }

    /// Restores a segment by walarch, with these options.
    #[track_caller]
    fn restore(&self, sshd: &Sshd, options: &[&str], name: &str) -> Vec<u8> {
        let arguments = [options, &[HOST, "main", name, "pg_wal/RECOVERYXLOG"]].concat();
        let run = self.run(Walarch, sshd, &arguments).exits(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
        let received = fs::read(self.received()).unwrap();
        fs::remove_file(self.received()).unwrap();
        received
    }
}

fn run(command: &mut Command) -> Run {
    finish(start(command), Duration::from_secs(60))
}

/// An archive with these segments of 1 MiB and their codec, and a history.
fn archive(numbers: impl IntoIterator<Item = u64>) -> Home {
    let home = Home::with(&[("compression", "zstd")]);
    home.incoming_segments(numbers);
    let (history, text) = wal::history(2);
    put(&home.incoming(), &history, &text);
    home.archive().exits(0);
    home
}

fn segment(number: u64) -> Segment {
    Segment::small(number)
}

fn names_of(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers
        .into_iter()
        .map(|number| segment(number).name())
        .collect()
}

#[test]
fn each_client_restores_from_each_server() {
    let home = archive([1]);
    let database = DatabaseHost::new();
    for remote in [Walarch, Barman] {
        let sshd = Sshd::start(&home, remote);
        for local in [Walarch, Barman] {
            for option in ["", "-z", "-j", "--gzip", "--bzip2", "--keep-compression"] {
                for (name, bytes) in [
                    (FIRST, segment(1).bytes()),
                    ("00000002.history", wal::history(2).1),
                ] {
                    let mut arguments = vec![HOST, "main", name, "pg_wal/RECOVERYXLOG"];
                    arguments.extend([option].iter().filter(|option| !option.is_empty()));
                    let run = database.run(local, &sshd, &arguments).exits(0);
                    let warning = match option {
                        "-z" | "--gzip" => "WARNING: `gzip` option is deprecated",
                        "-j" | "--bzip2" => "WARNING: `bzip2` option is deprecated",
                        _ => "",
                    };
                    assert!(run.stdout.starts_with(warning), "{run:?}");
                    assert_eq!(run.stdout.is_empty(), warning.is_empty(), "{run:?}");
                    assert_eq!(run.stderr, "", "{remote:?} {local:?} {option}");
                    assert!(fs::read(database.received()).unwrap() == bytes);
                    fs::remove_file(database.received()).unwrap();
                    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
                }
            }
        }
    }
}

#[test]
fn messages_and_exit_codes_are_those_of_barman_s_client() {
    let home = archive([1]);
    let database = DatabaseHost::new();
    fs::create_dir(database.data().join("pg_wal/directory")).unwrap();
    let sshd = Sshd::start(&home, Barman);
    let cases: &[(&[&str], i32)] = &[
        (&["main", "000000010000000000000009", "pg_wal/x"], 1),
        (&["main", "00000009.history", "pg_wal/x"], 1),
        (&["-P", "main", "000000010000000000000009", "pg_wal/x"], 1),
        (&["other", FIRST, "pg_wal/x"], 1),
        (
            &["-c", "/nonexistent/barman.conf", "main", FIRST, "pg_wal/x"],
            1,
        ),
        (
            &["-s", "1", "main", "000000010000000000000009", "pg_wal/x"],
            1,
        ),
        (&["main", FIRST, "pg_wal/directory"], 3),
        (&["--port", "1", "main", FIRST, "pg_wal/x"], 2),
        (&["-t", "main", FIRST, "pg_wal/x"], 0),
        (&["-t", "other", "dummy", "dummy"], 1),
        (&["-t", "--port", "1", "main", FIRST, "pg_wal/x"], 255),
    ];
    for (arguments, code) in cases {
        let arguments = [&[HOST], *arguments].concat();
        let ours = database.run(Walarch, &sshd, &arguments);
        assert!(!database.data().join("pg_wal/x").exists(), "{arguments:?}");
        let theirs = database.run(Barman, &sshd, &arguments);
        let _ = fs::remove_file(database.data().join("pg_wal/x"));
        assert_eq!(
            (ours.code, theirs.code),
            (*code, *code),
            "{arguments:?} {ours:?} {theirs:?}"
        );
        assert_eq!(said(&ours.stdout), said(&theirs.stdout), "{arguments:?}");
        assert_eq!(said(&ours.stderr), said(&theirs.stderr), "{arguments:?}");
    }
    let nowhere = [HOST, "main", FIRST, "nowhere/x"];
    for tool in [Walarch, Barman] {
        let run = database.run(tool, &sshd, &nowhere).exits(3);
        assert!(
            run.stderr
                .contains("Cannot open 'nowhere/x' (WAL_DEST) for writing")
        );
    }
    let invalid = database
        .run(Walarch, &sshd, &[HOST, "main", "x", "pg_wal/x"])
        .exits(3);
    assert!(invalid.stderr.contains("'x' is not a valid wal file name"));
}

/// The lines, but for ssh's own reasons, which Barman lets it keep to itself.
fn said(text: &str) -> Vec<&str> {
    text.trim()
        .lines()
        .filter(|line| !line.starts_with("ssh: connect to host"))
        .collect()
}

#[test]
fn a_remote_walarch_s_exit_codes_are_passed_on() {
    let home = archive([1]);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let stored = fs::read(home.archived(FIRST)).unwrap();
    fs::write(home.archived(FIRST), &stored[..stored.len() / 2]).unwrap();
    let restore = |server: &str| {
        database.run(
            Walarch,
            &sshd,
            &[HOST, server, FIRST, "pg_wal/RECOVERYXLOG"],
        )
    };
    let run = restore("main").exits(4);
    assert!(run.stderr.contains("is damaged"), "{run:?}");
    assert!(run.stderr.contains("HINT: "), "{run:?}");
    assert!(
        run.stderr
            .contains("Remote 'barman get-wal' command has failed!")
    );
    restore("other").exits(5);
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
}

#[test]
fn what_a_remote_barman_delivers_of_a_damaged_file_is_found_out() {
    // It ends with 0, having sent a part or nothing.
    let home = archive([1]);
    let sshd = Sshd::start(&home, Barman);
    let database = DatabaseHost::new();
    let stored = fs::read(home.archived(FIRST)).unwrap();
    for keep in [0, stored.len() / 2] {
        fs::write(home.archived(FIRST), &stored[..keep]).unwrap();
        let arguments = [HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"];
        for options in [&[][..], &["-P"]] {
            let arguments = [options, &arguments].concat();
            let run = database.run(Walarch, &sshd, &arguments).exits(4);
            assert!(run.stderr.contains(FIRST), "{run:?}");
            assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
        }
    }
}

#[test]
fn an_incomplete_segment_is_filled_up_whoever_sends_it() {
    let home = archive([1]);
    let (second, whole) = (segment(2).name(), segment(2).bytes());
    let mut expected = whole[..100_000].to_vec();
    expected.resize(whole.len(), 0);
    let database = DatabaseHost::new();
    for remote in [Walarch, Barman] {
        let sshd = Sshd::start(&home, remote);
        put(
            &home.streaming(),
            &format!("{second}.partial"),
            &whole[..100_000],
        );
        assert!(database.restore(&sshd, &["-P"], &second) == expected);
        assert!(database.restore(&sshd, &["-P"], FIRST) == segment(1).bytes());
    }
}

#[test]
fn a_far_end_that_fails_behind_the_first_byte_does_not_mean_that_there_is_no_file() {
    let home = archive([1]);
    fs::write(home.root().join("some"), segment(1).bytes()).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    for (body, code) in [
        ("head -c 500000 {root}/some; exit 1", 4),
        ("echo This account is currently not available.; exit 1", 4),
        ("exit 1", 1),
    ] {
        let script = home.script("broken", body);
        let program = ["--remote-program", script.to_str().unwrap()];
        for options in [&[][..], &["-P"]] {
            let arguments = [
                &program[..],
                options,
                &[HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"],
            ]
            .concat();
            let run = database.run(Walarch, &sshd, &arguments).exits(code);
            assert_eq!(run.stderr.contains("HINT: "), code == 4, "{run:?}");
            assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
        }
    }
}

#[test]
fn wal_of_another_cluster_is_not_delivered() {
    let home = archive([1]);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.be_cluster(42);
    let arguments = [HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"];
    let run = database.run(Walarch, &sshd, &arguments).exits(4);
    assert!(run.stderr.contains("this server is system 42"), "{run:?}");
    // No option of this host decides over that.
    assert!(run.stderr.contains("HINT: ") && !run.stderr.contains("validate_wal"));
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
    // Beside the archive, whatever that is known to hold.
    let local = || {
        let arguments = [
            "wal-restore",
            "--local",
            "main",
            FIRST,
            "pg_wal/RECOVERYXLOG",
        ];
        run_in(&database, Walarch.command(&home, &arguments))
    };
    let identity = |system_id: u64| {
        let text = format!("{{\"systemid\": \"{system_id}\", \"version\": \"15\"}}");
        fs::write(home.barman_home().join("main/identity.json"), text).unwrap();
    };
    for known in [None, Some(SYSTEM_ID)] {
        known.into_iter().for_each(identity);
        let run = local().exits(4);
        assert!(run.stderr.contains("this server is system 42"), "{run:?}");
        assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
    }
    database.be_cluster(SYSTEM_ID);
    identity(42);
    local().exits(0);
    assert!(fs::read(database.received()).unwrap() == segment(1).bytes());
    // Outside of a data directory the archive's own records count.
    let outside = database.folder.path().join("x");
    let outside = [
        "wal-restore",
        "--local",
        "main",
        FIRST,
        outside.to_str().unwrap(),
    ];
    run_in(&database, Walarch.command(&home, &outside)).exits(4);
}

fn run_in(database: &DatabaseHost, mut command: Command) -> Run {
    run(command.current_dir(database.data()))
}

#[test]
fn a_partial_segment_without_content_is_no_file_whoever_sends_it() {
    let home = archive([1]);
    let database = DatabaseHost::new();
    let name = segment(2).name();
    for remote in [Walarch, Barman] {
        let sshd = Sshd::start(&home, remote);
        for content in [vec![], vec![0; 1 << 20]] {
            put(&home.streaming(), &format!("{name}.partial"), &content);
            let arguments = ["-P", HOST, "main", &name, "pg_wal/RECOVERYXLOG"];
            database.run(Walarch, &sshd, &arguments).exits(1);
            assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
        }
    }
}

#[test]
fn a_test_of_a_far_end_that_hangs_ends_in_bounded_time() {
    let home = archive([1]);
    let script = home.script("stuck", "exec sleep 60");
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let program = script.to_str().unwrap();
    let options = ["--timeout", "2", "--remote-program", program, "-t"];
    let arguments = [&options[..], &[HOST, "main", FIRST, "pg_wal/x"]].concat();
    let begin = Instant::now();
    let run = database.run(Walarch, &sshd, &arguments).exits(2);
    assert!(
        run.stderr.contains("nothing moved for 2 seconds"),
        "{run:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn options_may_be_repeated_and_abbreviated() {
    let home = archive([1]);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let user = sshd.user();
    for options in [
        &["-P", "-P", "-s", "1", "-s", "0"][..],
        &["-p", "1", "-p", "0", "-U", "nobody", "-U", &user],
        &["--part", "--sl", "0", "--paral", "0", "--us", &user],
        &["--keep", "--keep-compression"],
        &["-z", "-z"],
        &["--gz"],
        &["-t", "--te"],
    ] {
        let arguments = [options, &[HOST, "main", FIRST, "pg_wal/x"]].concat();
        for tool in [Walarch, Barman] {
            let run = database.run(tool, &sshd, &arguments);
            assert_eq!(run.code, 0, "{tool:?} {options:?} {run:?}");
        }
    }
    // What is not clear is refused by either.
    let arguments = ["--pa", HOST, "main", FIRST, "pg_wal/x"];
    for tool in [Walarch, Barman] {
        database.run(tool, &sshd, &arguments).exits(2);
    }
}

#[test]
fn a_dead_network_is_an_error_in_bounded_time() {
    let home = archive([1]);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    sshd.freeze();
    let begin = Instant::now();
    let arguments = ["--timeout", "4", HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"];
    let run = database.run(Walarch, &sshd, &arguments).exits(2);
    assert!(
        run.stderr.contains("Connection problem with ssh"),
        "{run:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(15));
    sshd.thaw();
    database.restore(&sshd, &[], FIRST);
}

#[test]
fn a_connection_that_dies_half_way_is_an_error_in_bounded_time() {
    let home = archive([1]);
    // The other end sends a beginning, and then nothing more.
    let script = home.script("stuck", "head -c 100000 {root}/some; exec sleep 600");
    fs::write(home.root().join("some"), segment(1).bytes()).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let arguments = [
        "--timeout",
        "2",
        "--remote-program",
        script.to_str().unwrap(),
        HOST,
        "main",
        FIRST,
        "pg_wal/RECOVERYXLOG",
    ];
    let begin = Instant::now();
    let run = database.run(Walarch, &sshd, &arguments).exits(2);
    assert!(
        run.stderr.contains("nothing moved for 2 seconds"),
        "{run:?}"
    );
    assert!(begin.elapsed() < Duration::from_secs(15));
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
}

#[test]
fn the_program_is_the_client_when_it_has_that_name() {
    let home = archive(1..=3);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let client = database.folder.path().join("barman-wal-restore");
    symlink(Walarch.program(), &client).unwrap();
    let arguments = ["-p", "1", HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"];
    let as_walarch = database.client(Walarch, &sshd, &arguments);
    let mut command = Command::new(client);
    command
        .args(as_walarch.get_args().skip(1))
        .current_dir(database.data());
    let restored = run(sshd.reachable_from(&mut command)).exits(0);
    assert_eq!(
        (restored.stdout.as_str(), restored.stderr.as_str()),
        ("", "")
    );
    assert!(fs::read(database.received()).unwrap() == segment(1).bytes());
    database.wait_for_spooled(&names_of(2..=3));
}

#[test]
fn beside_the_archive_no_ssh_is_needed() {
    let home = archive(1..=6);
    let database = DatabaseHost::new();
    let spool = database.spool();
    let restore = |options: &[&str], name: &str| {
        let arguments = [
            &[
                "wal-restore",
                "--local",
                "--spool-dir",
                spool.to_str().unwrap(),
            ],
            options,
            &["main", name, "pg_wal/RECOVERYXLOG"],
        ]
        .concat();
        let mut command = Walarch.command(&home, &arguments);
        run(command.current_dir(database.data()))
    };
    let received = || fs::read(database.received()).unwrap();
    let plain = restore(&[], FIRST).exits(0);
    assert_eq!((plain.stdout.as_str(), plain.stderr.as_str()), ("", ""));
    assert!(received() == segment(1).bytes());
    restore(&[], "000000010000000000000009").exits(1);
    restore(&[], "nonsense").exits(3);
    restore(&["-p", "2"], FIRST).exits(0);
    database.wait_for_spooled(&names_of(2..=5));
    for number in 2..=6 {
        restore(&["-p", "2"], &segment(number).name()).exits(0);
        assert!(received() == segment(number).bytes());
    }
    fs::write(home.archived(FIRST), "?").unwrap();
    fs::remove_file(database.received()).unwrap();
    restore(&[], FIRST).exits(4);
    // Gone, and not mounted.
    fs::remove_file(home.archived(FIRST)).unwrap();
    let run = restore(&[], FIRST).exits(4);
    assert!(run.stderr.contains("HINT: "), "{run:?}");
    fs::rename(home.wals(), home.root().join("away")).unwrap();
    let run = restore(&[], FIRST).exits(6);
    assert!(run.stderr.contains("HINT: "), "{run:?}");
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
}

#[test]
fn a_goal_that_is_no_regular_file_is_refused_and_left_alone() {
    let home = archive([1]);
    let database = DatabaseHost::new();
    let directory = database.data().join("pg_wal");
    let (fifo, link) = (directory.join("fifo"), directory.join("link"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(directory.join("file"), "mine").unwrap();
    symlink("file", &link).unwrap();
    for goal in [&fifo, &link] {
        let before = fs::symlink_metadata(goal).unwrap().ino();
        let arguments = [
            "wal-restore",
            "--local",
            "main",
            FIRST,
            goal.to_str().unwrap(),
        ];
        let run = run(Walarch
            .command(&home, &arguments)
            .current_dir(database.data()))
        .exits(3);
        assert!(run.stderr.contains("is not a regular file"), "{run:?}");
        assert_eq!(fs::symlink_metadata(goal).unwrap().ino(), before);
    }
    assert_eq!(fs::read(directory.join("file")).unwrap(), b"mine");
    assert_eq!(names(&directory), ["fifo", "file", "link"]);
}

#[test]
fn a_restored_file_has_the_mode_that_the_mask_leaves_wherever_it_was() {
    let home = archive(1..=2);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let restore = |goal: &str, number: u64| {
        let name = segment(number).name();
        let client = database.client(Walarch, &sshd, &["-p", "1", HOST, "main", &name, goal]);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 027; exec \"$@\"", "sh"]);
        command.arg(client.get_program()).args(client.get_args());
        command.current_dir(database.data()).env_clear();
        for (name, value) in client.get_envs() {
            command.envs(value.map(|value| (name, value)));
        }
        run(&mut command).exits(0);
        let mode =
            |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&database.data().join(goal)), 0o640, "{goal} {number}");
        assert_eq!(mode(&database.spooled()), 0o700);
    };
    restore("pg_wal/other", 1);
    database.wait_for_spooled(&names_of([2]));
    // From the spool: the backup host does not have it any more.
    fs::remove_file(home.archived(&segment(2).name())).unwrap();
    restore("pg_wal/RECOVERYXLOG", 2);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let home = Home::new();
    for arguments in [
        &["wal-restore", "host", "main", "name"][..],
        &["wal-restore", "--local", "host", "main", "name", "dest"],
        &["wal-restore", "-z", "-j", "host", "main", "name", "dest"],
        &[
            "wal-restore",
            "-z",
            "--keep-compression",
            "host",
            "main",
            "name",
            "dest",
        ],
        &[
            "wal-restore",
            "--timeout",
            "0",
            "host",
            "main",
            "name",
            "dest",
        ],
        &["wal-restore", "-p", "x", "host", "main", "name", "dest"],
    ] {
        home.run(arguments).exits(2);
    }
    let help = home.run(&["wal-restore", "--help"]).exits(0);
    assert!(!help.stdout.contains("--prefetch"), "{}", help.stdout);
}
