//! Do commits wait for the receiver? Then what arrives is made durable and reported at once.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::support::{SETTINGS, Way, home_with_slot, streaming, wait_for_segments};
use crate::support::postgres::Postgres;
use crate::support::tool::wait_for;

fn postgres() -> Postgres {
    Postgres::start(|_| SETTINGS.to_owned())
}

#[test]
fn it_is_synchronous_when_the_server_waits_for_it_or_when_it_is_told_to() {
    let postgres = Postgres::start(|_| SETTINGS.to_owned());
    let home = home_with_slot(&postgres, "synchronous", &[]);
    let is_synchronous = |names: &str, option: &str| {
        postgres.configure(&format!(
            "{SETTINGS}synchronous_standby_names = '{names}'\n"
        ));
        postgres.sql("SELECT pg_reload_conf()");
        wait_for("the setting", || {
            (postgres.ask("SHOW synchronous_standby_names") == names).then_some(())
        });
        let options = format!("[walarch]\nreceiver = \"pg_receivewal\"\n{option}");
        fs::write(home.root().join("walarch.toml"), options).unwrap();
        let receiving = streaming(&home);
        let arguments = fs::read(format!("/proc/{}/cmdline", receiving.receiver())).unwrap();
        receiving.end_by(Signal::SIGINT).exits(0);
        String::from_utf8(arguments)
            .unwrap()
            .contains("--synchronous")
    };
    assert!(!is_synchronous("", ""));
    assert!(is_synchronous("ANY 1 (other, \"Barman_Receive_WAL\")", ""));
    // Barman takes a part of a name for the name.
    assert!(!is_synchronous("barman_receive_wal_2", ""));
    assert!(is_synchronous("*", ""));
    assert!(!is_synchronous("*", "receive_wal_synchronous = false\n"));
    assert!(is_synchronous(
        "",
        "[server.main]\nreceive_wal_synchronous = \"on\"\n"
    ));
}

#[test]
fn a_commit_waits_for_the_disk_and_not_for_the_interval() {
    let postgres = postgres();
    let options = [("streaming_archiver_name", "standby")];
    let home = Way::Builtin.home_with_slot(&postgres, "waits", &options);
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
    postgres.sql("SELECT pg_reload_conf()");
    let receiving = streaming(&home);
    let begin = Instant::now();
    for number in 0..20 {
        postgres.sql(&format!("CREATE TABLE t{number} (x integer)"));
    }
    assert!(begin.elapsed() < Duration::from_secs(9), "it waited");
    let sql =
        "SELECT sync_state, flush_lsn = write_lsn, replay_lsn IS NULL FROM pg_stat_replication";
    assert_eq!(postgres.ask(sql), "sync|t|t");
    receiving.end_by(Signal::SIGINT).exits(0);
    postgres.configure(SETTINGS);
}

/// How long these transactions take.
fn commit(postgres: &Postgres, number: u32) -> Duration {
    let begin = Instant::now();
    for _ in 0..number {
        postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'commit')");
    }
    begin.elapsed()
}

#[test]
fn commits_that_begin_or_cease_to_wait_are_noticed_without_a_new_connection() {
    let postgres = postgres();
    // Without a slot an asynchronous receiver says nothing that would let a commit return.
    let home = Way::Builtin.home(&postgres, "none", &[("archiver", "on")]);
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("slot_name", "# slot_name"));
    let receiving = streaming(&home);
    let pid = "SELECT pid FROM pg_stat_replication";
    let sender = postgres.ask(pid);
    postgres.wait_for_receiver_at_commit(SETTINGS);
    receiving.wait_until_it_prints("commits wait for this receiver now");
    assert!(
        commit(&postgres, 20) < Duration::from_secs(9),
        "they waited"
    );
    let sql = "SELECT sync_state, flush_lsn = write_lsn FROM pg_stat_replication";
    assert_eq!(postgres.ask(sql), "sync|t");
    postgres.configure(SETTINGS);
    postgres.sql("SELECT pg_reload_conf()");
    receiving.wait_until_it_prints("commits do not wait for this receiver any more");
    assert_eq!(postgres.ask(pid), sender, "the same connection");
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[segment]);
    receiving.end_by(Signal::SIGINT).exits(0);
}
