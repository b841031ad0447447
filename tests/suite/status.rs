//! What `status` shows of a server, beside what Barman shows of the same one.

use std::fs;

use serde_json::Value;

use crate::support::home::{Home, put};
use crate::support::monitored::{
    Streamer, base_backup, healthy_server, home_of, pretend_to_receive, say,
};
use crate::support::tool::{Barman, Walarch};

const FIRST: &str = "000000010000000000000001";

/// The lines that Barman has.
fn known_to_barman(lines: &[String], barmans: &[String]) -> Vec<String> {
    let name = |line: &str| line.split(':').next().unwrap().to_owned();
    let known: Vec<String> = barmans.iter().map(|line| name(line)).collect();
    let lines = lines.iter().filter(|line| known.contains(&name(line)));
    lines.cloned().collect()
}

/// Rates grow with every moment.
fn steady(lines: Vec<String>) -> Vec<String> {
    let lines = lines.into_iter();
    lines
        .filter(|line| !line.contains("archiving rate"))
        .collect()
}

#[track_caller]
fn value<'a>(lines: &'a [String], description: &str) -> &'a str {
    let found = lines
        .iter()
        .find_map(|line| line.trim().strip_prefix(description)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {description:?} in {lines:#?}"))
}

#[test]
fn everything_that_barman_shows_of_the_wal_side_is_shown_in_its_order() {
    let server = healthy_server();
    server.fill_segment();
    let streaming = [("archiver", "off"), ("streaming_archiver", "on")];
    for options in [&[][..], &streaming, &[("streaming_archiver", "on")]] {
        let home = home_of(&server, options);
        base_backup(&home, FIRST);
        let [barmans, walarchs] =
            [Barman, Walarch].map(|tool| say(tool, &home, true, &["status", "main"]));
        let theirs = steady(barmans.1);
        assert_eq!(steady(known_to_barman(&walarchs.1, &theirs)), theirs);
        assert_eq!([walarchs.0.code, barmans.0.code], [0, 0]);
    }
}

#[test]
fn a_server_that_is_down_inactive_or_passive_is_shown_as_by_barman() {
    for option in [
        ("active", "off"),
        ("primary_ssh_command", "ssh far"),
        ("description", "x"),
    ] {
        let home = Home::with(&[option]);
        let [barmans, walarchs] =
            [Barman, Walarch].map(|tool| say(tool, &home, false, &["status", "main"]));
        assert_eq!(known_to_barman(&walarchs.1, &barmans.1), barmans.1);
    }
}

#[test]
fn the_receiver_the_queues_and_the_errors_are_shown() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "shown");
    let home = home_of(
        &server,
        &[("streaming_archiver", "on"), ("slot_name", "shown")],
    );
    home.incoming_segments([3, 4]);
    put(&home.errors(), "a.20260101T000000Z.duplicate", b"");
    put(&home.errors(), "b.20260101T000000Z.invalid", b"");
    let lock = pretend_to_receive(&home);
    let show = || -> Vec<String> {
        let run = home.run(&["status", "main"]).exits(0);
        run.stdout.lines().map(str::to_owned).collect()
    };
    let lines = show();
    let pid = std::process::id();
    assert_eq!(value(&lines, "receive-wal"), format!("running (pid {pid})"));
    assert!(
        value(&lines, "WAL received up to").contains("streaming, async"),
        "{lines:#?}"
    );
    assert!(value(&lines, "Replication slot").starts_with("shown (active, restart_lsn 0/"));
    assert!(value(&lines, "Newest WAL in the archive").starts_with(FIRST));
    assert!(value(&lines, "WAL waiting in incoming").starts_with("2 files, "));
    assert_eq!(value(&lines, "WAL waiting in streaming"), "none");
    assert_eq!(
        value(&lines, "Files in the errors directory"),
        "duplicates: 1, invalid: 1"
    );
    assert!(value(&lines, "Gaps in the archive").starts_with("1 segment missing between"));

    drop(lock);
    let state = r#"{"last_exit": {"at": "2026-01-02T03:04:05Z", "failed": true,
        "reason": "gone"}, "consecutive_failures": 2, "holes": [{"at": "2026-01-02T03:04:05Z",
        "timeline": 1, "from": "0/3000000", "to": "0/5000000"}]}"#;
    let state_file = home.barman_home().join("main/.walarch-receive-wal.json");
    fs::write(&state_file, state).unwrap();
    let lines = show();
    assert_eq!(value(&lines, "receive-wal"), "not running");
    let exit = "at Fri Jan  2 03:04:05 2026: gone";
    assert_eq!(value(&lines, "Last exit of receive-wal"), exit);
    assert_eq!(value(&lines, "Failures of receive-wal in a row"), "2");
    assert_eq!(
        value(&lines, "Holes in what was received"),
        "the server had removed 0/3000000 to 0/5000000 on timeline 1"
    );

    // It runs again, and has got over that.
    let since = r#"{"streaming_since": "2026-01-02T03:04:09Z", "#;
    fs::write(&state_file, state.replacen('{', since, 1)).unwrap();
    let _lock = pretend_to_receive(&home);
    let failures = |line: &String| line.contains("Failures of receive-wal in a row");
    assert!(!show().iter().any(failures));
}

#[test]
fn json_has_barmans_keys_descriptions_and_messages() {
    let server = healthy_server();
    let home = home_of(&server, &[]);
    let [barmans, walarchs] = [Barman, Walarch].map(|tool| {
        let (run, _) = say(tool, &home, false, &["-f", "json", "status", "main"]);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    });
    let theirs = barmans["main"].as_object().unwrap();
    let ours = walarchs["main"].as_object().unwrap();
    let base_backups = [
        "backups_number",
        "current_size",
        "first_backup",
        "last_backup",
        "minimum_redundancy",
        "retention_policies",
        // It grows with every moment.
        "server_archived_wals_per_hour",
    ];
    for (key, value) in theirs {
        if !base_backups.contains(&key.as_str()) {
            assert_eq!(ours.get(key), Some(value), "{key}");
        }
    }
}
