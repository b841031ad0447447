//! `wal-archive` over a real sshd: our client and Barman's, to our `put-wal` and Barman's, must mean the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::decode::decode;
use crate::support::home::{Home, names, put, time_of};
use crate::support::postgres::Postgres;
use crate::support::sshd::{HOST, Sshd};
use crate::support::tarball::sha256;
use crate::support::tool::{Barman, Run, Tool, Walarch, barman_venv, finish, in_home, start};
use crate::support::wal::{self, Segment};

const FIRST: &str = "000000010000000000000001";
const BOTH: [Tool; 2] = [Barman, Walarch];

/// A database host: a folder with WAL in it, and the ssh of the backup host.
struct DatabaseHost {
    folder: Home,
}

impl DatabaseHost {
    fn new() -> Self {
        let folder = Home::new();
        fs::create_dir(folder.root().join("pg_wal")).unwrap();
        Self { folder }
    }

    fn wal(&self, name: &str, bytes: &[u8]) -> PathBuf {
        put(&self.folder.root().join("pg_wal"), name, bytes)
    }

    /// The client of either tool, with these arguments before host, server and file.
    fn command(&self, client: Tool, sshd: &Sshd, options: &[&str]) -> Command {
        let program = match client {
            Walarch => Walarch.program(),
            Barman => barman_venv().join("bin/barman-wal-archive"),
        };
        let mut command = in_home(Command::new(program), &self.folder);
        if client == Walarch {
            command.arg("wal-archive");
        }
        command.args(["-U", &sshd.user()]).args(options);
        sshd.reachable_from(&mut command);
        command
    }

    fn archive(&self, client: Tool, sshd: &Sshd, options: &[&str], path: &Path) -> Run {
        let mut command = self.command(client, sshd, options);
        command.args([HOST, "main"]).arg(path);
        finish(start(&mut command), Duration::from_secs(60))
    }
}

fn first() -> Vec<u8> {
    Segment::small(1).bytes()
}

#[test]
fn every_client_reaches_every_server() {
    for server in BOTH {
        let home = Home::new();
        let sshd = Sshd::start(&home, server);
        for (number, client) in [(1, Barman), (2, Walarch)] {
            let segment = Segment::small(number);
            let database = DatabaseHost::new();
            let path = database.wal(&segment.name(), &segment.bytes());
            let run = database.archive(client, &sshd, &[], &path).exits(0);
            assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
            let arrived = home.incoming().join(segment.name());
            assert!(fs::read(&arrived).unwrap() == segment.bytes());
            let received = format!(
                "Received file '{}' with checksum '{}' by put-wal for server 'main' (SSH host: {HOST})",
                segment.name(),
                sha256(&segment.bytes())
            );
            assert!(home.log().contains(&received), "{}", home.log());
            // Once more, as PostgreSQL does when it has not heard of the success.
            database.archive(client, &sshd, &[], &path).exits(0);
            assert!(fs::read(&arrived).unwrap() == segment.bytes());
        }
        assert_eq!(names(&home.incoming()).len(), 2);
        assert_eq!(names(&home.errors()), [""; 0]);
    }
}

#[test]
fn files_of_every_kind_arrive_with_their_time() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let (history, text) = wal::history(2);
    let (label, label_text) = wal::backup_label(&Segment::small(2));
    let partial = format!("{FIRST}.partial");
    for (name, bytes) in [(history, text), (label, label_text), (partial, first())] {
        let path = database.wal(&name, &bytes);
        database.archive(Walarch, &sshd, &[], &path).exits(0);
        let arrived = home.incoming().join(&name);
        assert!(fs::read(&arrived).unwrap() == bytes);
        let time = arrived.metadata().unwrap().modified().unwrap();
        assert_eq!(time, time_of(&name));
    }
}

#[test]
fn what_is_compressed_on_the_way_arrives_compressed_at_both() {
    for server in BOTH {
        let home = Home::new();
        let sshd = Sshd::start(&home, server);
        let database = DatabaseHost::new();
        for (number, options) in [
            &["-z"][..],
            &["--gzip", "--compression-level", "high"],
            &["-j"],
            &["--xz", "--compression-level=1"],
            &["--snappy"],
            &["--zstd", "--compression-level", "-3"],
            &["--lz4"],
            // Of several, the last one counts.
            &["--lz4", "-z"],
            &["-j", "--xz"],
        ]
        .iter()
        .enumerate()
        {
            let segment = Segment::small(number as u64 + 1);
            let path = database.wal(&segment.name(), &segment.bytes());
            database.archive(Walarch, &sshd, options, &path).exits(0);
            let arrived = home.incoming().join(segment.name());
            assert_ne!(arrived.metadata().unwrap().len(), segment.size);
            assert!(decode(&arrived).unwrap() == segment.bytes(), "{options:?}");
        }
        let magic = |number| {
            let path = home.incoming().join(Segment::small(number).name());
            fs::read(path).unwrap()[..2].to_vec()
        };
        assert_eq!(magic(8), b"\x1f\x8b");
        assert_eq!(magic(9), b"\xfd7");
        home.archive().exits(0);
        assert_eq!(home.listed().len(), 9);
    }
}

#[test]
fn md5_is_sent_to_those_who_know_no_other() {
    for (client, server) in [(Walarch, Barman), (Walarch, Walarch), (Barman, Walarch)] {
        let home = Home::new();
        let sshd = Sshd::start(&home, server);
        let database = DatabaseHost::new();
        let path = database.wal(FIRST, &first());
        database.archive(client, &sshd, &["--md5"], &path).exits(0);
        assert!(fs::read(home.incoming().join(FIRST)).unwrap() == first());
        let log = home.log();
        let sum = log.split("with checksum '").nth(1).unwrap();
        assert_eq!(sum.find('\''), Some(32), "{log}");
    }
}

#[test]
fn a_test_says_what_the_server_says() {
    for server in BOTH {
        let home = Home::new();
        let sshd = Sshd::start(&home, server);
        let database = DatabaseHost::new();
        for (name, code, text) in [
            (
                "main",
                0,
                "Ready to accept WAL files for the server main\n\n",
            ),
            ("unknown", 1, "ERROR: Unknown server 'unknown'\n\n"),
        ] {
            for client in BOTH {
                let mut command = database.command(client, &sshd, &["--test"]);
                command.args([HOST, name, "/nonexistent"]);
                let run = finish(start(&mut command), Duration::from_secs(60)).exits(code);
                assert_eq!((run.stdout.as_str(), run.stderr.as_str()), (text, ""));
            }
        }
    }
}

#[test]
fn another_configuration_file_can_be_named() {
    for server in BOTH {
        let home = Home::new();
        let sshd = Sshd::start(&home, server);
        let other = home.root().join("other.conf");
        let text = fs::read_to_string(home.config_file()).unwrap();
        fs::write(&other, text.replace("[main]", "[second]")).unwrap();
        let database = DatabaseHost::new();
        for client in BOTH {
            let other = other.to_str().unwrap();
            // Of several the last one counts, and what is clear need not be written out.
            for options in [
                &["--config", other, "--test"][..],
                &["-c", "/nonexistent", "--conf", other, "-t", "--te"],
            ] {
                let mut command = database.command(client, &sshd, options);
                command.args([HOST, "second", "x"]);
                finish(start(&mut command), Duration::from_secs(60)).exits(0);
            }
        }
    }
}

/// What Barman's client and ours do in the same trouble: exit code and last line.
#[track_caller]
fn both_fail_alike(code: i32, last_line: &str, attempt: impl Fn(&DatabaseHost, Tool) -> Run) {
    for client in BOTH {
        let database = DatabaseHost::new();
        database.wal(FIRST, &first());
        let run = attempt(&database, client);
        assert_eq!(run.code, code, "{client:?}: {}", run.stderr);
        let last = run.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with(last_line), "{client:?}: {}", run.stderr);
    }
}

#[test]
fn failures_end_with_barman_s_codes_and_words() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Walarch);
    let wal = |database: &DatabaseHost| database.folder.root().join("pg_wal").join(FIRST);
    let closed = "1";
    both_fail_alike(
        3,
        "ERROR: Connection problem with ssh",
        |database, client| {
            // A file that fits into a pipe: else it is chance whether Barman's client notices what happened.
            let (name, text) = wal::history(2);
            let path = database.wal(&name, &text);
            database.archive(client, &sshd, &["--port", closed], &path)
        },
    );
    both_fail_alike(
        2,
        "ERROR: WAL_PATH cannot be a directory: ",
        |database, client| {
            database.archive(client, &sshd, &[], &database.folder.root().join("pg_wal"))
        },
    );
    both_fail_alike(2, "ERROR: ", |database, client| {
        database.archive(
            client,
            &sshd,
            &[],
            Path::new("/nonexistent/000000010000000000000001"),
        )
    });
    both_fail_alike(2, "ERROR: Error executing ssh: ", |database, client| {
        let mut command = database.command(client, &sshd, &[]);
        command.env("PATH", "/nonexistent").args([HOST, "main"]);
        finish(start(command.arg(wal(database))), Duration::from_secs(60))
    });
    assert_eq!(names(&home.incoming()), [""; 0]);
    let command_failed = "ERROR: Remote 'barman put-wal' command has failed!";
    both_fail_alike(1, command_failed, |database, client| {
        put(&home.incoming(), FIRST, &Segment::small(1).seed(9).bytes());
        database.archive(client, &sshd, &[], &wal(database))
    });
}

#[test]
fn why_ssh_failed_is_printed() {
    let sshd = Sshd::start(&Home::new(), Walarch);
    let database = DatabaseHost::new();
    let path = database.wal(FIRST, &first());
    let run = database
        .archive(Walarch, &sshd, &["--port", "1"], &path)
        .exits(3);
    assert!(run.stderr.contains("Connection refused"), "{}", run.stderr);
    let run = database.archive(Walarch, &sshd, &["-U", "nobody-here"], &path);
    assert!(run.exits(3).stderr.contains("Permission denied"));
}

#[test]
fn a_remote_command_that_is_missing_or_wrong_is_no_success() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let path = database.wal(FIRST, &first());
    let run = database.archive(Walarch, &sshd, &["--remote-program", "nothing-here"], &path);
    assert_eq!(run.code, 127, "{}", run.stderr);
    assert!(
        run.stderr
            .contains("Remote 'nothing-here put-wal' command has failed!")
    );
    // A program that says yes and reads nothing.
    let big = Segment::of_size(16 << 20, 1).bytes();
    let path = database.wal(FIRST, &big);
    let run = database.archive(Walarch, &sshd, &["--remote-program", "true"], &path);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("ended before the file was sent"));
    let path = home.incoming().join(FIRST);
    assert!(!path.exists());
}

#[test]
fn walarch_over_there_can_be_asked_for_by_name() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let path = database.wal(FIRST, &first());
    let options = ["--remote-program", "walarch"];
    database.archive(Walarch, &sshd, &options, &path).exits(0);
    assert!(fs::read(home.incoming().join(FIRST)).unwrap() == first());
}

#[test]
fn what_is_no_wal_file_is_not_sent() {
    let sshd = Sshd::start(&Home::new(), Walarch);
    let database = DatabaseHost::new();
    let path = database.wal("postgresql.conf", b"x");
    let run = database.archive(Walarch, &sshd, &[], &path).exits(2);
    assert!(run.stderr.contains("is not the name of a WAL file"));
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
}

#[test]
fn a_dead_network_is_an_error_in_bounded_time() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let path = database.wal(FIRST, &first());
    sshd.freeze();
    // A test ends with ssh's own code, as Barman's does.
    for (options, code) in [
        (&["--timeout", "4"][..], 3),
        (&["--timeout", "4", "--test"], 255),
    ] {
        let begun = Instant::now();
        database.archive(Walarch, &sshd, options, &path).exits(code);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    sshd.thaw();
    database.archive(Walarch, &sshd, &[], &path).exits(0);
}

#[test]
fn a_far_end_that_hangs_is_an_error_in_bounded_time() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let hangs = home.script("hangs", "exec sleep 60\n");
    let reads = home.script("reads", "cat > /dev/null; exec sleep 60\n");
    let big = Segment::of_size(16 << 20, 1).bytes();
    let path = database.wal(FIRST, &big);
    for program in [hangs, reads] {
        let begun = Instant::now();
        let options = [
            "--timeout",
            "2",
            "--remote-program",
            program.to_str().unwrap(),
        ];
        let run = database.archive(Walarch, &sshd, &options, &path).exits(3);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(
            run.stderr.contains("nothing moved for 2 seconds"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn the_name_barman_wal_archive_is_the_client() {
    let home = Home::new();
    let sshd = Sshd::start(&home, Barman);
    let database = DatabaseHost::new();
    let path = database.wal(FIRST, &first());
    let link = database.folder.root().join("barman-wal-archive");
    symlink(Walarch.program(), &link).unwrap();
    let mut command = in_home(Command::new(&link), &database.folder);
    sshd.reachable_from(&mut command);
    command
        .args(["-U", &sshd.user(), "-z", HOST, "main"])
        .arg(&path);
    finish(start(&mut command), Duration::from_secs(60)).exits(0);
    assert!(decode(&home.incoming().join(FIRST)).unwrap() == first());
    let mut command = in_home(Command::new(&link), &database.folder);
    let run = finish(start(command.arg("-V")), Duration::from_secs(60)).exits(0);
    let version = format!("barman-wal-archive {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run.stdout, version);
    let mut command = in_home(Command::new(&link), &database.folder);
    let run = finish(start(command.arg("host")), Duration::from_secs(60)).exits(2);
    let usage = "Usage: barman-wal-archive ";
    assert!(run.stderr.contains(usage), "{}", run.stderr);
}

#[test]
fn postgresql_archives_over_ssh() {
    let home = Home::with(&[("compression", "zstd")]);
    let sshd = Sshd::start(&home, Walarch);
    let user = sshd.user();
    let mut cluster = Postgres::start(|folder| {
        let folder = Path::new(folder);
        sshd.install_client(&folder.join("ssh"));
        fs::copy(Walarch.program(), folder.join("walarch")).unwrap();
        format!(
            "archive_mode = on\nwal_keep_size = 1GB\narchive_command = \
             'PATH={}:$PATH {}/walarch wal-archive --zstd -U {user} {HOST} main %p'\n",
            folder.join("ssh").display(),
            folder.display()
        )
    });
    cluster
        .sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 50000) AS i");
    let names: Vec<String> = (0..3).map(|_| cluster.fill_segment()).collect();
    cluster.stop();
    let log = fs::read_to_string(cluster.log_file()).unwrap();
    assert!(!log.contains("archive command failed"), "{log}");
    home.archive().exits(0);
    for name in names {
        let original = fs::read(cluster.data().join("pg_wal").join(&name)).unwrap();
        home.assert_archived(&name, &original);
    }
}
