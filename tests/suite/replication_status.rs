//! `replication-status`, beside Barman's.

use std::process::Child;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::home::Home;
use crate::support::postgres::Postgres;
use crate::support::tool::{Barman, Run, Walarch, wait_for};

/// Runs the command by both; positions may move in between, so equality is given some time.
#[track_caller]
fn both_print_the_same(home: &Home, arguments: &[&str]) -> Run {
    let mut arguments = arguments.to_vec();
    arguments.push("main");
    for attempt in 1.. {
        let barmans = Barman.run(home, &arguments);
        let ours = Walarch.run(home, &arguments);
        if (&barmans.stdout, barmans.code) == (&ours.stdout, ours.code) {
            return ours;
        }
        if attempt == 10 {
            assert_eq!(ours.stdout, barmans.stdout, "{arguments:?}");
            assert_eq!(ours.code, barmans.code, "{arguments:?}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    unreachable!()
}

fn home_of(postgres: &Postgres) -> Home {
    Home::with(&[("conninfo", &postgres.conninfo())])
}

struct Receiver(Child);

impl Receiver {
    fn start(postgres: &Postgres) -> Self {
        std::fs::create_dir(postgres.dir("received")).unwrap();
        postgres.give(&postgres.dir("received"));
        let conninfo = postgres.conninfo() + " application_name=receiver";
        let directory = postgres.dir("received");
        let directory = directory.to_str().unwrap();
        let arguments = [
            "-S",
            "receiver",
            "--synchronous",
            "-D",
            directory,
            "-d",
            &conninfo,
        ];
        Self(postgres.spawn("pg_receivewal", &arguments))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const EVERY_FORM: [&[&str]; 7] = [
    &["replication-status"],
    &["replication-status", "--minimal"],
    &["replication-status", "--target", "hot-standby"],
    &[
        "replication-status",
        "--target",
        "wal-streamer",
        "--source",
        "wal-host",
    ],
    &["-f", "json", "replication-status"],
    &["-f", "json", "replication-status", "--minimal"],
    &[
        "-f",
        "json",
        "replication-status",
        "--target",
        "wal-streamer",
    ],
];

#[test]
fn a_standby_and_a_receiver_are_shown_as_barman_shows_them() {
    let primary = Postgres::start(|_| {
        "synchronous_standby_names = 'receiver'\nsynchronous_commit = off\nwal_sender_timeout = 0\n\
         checkpoint_timeout = 1h\nautovacuum = off\ntimezone = 'Asia/Kolkata'\n"
            .to_owned()
    });
    let home = home_of(&primary);
    for form in EVERY_FORM {
        let run = both_print_the_same(&home, form).exits(0);
        assert!(run.stdout.contains(" attached"), "{}", run.stdout);
    }
    primary.sql("SELECT pg_create_physical_replication_slot('receiver')");
    let standby = primary.standby("hot_standby_feedback = on\n");
    let receiver = Receiver::start(&primary);
    wait_for("both clients", || {
        let ready = "SELECT count(*) FILTER (WHERE state = 'streaming') = 2 \
                     AND count(backend_xmin) = 1 AND count(*) FILTER (WHERE sync_priority = 1) = 1 \
                     FROM pg_stat_replication";
        (primary.ask(ready) == "t").then_some(())
    });
    for form in EVERY_FORM {
        both_print_the_same(&home, form).exits(0);
    }
    let run = home.run(EVERY_FORM[0]).exits(2);
    assert!(run.stderr.contains("SERVER"), "{}", run.stderr);

    // Now the one has not replayed, the other has not written what the server has.
    standby.sql("SELECT pg_wal_replay_pause()");
    receiver.signal(Signal::SIGSTOP);
    primary.sql("SELECT pg_logical_emit_message(false, 'walarch', repeat('x', 3000000))");
    wait_for("the standby", || {
        let behind = "SELECT flush_lsn = pg_current_wal_lsn() AND replay_lsn < flush_lsn \
                      FROM pg_stat_replication WHERE application_name <> 'receiver'";
        (primary.ask(behind) == "t").then_some(())
    });
    for form in EVERY_FORM {
        both_print_the_same(&home, form).exits(0);
    }
    let run = both_print_the_same(&home, EVERY_FORM[0]);
    assert!(run.stdout.contains("4/5 2-safe"), "{}", run.stdout);
    assert!(
        run.stdout.contains("#1 Sync WAL streamer"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("(diff: -2.9 MiB)"), "{}", run.stdout);
    assert!(run.stdout.contains("+05:30"), "{}", run.stdout);
    receiver.signal(Signal::SIGCONT);

    // A standby has a position, too, and no clients.
    for form in EVERY_FORM {
        both_print_the_same(&home_of(&standby), form).exits(0);
    }
}

#[test]
fn a_server_that_cannot_be_asked_is_an_error_and_the_next_one_is_asked() {
    let postgres = Postgres::start(|_| String::new());
    postgres.sql("CREATE ROLE nobody LOGIN");
    let nobody = format!("host={} user=nobody dbname=postgres", postgres.socket());
    let home = Home::with_servers(&[
        ("absent", &[]),
        ("main", &[("conninfo", &postgres.conninfo())]),
        ("unprivileged", &[("conninfo", &nobody)]),
        (
            "passive",
            &[("primary_ssh_command", "ssh barman@primary.invalid")],
        ),
        ("off", &[("active", "false")]),
    ]);
    let run = home.run(&["replication-status", "all"]).exits(1);
    assert!(
        run.stderr
            .starts_with("ERROR: Unable to connect to server absent\n"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("/nonexistent"), "{}", run.stderr);
    assert!(
        run.stderr
            .contains("ERROR: Postgres user 'nobody' is missing required privileges"),
        "{}",
        run.stderr
    );
    for line in [
        "Status of streaming clients for server 'main':",
        "  No streaming clients attached",
        "Skipping passive server 'passive'",
        "Skipping inactive server 'off'",
    ] {
        assert!(
            run.stdout.lines().any(|printed| printed == line),
            "{line}: {}",
            run.stdout
        );
    }
}
