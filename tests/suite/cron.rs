//! `cron`: what it starts, for whom, and what it leaves alone; beside Barman's.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::support::background::{running_in, settle};
use crate::support::compare::masked;
use crate::support::holder::Holder;
use crate::support::home::{Home, names};
use crate::support::tool::{Barman, Tool, Walarch, finish, in_home, start, wait_for};
use crate::support::wal::Segment;

const STREAMING: [(&str, &str); 2] = [("archiver", "off"), ("streaming_archiver", "on")];
const STATE: &str = ".walarch-receive-wal.json";

/// Runs cron by both tools in copies of the home. Returns exit code, stdout and stderr.
#[track_caller]
fn both_print_the_same(home: &Home) -> (i32, String, String) {
    let run = |tool: Tool| {
        let home = home.copy();
        let run = tool.run(&home, &["cron"]);
        settle(&home);
        let masked = |text: &str| masked(text, &home);
        (run.code, masked(&run.stdout), masked(&run.stderr))
    };
    let ours = run(Walarch);
    assert_eq!(ours, run(Barman));
    ours
}

#[test]
fn every_server_gets_what_is_due_with_barmans_words() {
    let home = Home::with_servers(&[
        ("both", &[("streaming_archiver", "on")]),
        ("files", &[]),
        ("inactive", &[("active", "false")]),
        ("neither", &[("archiver", "off")]),
        ("streaming", &STREAMING),
        ("unslotted", &STREAMING),
        (
            "walhost",
            &[("wal_streaming_conninfo", "host=/nonexistent user=wal")],
        ),
    ]);
    let config = fs::read_to_string(home.config_file()).unwrap();
    let (before, after) = config.split_once("[unslotted]").unwrap();
    let after = after.replacen("slot_name = barman\n", "", 1);
    home.write_config_text(&format!("{before}[unslotted]{after}"));
    let (code, stdout, _) = both_print_the_same(&home);
    assert_eq!(code, 0);
    for line in [
        "Skipping inactive server 'inactive'",
        "Skipping temporarily disabled server 'unslotted'",
        "Starting WAL archiving for server both",
        "Starting streaming archiver for server both",
        "Starting streaming archiver for server streaming",
    ] {
        assert!(
            stdout.lines().any(|printed| printed == line),
            "{line}: {}",
            stdout
        );
    }
}

#[test]
fn conflicts_between_servers_stop_it() {
    let home = Home::with_servers(&[
        ("main", &[]),
        (
            "other",
            &[("incoming_wals_directory", "{root}/home/main/incoming")],
        ),
    ]);
    assert_eq!(both_print_the_same(&home).0, 1);
}

#[test]
fn passive_servers_are_passed_over_with_a_word() {
    let home = Home::with(&[("primary_ssh_command", "ssh barman@primary.invalid")]);
    let run = home.run(&["cron"]).exits(0);
    assert_eq!(run.stdout, "Skipping passive server 'main'\n");
}

#[test]
fn what_waits_is_archived_by_a_process_of_its_own() {
    let home = Home::with(&[("pre_archive_script", "{root}/look")]);
    home.script(
        "look",
        "cd /proc/$(cut -d ' ' -f 4 /proc/$PPID/stat) && cat stat > {root}/stat && \
         cat cmdline > {root}/cmdline && ls -l fd > {root}/fd\n\
         while [ ! -e {root}/go ] && kill -0 $PPID; do sleep 0.02; done\n",
    );
    let wals = home.incoming_segments([1]);
    // As in `flock LOCK walarch cron`: a lock that would stay held as long as a receiver runs.
    let guard = home.root().join("guard");
    let script = format!(
        "exec 9>'{}' && flock -n 9 && exec \"$@\"",
        guard.to_str().unwrap()
    );
    let mut command = in_home(std::process::Command::new("sh"), &home);
    command
        .args(["-c", &script, "sh"])
        .arg(Walarch.program())
        .arg("-c")
        .arg(home.config_file());
    command
        .args(["--log-level", "DEBUG", "cron"])
        .process_group(0);
    // The pipes would be read to their end only when the children have ended, if they had them.
    let run = finish(start(&mut command), Duration::from_secs(30)).exits(0);
    assert_eq!(run.stdout, "Starting WAL archiving for server main\n");
    wait_for("the guard's lock", || {
        File::open(&guard).unwrap().try_lock().ok()
    });
    // A process on its way into another program shows the command line of its parent, or none.
    wait_for("the one archiver that goes on without cron", || {
        let running = running_in(&home);
        let archivers = running
            .iter()
            .filter(|(_, line)| line.contains("archive-wal"));
        (archivers.count() == 1).then_some(())
    });
    fs::write(home.root().join("go"), "").unwrap();
    settle(&home);
    for (name, bytes) in &wals {
        home.assert_archived(name, bytes);
    }

    let stat = fs::read_to_string(home.root().join("stat")).unwrap();
    let pid = stat.split(' ').next().unwrap();
    let after_name: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(after_name[3], pid, "it leads a session: {stat}");
    let command_line = fs::read_to_string(home.root().join("cmdline")).unwrap();
    let expected = format!(
        "\0-c\0{}\0-q\0--detached\0--log-level\0DEBUG\0archive-wal\0main\0",
        home.config_file().display()
    );
    assert!(command_line.ends_with(&expected), "{command_line:?}");
    let descriptors = fs::read_to_string(home.root().join("fd")).unwrap();
    for descriptor in ["0", "1", "2"] {
        let null = format!(" {descriptor} -> /dev/null");
        assert!(descriptors.contains(&null), "{descriptors}");
    }
    assert!(!descriptors.contains("guard"), "{descriptors}");
}

#[test]
fn children_may_keep_the_output() {
    let home = Home::new();
    put_unknown(&home);
    let mut command = Walarch.command(&home, &["cron", "--keep-descriptors"]);
    // A queue that cannot be read is printed in spite of -q.
    fs::remove_dir_all(home.wals()).unwrap();
    fs::write(home.wals(), "").unwrap();
    home.incoming_segments([1]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = finish(start(&mut command), Duration::from_secs(20)).exits(0);
    assert!(run.stderr.contains("ERROR"), "{}", run.stderr);
    settle(&home);
}

fn put_unknown(home: &Home) {
    fs::write(home.incoming().join("unknown"), "").unwrap();
}

#[test]
fn busy_locks_are_respected() {
    for lock in [
        ".main-cron.lock",
        ".main-archive-wal.lock",
        ".main-receive-wal.lock",
    ] {
        let runs = [Barman, Walarch].map(|tool| {
            let home = Home::with(&[("streaming_archiver", "on")]);
            let holder = Holder::start(&home, lock);
            let run = tool.run(&home, &["cron"]).exits(0);
            drop(holder);
            settle(&home);
            run.stdout
        });
        assert_eq!(runs[1], runs[0], "{lock}");
        assert_eq!(
            runs[1].lines().count(),
            if lock.contains("archive") { 2 } else { 1 }
        );
    }
}

#[test]
fn a_receiver_is_ended_when_streaming_is_turned_off() {
    let runs = [Barman, Walarch].map(|tool| {
        let home = Home::new();
        let receiver = Holder::start(&home, ".main-receive-wal.lock");
        let run = tool.run(&home, &["cron"]).exits(0);
        settle(&home);
        let stdout = run.stdout.replace(&receiver.pid.to_string(), "PID");
        assert_eq!(receiver.ended_by(), Some(2), "{tool:?}");
        stdout
    });
    assert_eq!(runs[1], runs[0]);
    assert!(
        runs[1].contains("Stopped process receive-wal(PID)"),
        "{}",
        runs[1]
    );
}

/// The state of a receiver that has failed twice and may be started again after so many seconds.
fn put_failures(home: &Home, retry_after_s: i64) -> Timestamp {
    let now = Timestamp::now();
    let retry_at = now + SignedDuration::from_secs(retry_after_s);
    let state = serde_json::json!({
        "last_exit": { "at": now, "reason": "slot is gone\nHINT: create it", "failed": true },
        "consecutive_failures": 2,
        "retry_at": retry_at,
    });
    fs::write(home.dir(STATE), state.to_string()).unwrap();
    retry_at
}

#[test]
fn a_receiver_that_fails_again_and_again_is_waited_with() {
    let home = Home::with(&STREAMING);
    let retry_at = put_failures(&home, 100);
    let run = home.run(&["cron"]).exits(0);
    let line = format!(
        "Not starting streaming archiver for server main before {}: it failed 2 times in a row: \
         slot is gone\n",
        retry_at.strftime("%H:%M:%S")
    );
    assert!(run.stdout.ends_with(&line), "{}", run.stdout);
    assert!(home.log().contains(&line), "{}", home.log());

    let started = "Starting streaming archiver for server main\n";
    put_failures(&home, -1);
    let run = home.run(&["cron"]).exits(0);
    assert!(run.stdout.ends_with(started), "{}", run.stdout);
    settle(&home);
    fs::write(home.dir(STATE), "{").unwrap();
    let run = home.run(&["cron"]).exits(0);
    assert!(
        run.stdout.ends_with(started),
        "a state that cannot be read is no reason to wait"
    );
    settle(&home);
}

#[test]
fn lock_files_that_nobody_holds_are_removed() {
    for tool in [Barman, Walarch] {
        let home = Home::new();
        let idle = [".main-receive-wal.lock", ".gone-backup.lock", ".cron.lock"];
        let other = ["main.lock", ".main-cron.lockfile"];
        for name in idle.iter().chain(&other) {
            fs::write(home.barman_home().join(name), "1\n").unwrap();
        }
        let held = home.hold_lock(".main-backup.lock");
        tool.run(&home, &["cron"]).exits(0);
        let left = names(&home.barman_home());
        for name in idle {
            assert!(!left.contains(&name.to_owned()), "{tool:?}: {name}");
        }
        for name in other.iter().chain(&[".main-backup.lock"]) {
            assert!(left.contains(&(*name).to_owned()), "{tool:?}: {name}");
        }
        drop(held);
        settle(&home);
    }
}

/// Barman waits for these. It would go on waiting for a removed file, beside who holds the new one.
#[test]
fn lock_files_that_somebody_may_be_waiting_for_stay() {
    let home = Home::new();
    for name in [".main-xlogdb.lock", ".main-sync-wal.lock"] {
        fs::write(home.barman_home().join(name), "1\n").unwrap();
        home.run(&["cron"]).exits(0);
        assert!(home.barman_home().join(name).exists(), "{name}");
    }
    settle(&home);
}

#[test]
fn lock_files_stay_if_the_configuration_says_so() {
    let home = Home::new();
    let config = fs::read_to_string(home.config_file()).unwrap();
    let off = config.replacen(
        "[barman]\n",
        "[barman]\nlock_directory_cleanup = false\n",
        1,
    );
    home.write_config_text(&off);
    let idle = home.barman_home().join(".gone-backup.lock");
    fs::write(&idle, "1\n").unwrap();
    home.run(&["cron"]).exits(0);
    assert!(idle.exists());
    settle(&home);
}

#[test]
fn a_server_whose_lock_cannot_be_taken_does_not_stop_the_others() {
    let home = Home::with_servers(&[("broken", &[]), ("main", &[])]);
    fs::create_dir(home.barman_home().join(".broken-cron.lock")).unwrap();
    let run = home.run(&["cron"]).exits(1);
    assert!(run.stderr.contains(".broken-cron.lock"), "{}", run.stderr);
    assert_eq!(run.stdout, "Starting WAL archiving for server main\n");
    settle(&home);
}

#[test]
fn many_crons_and_archivers_at_once_archive_everything_once() {
    let home = Home::new();
    let wals = home.incoming_segments(1..40);
    thread::scope(|scope| {
        for runner in 0..6 {
            let home = &home;
            scope.spawn(move || {
                for _ in 0..5 {
                    let command = if runner == 0 {
                        &["archive-wal", "main"][..]
                    } else {
                        &["cron"]
                    };
                    home.run(command).exits(0);
                }
            });
        }
    });
    settle(&home);
    home.archive().exits(0);
    for (name, bytes) in &wals {
        home.assert_archived(name, bytes);
    }
    assert_eq!(home.listed(), wals.into_keys().collect::<Vec<_>>());
    assert_eq!(names(&home.errors()), [""; 0]);
}

#[test]
fn it_works_in_the_working_directory_of_its_caller() {
    let home = Home::new();
    let segment = Segment::small(1);
    home.incoming_segments([1]);
    let mut command = in_home(std::process::Command::new(Walarch.program()), &home);
    command.args(["-c", "barman.conf", "cron"]);
    finish(start(&mut command), Duration::from_secs(30)).exits(0);
    wait_for("the segment", || {
        home.archived(&segment.name()).exists().then_some(())
    });
    settle(&home);
}
