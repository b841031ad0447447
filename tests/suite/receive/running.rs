//! `receive-wal` on good days: what it needs, writes and prints, and how it is stopped.

use std::fs;
use std::thread;

use nix::sys::signal::{Signal, kill};

use super::support::{
    Both, Receiving, SETTINGS, assert_received, home, home_with_slot, is_running, last_reason,
    partials, receive_wal, shared, state, streaming, wait_for_segments,
};
use crate::support::home::{Home, names, put};
use crate::support::postgres::Postgres;
use crate::support::tool::{Barman, Walarch, wait_for};

#[test]
fn wal_arrives_byte_for_byte_until_it_is_asked_to_stop() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "arrives", &[]);
    let receiving = streaming(&home);
    let segments = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &segments);
    for segment in &segments {
        assert_received(&postgres, &home.streaming(), segment);
    }
    assert_eq!(state(&home)["pid"], receiving.pid().as_raw());
    assert_ne!(state(&home)["streaming_since"], serde_json::Value::Null);

    let pid = receiving.pid();
    let stop = receive_wal(Walarch, &home, &["--stop"]).exits(0);
    assert_eq!(stop.stdout, format!("Stopped process receive-wal({pid})\n"));
    let run = receiving.end().exits(0);
    assert!(
        run.stdout
            .starts_with("Starting receive-wal for server main\nmain: pg_receivewal: ")
    );
    assert!(
        run.stdout
            .ends_with("SIGINT received. Terminate gracefully.\n"),
        "{run:?}"
    );
    assert!(
        home.log()
            .contains("INFO: main: pg_receivewal: finished segment at ")
    );
    assert_eq!(state(&home)["pid"], serde_json::Value::Null);
    assert_eq!(state(&home)["consecutive_failures"], 0);
}

#[test]
fn the_lines_and_the_exit_code_of_a_run_are_those_of_barman() {
    let postgres = shared();
    let both = Both::new(&postgres, "lines", &[("create_slot", "auto")]);
    let outputs = [(Barman, &both.barman), (Walarch, &both.walarch)].map(|(tool, home)| {
        put(
            &home.streaming(),
            "000000010000000000000001.partial",
            b"torn",
        );
        let receiving = Receiving::start(tool, home);
        receiving.wait_until_it_prints("starting log streaming");
        let run = receiving.end_by(Signal::SIGINT).exits(0);
        let text = run.stdout.replace(home.root().to_str().unwrap(), "ROOT");
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.replace("walarch", "barman"))
            .collect();
        // Barman ends before it has read the child's last words.
        lines.retain(|line| !line.ends_with("exiting") && !line.contains("not renaming"));
        lines
    });
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(
        outputs[1][4],
        "Truncating partial file ROOT/home/main/streaming/000000010000000000000001.partial that has \
         wrong size 4 while 16777216 was expected."
    );
}

#[test]
fn sigterm_stops_it_as_well() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "sigterm", &[]);
    let receiving = streaming(&home);
    let receiver = receiving.receiver();
    let run = receiving.end_by(Signal::SIGTERM).exits(0);
    assert!(
        run.stdout
            .ends_with("SIGTERM received. Terminate gracefully.\n"),
        "{run:?}"
    );
    assert!(!is_running(receiver));
}

#[test]
fn a_receiver_that_does_not_stop_when_asked_is_killed() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "deaf", &[("path_prefix", "{root}")]);
    home.script(
        "pg_receivewal",
        "case $1 in --version) echo 'pg_receivewal (PostgreSQL) 99.0'; exit;; esac\n\
         trap '' INT; echo 'pg_receivewal: starting log streaming at 0/0 (timeline 1)'\n\
         while :; do sleep 1; done",
    );
    let receiving = streaming(&home);
    let receiver = receiving.receiver();
    receiving.end_by(Signal::SIGINT).exits(0);
    assert!(!is_running(receiver));
}

#[test]
fn killed_with_sigkill_it_leaves_no_receiver_behind_and_goes_on_afterwards() {
    // With the segments of other tests the receiver would end when it cannot print any more.
    let postgres = Postgres::start(|_| SETTINGS.to_owned());
    let home = home_with_slot(&postgres, "sigkill", &[]);
    let receiving = streaming(&home);
    let receiver = receiving.receiver();
    let first = postgres.fill_segment();
    wait_for_segments(&home, &[&first]);
    let pid = receiving.pid();
    receiving.end_by(Signal::SIGKILL).exits(128 + 9);
    wait_for("the end of pg_receivewal", || {
        (!is_running(receiver)).then_some(())
    });

    let second = postgres.fill_segment();
    let again = streaming(&home);
    wait_for_segments(&home, &[&first, &second]);
    assert_received(&postgres, &home.streaming(), &second);
    assert_eq!(
        last_reason(&home),
        format!("process {pid} was killed or the host went down")
    );
    again.end_by(Signal::SIGINT).exits(0);
}

#[test]
fn a_killed_receiver_is_an_error_with_the_signal() {
    let postgres = shared();
    let both = Both::new(&postgres, "child_killed", &[("create_slot", "auto")]);
    for (tool, home) in [(Barman, &both.barman), (Walarch, &both.walarch)] {
        let receiving = Receiving::start(tool, home);
        receiving.wait_until_it_prints("starting log streaming");
        kill(receiving.receiver(), Signal::SIGKILL).unwrap();
        let run = receiving.end().exits(1);
        let error = "ERROR: ArchiverFailure:pg_receivewal terminated by signal: 9\n";
        assert!(run.stdout.contains(error), "{tool:?}: {run:?}");
    }
    assert_eq!(state(&both.walarch)["consecutive_failures"], 1);
    assert!(last_reason(&both.walarch).starts_with("pg_receivewal terminated by signal: 9"));
}

#[test]
fn a_second_one_and_a_reset_are_refused_while_it_runs() {
    let postgres = shared();
    let both = Both::new(&postgres, "second", &[("create_slot", "auto")]);
    let receiving = [(Barman, &both.barman), (Walarch, &both.walarch)].map(|(tool, home)| {
        let receiving = Receiving::start(tool, home);
        receiving.wait_until_it_prints("starting log streaming");
        receiving
    });
    wait_for("the state", || {
        state(&both.walarch)["streaming_since"].as_str().map(drop)
    });
    let before = state(&both.walarch);
    both.agree(&[]).exits(1);
    both.agree(&["--reset"]).exits(1);
    assert_eq!(state(&both.walarch), before, "the state is the runner's");
    drop(receiving);
}

#[test]
fn either_tool_stops_the_other_one() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "either", &[]);
    for (runner, stopper) in [(Walarch, Barman), (Barman, Walarch)] {
        let receiving = Receiving::start(runner, &home);
        receiving.wait_until_it_prints("starting log streaming");
        let expected = format!("Stopped process receive-wal({})\n", receiving.pid());
        // Somebody has to take note of its end: for Barman it runs until then.
        let ended = thread::spawn(|| receiving.end());
        let stop = receive_wal(stopper, &home, &["--stop"]).exits(0);
        assert_eq!(stop.stdout, expected);
        ended.join().unwrap().exits(0);
    }
}

#[test]
fn there_is_nothing_to_stop_when_nobody_holds_the_lock() {
    let postgres = shared();
    let both = Both::new(&postgres, "nobody_runs", &[]);
    both.agree(&["--stop"]).exits(1);
    // A number without a lock is a leftover.
    both.each(|home| {
        let number = format!("{}\n", std::process::id());
        fs::write(home.barman_home().join(".main-receive-wal.lock"), number).unwrap();
    });
    both.agree(&["--stop"]).exits(1);
    both.agree(&["--stop", "--reset"]).exits(1);
}

#[test]
fn a_missing_slot_is_created_if_that_is_configured_and_named_if_it_is_not() {
    let postgres = shared();
    let both = Both::new(&postgres, "missing_slot", &[]);
    both.agree(&[]).exits(1);
    both.agree(&["--reset"]).exits(1);
    let home = home(&postgres, "auto_slot", &[("create_slot", "auto")]);
    receive_wal(Walarch, &home, &["--reset"]).exits(0);
    streaming(&home).end_by(Signal::SIGINT).exits(0);
    let slot = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'auto_slot'";
    assert_eq!(postgres.ask(slot), "1");
}

#[test]
fn a_program_that_is_missing_or_too_old_is_named() {
    let postgres = shared();
    let both = Both::new(&postgres, "program", &[("path_prefix", "{root}")]);
    let answer = |home: &Home, text: &str| drop(home.script("pg_receivewal", text));
    both.each(|home| {
        receive_wal(Walarch, home, &["--create-slot"]).exits(0);
        answer(home, "echo 'pg_receivewal (PostgreSQL) 14.9 (Debian)'");
    });
    both.agree(&[]).exits(1);
    // As Debian's wrapper answers for a program that is not installed: the next one is tried.
    let home = &both.walarch;
    answer(home, "exit 1");
    streaming(home).end_by(Signal::SIGINT).exits(0);
}

#[test]
fn the_password_is_in_no_argument_and_in_no_log() {
    let postgres = Postgres::start(|_| SETTINGS.to_owned());
    postgres
        .sql("SET password_encryption = 'scram-sha-256'; ALTER ROLE postgres PASSWORD 'geheim'");
    let hba = "local all all scram-sha-256\nlocal replication all scram-sha-256\n";
    fs::write(postgres.data().join("pg_hba.conf"), hba).unwrap();
    let pid = fs::read_to_string(postgres.data().join("postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().parse().unwrap();
    kill(nix::unistd::Pid::from_raw(pid), Signal::SIGHUP).unwrap();
    let uri = format!(
        "postgresql://postgres:geheim@/postgres?host={}",
        postgres.socket()
    );
    let home = home(
        &postgres,
        "password",
        &[
            (
                "conninfo",
                &format!("{} password='geheim'", postgres.conninfo()),
            ),
            ("streaming_conninfo", &uri),
            ("create_slot", "auto"),
        ],
    );
    let receiving = streaming(&home);
    let arguments = fs::read(format!("/proc/{}/cmdline", receiving.receiver())).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    assert!(arguments.contains("--slot=password"), "{arguments}");
    assert!(!arguments.contains("geheim"), "{arguments}");
    let run = receiving.end_by(Signal::SIGINT).exits(0);
    assert!(!format!("{run:?}{}", home.log()).contains("geheim"));
}

#[test]
fn the_cluster_is_written_down_as_barman_does_it() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "identity", &[]);
    streaming(&home).end_by(Signal::SIGINT).exits(0);
    let identity = fs::read_to_string(home.dir("identity.json")).unwrap();
    let version = postgres
        .ask("SHOW server_version_num")
        .parse::<u32>()
        .unwrap()
        / 10_000;
    assert_eq!(
        identity,
        format!(
            "{{\n    \"systemid\": \"{}\",\n    \"version\": \"{version}\"\n}}\n",
            postgres.system_identifier()
        )
    );
    let check = Barman.run(&home, &["check", "main"]);
    assert!(
        check.stdout.contains("\tsystemid coherence: OK\n"),
        "{check:?}"
    );
}

#[test]
fn nothing_but_wal_and_what_is_remembered_lies_in_the_home() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "tidy", &[]);
    let before = names(&home.dir(""));
    let receiving = streaming(&home);
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[&segment]);
    receiving.end_by(Signal::SIGINT).exits(0);
    let mut expected = before;
    expected.extend([
        ".walarch-receive-wal.json".to_owned(),
        "identity.json".to_owned(),
    ]);
    expected.sort();
    assert_eq!(names(&home.dir("")), expected);
    assert!(partials(&home).len() <= 1);
}

#[test]
fn connection_strings_for_wal_take_precedence() {
    let postgres = shared();
    let conninfo = postgres.conninfo();
    let options = [
        ("conninfo", "host=/nonexistent"),
        ("streaming_conninfo", "host=/nonexistent"),
        ("wal_streaming_conninfo", conninfo.as_str()),
    ];
    let both = Both::new(&postgres, "override", &options);
    let run = both.agree(&["--create-slot"]).exits(0);
    assert!(
        run.stdout.contains("Configuration overrides applied: "),
        "{run:?}"
    );
    both.agree(&["--reset"]).exits(0);
    streaming(&both.walarch).end_by(Signal::SIGINT).exits(0);
}

#[test]
fn with_nothing_at_hand_it_begins_where_the_slot_keeps_wal() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "begins", &[]);
    streaming(&home).end_by(Signal::SIGINT).exits(0);
    for name in names(&home.streaming()) {
        fs::remove_file(home.streaming().join(name)).unwrap();
    }
    let restart = postgres.ask(
        "SELECT pg_walfile_name(restart_lsn + 1) FROM pg_replication_slots WHERE slot_name = 'begins'",
    );
    postgres.fill_segment();
    postgres.fill_segment();
    let receiving = streaming(&home);
    wait_for_segments(&home, &[&restart]);
    assert_received(&postgres, &home.streaming(), &restart);
    receiving.end_by(Signal::SIGINT).exits(0);
    assert!(home.log().contains(&format!(
        "Beginning at the position of the slot: {restart} ("
    )));
}

#[test]
fn a_primary_that_is_taken_for_a_standby_is_said_to_be_one() {
    let postgres = shared();
    let conninfo = postgres.conninfo();
    let both = Both::new(&postgres, "no_standby", &[("primary_conninfo", &conninfo)]);
    both.agree(&[]).exits(1);
    both.agree(&["--reset"]).exits(1);
}
