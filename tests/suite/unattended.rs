//! Does a crontab line alone keep WAL flowing, from the server into the archive?

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::background::{kill_all, running_in, settle};
use crate::support::decode::decode_with_tools;
use crate::support::faults::is_full_sweep;
use crate::support::home::{Home, names};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Barman, Walarch, finish, start, wait_for};

/// A home that receives from the server by a slot of its own making.
fn home_of(postgres: &Postgres, more: &[(&str, &str)]) -> Home {
    let conninfo = postgres.conninfo();
    let bin = postgres.bin().to_str().unwrap();
    let mut options = vec![
        ("conninfo", conninfo.as_str()),
        ("streaming_conninfo", &conninfo),
        ("archiver", "off"),
        ("streaming_archiver", "on"),
        ("create_slot", "auto"),
        ("path_prefix", bin),
        ("compression", "zstd"),
    ];
    options.extend(more);
    Home::with(&options)
}

#[track_caller]
fn cron(home: &Home) -> String {
    let run = home.run(&["cron"]).exits(0);
    assert_eq!(run.stderr, "");
    run.stdout
}

/// Cron every second until there is an answer.
#[track_caller]
fn cron_until<T>(home: &Home, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        cron(home);
        let next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < next {
            if let Some(found) = probe() {
                return found;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert!(
            Instant::now() < deadline,
            "waited in vain for {what}: {}",
            home.log()
        );
    }
}

/// The processes of the home that do this.
fn running(home: &Home, task: &str) -> Vec<Pid> {
    let running = running_in(home).into_iter();
    running
        .filter(|(_, line)| line.contains(task))
        .map(|(pid, _)| pid)
        .collect()
}

fn streams(postgres: &Postgres) -> Option<()> {
    let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    (postgres.ask(sql) == "1").then_some(())
}

/// Everything that runs in the home ends with the test.
struct Unattended(Home);

impl Drop for Unattended {
    fn drop(&mut self) {
        kill_all(&self.0);
    }
}

#[test]
fn a_receiver_that_was_killed_is_started_again() {
    let postgres = Postgres::start(|_| String::new());
    let home = &Unattended(home_of(&postgres, &[])).0;
    assert!(cron(home).ends_with("Starting streaming archiver for server main\n"));
    wait_for("the receiver", || streams(&postgres));
    let first = postgres.fill_segment();
    assert!(
        !cron(home).contains("streaming archiver"),
        "it runs already"
    );
    let receivers = running(home, " receive-wal ");
    assert_eq!(receivers.len(), 1);
    kill(receivers[0], Signal::SIGKILL).unwrap();
    wait_for("its end", || {
        running(home, " receive-wal ").is_empty().then_some(())
    });
    let second = postgres.fill_segment();
    cron_until(home, "the archive", || {
        home.listed().contains(&second).then_some(())
    });
    assert_eq!(home.listed(), [first, second]);
}

#[test]
fn one_receiver_comes_out_of_a_race() {
    let postgres = Postgres::start(|_| String::new());
    let home = &Unattended(home_of(&postgres, &[])).0;
    home.run(&["receive-wal", "--create-slot", "main"]).exits(0);
    let manual = start(&mut Walarch.command(home, &["receive-wal", "main"]));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..3).for_each(|_| {
                    cron(home);
                });
            });
        }
    });
    wait_for("the receiver", || streams(&postgres));
    wait_for("the others' end", || {
        (running(home, " receive-wal ").len() == 1).then_some(())
    });
    let segment = postgres.fill_segment();
    wait_for("the segment", || {
        home.listed().contains(&segment).then_some(())
    });
    kill_all(home);
    let run = finish(manual, Duration::from_secs(30));
    if run.code == 1 {
        let busy = "Another receive-wal process is already running for server main";
        assert!(run.stderr.contains(busy), "{}", run.stderr);
    }
}

#[test]
fn the_crons_of_walarch_and_barman_leave_each_others_receiver_alone() {
    let postgres = Postgres::start(|_| String::new());
    for (first, second) in [(Barman, Walarch), (Walarch, Barman)] {
        let home = &Unattended(home_of(&postgres, &[])).0;
        first.run(home, &["cron"]).exits(0);
        wait_for("the receiver", || streams(&postgres));
        let receivers = running(home, " receive-wal ");
        // The archiver that the first cron has started may be at work yet, or the receiver's own.
        let said = wait_for("a cron that finds nobody archiving", || {
            let said = second.run(home, &["cron"]).exits(0).stdout;
            (!said.starts_with("Another archive-wal process")).then_some(said)
        });
        assert_eq!(
            said, "Starting WAL archiving for server main\n",
            "{second:?}"
        );
        assert_eq!(running(home, " receive-wal "), receivers);
        let segment = postgres.fill_segment();
        postgres.fill_segment();
        let archived = || {
            second.run(home, &["cron"]).exits(0);
            home.listed().contains(&segment).then_some(())
        };
        wait_for("the segment", archived);
        second
            .run(home, &["terminate-process", "main", "receive-wal"])
            .exits(0);
        wait_for("its end", || {
            running(home, " receive-wal ").is_empty().then_some(())
        });
        settle(home);
    }
}

#[test]
fn a_receiver_that_cannot_work_is_waited_with_until_it_can() {
    let postgres = Postgres::start(|_| String::new());
    let home = &Unattended(home_of(&postgres, &[("create_slot", "manual")])).0;
    cron(home);
    settle(home);
    let words = cron(home);
    assert!(
        words.contains("Not starting streaming archiver for server main before "),
        "{words}"
    );
    assert!(words.contains(": it failed: "), "{words}");
    assert!(
        words.contains("replication slot 'barman' doesn't exist"),
        "{words}"
    );
    postgres.sql("SELECT pg_create_physical_replication_slot('barman')");
    cron_until(home, "the receiver", || streams(&postgres));
}

#[test]
fn turning_streaming_off_ends_the_receiver() {
    let postgres = Postgres::start(|_| String::new());
    let home = &Unattended(home_of(&postgres, &[])).0;
    cron_until(home, "the receiver", || streams(&postgres));
    let config = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(
        &config
            .replace("streaming_archiver = on", "streaming_archiver = off")
            .replace("\narchiver = off", "\narchiver = on"),
    );
    let receiver = running(home, " receive-wal ")[0];
    let words = cron(home);
    assert!(
        words.contains(&format!("Stopped process receive-wal({receiver})\n")),
        "{words}"
    );
    assert_eq!(running(home, " receive-wal "), []);
}

/// The long way once, in a size that depends on how thorough the run is.
struct Bar {
    major: Major,
    segment_size_mib: u32,
    /// pgbench's: 100,000 accounts each.
    scale: u32,
    /// Before and after everything is killed, each.
    load_s: u64,
}

#[test]
fn everything_is_archived_though_everything_was_killed_on_debians_postgresql() {
    Bar::new(Major::Debian).run();
}

#[test]
fn everything_is_archived_though_everything_was_killed_on_a_newer_postgresql() {
    Bar::new(Major::Newer).run();
}

impl Bar {
    fn new(major: Major) -> Self {
        let full = is_full_sweep();
        Bar {
            major,
            segment_size_mib: if full { 16 } else { 1 },
            scale: if full { 20 } else { 1 },
            load_s: if full { 30 } else { 4 },
        }
    }

    fn run(&self) {
        let segment_size = format!("--wal-segsize={}", self.segment_size_mib);
        let mut postgres = Postgres::start_major(self.major, &[&segment_size], |folder| {
            fs::create_dir(format!("{folder}/copies")).unwrap();
            format!(
                "archive_mode = on\narchive_command = 'cp %p {folder}/copies/.%f && \
                 mv {folder}/copies/.%f {folder}/copies/%f'\nmax_wal_size = 128MB\n"
            )
        });
        let home = &Unattended(home_of(&postgres, &[])).0;
        let first = postgres.ask("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
        cron_until(home, "the receiver", || streams(&postgres));
        let scale = self.scale.to_string();
        let (socket, user) = (postgres.socket(), "postgres");
        let arguments = [
            "-i", "-q", "-s", &scale, "-h", socket, "-U", user, "postgres",
        ];
        postgres.succeed("pgbench", &arguments);

        let mut load = self.load(&postgres);
        let half = Instant::now() + Duration::from_secs(self.load_s);
        cron_until(home, "the time", || (Instant::now() > half).then_some(()));
        kill_all(home);
        postgres.kill();
        load.wait().unwrap();

        postgres.run();
        let mut load = self.load(&postgres);
        cron_until(home, "the load", || load.try_wait().unwrap());
        let last = postgres.fill_segment();
        // The newest one stays with the receiver until the next one has begun.
        postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
        cron_until(home, "the last segment", || {
            home.archived(&last).exists().then_some(())
        });
        wait_for("the last copy", || {
            postgres.dir("copies").join(&last).exists().then_some(())
        });
        kill_all(home);
        compare(&postgres, home, &first, &last);
    }

    /// Starts pgbench for half of the time.
    fn load(&self, postgres: &Postgres) -> Child {
        let time = self.load_s.to_string();
        let arguments = [
            "-n",
            "-c",
            "8",
            "-T",
            &time,
            "-h",
            postgres.socket(),
            "-U",
            "postgres",
            "postgres",
        ];
        postgres.spawn("pgbench", &arguments)
    }
}

/// The archive holds what PostgreSQL's own archive_command has copied, each segment once.
fn compare(postgres: &Postgres, home: &Home, first: &str, last: &str) {
    let mut expected = names(&postgres.dir("copies"));
    expected.retain(|name| name.len() == 24 && first <= name.as_str() && name.as_str() <= last);
    assert!(expected.len() > 10, "hardly any load: {expected:?}");
    let listed = home.listed();
    assert_eq!(listed, expected);
    assert_eq!(names(&home.errors()), [""; 0]);
    let plain = postgres.dir("plain");
    fs::create_dir(&plain).unwrap();
    for name in &expected {
        let archived = decode_with_tools(home, &home.archived(name));
        let copy = fs::read(postgres.dir("copies").join(name)).unwrap();
        assert!(archived == copy, "{name} differs");
        fs::write(plain.join(name), archived).unwrap();
    }
    assert_one_chain(postgres, first, last);
}

/// Each record in `plain` names the one before it as its predecessor.
fn assert_one_chain(postgres: &Postgres, first: &str, last: &str) {
    let plain = postgres.dir("plain");
    let arguments = ["-p", plain.to_str().unwrap(), first, last];
    let mut command = postgres.command("pg_waldump", &arguments);
    let mut waldump = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(waldump.stdout.take().unwrap()).lines();
    let mut previous: Option<String> = None;
    let mut records = 0;
    for line in lines {
        let line = line.unwrap();
        let field = |name: &str| {
            let (_, rest) = line
                .split_once(name)
                .unwrap_or_else(|| panic!("{name}: {line}"));
            rest.split([',', ' ']).next().unwrap().to_owned()
        };
        let (lsn, prev) = (field("lsn: "), field("prev "));
        assert!(
            previous.is_none_or(|previous| previous == prev),
            "a gap before {line}"
        );
        previous = Some(lsn);
        records += 1;
    }
    assert!(waldump.wait().unwrap().success());
    assert!(records > 1000, "{records} records");
}
