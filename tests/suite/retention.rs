//! `delete-wals`: what goes, what stays whatever is asked for, hooks, locks, and what if it is killed?

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::compare::{HOOK_LOGGER, hook_log};
use crate::support::decode::decode;
use crate::support::faults::is_full_sweep;
use crate::support::home::{Home, mode, names, put, put_at, tree};
use crate::support::order::is_wal_name;
use crate::support::tool::{Barman, Run, Walarch, finish, start, wait_for};
use crate::support::trace::{QUICK, record, traced};
use crate::support::wal::{self, Segment};

const LIMIT: Duration = Duration::from_secs(60);

fn name(number: u64) -> String {
    Segment::small(number).name()
}

/// Segments 1 to 9 of timeline 1, which were written a day after each other; the label of a backup in
/// 2; a promotion in 8, after which timeline 2 has 8 to 10.
fn home_with_an_archive(options: &[(&str, &str)]) -> Home {
    let home = Home::with(options);
    let day = |day: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000 + day * 86_400);
    let send = |segment: &Segment, suffix: &str| {
        let name = format!("{}{suffix}", segment.name());
        put_at(
            &home.incoming(),
            &name,
            &segment.bytes(),
            day(segment.number),
            0o640,
        );
    };
    (1..8).for_each(|number| send(&Segment::small(number), ""));
    send(&Segment::small(8), ".partial");
    (8..=10).for_each(|number| send(&Segment::small(number).timeline(2), ""));
    for (name, bytes) in [wal::history(2), wal::backup_label(&Segment::small(2))] {
        put_at(&home.incoming(), &name, &bytes, day(2), 0o640);
    }
    home.archive().exits(0);
    home
}

/// Writes the `backup.info` of a backup, as Barman 3.19 keeps it.
fn backup(home: &Home, id: &str, begin_wal: &str, status: &str) {
    let text = format!("backup_label=None\nbegin_wal={begin_wal}\nstatus={status}\n");
    fs::write(home.dir("meta").join(format!("{id}-backup.info")), text).unwrap();
}

fn delete(home: &Home, arguments: &[&str]) -> Run {
    home.run(&[&["delete-wals", "main"], arguments].concat())
}

/// Catalogue and archive hold the same files, and these.
#[track_caller]
fn assert_holds(home: &Home, expected: &[String]) {
    let mut listed = home.listed();
    listed.sort();
    let mut stored: Vec<String> = tree(&home.wals())
        .iter()
        .filter(|path| home.wals().join(path).is_file())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .filter(|name| is_wal_name(name))
        .collect();
    stored.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(listed, expected, "xlogdb");
    assert_eq!(stored, expected, "archive");
}

/// What is left of the archive above without the segments of timeline 1 before `first`.
fn rest(first: u64) -> Vec<String> {
    let mut names: Vec<String> = (first..8).map(name).collect();
    if first <= 2 {
        names.push(wal::backup_label(&Segment::small(2)).0);
    }
    if first <= 8 {
        names.push(format!("{}.partial", name(8)));
    }
    names.push("00000002.history".to_owned());
    names.extend((8..=10).map(|number| Segment::small(number).timeline(2).name()));
    names
}

#[test]
fn what_comes_before_a_segment_goes() {
    let home = home_with_an_archive(&[("compression", "zstd")]);
    let run = delete(&home, &["--before", &name(4)]).exits(0);
    assert_holds(&home, &rest(4));
    for gone in [name(1), name(3)] {
        assert!(
            run.stdout.contains(&format!("\t{gone}\n")),
            "{}",
            run.stdout
        );
    }
    assert!(run.stdout.contains("4 WAL files"), "{}", run.stdout);
    assert!(run.stdout.contains(&name(4)), "{}", run.stdout);
    assert!(home.log().contains(&format!("Deleted main/{}", name(1))));
    // Again, there is nothing left to do.
    let run = delete(&home, &["--before", &name(4)]).exits(0);
    assert!(run.stdout.contains("0 WAL files"), "{}", run.stdout);
    assert_holds(&home, &rest(4));
}

#[test]
fn barman_works_in_the_home_afterwards() {
    let home = home_with_an_archive(&[("compression", "gzip")]);
    delete(&home, &["--before", &name(4)]).exits(0);
    let target = home.root().join("fetched");
    fs::create_dir(&target).unwrap();
    let get = |name: &str| {
        Barman.run(
            &home,
            &["get-wal", "-o", target.to_str().unwrap(), "main", name],
        )
    };
    get(&name(4)).exits(0);
    assert_eq!(
        fs::read(target.join(name(4))).unwrap(),
        Segment::small(4).bytes()
    );
    assert_ne!(get(&name(3)).code, 0);
    let mut before = home.xlogdb();
    Barman.run(&home, &["rebuild-xlogdb", "main"]).exits(0);
    let mut rebuilt = home.xlogdb();
    before.retain(|line| !line.name.ends_with(".partial")); // Barman forgets these
    before.sort();
    rebuilt.sort();
    assert_eq!(rebuilt, before);
    home.incoming_segments([20]);
    Barman.run(&home, &["archive-wal", "main"]).exits(0);
    assert!(home.listed().contains(&name(20)));
}

#[test]
fn a_dry_run_changes_nothing() {
    let home = home_with_an_archive(&[]);
    let state = || {
        let paths = tree(&home.barman_home());
        let text = fs::read(home.xlogdb_file()).unwrap();
        (paths, text)
    };
    let before = state();
    let run = delete(&home, &["--before", &name(4), "--dry-run"]).exits(0);
    assert_eq!(state(), before);
    assert!(run.stdout.contains("would be deleted"), "{}", run.stdout);
    assert!(
        run.stdout.contains(&format!("\t{}\n", name(3))),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("4 WAL files"), "{}", run.stdout);
}

#[test]
fn age_and_size_count_from_the_newest_on() {
    let archive = home_with_an_archive(&[]);
    let age_days = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000))
        .unwrap()
        .as_secs()
        / 86_400;
    // Segment n is n days after the first; the 4 is just old enough.
    let home = archive.copy();
    delete(&home, &["--older-than", &format!("{} DAYS", age_days - 4)]).exits(0);
    assert_holds(&home, &rest(5));
    let home = archive.copy();
    delete(&home, &["--keep-size", "5 MiB"]).exits(0);
    // 10, 9, then two files in the place of 8, and the 7 does not matter for its label.
    assert_holds(&home, &rest(7));
    let home = archive.copy();
    let run = delete(&home, &["--keep-size", "5 MiB", "-h"]);
    assert_eq!(run.code, 0);
    for arguments in [
        &["--keep-size", "5 apples"][..],
        &["--older-than", "5"],
        &["--before", "00000001", "--keep-size", "1 GB"],
        &[],
    ] {
        assert_eq!(delete(&home, arguments).code, 2, "{arguments:?}");
    }
    let run = delete(&home, &["--before", "00000002.history"]).exits(2);
    assert!(run.stderr.contains("is not the name of a WAL segment"));
    assert_holds(&home, &rest(1));
}

#[test]
fn the_newest_segment_and_the_history_that_leads_to_it_stay() {
    let home = home_with_an_archive(&[]);
    delete(&home, &["--keep-size", "0"]).exits(0);
    let newest = Segment::small(10).timeline(2).name();
    assert_holds(&home, &["00000002.history".to_owned(), newest]);
}

#[test]
fn no_wal_goes_that_a_base_backup_needs() {
    let archive = home_with_an_archive(&[]);
    for status in ["DONE", "WAITING_FOR_WALS", "STARTED", "SYNCING"] {
        let home = archive.copy();
        backup(&home, "20260201T000000", &name(7), "DONE");
        backup(&home, "20260101T000000", &name(3), status);
        let run = delete(&home, &["--keep-size", "0"]).exits(0);
        assert_holds(&home, &rest(3));
        assert!(run.stdout.contains("20260101T000000"), "{}", run.stdout);
    }
    // One that failed needs nothing, unless somebody keeps it.
    let home = archive.copy();
    backup(&home, "20260101T000000", &name(3), "FAILED");
    fs::write(home.dir("meta").join("20260101T000000-keep"), "standalone").unwrap();
    delete(&home, &["--before", &name(5)]).exits(0);
    assert_holds(&home, &rest(3));
    fs::remove_file(home.dir("meta").join("20260101T000000-keep")).unwrap();
    delete(&home, &["--before", &name(5)]).exits(0);
    assert_holds(&home, &rest(5));
    // Where Barman kept it before release 3.13.2.
    let old = home.dir("base").join("20250101T000000");
    fs::create_dir(&old).unwrap();
    fs::write(
        old.join("backup.info"),
        format!("begin_wal={}\nstatus=DONE\n", name(6)),
    )
    .unwrap();
    delete(&home, &["--before", &name(7)]).exits(0);
    assert_holds(&home, &rest(6));
}

#[test]
fn a_backup_that_cannot_be_understood_keeps_everything() {
    let archive = home_with_an_archive(&[]);
    for text in [
        "status=DONE\n",
        "begin_wal=000000010000\nstatus=DONE\n",
        "what is this\n",
    ] {
        let home = archive.copy();
        fs::write(home.dir("meta").join("20260101T000000-backup.info"), text).unwrap();
        for arguments in [
            &["--keep-size", "0"][..],
            &["--keep-size", "0", "--dry-run"],
        ] {
            let run = delete(&home, arguments).exits(1);
            assert!(run.stderr.contains("20260101T000000"), "{}", run.stderr);
            assert!(run.stderr.contains("HINT:"), "{}", run.stderr);
        }
        assert_holds(&home, &rest(1));
    }
}

#[test]
fn a_backup_of_which_nothing_is_written_down_keeps_everything() {
    let home = home_with_an_archive(&[]);
    let directory = home.dir("base").join("20260101T000000");
    fs::create_dir_all(directory.join("data/global")).unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let run = delete(&home, &[&["--keep-size", "0"], more].concat()).exits(1);
        for text in [
            directory.to_str().unwrap(),
            "meta/20260101T000000-backup.info",
            "HINT: bring one of them back, or remove that directory",
        ] {
            assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
        }
    }
    assert_holds(&home, &rest(1));
    // What is hidden is no backup, and what has no data needs no WAL.
    fs::rename(&directory, home.dir("base").join(".20260101T000000")).unwrap();
    fs::create_dir_all(home.dir("base").join("20260102T000000/pgdata")).unwrap();
    delete(&home, &["--before", &name(3)]).exits(0);
    assert_holds(&home, &rest(3));
    let info = "begin_wal=000000010000000000000004\nstatus=DONE\n";
    fs::create_dir_all(directory.join("data")).unwrap();
    fs::write(directory.join("backup.info"), info).unwrap();
    delete(&home, &["--keep-size", "0"]).exits(0);
    assert_holds(&home, &rest(4));
}

#[test]
fn base_backups_that_are_not_mounted_keep_everything() {
    let archive = home_with_an_archive(&[]);
    let assert_refused = |home: &Home| {
        for more in [&[][..], &["--dry-run"]] {
            let run = delete(home, &[&["--keep-size", "0"], more].concat()).exits(1);
            assert!(run.stderr.contains("is not there"), "{}", run.stderr);
            assert!(run.stderr.contains("HINT: is its file system mounted"));
        }
        assert_holds(home, &rest(1));
    };
    // Gone where a backup was taken; then a link that leads nowhere.
    let home = archive.copy();
    fs::remove_dir(home.dir("base")).unwrap();
    assert_refused(&home);
    symlink("/nowhere", home.dir("base")).unwrap();
    assert_refused(&home);
    // Somewhere else, as configured.
    let home = home_with_an_archive(&[("basebackups_directory", "{root}/mnt/base")]);
    assert_refused(&home);
    fs::create_dir_all(home.root().join("mnt/base")).unwrap();
    delete(&home, &["--before", &name(4)]).exits(0);
    assert_holds(&home, &rest(4));
    // A home that only ever had WAL needs none.
    let home = Home::new();
    fs::remove_dir(home.dir("base")).unwrap();
    home.incoming_segments(1..=3);
    home.archive().exits(0);
    delete(&home, &["--before", &name(3)]).exits(0);
    assert_eq!(home.listed(), [name(3)]);
}

#[test]
fn hooks_run_around_each_file_as_barman_runs_them() {
    let home = home_with_an_archive(&[
        ("compression", "gzip"),
        ("pre_wal_delete_script", "{root}/hook"),
        ("pre_wal_delete_retry_script", "{root}/hook"),
        ("post_wal_delete_retry_script", "{root}/hook"),
        ("post_wal_delete_script", "{root}/hook"),
    ]);
    // The file is gone after the deletion, which must not make a retry script fail.
    home.script("hook", &format!("{HOOK_LOGGER}\nexit 0\n"));
    // Barman deletes WAL when the oldest of several backups goes.
    for (id, begin_wal) in [("20250601T000000", 1), ("20250602T000000", 3)] {
        backup(&home, id, &name(begin_wal), "DONE");
        let directory = home.dir("base").join(id).join("data");
        fs::create_dir_all(directory).unwrap();
        let info = home.dir("meta").join(format!("{id}-backup.info"));
        let more = format!(
            "begin_time=2025-06-01 00:00:00+00:00\nend_time=2025-06-01 00:00:00+00:00\n\
             end_wal={0}\nmode=postgres\nserver_name=main\ntimeline=1\nversion=150000\nsystemid=1\n\
             begin_xlog=0/0\nend_xlog=0/0\nsize=1\ntablespaces=None\n",
            name(begin_wal)
        );
        fs::write(&info, fs::read_to_string(&info).unwrap() + &more).unwrap();
    }
    let theirs = home.copy();
    Barman
        .run(&theirs, &["delete", "main", "20250601T000000"])
        .exits(0);
    let ours = home.copy();
    fs::remove_dir_all(ours.dir("base").join("20250601T000000")).unwrap();
    fs::remove_file(ours.dir("meta").join("20250601T000000-backup.info")).unwrap();
    delete(&ours, &["--before", &name(3)]).exits(0);
    let (theirs_log, ours_log) = (hook_log(&theirs), hook_log(&ours));
    assert!(!ours_log.is_empty());
    assert_eq!(ours_log, theirs_log);
    assert_eq!(ours.listed(), theirs.listed());
}

#[test]
fn a_hook_that_says_stop_keeps_the_rest_listed() {
    let home = home_with_an_archive(&[("pre_wal_delete_retry_script", "{root}/hook")]);
    home.script(
        "hook",
        &format!("[ \"$BARMAN_SEGMENT\" = {} ] && exit 63\nexit 0\n", name(2)),
    );
    let run = delete(&home, &["--before", &name(5)]).exits(1);
    assert!(
        run.stderr.contains("Abort 'pre_wal_delete_retry_script'"),
        "{}",
        run.stderr
    );
    assert_holds(&home, &rest(1)[1..]);
    assert_eq!(home.listed()[0], name(2));
}

#[test]
fn a_file_that_cannot_be_deleted_stays_listed() {
    let home = home_with_an_archive(&[]);
    let path = home.archived(&name(2));
    let options = [
        "-P".to_owned(),
        path.to_str().unwrap().to_owned(),
        "-e".to_owned(),
        "trace=unlink,unlinkat".to_owned(),
        "-e".to_owned(),
        "inject=unlink,unlinkat:error=EIO".to_owned(),
    ];
    let arguments = ["delete-wals", "main", "--before", &name(5)];
    let (run, _) = traced(Walarch, &home, &arguments, &options);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains(&name(2)), "{run:?}");
    let mut expected = rest(5);
    expected.push(name(2));
    assert_holds(&home, &expected);
}

#[test]
fn a_running_backup_or_archiver_keeps_it_away() {
    let home = home_with_an_archive(&[]);
    {
        let _backup = home.hold_lock(".main-backup.lock");
        let run = delete(&home, &["--before", &name(5)]).exits(1);
        assert!(
            run.stderr
                .contains("Another process in running on server main")
        );
        delete(&home, &["--before", &name(5), "--dry-run"]).exits(0);
    }
    let archiver = home.hold_lock(".main-archive-wal.lock");
    let arguments = ["delete-wals", "main", "--before", &name(5)];
    let child = start(&mut Walarch.command(&home, &arguments));
    thread::sleep(Duration::from_millis(1500));
    assert_holds(&home, &rest(1));
    // A base backup may begin meanwhile.
    drop(home.hold_lock(".main-backup.lock"));
    drop(archiver);
    let run = finish(child, LIMIT).exits(0);
    assert_holds(&home, &rest(5));
    let waiting = "Waiting for archive-wal of server main";
    assert!(run.stdout.contains(waiting), "{}", run.stdout);
}

#[test]
fn archiving_may_go_on_right_after_and_the_lock_files_stay() {
    let home = home_with_an_archive(&[]);
    delete(&home, &["--before", &name(5)]).exits(0);
    for lock in [
        ".main-archive-wal.lock",
        ".main-xlogdb.lock",
        ".main-backup.lock",
    ] {
        assert_eq!(mode(&home.barman_home().join(lock)), 0o600);
    }
    home.incoming_segments([30]);
    home.archive().exits(0);
    assert!(home.listed().contains(&name(30)));
}

#[test]
fn an_archive_that_is_not_mounted_is_left_alone() {
    let home = home_with_an_archive(&[("xlogdb_directory", "{root}/home/main/meta")]);
    fs::rename(home.wals(), home.root().join("elsewhere")).unwrap();
    let run = delete(&home, &["--keep-size", "0"]).exits(1);
    assert!(run.stderr.contains("mounted"), "{}", run.stderr);
}

#[test]
fn json_says_what_went_and_how_much() {
    let home = home_with_an_archive(&[]);
    let json = |arguments: &[&str]| -> Value {
        let run = home.run(&[&["-f", "json", "delete-wals", "main"], arguments].concat());
        serde_json::from_str(&run.exits(0).stdout).unwrap()
    };
    let preview = json(&["--before", &name(3), "--dry-run"]);
    let done = json(&["--before", &name(3)]);
    assert_eq!(preview["main"]["dry_run"], true);
    for answer in [preview, done] {
        let wals = answer["main"]["wals"].as_array().unwrap();
        assert_eq!(wals.len(), 3);
        assert_eq!(wals[0]["name"], name(1));
        assert_eq!(wals[0]["size_bytes"], wal::MIB);
        assert_eq!(answer["main"]["files"], 3);
        assert_eq!(answer["main"]["oldest_kept"], name(3));
    }
    let nothing = json(&["--before", &name(3)]);
    assert_eq!(nothing["main"]["wals"], serde_json::json!([]));
}

/// What must hold whenever the run ends: nothing is lost that should stay, nothing is listed that is
/// not there, nothing is torn.
fn broken(home: &Home, kept: &[String], before: &Home) -> Vec<String> {
    let mut broken = Vec::new();
    let text = fs::read_to_string(home.xlogdb_file()).unwrap_or_default();
    if !text.ends_with('\n') {
        broken.push(format!("xlogdb is torn: {text:?}"));
    }
    let listed = home.listed();
    for name in &listed {
        if !home.archived(name).exists() {
            broken.push(format!("{name} is listed, but deleted"));
        }
        if listed.iter().filter(|other| *other == name).count() > 1 {
            broken.push(format!("{name} is listed twice"));
        }
    }
    for name in kept {
        let bytes = decode(&before.archived(name)).unwrap();
        if !decode(&home.archived(name)).is_ok_and(|found| found == bytes) {
            broken.push(format!("{name} should have stayed"));
        }
        if !listed.contains(name) {
            broken.push(format!("{name} is not listed any more"));
        }
    }
    broken
}

#[track_caller]
fn sweep(options: &[(&str, &str)]) {
    let archive = home_with_an_archive(options);
    let arguments = ["delete-wals", "main", "--before", &name(4)];
    let recorded = archive.copy();
    let (run, calls) = record(Walarch, &recorded, &arguments);
    run.exits(0);
    // The how-manieth of its kind each call is that changes something in the home.
    let mut seen = HashMap::<(u32, &str), usize>::new();
    let mut changing = BTreeMap::<&str, BTreeSet<usize>>::new();
    for call in &calls {
        let count = seen.entry((call.thread, &call.name)).or_default();
        *count += 1;
        let effect = call.effect();
        let path = effect.path().filter(|_| call.changes());
        if path.is_some_and(|path| path.starts_with(recorded.barman_home())) {
            changing.entry(&call.name).or_default().insert(*count);
        }
    }
    assert!(changing.keys().any(|name| name.starts_with("unlink")));
    let (mut killed, mut failed, mut breaches) = (0, 0, Vec::new());
    for (call, counts) in changing {
        let counts: Vec<usize> = counts.into_iter().collect();
        for when in picks(counts.len()).into_iter().map(|at| counts[at - 1]) {
            for effect in ["signal=KILL", "error=ENOSPC", "error=EIO"] {
                let home = archive.copy();
                let mut options = vec![
                    "-e".to_owned(),
                    format!("trace={call}"),
                    "-e".to_owned(),
                    format!("inject={call}:{effect}:when={when}"),
                ];
                let is_kill = effect == "signal=KILL";
                options.extend((!is_kill).then(|| QUICK.to_owned()));
                let (run, _) = traced(Walarch, &home, &arguments, &options);
                killed += usize::from(is_kill && run.code == 128 + 9);
                failed += usize::from(!is_kill && run.code == 1);
                let mut found = broken(&home, &rest(4), &archive);
                let again = delete(&home, &["--before", &name(4)]);
                if again.code != 0 {
                    found.push(format!(
                        "the rerun ends with {}: {}",
                        again.code, again.stderr
                    ));
                }
                found.extend(broken(&home, &rest(4), &archive));
                let left = home.listed().len();
                if left != rest(4).len() || home.archived(&name(1)).exists() {
                    found.push(format!("after the rerun {left} files are listed"));
                }
                if names(&home.wals())
                    .iter()
                    .any(|name| name.ends_with(".tmp"))
                {
                    found.push("a temporary file is left over".to_owned());
                }
                if !found.is_empty() {
                    breaches.push(format!("{effect} at {call} {when}: {}", found.join("; ")));
                }
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    assert!(
        killed > 5 && failed > 2,
        "{killed} kills and {failed} failures struck: the sweep has shown little"
    );
}

/// All of them in a full sweep, else the first, the last and one between.
fn picks(count: usize) -> Vec<usize> {
    if is_full_sweep() {
        return (1..=count).collect();
    }
    let mut picks = vec![1, count.div_ceil(2), count];
    picks.dedup();
    picks
}

#[test]
fn no_fault_deletes_what_is_listed_or_loses_what_should_stay() {
    sweep(&[]);
}

#[test]
fn no_fault_between_hooks_does_either() {
    sweep(&[
        ("pre_wal_delete_script", "true"),
        ("post_wal_delete_script", "true"),
    ]);
}

#[test]
fn a_request_to_stop_leaves_a_home_in_order() {
    let home = home_with_an_archive(&[("post_wal_delete_script", "{root}/hook")]);
    home.script("hook", "touch {root}/began; sleep 0.3\n");
    let arguments = ["delete-wals", "main", "--before", &name(6)];
    let child = start(&mut Walarch.command(&home, &arguments));
    wait_for("the first hook", || {
        home.root().join("began").exists().then_some(())
    });
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    finish(child, LIMIT).exits(1);
    let listed = home.listed();
    assert!(listed.contains(&name(5)));
    for name in &listed {
        assert!(home.archived(name).exists(), "{name}");
    }
    assert_holds(&home, &listed);
    put(&home.incoming(), &name(40), &Segment::small(40).bytes());
    home.archive().exits(0);
}
