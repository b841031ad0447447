//! `receive-wal --create-slot` and `--drop-slot`.

use super::support::{Both, Receiving, SETTINGS, home, receive_wal, shared};
use crate::support::postgres::Postgres;
use crate::support::tool::{Barman, Walarch};

const CREATE: [&str; 1] = ["--create-slot"];
const DROP: [&str; 1] = ["--drop-slot"];

#[test]
fn a_slot_is_created_once_and_dropped_once() {
    let postgres = shared();
    let both = Both::new(&postgres, "once", &[]);
    both.agree(&CREATE).exits(0);
    let slots = "SELECT count(*) FROM pg_replication_slots
                 WHERE slot_name LIKE '%once' AND slot_type = 'physical'";
    assert_eq!(postgres.ask(slots), "2");
    both.agree(&CREATE).exits(1);
    both.agree(&["--create-slot", "--if-not-exists"]).exits(0);
    both.agree(&DROP).exits(0);
    assert_eq!(postgres.ask(slots), "0");
    both.agree(&DROP).exits(1);
}

#[test]
fn a_slot_in_use_is_not_dropped() {
    let postgres = shared();
    let both = Both::new(&postgres, "in_use", &[]);
    both.agree(&CREATE).exits(0);
    let barman = Receiving::start(Barman, &both.barman);
    let walarch = Receiving::start(Walarch, &both.walarch);
    barman.wait_until_it_prints("starting log streaming");
    walarch.wait_until_it_prints("starting log streaming");
    both.agree(&DROP).exits(1);
}

#[test]
fn full_slots_are_said_to_be_full() {
    let postgres = Postgres::start(|_| "max_replication_slots = 0\n".to_owned());
    let both = Both::new(&postgres, "full", &[]);
    let run = both.agree(&CREATE).exits(1);
    assert!(run.stderr.contains("max_replication_slots"), "{run:?}");
}

#[test]
fn a_user_without_the_right_to_replicate_is_told_so() {
    let postgres = shared();
    postgres.sql("CREATE ROLE nobody LOGIN");
    let conninfo = postgres.conninfo().replace("user=postgres", "user=nobody");
    let both = Both::new(&postgres, "nobody", &[("streaming_conninfo", &conninfo)]);
    let run = both.agree(&CREATE).exits(1);
    assert!(run.stderr.contains("replication"), "{run:?}");
    both.agree(&DROP).exits(1);
    postgres.sql("DROP ROLE nobody");
}

#[test]
fn an_unreachable_server_is_an_error_with_its_reason() {
    let both = Both::new(
        &shared(),
        "down",
        &[("streaming_conninfo", "host=/nonexistent user=postgres")],
    );
    for options in [CREATE, DROP] {
        let run = both.agree(&options).exits(1);
        assert!(
            run.stderr
                .starts_with("ERROR: Cannot connect to server 'main'\n"),
            "{run:?}"
        );
        assert!(run.stderr.contains("/nonexistent"), "{run:?}");
    }
}

#[test]
fn what_is_not_configured_is_said() {
    let postgres = shared();
    let no_streaming = [("archiver", "on"), ("streaming_archiver", "off")];
    let both = Both::new(&postgres, "off", &no_streaming);
    both.agree(&CREATE).exits(1);
    both.agree(&DROP).exits(1);
    both.agree(&[]).exits(1);
    both.agree(&["--reset"]).exits(1);

    let both = Both::new(&postgres, "inactive", &[("active", "off")]);
    both.agree(&CREATE).exits(1);
    both.agree(&["--stop"]).exits(1);
    both.agree(&[]).exits(0);

    let passive = [("primary_ssh_command", "ssh barman@elsewhere.invalid")];
    let both = Both::new(&postgres, "passive", &passive);
    both.agree(&CREATE).exits(1);
}

#[test]
fn a_password_stays_secret_when_the_server_refuses_it() {
    let postgres = Postgres::start(|_| SETTINGS.to_owned());
    let hba = postgres.data().join("pg_hba.conf");
    std::fs::write(
        hba,
        "local all postgres trust\nlocal replication all scram-sha-256\n",
    )
    .unwrap();
    postgres.sql("SELECT pg_reload_conf()");
    let conninfo = format!("{} password=geheim", postgres.conninfo());
    let home = home(&postgres, "secret", &[("streaming_conninfo", &conninfo)]);
    let run = receive_wal(Walarch, &home, &CREATE).exits(1);
    assert!(
        run.stderr.contains("password authentication failed"),
        "{run:?}"
    );
    assert!(!format!("{run:?}{}", home.log()).contains("geheim"));
}
