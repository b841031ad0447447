//! The built-in receiver where it does something else than `pg_receivewal`: it stays up, follows failovers, waits
//! for room, writes down holes, and may take over from `pg_receivewal` at any moment, as the other way round.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{
    Receiving, SETTINGS, Way, assert_received, home, partials, receive_wal, received, shared,
    state, streaming, wait_for_segments,
};
use crate::support::home::{Home, names};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Walarch, wait_for};
use crate::support::trace::QUICK;

fn postgres() -> Postgres {
    Postgres::start(|_| SETTINGS.to_owned())
}

fn home_with_slot(postgres: &Postgres, slot: &str) -> Home {
    Way::Builtin.home_with_slot(postgres, slot, &[])
}

/// Waits until it has printed these words so many times.
#[track_caller]
pub fn wait_until_printed(receiving: &Receiving, words: &str, times: usize) {
    wait_for(words, || {
        (receiving.output().matches(words).count() >= times).then_some(())
    });
}

/// The server process that serves this slot.
#[track_caller]
fn wal_sender(postgres: &Postgres, slot: &str) -> Pid {
    let sql = format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_for("the WAL sender", || {
        let pid = postgres.ask(&sql);
        (!pid.is_empty()).then(|| Pid::from_raw(pid.parse().unwrap()))
    })
}

#[test]
fn wal_arrives_byte_for_byte_until_it_is_asked_to_stop() {
    let postgres = shared();
    for (signal, slot) in [
        (Signal::SIGINT, "by_sigint"),
        (Signal::SIGTERM, "by_sigterm"),
    ] {
        let home = home_with_slot(&postgres, slot);
        let receiving = streaming(&home);
        let segments = [postgres.fill_segment(), postgres.fill_segment()];
        wait_for_segments(&home, &segments);
        for segment in &segments {
            assert_received(&postgres, &home.streaming(), segment);
        }
        let [partial] = partials(&home).try_into().unwrap();
        let size = fs::metadata(home.streaming().join(partial)).unwrap().len();
        assert_eq!(size, 16 << 20);
        let run = receiving.end_by(signal).exits(0);
        assert!(
            run.stdout
                .ends_with(&format!("{signal} received. Terminate gracefully.\n"))
        );
        assert_eq!(state(&home)["consecutive_failures"], 0);
    }
}

#[test]
fn a_server_that_restarts_or_crashes_is_waited_for_and_nothing_is_missing() {
    // To compare with, when it is not needed any more.
    let mut postgres = Postgres::start(|_| format!("{SETTINGS}wal_keep_size = 512MB\n"));
    let home = home_with_slot(&postgres, "restarts");
    let receiving = streaming(&home);
    let mut segments = Vec::new();
    for (round, crash) in [false, true].into_iter().enumerate() {
        segments.push(postgres.fill_segment());
        wait_for_segments(&home, &segments[segments.len() - 1..]);
        if crash {
            postgres.crash();
        } else {
            // It waits until all is flushed here, which is not said before the interval if nobody asks.
            let begin = Instant::now();
            postgres.stop();
            assert!(
                begin.elapsed() < Duration::from_secs(8),
                "the server waited"
            );
        }
        wait_until_printed(&receiving, "the next attempt follows in", round + 1);
        assert_eq!(state(&home)["streaming_since"], serde_json::Value::Null);
        postgres.run();
        segments.push(postgres.fill_segment());
        wait_until_printed(&receiving, "starting log streaming at", round + 2);
    }
    wait_for_segments(&home, &segments);
    for segment in &segments {
        assert_received(&postgres, &home.streaming(), segment);
    }
    let run = receiving.end_by(Signal::SIGINT).exits(0);
    assert_eq!(
        run.stdout.matches("Starting receive-wal").count(),
        1,
        "{run:?}"
    );
}

#[test]
fn a_server_that_stays_away_is_complained_of_when_the_reason_changes() {
    let mut postgres = postgres();
    let home = home_with_slot(&postgres, "away");
    let receiving = streaming(&home);
    postgres.stop();
    wait_until_printed(&receiving, "the next attempt follows in", 2);
    // Some attempts, all in vain.
    thread::sleep(Duration::from_secs(8));
    let output = receiving.output();
    assert_eq!(output.matches("the next attempt").count(), 2, "{output}");
    assert!(output.contains("it shuts down"), "{output}");
    assert_eq!(output.matches(postgres.socket()).count(), 2, "{output}");
    let log = home.log();
    assert_eq!(log.matches("failed for server").count(), 0, "{log}");
    postgres.run();
    wait_until_printed(&receiving, "starting log streaming at", 2);
    receiving.end_by(Signal::SIGINT).exits(0);
}

#[test]
fn the_new_primary_among_several_hosts_is_found_and_its_timeline_followed() {
    let mut primary = postgres();
    let standby = primary.standby(SETTINGS);
    let both = format!(
        "host={},{} user=postgres dbname=postgres target_session_attrs=read-write",
        primary.socket(),
        standby.socket()
    );
    let options = [
        ("conninfo", both.as_str()),
        ("streaming_conninfo", both.as_str()),
        ("create_slot", "auto"),
    ];
    let home = Way::Builtin.home(&primary, "several", &options);
    let receiving = streaming(&home);
    let before = primary.fill_segment();
    wait_for_segments(&home, &[&before]);
    let before_bytes = fs::read(primary.data().join("pg_wal").join(&before)).unwrap();
    let position = primary.ask("SELECT pg_current_wal_flush_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    wait_for("the standby", || {
        (standby.ask(&replayed) == "t").then_some(())
    });
    primary.crash();
    standby.promote();
    let after = standby.fill_segment();
    assert!(after.starts_with("00000002"), "{after}");
    wait_for_segments(&home, &["00000002.history", &after]);
    assert_received(&standby, &home.streaming(), "00000002.history");
    assert_received(&standby, &home.streaming(), &after);
    assert_eq!(
        fs::read(home.streaming().join(&before)).unwrap(),
        before_bytes
    );
    assert_eq!(state(&home)["timeline"], 2);
    receiving.end_by(Signal::SIGINT).exits(0);

    // The former primary comes back alone, and does not know of its fall.
    drop(standby);
    primary.run();
    let files = names(&home.streaming());
    let run = receive_wal(Walarch, &home, &[]).exits(1);
    assert!(
        run.stderr.contains("the server is on timeline 1"),
        "{run:?}"
    );
    assert_eq!(names(&home.streaming()), files);
}

#[test]
fn an_idle_server_is_not_taken_for_dead() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "idle");
    let receiving = streaming(&home);
    thread::sleep(Duration::from_secs(35));
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[segment]);
    let run = receiving.end_by(Signal::SIGINT).exits(0);
    assert!(!run.stdout.contains("nothing was heard"), "{run:?}");
}

#[test]
fn a_server_that_falls_silent_is_given_up_and_a_stop_does_not_wait_for_it() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "silent");
    let receiving = streaming(&home);
    let sender = wal_sender(&postgres, "silent");
    kill(sender, Signal::SIGSTOP).unwrap();
    receiving.wait_until_it_prints("nothing was heard from PostgreSQL for");
    // The slot is still in use by the process that sleeps.
    receiving.wait_until_it_prints("already in use");
    kill(sender, Signal::SIGCONT).unwrap();
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[segment]);

    let sender = wal_sender(&postgres, "silent");
    kill(sender, Signal::SIGSTOP).unwrap();
    let begin = Instant::now();
    receiving.end_by(Signal::SIGINT).exits(0);
    assert!(begin.elapsed() < Duration::from_secs(8));
    kill(sender, Signal::SIGCONT).unwrap();
}

#[test]
fn without_room_it_keeps_the_connection_and_goes_on_when_there_is_some() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "room");
    let mut command = std::process::Command::new("strace");
    // The third segment and, some time later, a piece of it find no room, several times over.
    command.args([
        "-f",
        QUICK,
        "-o",
        "/dev/null",
        "-e",
        "trace=fallocate,pwrite64",
    ]);
    command.args(["-e", "inject=fallocate:error=ENOSPC:when=3..4"]);
    command.args(["-e", "inject=pwrite64:error=EDQUOT:when=9..10"]);
    let receive = Walarch.command(&home, &["receive-wal", "main"]);
    command.arg(receive.get_program()).args(receive.get_args());
    for (name, value) in receive.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let receiving = Receiving::start_command(command, &home);
    receiving.wait_until_it_prints("starting log streaming at");
    let mut segments = vec![postgres.fill_segment(), postgres.fill_segment()];
    receiving.wait_until_it_prints("waiting for room: cannot make room for");
    let sender = wal_sender(&postgres, "room");
    segments.extend((0..3).map(|_| postgres.fill_segment()));
    wait_for_segments(&home, &segments);
    for segment in &segments {
        assert_received(&postgres, &home.streaming(), segment);
    }
    assert_eq!(wal_sender(&postgres, "room"), sender, "the same connection");
    let output = receiving.output();
    assert_eq!(output.matches("waiting for room: ").count(), 2, "{output}");
    assert_eq!(output.matches("there is room again").count(), 2, "{output}");
    assert!(output.contains("HINT: the file system of streaming_wals_directory is full"));
    let receive_wal = wait_for("receive-wal", || state(&home)["pid"].as_i64());
    kill(
        Pid::from_raw(i32::try_from(receive_wal).unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    receiving.end().exits(0);
}

#[test]
fn each_receiver_goes_on_where_the_other_one_was_killed() {
    let postgres = postgres();
    let mut home = home_with_slot(&postgres, "takeover");
    let mut segments = Vec::new();
    for (round, way) in [Way::Builtin, Way::PgReceivewal]
        .into_iter()
        .cycle()
        .take(6)
        .enumerate()
    {
        home = way.received_by(home);
        let receiving = streaming(&home);
        segments.push(postgres.fill_segment());
        // At another place of a segment each time.
        let sql = "SELECT pg_logical_emit_message(false, 'walarch', repeat('x', 3000000 * ";
        postgres.sql(&format!("{sql}{round}))"));
        if round % 2 == 0 {
            wait_for_segments(&home, &segments);
        }
        receiving.end_by(Signal::SIGKILL);
    }
    segments.push(postgres.fill_segment());
    let receiving = streaming(&home);
    wait_for_segments(&home, &segments);
    receiving.end_by(Signal::SIGINT).exits(0);
    for segment in received(&home) {
        assert_received(&postgres, &home.streaming(), &segment);
    }
    let first = segments[0].clone();
    let numbers = |name: &String| u32::from_str_radix(&name[16..], 16).unwrap();
    let all: Vec<u32> = received(&home).iter().map(numbers).collect();
    let expected: Vec<u32> = (numbers(&first)..=numbers(&segments[segments.len() - 1])).collect();
    assert_eq!(all, expected, "no segment is missing");
}

#[test]
fn a_partial_segment_of_an_odd_size_is_received_again() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "odd");
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_for_segments(&home, &[&first]);
    receiving.end_by(Signal::SIGINT).exits(0);
    let [partial] = partials(&home).try_into().unwrap();
    fs::write(home.streaming().join(&partial), vec![0xAA; 12_345]).unwrap();
    let receiving = streaming(&home);
    let next = postgres.fill_segment();
    wait_for_segments(&home, &[&next]);
    let run = receiving.end_by(Signal::SIGINT).exits(0);
    assert!(
        run.stdout
            .contains("that has wrong size 12345 while 16777216 was expected")
    );
    assert_received(&postgres, &home.streaming(), &next);
}

#[test]
fn what_the_server_has_removed_is_skipped_to_the_slot_and_written_down() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "hole");
    let receiving = streaming(&home);
    let last = postgres.fill_segment();
    wait_for_segments(&home, &[&last]);
    receiving.end_by(Signal::SIGINT).exits(0);
    let wanted = postgres.ask("SELECT pg_current_wal_lsn()");
    postgres.sql("SELECT pg_drop_replication_slot('hole')");
    for _ in 0..2 {
        postgres.fill_segment();
        postgres.sql("CHECKPOINT");
    }
    postgres.sql("SELECT pg_create_physical_replication_slot('hole', true)");
    let kept = postgres.ask("SELECT restart_lsn FROM pg_replication_slots");

    let receiving = streaming(&home);
    let next = postgres.fill_segment();
    wait_for_segments(&home, &[&next]);
    assert_received(&postgres, &home.streaming(), &next);
    let run = receiving.end_by(Signal::SIGINT).exits(0);
    let start = |lsn: &str| format!("{}000000", &lsn[..lsn.len() - 6]);
    let hole = format!(
        "{} to {} on timeline 1 is missing",
        start(&wanted),
        start(&kept)
    );
    assert!(run.stdout.contains(&hole), "{hole}: {run:?}");
    assert!(home.log().contains(&hole));
    let holes = &state(&home)["holes"];
    assert_eq!(holes[0]["from"], start(&wanted), "{holes}");
    assert_eq!(holes[0]["to"], start(&kept), "{holes}");

    // It is remembered, but there is no second one.
    streaming(&home).end_by(Signal::SIGINT).exits(0);
    assert_eq!(state(&home)["holes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_user_who_may_not_look_is_led_to_the_slot_by_the_server() {
    let postgres = postgres();
    postgres.sql(
        "CREATE ROLE half LOGIN REPLICATION; GRANT pg_read_all_settings, pg_read_all_stats TO half",
    );
    let conninfo = postgres.conninfo().replace("user=postgres", "user=half");
    let options = [
        ("conninfo", conninfo.as_str()),
        ("streaming_conninfo", conninfo.as_str()),
        ("create_slot", "auto"),
    ];
    let home = Way::Builtin.home(&postgres, "blind", &options);
    let receiving = streaming(&home);
    let last = postgres.fill_segment();
    wait_for_segments(&home, &[&last]);
    receiving.end_by(Signal::SIGINT).exits(0);
    postgres.sql("SELECT pg_drop_replication_slot('blind')");
    for _ in 0..2 {
        postgres.fill_segment();
        postgres.sql("CHECKPOINT");
    }
    postgres.sql("SELECT pg_create_physical_replication_slot('blind', true)");
    let receiving = streaming(&home);
    let next = postgres.fill_segment();
    wait_for_segments(&home, &[&next]);
    receiving.end_by(Signal::SIGINT).exits(0);
    assert_eq!(state(&home)["holes"].as_array().unwrap().len(), 1);
}

#[test]
fn pg_receivewal_need_not_be_there() {
    let postgres = shared();
    let options = [("path_prefix", "/nonexistent")];
    let home = Way::Builtin.home_with_slot(&postgres, "alone", &options);
    let mut command = Walarch.command(&home, &["receive-wal", "main"]);
    command.env("PATH", "/nonexistent");
    let receiving = Receiving::start_command(command, &home);
    receiving.wait_until_it_prints("starting log streaming at");
    receiving.end_by(Signal::SIGINT).exits(0);
    receive_wal(Walarch, &home, &["--reset"]).exits(0);
}

#[test]
fn without_anything_at_hand_it_begins_where_the_slot_keeps_wal_or_at_the_servers_position() {
    let postgres = postgres();
    let home = home_with_slot(&postgres, "begins");
    let receiving = streaming(&home);
    let current = postgres.ask("SELECT pg_walfile_name(pg_current_wal_lsn() + 1)");
    wait_for("the first file", || {
        (partials(&home).len() == 1).then_some(())
    });
    assert_eq!(partials(&home), [format!("{current}.partial")]);
    let kept = postgres.fill_segment();
    wait_for_segments(&home, &[&kept]);
    receiving.end_by(Signal::SIGINT).exits(0);
    let restart = "SELECT pg_walfile_name(restart_lsn + 1) FROM pg_replication_slots";
    let restart = postgres.ask(restart);
    assert!(restart > kept, "{restart}");
    for name in names(&home.streaming()) {
        fs::remove_file(home.streaming().join(name)).unwrap();
    }
    let after = postgres.fill_segment();
    assert_eq!(after, restart);
    let receiving = streaming(&home);
    wait_for_segments(&home, &[after]);
    receiving.end_by(Signal::SIGINT).exits(0);
}

#[test]
fn the_connection_string_of_a_server_without_a_socket_is_refused_at_once() {
    let home = Way::Builtin.received_by(home(
        &shared(),
        "nowhere",
        &[("conninfo", "host=/nonexistent")],
    ));
    let run = receive_wal(Walarch, &home, &[]).exits(1);
    assert!(run.stderr.contains("/nonexistent"), "{run:?}");
}

#[test]
fn a_newer_major_version_with_small_segments_is_received_from() {
    let arguments = ["--wal-segsize=1"];
    let settings = format!("{SETTINGS}wal_keep_size = 64MB\n");
    let postgres = Postgres::start_major(Major::Newer, &arguments, |_| settings);
    let home = home_with_slot(&postgres, "newer");
    let receiving = streaming(&home);
    // Many segments in one go.
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', repeat('x', 20000000))");
    let last = postgres.fill_segment();
    wait_for_segments(&home, &[last]);
    receiving.end_by(Signal::SIGINT).exits(0);
    assert!(received(&home).len() >= 20);
    for segment in received(&home) {
        assert_received(&postgres, &home.streaming(), &segment);
    }
}
