//! What `check` says of a server, beside what Barman says of the same one at the same time.

mod changes_nothing;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::home::{Home, put};
use crate::support::monitored::{
    Streamer, ago, archive_segment, base_backup, both_say, healthy_server, home_of,
    pretend_to_receive, say,
};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Barman, Run, Walarch, finish, start, wait_for};
use crate::support::trace::{CHANGING, Call, traced};

const CHECK: [&str; 2] = ["check", "main"];
const FIRST: &str = "000000010000000000000001";
const STREAMING_ONLY: [(&str, &str); 2] = [("archiver", "off"), ("streaming_archiver", "on")];

/// The verdict and the hint of one check.
#[track_caller]
fn verdict<'a>(lines: &'a [String], name: &str) -> &'a str {
    let found = lines
        .iter()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no check {name:?} in {lines:#?}"))
}

fn failed(lines: &[String]) -> Vec<&str> {
    let failed = lines.iter().filter(|line| line.contains(": FAILED"));
    failed.map(|line| line.trim()).collect()
}

fn walarchs(home: &Home, receiving: bool) -> (Run, Vec<String>) {
    say(Walarch, home, receiving, &CHECK)
}

fn streaming_home(server: &Postgres, slot: &str, options: &[(&str, &str)]) -> Home {
    let mut all = STREAMING_ONLY.to_vec();
    all.push(("slot_name", slot));
    all.extend(options);
    let home = home_of(server, &all);
    base_backup(&home, FIRST);
    home
}

fn archiving_home(server: &Postgres, options: &[(&str, &str)]) -> Home {
    let home = home_of(server, options);
    base_backup(&home, FIRST);
    home
}

#[test]
fn a_healthy_server_passes_as_with_barman_however_its_wal_arrives() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "healthy");
    for (archiver, streaming_archiver) in [("on", "off"), ("off", "on"), ("on", "on")] {
        let home = archiving_home(
            &server,
            &[
                ("archiver", archiver),
                ("streaming_archiver", streaming_archiver),
                (
                    "slot_name",
                    if streaming_archiver == "on" {
                        "healthy"
                    } else {
                        "unused"
                    },
                ),
            ],
        );
        let lines = both_say(&home, true, &CHECK);
        assert_eq!(failed(&lines), [""; 0]);
        let nagios = say(Walarch, &home, true, &["check", "main", "--nagios"]);
        assert!(nagios.0.stdout.starts_with(
            "BARMAN OK - Ready to serve the Espresso backup for main|main_wals=0B main_lag="
        ));
        assert_eq!(nagios.0.code, 0);
    }
}

#[test]
fn a_newer_version_is_checked_as_by_barman() {
    let server = Postgres::start_major(Major::Newer, &[], |_| {
        "archive_mode = on\narchive_command = '/bin/true'\n".to_owned()
    });
    let _streamer = Streamer::start(&server, "newer");
    let path_prefix = Major::Newer.bin();
    let newer = [
        ("streaming_archiver", "on"),
        ("path_prefix", path_prefix.to_str().unwrap()),
    ];
    let home = streaming_home(&server, "newer", &newer);
    assert_eq!(failed(&both_say(&home, true, &CHECK)), [""; 0]);
    // The older program cannot receive from it.
    let home = streaming_home(&server, "newer", &[("archiver", "off")]);
    let lines = both_say(&home, true, &CHECK);
    assert!(verdict(&lines, "pg_receivexlog compatible").starts_with("FAILED (PostgreSQL version"));
}

#[test]
fn a_slot_that_is_absent_unused_or_superfluous_is_judged_as_by_barman() {
    let server = healthy_server();
    server.ask("SELECT pg_create_physical_replication_slot('fresh')");
    server.ask("SELECT pg_create_physical_replication_slot('idle', true)");
    for (slot, says) in [
        (
            "absent",
            "Please execute 'barman receive-wal --create-slot main')",
        ),
        (
            "fresh",
            "FAILED (slot 'fresh' not initialised: is 'receive-wal' running?)",
        ),
        (
            "idle",
            "FAILED (slot 'idle' not active: is 'receive-wal' running?)",
        ),
    ] {
        let lines = both_say(&streaming_home(&server, slot, &[]), true, &CHECK);
        assert!(
            verdict(&lines, "replication slot").ends_with(says),
            "{lines:?}"
        );
    }
    let home = archiving_home(&server, &[("slot_name", "idle")]);
    let lines = both_say(&home, false, &CHECK);
    assert!(verdict(&lines, "replication slot").starts_with("OK (WARNING: slot 'idle'"));
}

#[test]
fn a_receiver_that_does_not_run_is_a_failure() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "no_receiver");
    let home = streaming_home(&server, "no_receiver", &[]);
    let lines = both_say(&home, false, &CHECK);
    assert_eq!(
        failed(&lines),
        ["receive-wal running: FAILED (See the Barman log file for more details)"]
    );
}

#[test]
fn the_end_of_the_last_receiver_is_part_of_the_hint() {
    let server = healthy_server();
    let home = streaming_home(&server, "ended", &[]);
    let state = r#"{"last_exit": {"at": "2026-01-02T03:04:05Z", "failed": true,
        "reason": "the slot is gone\nHINT: create it"}, "consecutive_failures": 3}"#;
    let directory = home.barman_home().join("main");
    fs::write(directory.join(".walarch-receive-wal.json"), state).unwrap();
    let (_, lines) = walarchs(&home, false);
    assert_eq!(
        verdict(&lines, "receive-wal running"),
        "FAILED (See the Barman log file for more details; at Fri Jan  2 03:04:05 2026: \
         the slot is gone; HINT: create it)"
    );
}

#[test]
fn an_archive_command_that_fails_and_privileges_that_lack_are_failures() {
    let server =
        Postgres::start(|_| "archive_mode = on\narchive_command = '/bin/true'\n".to_owned());
    server.sql("CREATE ROLE plain LOGIN");
    archive_until(&server, "archived_count > 0");
    server.configure("archive_mode = on\narchive_command = '/bin/false'\n");
    server.sql("SELECT pg_reload_conf()");
    archive_until(&server, "last_failed_time > last_archived_time");
    let plain = server.conninfo().replace("user=postgres", "user=plain");
    let home = archiving_home(
        &server,
        &[
            ("conninfo", plain.as_str()),
            ("streaming_conninfo", plain.as_str()),
            ("streaming_archiver", "on"),
        ],
    );
    let lines = both_say(&home, true, &CHECK);
    assert_eq!(verdict(&lines, "continuous archiving"), "FAILED");
    assert!(verdict(&lines, "no access to backup functions").starts_with("FAILED"));
    assert!(verdict(&lines, "PostgreSQL streaming").starts_with("FAILED (connection to server"));
    assert!(verdict(&lines, "pg_receivexlog compatible").contains("PostgreSQL version: None"));
}

#[test]
fn an_archive_command_that_never_succeeded_is_a_failure_although_barman_is_silent() {
    let server =
        Postgres::start(|_| "archive_mode = on\narchive_command = '/bin/false'\n".to_owned());
    archive_until(&server, "failed_count > 0");
    let home = archiving_home(&server, &[]);
    let (_, theirs) = say(Barman, &home, false, &CHECK);
    assert_eq!(failed(&theirs), [""; 0]);
    let (_, ours) = walarchs(&home, false);
    assert_eq!(failed(&ours), ["continuous archiving: FAILED"]);
}

/// Completes a segment and waits until this is so in `pg_stat_archiver`.
fn archive_until(server: &Postgres, condition: &str) {
    server.fill_segment();
    wait_for(condition, || {
        let sql = format!("SELECT {condition} FROM pg_stat_archiver");
        (server.ask(&sql) == "t").then_some(())
    });
}

#[test]
fn a_server_that_does_not_archive_is_a_failure() {
    let server = Postgres::start(|_| {
        "wal_level = minimal\nmax_wal_senders = 0\narchive_mode = off\n".to_owned()
    });
    let lines = both_say(&archiving_home(&server, &[]), false, &CHECK);
    let hint = "FAILED (please set it to a higher level than 'minimal')";
    assert_eq!(verdict(&lines, "wal_level"), hint);
    assert_eq!(
        verdict(&lines, "archive_mode"),
        "FAILED (please set it to 'on' or 'always')"
    );
    assert!(verdict(&lines, "archive_command").starts_with("FAILED"));
    assert!(verdict(&lines, "PostgreSQL streaming").contains("max_wal_senders"));
}

#[test]
fn what_is_wrong_with_the_home_is_judged_as_by_barman() {
    let server = healthy_server();
    let home = archiving_home(
        &server,
        &[
            ("max_incoming_wals_queue", "1"),
            ("last_wal_maximum_age", "1 days"),
            ("compression", "gzip"),
        ],
    );
    home.incoming_segments([2, 3]);
    home.streaming_segments([2, 3]);
    put(&home.incoming(), "waits.tmp", b"");
    for name in [
        "a.20260101T000000Z.duplicate",
        "b.20260101T000000Z.duplicate",
    ] {
        put(&home.errors(), name, b"");
    }
    let identity = r#"{"systemid": "1", "version": "15"}"#;
    fs::write(home.barman_home().join("main/identity.json"), identity).unwrap();
    rewrite_xlogdb(&home, ago(3));
    let lines = both_say(&home, false, &CHECK);
    assert_eq!(failed(&lines).len(), 5, "{lines:#?}");
    assert!(verdict(&lines, "empty streaming directory").ends_with("when streaming_archiver=off)"));
    assert_eq!(
        verdict(&lines, "incoming WALs directory"),
        "FAILED (there are too many WALs in queue: 2, max 1)"
    );
    assert_eq!(
        verdict(&lines, "wal maximum age"),
        "FAILED (interval provided: 1 day, latest wal age: 3 days"
    );
    assert_eq!(verdict(&lines, "archiver errors"), "FAILED (duplicates: 2)");
    assert!(verdict(&lines, "systemid coherence").contains("identity.json"));
}

/// Lets the archived segment be written at this time.
fn rewrite_xlogdb(home: &Home, written: SystemTime) {
    let seconds = written.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let line = format!("{FIRST}\t16777216\t{}.0\tNone\tNone\n", seconds.as_secs());
    fs::write(home.xlogdb_file(), line).unwrap();
}

#[test]
fn json_has_barmans_keys_and_values_and_facts_besides() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "json");
    let home = streaming_home(&server, "json", &[]);
    put(&home.errors(), "c.20260101T000000Z.unknown", b"");
    let arguments = ["-f", "json", "check", "main"];
    let [barmans, walarchs] = [Barman, Walarch].map(|tool| {
        let (run, _) = say(tool, &home, true, &arguments);
        assert_eq!(run.code, 1);
        serde_json::from_str::<Value>(&run.stdout).unwrap()
    });
    let walarchs = walarchs["main"].as_object().unwrap();
    for (key, ours) in walarchs {
        if let Some(theirs) = barmans["main"].get(key) {
            assert_eq!(ours["status"], theirs["status"], "{key}");
            assert_eq!(ours["hint"], theirs["hint"], "{key}");
        } else {
            assert!(key.starts_with("wal_archive_"), "{key}");
            assert_eq!(ours["status"], "OK", "{key}");
        }
    }
    assert_eq!(walarchs["archiver_errors"]["hint"], "unknown: 1");
    assert_eq!(walarchs["replication_slot"]["wal_status"], "reserved");
    assert!(walarchs["wal_archive_lag"]["size_bytes"].is_u64());
    assert_eq!(walarchs["wal_archive_gaps"]["gaps"], Value::Array(vec![]));
}

#[test]
fn nagios_gets_barmans_lines_and_exit_code() {
    let server = healthy_server();
    let home = streaming_home(&server, "nagios", &[]);
    for (arguments, first) in [
        (
            &["check", "main", "--nagios"][..],
            "BARMAN CRITICAL - server main has issues * main FAILED: replication slot, \
             receive-wal running",
        ),
        (
            &["check", "nobody", "--nagios"],
            "BARMAN CRITICAL - Global configuration errors",
        ),
    ] {
        let [(barman, _), (walarch, _)] =
            [Barman, Walarch].map(|tool| say(tool, &home, false, arguments));
        let without_performance = |run: &Run| -> Vec<String> {
            let lines = run.stdout.lines();
            lines
                .map(|line| line.split('|').next().unwrap().to_owned())
                .collect()
        };
        assert_eq!(without_performance(&walarch), without_performance(&barman));
        assert_eq!(without_performance(&walarch)[0], first);
        assert_eq!([walarch.code, barman.code], [2, 2]);
        assert_eq!(walarch.stderr, "");
    }
}

#[test]
fn several_servers_are_checked_as_by_barman_inactive_and_disabled_ones_too() {
    let server = healthy_server();
    let conninfo = server.conninfo();
    let connected = [("conninfo", conninfo.as_str()), ("backup_method", "rsync")];
    let inactive = [&connected[..], &[("active", "off")]].concat();
    let passive = [&connected[..], &[("primary_ssh_command", "false")]].concat();
    // Nobody can stream without a slot.
    let mut disabled = [&connected[..], &STREAMING_ONLY].concat();
    disabled.push(("slot_name", ""));
    let home = Home::with_servers(&[
        ("main", &connected),
        ("off", &inactive),
        ("passive", &passive),
        ("wrong", &disabled),
    ])
    .walarch_toml("[walarch]\nreceiver = \"pg_receivewal\"\n");
    for server in ["main", "off", "passive", "wrong"] {
        let wals = home.barman_home().join(server).join("wals");
        let line = format!("{FIRST}\t0\t1.0\tNone\tNone\n");
        fs::write(wals.join(format!("{server}-xlog.db")), line).unwrap();
    }
    // Without a base backup the two count different WAL.
    let but_size = |lines: Vec<String>| -> Vec<String> {
        let lines = lines.into_iter();
        lines.filter(|line| !line.contains("wal size")).collect()
    };
    for arguments in [&["check", "all"][..], &["check", "off", "main", "nobody"]] {
        let [barmans, walarchs] = [Barman, Walarch].map(|tool| say(tool, &home, false, arguments));
        let ours: Vec<String> = but_size(walarchs.1)
            .into_iter()
            // Barman tells of an absent slot where it could not look.
            .filter(|line| !line.contains("replication slot"))
            .collect();
        let theirs: Vec<String> = but_size(barmans.1)
            .into_iter()
            .filter(|line| !line.contains("replication slot"))
            .collect();
        assert_eq!(ours, theirs);
        assert_eq!(walarchs.0.code, barmans.0.code);
    }
}

#[test]
fn a_server_that_is_down_is_said_to_be_so_and_nothing_is_said_of_its_slot() {
    let home = Home::with(&[
        ("streaming_archiver", "on"),
        ("backup_method", "postgres"),
        ("path_prefix", Major::Debian.bin().to_str().unwrap()),
    ]);
    archive_segment(&home, 1, SystemTime::now());
    base_backup(&home, FIRST);
    let (barman, theirs) = say(Barman, &home, true, &CHECK);
    let (walarch, ours) = walarchs(&home, true);
    let names = |lines: &[String]| -> Vec<String> {
        let verdicts = lines
            .iter()
            .map(|line| line.split(" (").next().unwrap().to_owned());
        verdicts.collect()
    };
    assert_eq!(names(&ours), names(&theirs));
    assert_eq!([walarch.code, barman.code], [1, 1]);
    assert!(
        verdict(&ours, "PostgreSQL").contains("/nonexistent"),
        "{ours:#?}"
    );
    assert_eq!(
        verdict(&ours, "replication slot"),
        "FAILED (PostgreSQL cannot be asked)"
    );
}

#[test]
fn wal_conninfo_is_checked_as_by_barman() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "wal_conninfo");
    let conninfo = format!("{} connect_timeout=5", server.conninfo());
    let good = [
        ("wal_conninfo", conninfo.as_str()),
        ("wal_streaming_conninfo", conninfo.as_str()),
    ];
    let lines = both_say(
        &streaming_home(&server, "wal_conninfo", &good),
        true,
        &CHECK,
    );
    assert_eq!(failed(&lines), [""; 0]);
    assert_eq!(verdict(&lines, "replication slot (WAL streaming)"), "OK");
    assert_eq!(
        verdict(&lines, "has monitoring privileges (WAL streaming)"),
        "OK"
    );
}

#[test]
fn a_standby_and_its_primary_are_checked_as_by_barman() {
    let primary = Postgres::start(|_| String::new());
    let standby = primary.standby("");
    let (of_primary, of_standby) = (primary.conninfo(), standby.conninfo());
    let stranger = healthy_server();
    let of_stranger = stranger.conninfo();
    for (conninfo, primary_conninfo, failures) in [
        (&of_standby, &of_primary, 0),
        (&of_standby, &of_stranger, 1),
        (&of_standby, &of_standby, 1),
        (&of_primary, &of_standby, 1),
    ] {
        let home = archiving_home(
            &primary,
            &[
                ("conninfo", conninfo),
                ("primary_conninfo", primary_conninfo),
            ],
        );
        let lines = both_say(&home, false, &CHECK);
        let standby_lines = ["standby", "system ID"];
        let failed = failed(&lines).into_iter();
        let failed = failed.filter(|line| standby_lines.iter().any(|word| line.contains(word)));
        assert_eq!(failed.count(), failures, "{lines:#?}");
    }
}

#[test]
fn missing_segments_are_a_failure_where_the_last_base_backup_needs_them() {
    let server = healthy_server();
    let home = home_of(&server, &[]);
    let line = |number: u64| {
        format!(
            "{:024X}\t1\t1.0\tNone\tNone\n",
            (1_u128 << 64) + u128::from(number)
        )
    };
    let xlogdb = |numbers: &[u64]| {
        let text: String = numbers.iter().map(|&number| line(number)).collect();
        fs::write(home.xlogdb_file(), text).unwrap();
    };
    xlogdb(&[1, 2, 5, 9]);
    let (run, lines) = walarchs(&home, false);
    assert_eq!(run.code, 1);
    assert_eq!(
        failed(&lines),
        [
            "WAL archive gaps: FAILED (2 segments missing between 000000010000000000000002 and \
             000000010000000000000005, 3 segments missing between 000000010000000000000005 and \
             000000010000000000000009. No recovery gets past that: please take a new base backup)"
        ]
    );
    // What waits is not missing.
    home.incoming_segments([6, 7, 8]);
    // A backup that began behind the gap does not need what is missing.
    base_backup(&home, "000000010000000000000005");
    let (run, lines) = walarchs(&home, false);
    assert_eq!(run.code, 0, "{lines:#?}");
    assert_eq!(
        verdict(&lines, "WAL archive gaps"),
        "OK (WARNING: 2 segments missing between 000000010000000000000002 and \
         000000010000000000000005, before the last base backup)"
    );
}

#[test]
fn the_lag_is_shown_as_soon_as_a_complete_segment_is_missing() {
    let server = Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |_| String::new());
    let home = home_of(&server, &[]);
    for _ in 0..3 {
        server.fill_segment();
    }
    let current = server.ask("SELECT pg_walfile_name(pg_current_wal_lsn() - 1)");
    let number = u64::from_str_radix(&current[8..], 16).unwrap();
    let archived = |behind: u64| {
        let name = format!("00000001{:016X}", number - behind);
        let line = format!("{name}\t1048576\t1.0\tNone\tNone\n");
        fs::write(home.xlogdb_file(), line).unwrap();
    };
    archived(3);
    let (_, lines) = walarchs(&home, false);
    let lag = verdict(&lines, "WAL archive lag");
    assert!(
        lag.starts_with("OK (") && lag.contains("MiB behind the server"),
        "{lag}"
    );
    archived(0);
    let (_, lines) = walarchs(&home, false);
    assert!(!lines.iter().any(|line| line.contains("lag")), "{lines:#?}");
}

#[test]
fn a_slot_that_loses_wal_is_a_failure_and_one_that_piles_it_up_a_warning() {
    let server = Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |_| {
        "min_wal_size = 2MB\nmax_wal_size = 2MB\nmax_slot_wal_keep_size = 20MB\n\
         checkpoint_timeout = 1h\n"
            .to_owned()
    });
    server.ask("SELECT pg_create_physical_replication_slot('slow', true)");
    let fill = |segments: usize| {
        for _ in 0..segments {
            server.fill_segment();
        }
        server.sql("CHECKPOINT");
    };
    fill(10);
    let home = streaming_home(&server, "slow", &[]);
    let (_, lines) = walarchs(&home, true);
    // It is not active either, which is the worse news.
    assert!(
        verdict(&lines, "replication slot").contains("not active"),
        "{lines:#?}"
    );
    let streamer_less = ["-f", "json", "check", "main"];
    let json = |home: &Home| -> Value {
        let (run, _) = say(Walarch, home, true, &streamer_less);
        serde_json::from_str(&run.stdout).unwrap()
    };
    let slot = json(&home)["main"]["replication_slot"].clone();
    assert_eq!(slot["wal_status"], "extended");
    assert!(
        slot["safe_wal_size_bytes"]
            .as_i64()
            .is_some_and(|size| size > 0),
        "{slot}"
    );
    fill(30);
    let slot = json(&home)["main"]["replication_slot"].clone();
    assert_eq!(slot["wal_status"], "lost");
    assert_eq!(slot["status"], "FAILED");
    assert!(
        slot["hint"]
            .as_str()
            .unwrap()
            .starts_with("slot 'slow' is lost"),
        "{slot}"
    );
}

#[test]
fn the_built_in_receiver_needs_no_pg_receivewal() {
    let server = healthy_server();
    let _streamer = Streamer::start(&server, "built_in");
    let check = |receiver: &str| {
        let home = streaming_home(&server, "built_in", &[("path_prefix", "/nonexistent")])
            .walarch_toml(&format!("[walarch]\nreceiver = \"{receiver}\"\n"));
        let _lock = pretend_to_receive(&home);
        let mut command = Walarch.command(&home, &CHECK);
        let run = finish(start(command.env("PATH", "")), Duration::from_secs(60));
        let lines: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        failed(&lines).len()
    };
    assert_eq!(check("pg_receivewal"), 2, "not installed, not compatible");
    assert_eq!(check("builtin"), 0);
    // Without an answer from the server nobody can tell.
    let home = Home::with(&[
        ("conninfo", "host=/nonexistent"),
        ("streaming_conninfo", "host=/nonexistent"),
        ("streaming_archiver", "on"),
        ("slot_name", "built_in"),
    ]);
    let home = home.walarch_toml("[walarch]\nreceiver = \"builtin\"\n");
    let run = home.run(&CHECK);
    let detail = "(PostgreSQL version: None, pg_receivexlog version: built-in)";
    assert!(run.stdout.contains(detail), "{run:?}");
}
