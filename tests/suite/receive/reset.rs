//! `receive-wal --reset`: every branch that Barman has, and what the reset leaves out.

use std::fs;

use nix::sys::signal::Signal;

use super::support::{
    Both, SETTINGS, assert_received, home_with_slot, partials, receive_wal, state, state_file,
    streaming, wait_for_segments,
};
use crate::support::home::{Home, names, put};
use crate::support::postgres::Postgres;
use crate::support::tool::{Walarch, wait_for};
use crate::support::trace::traced;

const RESET: [&str; 1] = ["--reset"];

fn postgres() -> Postgres {
    Postgres::start(|_| SETTINGS.to_owned())
}

/// The segment that the server writes to, as Barman names it.
fn current(postgres: &Postgres) -> String {
    postgres.ask("SELECT pg_walfile_name(pg_current_wal_lsn() + 1)")
}

/// A segment of this server's first timeline.
fn segment(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

fn put_in_both(both: &Both, name: &str, bytes: &[u8]) {
    both.each(|home| drop(put(&home.streaming(), name, bytes)));
}

#[track_caller]
fn same_files(both: &Both) {
    assert_eq!(
        names(&both.walarch.streaming()),
        names(&both.barman.streaming())
    );
}

#[test]
fn what_is_aligned_stays() {
    let postgres = postgres();
    let both = Both::new(&postgres, "aligned", &[("create_slot", "auto")]);
    both.agree(&RESET).exits(0);
    let current = current(&postgres);
    for name in [format!("{current}.partial"), current] {
        put_in_both(&both, &name, b"");
        let run = both.agree(&RESET).exits(0);
        assert_eq!(
            run.stdout,
            "Nothing to do. Position of receive-wal is aligned.\n"
        );
        same_files(&both);
    }
}

#[test]
fn an_older_marker_moves_to_the_current_position() {
    let postgres = postgres();
    let both = Both::new(&postgres, "older", &[("create_slot", "auto")]);
    postgres.fill_segment();
    postgres.fill_segment();
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
    put_in_both(&both, &format!("{}.partial", segment(1)), b"");
    let run = both.agree(&RESET).exits(0);
    assert!(run.stdout.contains("Removing status file"), "{run:?}");
    assert_eq!(
        partials(&both.walarch),
        [format!("{}.partial", current(&postgres))]
    );
    same_files(&both);
    let marker = both.walarch.streaming().join(&partials(&both.walarch)[0]);
    assert_eq!(fs::read(marker).unwrap(), b"");
}

#[test]
fn behind_a_complete_segment_only_a_marker_is_created() {
    let postgres = postgres();
    let both = Both::new(&postgres, "complete", &[("create_slot", "auto")]);
    postgres.fill_segment();
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
    put_in_both(&both, &segment(1), b"");
    let run = both.agree(&RESET).exits(0);
    assert!(!run.stdout.contains("Removing"), "{run:?}");
    same_files(&both);
}

#[test]
fn a_position_ahead_of_the_server_is_refused() {
    let postgres = postgres();
    let both = Both::new(&postgres, "ahead", &[("create_slot", "auto")]);
    let ahead = segment(0x20);
    put_in_both(&both, &ahead, b"");
    // On a fresh segment Barman names the one before.
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
    let run = both.agree(&RESET).exits(1);
    assert!(
        run.stderr
            .contains(&format!("{ahead} > {}", current(&postgres))),
        "{run:?}"
    );
    same_files(&both);
}

#[test]
fn strangers_and_history_files_are_no_position() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "strangers", &[]);
    put(
        &home.streaming(),
        "00000002.history",
        b"1\t0/1000000\tnone\n",
    );
    put(&home.streaming(), "zzz", b"");
    let run = receive_wal(Walarch, &home, &RESET).exits(0);
    assert_eq!(
        run.stdout,
        "Nothing to do. Position of receive-wal is aligned.\n"
    );
    assert_eq!(names(&home.streaming()), ["00000002.history", "zzz"]);
}

/// A home that has archived what it received and whose receiver is stopped, with a partial segment left.
/// Returns it with the last complete segment that it has.
fn used_home(postgres: &Postgres, slot: &str) -> (Home, String) {
    let home = home_with_slot(postgres, slot, &[]);
    let receiving = streaming(&home);
    let segments = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &segments);
    postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'in the partial one')");
    let lsn = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    wait_for("the record", || {
        let flushed = "SELECT count(*) FROM pg_stat_replication WHERE write_lsn >= ";
        let arrived = postgres.ask(&format!("{flushed} '{lsn}'"));
        (arrived != "0").then_some(())
    });
    receiving.end_by(Signal::SIGINT).exits(0);
    home.archive().exits(0);
    (home, segments[1].clone())
}

#[test]
fn a_gap_is_named_and_logged_and_the_only_copy_of_wal_stays() {
    let postgres = postgres();
    let (home, newest) = used_home(&postgres, "gap");
    let partial = partials(&home).remove(0);
    let bytes = fs::read(home.streaming().join(&partial)).unwrap();
    // As after --drop-slot: nothing keeps what is written now.
    receive_wal(Walarch, &home, &["--drop-slot"]).exits(0);
    receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
    let missing: Vec<String> = (0..3).map(|_| postgres.fill_segment()).collect();
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");

    let run = receive_wal(Walarch, &home, &RESET).exits(0);
    assert_eq!(partial, format!("{}.partial", missing[0]));
    assert!(run.stdout.contains(&format!(
        "Leaving {}",
        home.streaming().join(&partial).display()
    )));
    let gap = format!("3 segments are missing, {} (", missing[0]);
    for text in [&run.stderr, &home.log()] {
        assert!(text.contains(&gap), "{text}");
        assert!(text.contains(&format!("to {} (", missing[2])), "{text}");
        assert!(
            text.contains(&format!("before is {newest}\nHINT: ")),
            "{text}"
        );
    }
    // The receiver goes on behind the gap, and the old partial segment reaches the archive.
    let receiving = streaming(&home);
    let next = postgres.fill_segment();
    wait_for_segments(&home, &[&next]);
    assert_received(&postgres, &home.streaming(), &next);
    receiving.end_by(Signal::SIGINT).exits(0);
    home.archive().exits(0);
    home.assert_archived(&partial, &bytes);
}

#[test]
fn the_slot_says_where_to_go_on_and_there_is_no_gap_then() {
    let postgres = postgres();
    let (home, _) = used_home(&postgres, "slot");
    let restart = postgres.ask(
        "SELECT pg_walfile_name(restart_lsn + 1) FROM pg_replication_slots WHERE slot_name = 'slot'",
    );
    let marker = home.streaming().join(&partials(&home)[0]);
    fs::rename(
        marker,
        home.streaming().join(format!("{}.partial", segment(1))),
    )
    .unwrap();
    postgres.fill_segment();
    postgres.fill_segment();
    let run = receive_wal(Walarch, &home, &RESET).exits(0);
    assert_eq!(run.stderr, "");
    assert!(
        partials(&home).contains(&format!("{restart}.partial")),
        "{run:?}"
    );
    streaming(&home).end_by(Signal::SIGINT).exits(0);
}

#[test]
fn a_slot_behind_a_promotion_is_followed_on_the_timeline_that_has_its_wal() {
    let postgres = postgres();
    let standby = postgres.standby(SETTINGS);
    let home = home_with_slot(&standby, "timeline", &[]);
    let receiving = streaming(&home);
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
    let kept = postgres.fill_segment();
    wait_for_segments(&home, &[&kept]);
    receiving.end_by(Signal::SIGINT).exits(0);
    let slot = "FROM pg_replication_slots WHERE slot_name = 'timeline'";
    let restart = standby.ask(&format!(
        "SELECT (restart_lsn - '0/0') / (16 * 1024 * 1024) {slot}"
    ));
    let restart: u64 = restart.split('.').next().unwrap().parse().unwrap();
    for _ in 0..2 {
        postgres.fill_segment();
    }
    let lsn = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    wait_for("the standby", || {
        let replayed = standby.ask(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'"));
        (replayed == "t").then_some(())
    });
    standby.promote();
    standby.fill_segment();
    for name in names(&home.streaming()) {
        fs::remove_file(home.streaming().join(name)).unwrap();
    }
    put(&home.streaming(), &format!("{}.partial", segment(1)), b"");
    receive_wal(Walarch, &home, &RESET).exits(0);
    assert_eq!(partials(&home), [format!("{}.partial", segment(restart))]);
    let receiving = streaming(&home);
    let after = standby.fill_segment();
    assert!(after.starts_with("00000002"), "{after}");
    wait_for_segments(&home, &[after, "00000002.history".to_owned()]);
    receiving.end_by(Signal::SIGINT).exits(0);
}

#[test]
fn a_repair_lets_cron_start_the_receiver_at_once() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "forgive", &[]);
    let failed = r#"{"consecutive_failures": 9, "retry_at": "2999-01-01T00:00:00Z"}"#;
    fs::write(state_file(&home), failed).unwrap();
    receive_wal(Walarch, &home, &RESET).exits(0);
    assert_eq!(state(&home)["consecutive_failures"], 0);
    assert_eq!(state(&home)["retry_at"], serde_json::Value::Null);
    // As does a slot that was missing.
    receive_wal(Walarch, &home, &["--drop-slot"]).exits(0);
    receive_wal(Walarch, &home, &[]).exits(1);
    assert_eq!(state(&home)["consecutive_failures"], 1);
    receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
    assert_eq!(state(&home)["consecutive_failures"], 0);
}

#[test]
fn cut_off_at_any_point_the_receiver_still_finds_its_place() {
    let postgres = postgres();
    let (home, _) = used_home(&postgres, "cut_off");
    receive_wal(Walarch, &home, &["--drop-slot"]).exits(0);
    receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
    fs::write(home.streaming().join(&partials(&home)[0]), b"").unwrap();
    postgres.fill_segment();
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
    let old = partials(&home).remove(0);
    let new = format!("{}.partial", current(&postgres));
    let mut hits = 0;
    for (call, count) in [
        ("fsync", 1),
        ("renameat2", 1),
        ("fsync", 2),
        ("unlink", 1),
        ("fsync", 3),
    ] {
        let home = home.copy();
        let inject = format!("inject={call}:signal=KILL:when={count}");
        let options = ["-e", &format!("trace={call}"), "-e", &inject].map(str::to_owned);
        let (run, _) = traced(
            Walarch,
            &home,
            &["receive-wal", "--reset", "main"],
            &options,
        );
        hits += i32::from(run.code == 128 + 9);
        let left = partials(&home);
        let newest = left.last().unwrap();
        assert!(*newest == old || *newest == new, "{call} {count}: {left:?}");
        receive_wal(Walarch, &home, &RESET).exits(0);
        assert_eq!(partials(&home).last(), Some(&new), "{call} {count}");
    }
    assert_eq!(hits, 5);
}
