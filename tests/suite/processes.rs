//! `list-processes` and `terminate-process`, beside Barman's.

use std::fs::{self, File};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::holder::Holder;
use crate::support::home::Home;
use crate::support::tool::{Barman, Run, Walarch};

#[track_caller]
fn both_print_the_same(home: &Home, arguments: &[&str]) -> Run {
    let barmans = Barman.run(home, arguments);
    let ours = Walarch.run(home, arguments);
    // Barman lists in whatever order the directory has.
    let sorted = |run: &Run| {
        let mut lines: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&ours), sorted(&barmans), "{arguments:?}");
    assert_eq!(ours.stderr, barmans.stderr, "{arguments:?}");
    assert_eq!(ours.code, barmans.code, "{arguments:?}");
    ours
}

#[test]
fn the_holders_of_locks_are_listed() {
    let home = Home::new();
    both_print_the_same(&home, &["list-processes", "main"]);
    both_print_the_same(&home, &["-f", "json", "list-processes", "main"]);
    let locks = [
        ".main-receive-wal.lock",
        ".main-backup.lock",
        ".main-20260102T030405-sync-backup.lock",
        ".main-cron.lock",
        ".main-archive-wal.lock",
        ".main-sync-wal.lock",
        // No task, though held.
        ".main-xlogdb.lock",
        ".main-20260102T030405.lock",
    ];
    let holders: Vec<Holder> = locks
        .iter()
        .map(|lock| Holder::start(&home, lock))
        .collect();
    let run = both_print_the_same(&home, &["list-processes", "main"]);
    assert_eq!(run.stdout.lines().count(), 7, "{}", run.stdout);
    let receiver = format!("{} receive-wal", holders[0].pid);
    assert_eq!(run.stdout.lines().nth(1), Some(&*receiver));
    let run = home.run(&["-f", "json", "list-process", "main"]).exits(0);
    let archiver = format!(r#"{{"name": "archive-wal", "pid": {}}}"#, holders[4].pid);
    assert!(run.stdout.contains(&archiver), "{}", run.stdout);
}

#[test]
fn a_task_is_ended_by_its_name() {
    for tool in [Barman, Walarch] {
        let home = Home::new();
        let (archiver, receiver) = (
            Holder::start(&home, ".main-archive-wal.lock"),
            Holder::start(&home, ".main-receive-wal.lock"),
        );
        let run = tool
            .run(&home, &["terminate-process", "main", "receive-wal"])
            .exits(0);
        let stopped = format!("Stopped process receive-wal({})\n", receiver.pid);
        assert_eq!(run.stdout, stopped, "{tool:?}");
        assert_eq!(receiver.ended_by(), Some(2), "{tool:?}");
        let run = tool.run(&home, &["list-processes", "main"]).exits(0);
        let rest = format!(
            "Active subprocesses for server main:\n{} archive-wal\n",
            archiver.pid
        );
        assert_eq!(run.stdout, rest, "{tool:?}");
    }
}

#[test]
fn what_does_not_run_cannot_be_ended() {
    let home = Home::new();
    for task in ["receive-wal", "nonsense"] {
        both_print_the_same(&home, &["terminate-process", "main", task]).exits(1);
    }
    both_print_the_same(&home, &["terminate-process", "other", "receive-wal"]).exits(1);
    both_print_the_same(&home, &["list-processes", "all"]).exits(1);
}

#[test]
fn a_process_that_does_not_end_is_an_error() {
    let home = Home::new();
    let holder = Holder::deaf(&home, ".main-receive-wal.lock");
    let run = home
        .run(&["terminate-process", "main", "receive-wal"])
        .exits(1);
    let error = format!(
        "ERROR: Cannot terminate process receive-wal({})\n",
        holder.pid
    );
    assert_eq!(run.stderr, error);
}

/// Barman tells servers apart by a pattern that also fits a longer name.
#[test]
fn the_tasks_of_a_server_with_a_longer_name_are_its_own() {
    let home = Home::with_servers(&[("main", &[]), ("main-2", &[])]);
    let _locks = [
        Holder::start(&home, ".main-2-receive-wal.lock"),
        Holder::start(&home, ".main-2-20260102T030405-sync-backup.lock"),
    ];
    let run = home.run(&["list-processes", "main"]).exits(0);
    assert_eq!(
        run.stdout,
        "No active subprocesses found for server main.\n"
    );
    home.run(&["terminate-process", "main", "receive-wal"])
        .exits(1);
    let run = home.run(&["list-processes", "main-2"]).exits(0);
    assert_eq!(run.stdout.lines().count(), 3, "{}", run.stdout);
}

/// Whoever only looks at a lock holds it for an instant, while the file names who held it last.
#[test]
fn who_held_a_lock_long_ago_is_not_ended_because_somebody_looks_at_it() {
    let home = Home::new();
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let lock = home.barman_home().join(".main-receive-wal.lock");
    fs::write(&lock, format!("{}\n", bystander.id())).unwrap();
    let looking = thread::spawn(move || {
        for _ in 0..300 {
            let file = File::open(&lock).unwrap();
            let _ = file.try_lock();
            thread::sleep(Duration::from_millis(1));
            drop(file);
            thread::sleep(Duration::from_millis(6));
        }
    });
    while !looking.is_finished() {
        home.run(&["terminate-process", "main", "receive-wal"]);
        assert!(
            bystander.try_wait().unwrap().is_none(),
            "ended the bystander"
        );
    }
    assert!(
        bystander.try_wait().unwrap().is_none(),
        "the bystander was ended"
    );
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}
