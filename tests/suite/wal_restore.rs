//! `wal-restore`: the client on the database host, over a real sshd, and beside the archive.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
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
        let run = database.run(Walarch, &sshd, &arguments);
        assert!(run.code != 0, "{run:?}");
        assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
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
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
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
fn files_are_fetched_ahead_and_delivered_from_the_spool() {
    let home = archive(1..=8);
    for remote in [Walarch, Barman] {
        let sshd = Sshd::start(&home, remote);
        let database = DatabaseHost::new();
        assert!(database.restore(&sshd, &["-p", "2"], FIRST) == segment(1).bytes());
        database.wait_for_spooled(&names_of(2..=5));
        // From now on the backup host gives nothing.
        drop(sshd);
        let sshd = Sshd::start(&home, remote);
        for number in 2..=5 {
            let name = segment(number).name();
            fs::rename(home.archived(&name), home.root().join(&name)).unwrap();
            assert!(database.restore(&sshd, &["-p", "2"], &name) == segment(number).bytes());
            fs::rename(home.root().join(&name), home.archived(&name)).unwrap();
        }
        for number in 6..=8 {
            let name = segment(number).name();
            assert!(database.restore(&sshd, &["-p", "2"], &name) == segment(number).bytes());
        }
        wait_for("an empty spool", || {
            database.spooled_segments().is_empty().then_some(())
        });
    }
}

/// A spool that holds segments 2 to 5, and the options that filled it.
fn filled_spool() -> (Home, Sshd, DatabaseHost) {
    let home = archive(1..=8);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "2"], FIRST);
    database.wait_for_spooled(&names_of(2..=5));
    (home, sshd, database)
}

#[test]
fn a_spool_file_that_is_not_what_it_should_be_is_fetched_again() {
    let (_home, sshd, database) = filled_spool();
    let spooled = |number: u64| database.spooled().join(segment(number).name());
    // Cut, of another place, of another cluster, of long ago.
    File::options()
        .write(true)
        .open(spooled(2))
        .unwrap()
        .set_len(500_000)
        .unwrap();
    fs::write(spooled(3), segment(7).bytes()).unwrap();
    fs::write(spooled(4), segment(4).system_id(42).bytes()).unwrap();
    fs::write(spooled(5), segment(5).seed(99).bytes()).unwrap();
    let old = File::options().write(true).open(spooled(5)).unwrap();
    old.set_modified(time_of("long ago")).unwrap();
    for number in 2..=5 {
        let name = segment(number).name();
        let restored = database.restore(&sshd, &["-p", "2"], &name);
        assert!(restored == segment(number).bytes(), "{name}");
    }
}

#[test]
fn the_spool_of_another_recovery_is_not_used() {
    let (home, sshd, database) = filled_spool();
    for number in 2..=5 {
        let forged = segment(number).seed(99).bytes();
        fs::write(database.spooled().join(segment(number).name()), forged).unwrap();
    }
    let second = segment(2).name();
    // The spool is of use at all.
    assert!(database.restore(&sshd, &["-p", "2"], &second) == segment(2).seed(99).bytes());
    let third = segment(3).name();
    // Another way to the archive, and so perhaps another archive.
    let config = home.config_file();
    let elsewhere = ["-p", "2", "-c", config.to_str().unwrap()];
    assert!(database.restore(&sshd, &elsewhere, &third) == segment(3).bytes());
    // Another cluster in the same place.
    database.be_cluster(42);
    let arguments = ["-p", "2", HOST, "main", &third, "pg_wal/RECOVERYXLOG"];
    database.run(Walarch, &sshd, &arguments).exits(4);
    // Back again: nothing of before is left.
    database.be_cluster(SYSTEM_ID);
    assert!(database.restore(&sshd, &["-p", "2"], &third) == segment(3).bytes());
}

#[test]
fn without_a_private_spool_nothing_is_fetched_ahead_and_the_file_comes_all_the_same() {
    let (_home, sshd, database) = filled_spool();
    fs::set_permissions(database.spooled(), Permissions::from_mode(0o777)).unwrap();
    let name = segment(2).name();
    let arguments = ["-p", "2", HOST, "main", &name, "pg_wal/RECOVERYXLOG"];
    let run = database.run(Walarch, &sshd, &arguments).exits(0);
    assert!(
        run.stderr.starts_with("WARNING: nothing is fetched ahead"),
        "{run:?}"
    );
    assert!(fs::read(database.received()).unwrap() == segment(2).bytes());
}

#[test]
fn the_spool_is_bounded_and_follows_the_position() {
    let home = archive(1..=60);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "3"], FIRST);
    database.wait_for_spooled(&names_of(2..=7));
    // PostgreSQL got segments from elsewhere meanwhile.
    database.restore(&sshd, &["-p", "3"], &segment(20).name());
    database.wait_for_spooled(&names_of(21..=26));
}

#[test]
fn the_plan_follows_the_timelines() {
    let home = archive(1..=4);
    // Timeline 2 branches off in segment 2.
    let (history, _) = wal::history(2);
    let text = format!("1\t0/{:X}\tno reason\n", (2 << 20) + 5000);
    put(&home.incoming(), &history, text.as_bytes());
    fs::remove_file(home.archived(&history)).unwrap();
    for number in 2..=6 {
        let segment = segment(number).timeline(2);
        put(&home.incoming(), &segment.name(), &segment.bytes());
    }
    home.archive().exits(0);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    database.restore(&sshd, &["-p", "2"], &history);
    database.restore(&sshd, &["-p", "2"], FIRST);
    let second = segment(2).timeline(2).name();
    let expected: Vec<String> = (2..=5)
        .map(|number| segment(number).timeline(2).name())
        .collect();
    database.wait_for_spooled(&expected);
    assert!(database.restore(&sshd, &["-p", "2"], &second) == segment(2).timeline(2).bytes());
    // A history is never delivered from the spool: it may have grown.
    fs::write(home.archived(&history), "1\t0/9\tother\n").unwrap();
    assert_eq!(
        database.restore(&sshd, &["-p", "2"], &history),
        b"1\t0/9\tother\n"
    );
}

#[test]
fn nothing_is_fetched_ahead_for_pg_rewind_or_with_partial_segments() {
    let home = archive(1..=4);
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let restore = ["-p", "2", "-P", HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"];
    database.run(Walarch, &sshd, &restore).exits(0);
    assert!(!database.spool().exists());
    // It starts the command by a shell.
    let client = database.client(
        Walarch,
        &sshd,
        &["-p", "2", HOST, "main", FIRST, "pg_wal/RECOVERYXLOG"],
    );
    let line: Vec<String> = [client.get_program()]
        .into_iter()
        .chain(client.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let rewind = home.script("pg_rewind", &format!("sh -c \"{}; true\"", line.join(" ")));
    let mut command = Command::new(rewind);
    command.current_dir(database.data());
    run(sshd.reachable_from(&mut command)).exits(0);
    assert!(fs::read(database.received()).unwrap() == segment(1).bytes());
    assert!(!database.spool().exists());
}

#[test]
fn a_killed_prefetch_delivers_nothing_half_and_the_next_one_goes_on() {
    let home = archive(1..=8);
    // Every second answer stops half-way.
    let script = home.script(
        "slow",
        "shift 2; if [ \"$1\" = 000000010000000000000003 ] && ! [ -e {root}/again ]; then\n\
         head -c 300000 {root}/third; sleep 600; fi\n\
         exec {root}/walarch -c {root}/barman.conf get-wal main \"$1\"",
    );
    symlink(Walarch.program(), home.root().join("walarch")).unwrap();
    fs::write(home.root().join("third"), segment(3).bytes()).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let database = DatabaseHost::new();
    let options = ["-p", "2", "--remote-program", script.to_str().unwrap()];
    database.restore(&sshd, &options, FIRST);
    let half = format!(".{}.tmp", segment(3).name());
    wait_for("half a segment", || {
        database.spooled().join(&half).exists().then_some(())
    });
    let prefetch = fs::read_to_string(database.spooled().join(".lock")).unwrap();
    kill(prefetch.trim());
    fs::write(home.root().join("again"), "").unwrap();
    for number in 2..=6 {
        let name = segment(number).name();
        assert!(database.restore(&sshd, &options, &name) == segment(number).bytes());
    }
}

fn kill(process: &str) {
    use nix::sys::signal::{Signal, kill};
    let id = nix::unistd::Pid::from_raw(process.parse().unwrap());
    kill(id, Signal::SIGKILL).unwrap();
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
    assert_eq!(names(&database.data().join("pg_wal")), [""; 0]);
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
