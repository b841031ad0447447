//! `receive-wal` when something is wrong: with the server, the slot, the disk, or the whole cluster.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use super::support::{
    Both, Receiving, SETTINGS, Way, assert_received, home_with_slot, last_reason, partials,
    receive_wal, received, shared, state, state_file, streaming, wait_for_segments,
    with_each_receiver,
};
use crate::support::home::{Home, names, put};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Barman, Walarch, wait_for};

with_each_receiver! {
    failures_in_a_row_are_counted_and_keep_nobody_from_trying_by_hand
    a_clock_that_was_set_keeps_no_receiver_waiting
    a_promoted_standby_is_followed_onto_its_timeline_and_all_of_it_is_archived
    a_logical_slot_is_not_mistaken
    wal_that_was_removed_is_reported_with_both_positions_and_a_reset_names_the_gap
    a_user_who_may_not_look_is_told_of_removed_wal_by_the_server
    a_slot_that_the_server_has_given_up_is_reported
    another_cluster_behind_the_same_address_is_refused_before_a_byte_is_written
    a_home_that_cannot_be_written_to_keeps_its_receiver
}

fn postgres() -> Postgres {
    Postgres::start(|_| SETTINGS.to_owned())
}

/// Lets the home's server `main` be somewhere else from now on.
fn move_to(home: &Home, from: &Postgres, to: &Postgres) {
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace(from.socket(), to.socket()));
}

#[track_caller]
fn fails_with(home: &Home, words: &[&str]) {
    let run = receive_wal(Walarch, home, &[]).exits(1);
    for words in words {
        assert!(run.stderr.contains(words), "{words}: {run:?}");
        assert!(
            last_reason(home).contains(words),
            "{words}: {}",
            state(home)
        );
    }
    assert_eq!(state(home)["last_exit"]["failed"], true);
    assert_ne!(state(home)["retry_at"], serde_json::Value::Null);
}

#[test]
fn a_server_that_is_down_at_the_start_is_an_error_with_its_reason() {
    let mut postgres = postgres();
    let both = Both::new(&postgres, "down", &[]);
    both.agree(&["--create-slot"]).exits(0);
    postgres.stop();
    let run = both.agree(&[]).exits(1);
    assert!(
        run.stderr
            .contains("\nPostgreSQL streaming (WAL streaming): "),
        "{run:?}"
    );
    assert!(run.stderr.contains(postgres.socket()), "{run:?}");
    both.agree(&["--reset"]).exits(1);
    assert!(last_reason(&both.walarch).contains(postgres.socket()));
    let log = both.walarch.log();
    assert!(log.contains("Check 'PostgreSQL streaming (WAL streaming)' failed for server 'main'"));
}

fn failures_in_a_row_are_counted_and_keep_nobody_from_trying_by_hand(way: Way) {
    let home = way.home(
        &shared(),
        &way.name("by_hand"),
        &[("conninfo", "host=/nonexistent")],
    );
    for failures in 1..=3 {
        fails_with(&home, &["/nonexistent"]);
        assert_eq!(state(&home)["consecutive_failures"], failures);
    }
}

fn a_clock_that_was_set_keeps_no_receiver_waiting(way: Way) {
    let postgres = shared();
    let home = way.home_with_slot(&postgres, &way.name("clock"), &[]);
    // The last run failed when the clock was centuries ahead, or behind.
    for then in ["2999-01-01T00:00:00Z", "1999-01-01T00:00:00Z"] {
        let failed = serde_json::json!({
            "consecutive_failures": 9,
            "started_at": then,
            "last_exit": { "at": then, "reason": "it failed", "failed": true },
            "retry_at": then,
        });
        fs::write(state_file(&home), failed.to_string()).unwrap();
        home.run(&["cron"]).exits(0);
        wait_for("a receiver", || {
            (!state(&home)["streaming_since"].is_null()).then_some(())
        });
        let segment = postgres.fill_segment();
        wait_for_segments(&home, &[segment]);
        home.run(&["receive-wal", "--stop", "main"]).exits(0);
    }
}

#[test]
fn a_server_that_is_stopped_or_killed_ends_it_and_after_the_restart_nothing_is_missing() {
    let mut postgres = postgres();
    let home = home_with_slot(&postgres, "restart", &[]);
    let mut segments = Vec::new();
    for crash in [false, true] {
        let receiving = streaming(&home);
        segments.push(postgres.fill_segment());
        wait_for_segments(&home, &segments[segments.len() - 1..]);
        if crash {
            postgres.crash();
        } else {
            postgres.stop();
        }
        let run = receiving.end().exits(1);
        let error = "ERROR: ArchiverFailure:pg_receivewal terminated with error code: 1\n";
        assert!(run.stdout.contains(error), "{run:?}");
        assert!(
            last_reason(&home).contains("\npg_receivewal: error: "),
            "{}",
            state(&home)
        );
        postgres.run();
        segments.push(postgres.fill_segment());
    }
    let receiving = streaming(&home);
    wait_for_segments(&home, &segments);
    for segment in &segments {
        assert_received(&postgres, &home.streaming(), segment);
    }
    receiving.end_by(Signal::SIGINT).exits(0);
}

fn a_promoted_standby_is_followed_onto_its_timeline_and_all_of_it_is_archived(way: Way) {
    let postgres = postgres();
    let standby = postgres.standby(SETTINGS);
    let home = way.home_with_slot(&standby, "promoted", &[]);
    let receiving = streaming(&home);
    let before = postgres.fill_segment();
    wait_for_segments(&home, &[&before]);
    let before_bytes = fs::read(postgres.data().join("pg_wal").join(&before)).unwrap();
    postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'the last words')");
    wait_until_received(&postgres, &standby);
    standby.promote();
    let after = standby.fill_segment();
    assert!(after.starts_with("00000002"), "{after}");
    wait_for_segments(&home, &["00000002.history", &after]);
    receiving.end_by(Signal::SIGINT).exits(0);
    assert_whole_switch_is_archived(&home, &standby, (&before, &before_bytes), &after);
}

/// Waits until the standby has passed everything on to its receiver.
fn wait_until_received(postgres: &Postgres, standby: &Postgres) {
    let position = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    let sent = format!("SELECT count(*) FROM pg_stat_replication WHERE write_lsn >= '{position}'");
    wait_for("the receiver", || (standby.ask(&sent) != "0").then_some(()));
}

/// The old timeline to its end, the history and the new timeline are in the archive, as the new primary
/// has them.
#[track_caller]
fn assert_whole_switch_is_archived(
    home: &Home,
    primary: &Postgres,
    (before, before_bytes): (&str, &[u8]),
    after: &str,
) {
    // Of the newest segment the receiver needs the place.
    let receiving = streaming(home);
    let last = primary.fill_segment();
    wait_for_segments(home, &[&last]);
    receiving.end_by(Signal::SIGINT).exits(0);
    let partial = partials(home)
        .into_iter()
        .find(|name| name.starts_with("00000001"))
        .unwrap_or_else(|| panic!("{:?}", names(&home.streaming())));
    let partial_bytes = fs::read(home.streaming().join(&partial)).unwrap();
    home.archive().exits(0);
    home.assert_archived(&partial, &partial_bytes);
    home.assert_archived(before, before_bytes);
    for name in ["00000002.history", after] {
        let bytes = fs::read(primary.data().join("pg_wal").join(name)).unwrap();
        home.assert_archived(name, &bytes);
    }
}

#[test]
fn a_failover_to_a_standby_behind_the_same_address_is_followed() {
    let mut postgres = postgres();
    let standby = postgres.standby(SETTINGS);
    let home = home_with_slot(&postgres, "failover", &[]);
    let receiving = streaming(&home);
    let before = postgres.fill_segment();
    wait_for_segments(&home, &[&before]);
    let before_bytes = fs::read(postgres.data().join("pg_wal").join(&before)).unwrap();
    postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'the last words')");
    let position = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    wait_for("the standby", || {
        (standby.ask(&replayed) == "t").then_some(())
    });
    wait_until_received(&postgres, &postgres);
    postgres.crash();
    receiving.end().exits(1);
    standby.promote();
    move_to(&home, &postgres, &standby);
    receive_wal(Walarch, &home, &["--create-slot"]).exits(0);

    let receiving = streaming(&home);
    let after = standby.fill_segment();
    wait_for_segments(&home, &["00000002.history", &after]);
    receiving.end_by(Signal::SIGINT).exits(0);
    assert_whole_switch_is_archived(&home, &standby, (&before, &before_bytes), &after);
}

#[test]
fn after_a_failover_to_a_standby_that_was_behind_a_reset_goes_on_and_loses_nothing() {
    let mut postgres = postgres();
    let mut standby = postgres.standby(SETTINGS);
    let home = home_with_slot(&postgres, "behind", &[]);
    let receiving = streaming(&home);
    let common = postgres.fill_segment();
    wait_for_segments(&home, &[&common]);
    let position = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    wait_for("the standby", || {
        (standby.ask(&replayed) == "t").then_some(())
    });
    standby.stop();
    let only_here = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &only_here);
    postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'nowhere else')");
    wait_until_received(&postgres, &postgres);
    postgres.crash();
    receiving.end().exits(1);
    let dead_end = partials(&home).remove(0);
    let dead_bytes = fs::read(home.streaming().join(&dead_end)).unwrap();
    standby.run();
    standby.promote();
    standby.sql("SELECT pg_logical_emit_message(true, 'walarch', 'on the new timeline')");
    move_to(&home, &postgres, &standby);
    receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
    fails_with(&home, &["terminated with error code: 1", "\nHINT: "]);

    let run = receive_wal(Walarch, &home, &["--reset"]).exits(0);
    assert!(
        run.stderr.contains("timeline that was left behind"),
        "{run:?}"
    );
    let aside = names(&home.errors());
    assert!(
        aside.len() == 1 && aside[0].starts_with(&dead_end),
        "{aside:?}"
    );
    assert_eq!(fs::read(home.errors().join(&aside[0])).unwrap(), dead_bytes);
    home.archive().exits(0);
    let receiving = streaming(&home);
    let after = standby.fill_segment();
    wait_for_segments(&home, &[&after]);
    assert_received(&standby, &home.streaming(), &after);
    receiving.end_by(Signal::SIGINT).exits(0);
    for name in &only_here {
        assert!(home.listed().contains(name), "{name}: {:?}", home.listed());
    }
}

#[test]
fn a_slot_that_is_dropped_under_the_receiver_is_named_at_the_next_start() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "dropped", &[]);
    let receiving = streaming(&home);
    postgres.sql(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'dropped'",
    );
    receiving.end().exits(1);
    let drop = "SELECT pg_drop_replication_slot('dropped')";
    wait_for("the slot", || {
        let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'dropped'";
        (postgres.ask(active) == "f").then_some(())
    });
    postgres.sql(drop);
    fails_with(
        &home,
        &[
            "replication slot 'dropped' doesn't exist. Please execute 'walarch receive-wal --create-slot main'",
        ],
    );
}

#[test]
fn a_slot_that_somebody_else_uses_is_an_error() {
    let postgres = shared();
    let both = Both::new(&postgres, "elsewhere", &[]);
    both.agree(&["--create-slot"]).exits(0);
    let others = Both::new(&postgres, "elsewhere", &[]);
    let receiving = [(Barman, &others.barman), (Walarch, &others.walarch)].map(|(tool, home)| {
        let receiving = Receiving::start(tool, home);
        receiving.wait_until_it_prints("starting log streaming");
        receiving
    });
    both.agree(&[]).exits(1);
    both.agree(&["--reset"]).exits(1);
    assert!(last_reason(&both.walarch).contains("is already in use\nPostgreSQL process "));
    drop(receiving);
}

fn a_logical_slot_is_not_mistaken(way: Way) {
    let postgres = Postgres::start(|_| format!("{SETTINGS}wal_level = logical\n"));
    postgres.sql("SELECT pg_create_logical_replication_slot('logical', 'test_decoding')");
    fails_with(
        &way.home(&postgres, "logical", &[]),
        &["needs a physical slot"],
    );
}

#[test]
fn a_server_without_enough_in_its_wal_is_refused() {
    let postgres = Postgres::start(|_| "wal_level = minimal\nmax_wal_senders = 0\n".to_owned());
    let both = Both::new(&postgres, "minimal", &[]);
    both.agree(&[]).exits(1);
}

/// Removes all WAL that no slot keeps.
fn forget_wal(postgres: &Postgres) {
    postgres.fill_segment();
    postgres.sql("CHECKPOINT");
    postgres.fill_segment();
    postgres.sql("CHECKPOINT");
}

/// A home without a slot, whose receiver has stopped at this position.
fn without_slot(way: Way, postgres: &Postgres, conninfo: &str) -> (Home, String) {
    let home = Home::new();
    home.write_config_text(&format!(
        "[barman]\nbarman_user = {}\nbarman_home = {{root}}/home\nlog_file = {{root}}/barman.log\n\
         [main]\ndescription = main\nconninfo = {conninfo}\nstreaming_conninfo = {conninfo}\n\
         streaming_archiver = on\narchiver = on\npath_prefix = {}\n",
        nix::unistd::User::from_uid(nix::unistd::getuid())
            .unwrap()
            .unwrap()
            .name,
        Major::Debian.bin().display(),
    ));
    let home = way.received_by(home);
    let receiving = streaming(&home);
    let last = postgres.fill_segment();
    wait_for_segments(&home, &[&last]);
    receiving.end_by(Signal::SIGINT).exits(0);
    (home, last)
}

fn wal_that_was_removed_is_reported_with_both_positions_and_a_reset_names_the_gap(way: Way) {
    let postgres = postgres();
    let (home, last) = without_slot(way, &postgres, &postgres.conninfo());
    forget_wal(&postgres);
    let wanted = {
        let number = u32::from_str_radix(&last[16..], 16).unwrap() + 1;
        format!("{}{number:08X} (0/{number:X}000000) is needed", &last[..16])
    };
    let oldest = postgres.ask("SELECT min(name) FROM pg_ls_waldir() WHERE length(name) = 24");
    fails_with(
        &home,
        &[
            "already been removed",
            &wanted,
            &oldest,
            "\nHINT: ",
            "receive-wal --reset main",
        ],
    );

    let run = receive_wal(Walarch, &home, &["--reset"]).exits(0);
    assert!(run.stderr.contains("missing"), "{run:?}");
    let receiving = streaming(&home);
    let next = postgres.fill_segment();
    wait_for_segments(&home, &[&next]);
    receiving.end_by(Signal::SIGINT).exits(0);
}

fn a_user_who_may_not_look_is_told_of_removed_wal_by_the_server(way: Way) {
    let postgres = postgres();
    postgres.sql(
        "CREATE ROLE half LOGIN REPLICATION; GRANT pg_read_all_settings, pg_read_all_stats TO half",
    );
    let conninfo = postgres.conninfo().replace("user=postgres", "user=half");
    let (home, _) = without_slot(way, &postgres, &conninfo);
    forget_wal(&postgres);
    fails_with(
        &home,
        &[
            "already been removed",
            "the oldest there is unknown",
            "\nHINT: ",
        ],
    );
    let log = home.log();
    assert!(log.contains("starting log streaming at"), "{log}");
}

fn a_slot_that_the_server_has_given_up_is_reported(way: Way) {
    let limits = "max_slot_wal_keep_size = 16MB\nmax_wal_size = 32MB\nmin_wal_size = 32MB\n";
    let postgres = Postgres::start(|_| format!("{SETTINGS}{limits}"));
    let home = way.home_with_slot(&postgres, "lost", &[]);
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_for_segments(&home, &[&first]);
    receiving.end_by(Signal::SIGINT).exits(0);
    for _ in 0..4 {
        postgres.fill_segment();
    }
    wait_for("the slot's end", || {
        postgres.sql("CHECKPOINT");
        let status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lost'";
        (postgres.ask(status) == "lost").then_some(())
    });
    fails_with(
        &home,
        &[
            "has given up replication slot 'lost'",
            "is needed",
            "\nHINT: ",
        ],
    );
}

fn another_cluster_behind_the_same_address_is_refused_before_a_byte_is_written(way: Way) {
    let postgres = postgres();
    let other = Postgres::start(|_| SETTINGS.to_owned());
    let home = way.home_with_slot(&postgres, "cluster", &[]);
    let receiving = streaming(&home);
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[&segment]);
    receiving.end_by(Signal::SIGINT).exits(0);
    move_to(&home, &postgres, &other);
    receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
    let files = names(&home.streaming());
    let identity = fs::read(home.dir("identity.json")).unwrap();
    let unchanged = |home: &Home| {
        assert_eq!(names(&home.streaming()), files);
        let restart = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'cluster'";
        assert_eq!(other.ask(restart), "");
    };
    let identifiers = [
        postgres.system_identifier().to_string(),
        other.system_identifier().to_string(),
    ];
    fails_with(
        &home,
        &[
            "systemid coherence",
            &identifiers[0],
            &identifiers[1],
            "identity.json",
        ],
    );
    let same = Both {
        barman: home.copy(),
        walarch: home.copy(),
    };
    same.agree(&[]).exits(1);
    same.agree(&["--reset"]).exits(1);
    unchanged(&home);

    // The segments speak as well where nothing was written down.
    fs::remove_file(home.dir("identity.json")).unwrap();
    fails_with(
        &home,
        &[
            "systemid coherence",
            &identifiers[0],
            &identifiers[1],
            "streaming",
        ],
    );
    unchanged(&home);
    assert!(!home.dir("identity.json").exists());
    fs::write(home.dir("identity.json"), identity).unwrap();
    move_to(&home, &other, &postgres);
    streaming(&home).end_by(Signal::SIGINT).exits(0);
}

#[test]
fn a_full_disk_ends_it_with_a_hint_and_with_space_nothing_is_missing() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "full", &[]);
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_for_segments(&home, &[&first]);
    receiving.end_by(Signal::SIGINT).exits(0);
    for name in partials(&home) {
        fs::remove_file(home.streaming().join(name)).unwrap();
    }
    // Every write to it fails for want of space.
    let number = u32::from_str_radix(&first[16..], 16).unwrap() + 1;
    let next = format!("{}{number:08X}", &first[..16]);
    let full = home.streaming().join(format!("{next}.partial"));
    symlink("/dev/full", &full).unwrap();
    assert_eq!(postgres.fill_segment(), next);
    fails_with(&home, &["No space left on device", "\nHINT: "]);

    fs::remove_file(&full).unwrap();
    let receiving = streaming(&home);
    wait_for_segments(&home, &[&next]);
    assert_received(&postgres, &home.streaming(), &next);
    receiving.end_by(Signal::SIGINT).exits(0);
}

fn a_home_that_cannot_be_written_to_keeps_its_receiver(way: Way) {
    let postgres = shared();
    let home = way.home_with_slot(&postgres, &way.name("state"), &[]);
    // What is remembered cannot be: a directory is in the way.
    fs::create_dir(home.dir(".walarch-receive-wal.json")).unwrap();
    let receiving = streaming(&home);
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[&segment]);
    receiving.end_by(Signal::SIGINT).exits(0);
    assert!(
        home.log()
            .contains("WARNING: cannot write the state of the receiver")
    );
}

#[test]
fn an_older_partial_segment_of_any_size_stays_as_it_is() {
    let postgres = shared();
    postgres.fill_segment();
    let both = Both::new(&postgres, "older_partial", &[("create_slot", "auto")]);
    both.each(|home| {
        put(
            &home.streaming(),
            "000000010000000000000001.partial",
            b"odd",
        );
    });
    for (tool, home) in [(Barman, &both.barman), (Walarch, &both.walarch)] {
        put(
            &home.streaming(),
            "000000010000000000000002.partial",
            b"odd",
        );
        let receiving = Receiving::start(tool, home);
        receiving.wait_until_it_prints("starting log streaming");
        receiving.end_by(Signal::SIGINT).exits(0);
        let older = home.streaming().join("000000010000000000000001.partial");
        assert_eq!(fs::read(older).unwrap(), b"odd");
    }
}

#[test]
fn a_newer_major_version_with_small_segments_is_received_from() {
    let arguments = ["--wal-segsize=1"];
    let postgres = Postgres::start_major(Major::Newer, &arguments, |_| SETTINGS.to_owned());
    let both = Both::new(&postgres, "newer", &[("create_slot", "auto")]);
    // Debian's program is too old for it.
    both.agree(&["--create-slot"]).exits(0);
    both.agree(&[]).exits(1);
    let prefix = Major::Newer.bin().display().to_string();
    let home = home_with_slot(&postgres, "newer", &[("path_prefix", &prefix)]);
    let receiving = streaming(&home);
    let segments = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &segments);
    for segment in received(&home) {
        assert_received(&postgres, &home.streaming(), &segment);
    }
    receiving.end_by(Signal::SIGINT).exits(0);
    receive_wal(Walarch, &home, &["--reset"]).exits(0);
}
