//! Straight into the archive: what the built-in receiver archives while it receives, beside `cron`, with
//! hooks, and with a storage that fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::support::{
    Receiving, SETTINGS, home_with_slot, partials, received, streaming, wait_for_segments,
};
use crate::support::home::{Home, names, put};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Walarch, wait_for};
use crate::support::wal::Segment;

/// A server for all tests that archive, with segments of 1 MiB: they close many.
pub fn busy() -> Arc<Postgres> {
    static BUSY: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(postgres) = busy.upgrade() {
        return postgres;
    }
    let postgres = Arc::new(with_small_segments());
    *busy = Arc::downgrade(&postgres);
    postgres
}

/// It keeps its WAL, to be compared with.
fn with_small_segments() -> Postgres {
    let arguments = ["--wal-segsize=1"];
    let settings = |_: &str| format!("{SETTINGS}wal_keep_size = 1GB\n");
    Postgres::start_major(Major::Debian, &arguments, settings)
}

/// A home with a slot that the built-in receiver receives into.
fn builtin(postgres: &Postgres, slot: &str, more: &[(&'static str, &str)]) -> Home {
    home_with_slot(postgres, slot, more).walarch_toml("[walarch]\nreceiver = \"builtin\"\n")
}

#[track_caller]
fn wait_until_listed(home: &Home, names: &[impl AsRef<str>]) {
    for name in names {
        let name = name.as_ref().to_owned();
        wait_for(&name, || home.listed().contains(&name).then_some(()));
    }
}

/// Every segment is archived with the bytes of the server's, and listed once.
#[track_caller]
fn assert_all_archived_once(home: &Home, postgres: &Postgres, segments: &[String]) {
    for segment in segments {
        let theirs = fs::read(postgres.data().join("pg_wal").join(segment)).unwrap();
        home.assert_archived(segment, &theirs);
    }
    assert_no_double_lines(home);
}

#[track_caller]
fn assert_no_double_lines(home: &Home) {
    let listed = home.listed();
    let distinct: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(distinct.len(), listed.len(), "double lines: {listed:?}");
}

/// The lines of the log that are worse than a warning.
fn errors_in_log(home: &Home) -> Vec<String> {
    let log = home.log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    errors.map(str::to_owned).collect()
}

#[test]
fn what_is_received_is_archived_without_cron() {
    let postgres = busy();
    let home = builtin(&postgres, "straight", &[("compression", "zstd")]);
    let receiving = streaming(&home);
    let segments: Vec<String> = (0..3).map(|_| postgres.fill_segment()).collect();
    wait_until_listed(&home, &segments);
    assert_all_archived_once(&home, &postgres, &segments);
    wait_for("the queue to empty", || {
        received(&home).is_empty().then_some(())
    });
    assert_eq!(partials(&home).len(), 1, "it says where to go on");
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_eq!(errors_in_log(&home), [] as [&str; 0]);
}

#[test]
fn a_directory_that_was_deleted_with_all_its_files_is_made_again() {
    let postgres = busy();
    let home = builtin(&postgres, "emptied", &[]);
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_until_listed(&home, std::slice::from_ref(&first));
    wait_for("the queue to empty", || {
        received(&home).is_empty().then_some(())
    });
    fs::remove_dir_all(home.wals().join(&first[..16])).unwrap();
    let second = postgres.fill_segment();
    assert_eq!(second[..16], first[..16]);
    wait_until_listed(&home, &[second]);
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_eq!(errors_in_log(&home), [] as [&str; 0]);
}

#[test]
fn what_waits_from_before_is_archived_first() {
    let postgres = busy();
    let home = builtin(&postgres, "before", &[])
        .walarch_toml("[walarch]\nreceiver = \"builtin\"\narchive_while_receiving = false\n");
    let receiving = streaming(&home);
    let waiting = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &waiting);
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_eq!(home.listed(), [] as [&str; 0], "it is switched off");
    let home = home.walarch_toml("[walarch]\nreceiver = \"builtin\"\n");
    let receiving = streaming(&home);
    wait_until_listed(&home, &waiting);
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_all_archived_once(&home, &postgres, &waiting);
}

#[test]
fn pg_receivewal_leaves_everything_to_cron() {
    let postgres = busy();
    let home = home_with_slot(&postgres, "leaves", &[])
        .walarch_toml("[walarch]\nreceiver = \"pg_receivewal\"\n");
    let receiving = streaming(&home);
    let segments = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &segments);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(home.listed(), [] as [&str; 0]);
    receiving.end_by(Signal::SIGTERM).exits(0);
}

#[test]
fn what_others_send_is_archived_as_well() {
    let postgres = busy();
    let home = builtin(&postgres, "others", &[("archiver", "on")]);
    let receiving = streaming(&home);
    let sent = Segment::of_size(1 << 20, 0xFFFF_0000).system_id(postgres.system_identifier());
    put(&home.incoming(), &sent.name(), &sent.bytes());
    let segment = postgres.fill_segment();
    wait_until_listed(&home, &[segment, sent.name()]);
    receiving.end_by(Signal::SIGTERM).exits(0);
}

#[test]
fn archive_wal_and_the_receiver_archive_at_once_without_a_trace() {
    let postgres = busy();
    let home = builtin(&postgres, "at_once", &[("compression", "gzip")]);
    let receiving = streaming(&home);
    let mut segments = Vec::new();
    for _ in 0..12 {
        segments.push(postgres.fill_segment());
        let run = home.archive().exits(0);
        assert_eq!(run.stderr, "");
    }
    wait_until_listed(&home, &segments);
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_all_archived_once(&home, &postgres, &segments);
    assert_eq!(errors_in_log(&home), [] as [&str; 0]);
    assert_eq!(names(&home.errors()), [] as [&str; 0]);
}

#[test]
fn hook_scripts_run_around_each_file() {
    let postgres = busy();
    let hooks = [
        ("pre_archive_script", "{root}/hook"),
        ("post_archive_script", "{root}/hook"),
    ];
    let home = builtin(&postgres, "hooked", &hooks);
    home.script(
        "hook",
        "echo $BARMAN_PHASE $BARMAN_SEGMENT $BARMAN_CONFIGURATION >>{root}/hooks.log\n",
    );
    let receiving = streaming(&home);
    let segment = postgres.fill_segment();
    wait_until_listed(&home, &[&segment]);
    let log = home.root().join("hooks.log");
    let config = home.config_file();
    let expected = ["pre", "post"]
        .map(|phase| format!("{phase} {segment} {}\n", config.display()))
        .concat();
    wait_for("the hooks", || {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.contains(&expected).then_some(())
    });
    receiving.end_by(Signal::SIGTERM).exits(0);
}

/// A home whose archive has come to hold something, and then cannot be written to.
fn with_broken_archive(
    postgres: &Postgres,
    slot: &str,
    break_it: impl Fn(&Path),
) -> (Home, Receiving) {
    let home = builtin(postgres, slot, &[]);
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_until_listed(&home, &[&first]);
    break_it(&home.wals());
    (home, receiving)
}

#[test]
fn a_storage_that_fails_never_stops_receiving_and_is_complained_of_once() {
    // Nobody else closes a segment.
    let postgres = with_small_segments();
    // A directory where the segments go that nothing can be put into; for root, too.
    let (home, receiving) = with_broken_archive(&postgres, "failing", |wals| {
        fs::rename(wals, wals.with_extension("away")).unwrap();
        fs::write(wals, b"").unwrap();
    });
    let segments: Vec<String> = (0..3).map(|_| postgres.fill_segment()).collect();
    wait_for_segments(&home, &segments);
    let complaints = || {
        let errors = errors_in_log(&home);
        let errors = errors
            .iter()
            .filter(|line| line.contains("is not archived"));
        errors.count()
    };
    wait_for("a complaint", || (complaints() > 0).then_some(()));
    let shown = "Archived by receive-wal: 1 file, 3 files wait to be archived; ";
    wait_for("status to show it", || {
        let status = home.run(&["status", "main"]).stdout;
        status.contains(shown).then_some(())
    });
    thread::sleep(Duration::from_secs(3));
    assert_eq!(complaints(), 1, "{}", home.log());
    // It heals, and nobody has to come.
    fs::remove_file(home.wals()).unwrap();
    fs::rename(home.wals().with_extension("away"), home.wals()).unwrap();
    wait_until_listed(&home, &segments);
    assert!(home.log().contains("is archived again"), "{}", home.log());
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_all_archived_once(&home, &postgres, &segments);
}

#[test]
fn a_file_system_that_is_not_mounted_any_more_is_not_written_below() {
    let postgres = busy();
    let (home, receiving) = with_broken_archive(&postgres, "unmounted", |_| {});
    // As if wals_directory were on a disk of its own, and xlogdb elsewhere.
    receiving.end_by(Signal::SIGTERM).exits(0);
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&format!("{text}\nxlogdb_directory = {{root}}/list\n"));
    fs::create_dir(home.root().join("list")).unwrap();
    let list = home.root().join("list/main-xlog.db");
    fs::rename(home.xlogdb_file(), &list).unwrap();
    let away = home.wals().with_extension("away");
    let receiving = streaming(&home);
    fs::rename(home.wals(), &away).unwrap();
    let segment = postgres.fill_segment();
    wait_for_segments(&home, &[&segment]);
    wait_for("the reason", || {
        home.log()
            .contains("is its file system mounted?")
            .then_some(())
    });
    assert!(!home.wals().exists());
    fs::rename(&away, home.wals()).unwrap();
    wait_for(&segment, || {
        let listed = fs::read_to_string(&list).unwrap();
        listed.contains(&segment).then_some(())
    });
    receiving.end_by(Signal::SIGTERM).exits(0);
}

#[test]
fn a_hook_that_hangs_delays_a_stop_by_seconds_only() {
    let postgres = busy();
    let home = builtin(
        &postgres,
        "hanging",
        &[("post_archive_script", "{root}/hook")],
    );
    home.script("hook", "touch {root}/hangs\nexec sleep 60\n");
    let receiving = streaming(&home);
    postgres.fill_segment();
    wait_for("the hook", || {
        home.root().join("hangs").exists().then_some(())
    });
    // Receiving does not wait for it.
    let next = postgres.fill_segment();
    wait_for_segments(&home, &[&next]);
    // Nor is it ended as the process that archives, which it is at this moment.
    let run = home
        .run(&["terminate-process", "main", "archive-wal"])
        .exits(1);
    assert!(run.stderr.contains("no such process"), "{run:?}");
    let asked = Instant::now();
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    assert!(
        home.log().contains("has not stopped within"),
        "{}",
        home.log()
    );
    // What the process held is free.
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("post_archive_script", "#"));
    home.archive().exits(0);
    assert!(home.listed().contains(&next));
    assert_no_double_lines(&home);
}

#[test]
fn killed_at_any_instant_it_leaves_what_archive_wal_goes_on_from() {
    let postgres = busy();
    let home = builtin(&postgres, "killed", &[("compression", "gzip")]);
    let mut segments = Vec::new();
    for round in 0..10 {
        let receiving = Receiving::start(Walarch, &home);
        receiving.wait_until_it_prints("starting log streaming at");
        segments.extend((0..3).map(|_| postgres.fill_segment()));
        // From before the first of them is compressed to after the last one is listed.
        thread::sleep(Duration::from_millis(40 * round));
        receiving.end_by(Signal::SIGKILL);
        if round % 2 == 1 {
            home.archive().exits(0);
            assert_no_double_lines(&home);
        }
    }
    let receiving = streaming(&home);
    segments.push(postgres.fill_segment());
    wait_until_listed(&home, &segments);
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_all_archived_once(&home, &postgres, &segments);
    home.run(&["verify-wals", "main"]).exits(0);
}
