//! Hook scripts: order, environment, retry, exit codes, and what they may rely on.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::compare::{HOOK_LOGGER, both_do_the_same};
use crate::support::decode::decode;
use crate::support::home::{Home, names, put};
use crate::support::tool::{Run, Walarch, finish, start, wait_for};
use crate::support::wal::Segment;

const FIRST: &str = "000000010000000000000001";
const SECOND: &str = "000000010000000000000002";

const ALL_FOUR: [(&str, &str); 4] = [
    ("pre_archive_script", "{root}/hook"),
    ("pre_archive_retry_script", "{root}/hook"),
    ("post_archive_retry_script", "{root}/hook"),
    ("post_archive_script", "{root}/hook"),
];

/// A home whose hook scripts are all this one.
fn home_with_hook(options: &[(&str, &str)], body: &str) -> Home {
    let home = Home::with(options);
    home.script("hook", body);
    home
}

fn text(home: &Home, name: &str) -> String {
    fs::read_to_string(home.root().join(name)).unwrap_or_default()
}

#[test]
fn order_and_environment_are_barmans() {
    for codec in [None, Some(("compression", "gzip"))] {
        let mut options = ALL_FOUR.to_vec();
        options.extend(codec);
        let home = home_with_hook(&options, HOOK_LOGGER);
        home.incoming_segments(1..=2);
        put(
            &home.incoming(),
            "00000002.history",
            b"1\t0/1000000\tno recovery target specified\n",
        );
        let (theirs, _) = both_do_the_same(&home, &["archive-wal", "main"]);
        assert_eq!(text(&theirs, "hooks.log").matches("--\n").count(), 12);
    }
}

#[test]
fn order_and_environment_are_barmans_for_streamed_files() {
    let mut options = ALL_FOUR.to_vec();
    options.extend([
        ("archiver", "off"),
        ("streaming_archiver", "on"),
        ("compression", "zstd"),
    ]);
    let home = home_with_hook(&options, HOOK_LOGGER);
    home.streaming_segments(1..=2);
    both_do_the_same(&home, &["archive-wal", "main"]);
}

#[test]
fn the_hook_is_a_shell_command_with_path_prefix_in_its_path() {
    let home = Home::with(&[
        ("path_prefix", "{root}/bin"),
        (
            "pre_archive_script",
            "mine \"$BARMAN_SEGMENT\" | tr 0 . > {root}/said; true",
        ),
    ]);
    fs::create_dir(home.root().join("bin")).unwrap();
    home.script("bin/mine", "echo \"hook of $1\"");
    home.incoming_segments([1]);
    home.archive().exits(0);
    assert_eq!(
        text(&home, "said"),
        format!("hook of {}\n", FIRST.replace('0', "."))
    );
}

#[test]
fn a_failing_plain_hook_changes_nothing() {
    let home = home_with_hook(
        &[
            ("pre_archive_script", "{root}/hook"),
            ("post_archive_script", "{root}/hook"),
        ],
        "exit 1",
    );
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    assert!(decode(&home.archived(FIRST)).unwrap() == files[FIRST]);
}

#[test]
fn a_retry_hook_is_tried_until_it_succeeds() {
    let home = home_with_hook(
        &[("pre_archive_retry_script", "{root}/hook")],
        "echo try >> {root}/tries; test $(wc -l < {root}/tries) -ge 2",
    );
    home.incoming_segments([1]);
    let start = Instant::now();
    home.archive().exits(0);
    assert!(
        start.elapsed() >= Duration::from_secs(3),
        "Barman pauses for 3 seconds"
    );
    assert_eq!(text(&home, "tries"), "try\ntry\n");
    assert_eq!(home.listed(), [FIRST]);
}

#[test]
fn abort_and_continue_goes_on() {
    let home = home_with_hook(&[("pre_archive_retry_script", "{root}/hook")], "exit 62");
    home.incoming_segments(1..=2);
    home.archive().exits(0);
    assert_eq!(home.listed(), [FIRST, SECOND]);
}

#[test]
fn abort_and_stop_before_a_file_ends_the_run_without_an_error() {
    let home = home_with_hook(
        &[("pre_archive_retry_script", "{root}/hook")],
        "test $BARMAN_SEGMENT = 000000010000000000000002 && exit 63; exit 0",
    );
    home.incoming_segments(1..=3);
    home.archive().exits(0);
    assert_eq!(home.listed(), [FIRST]);
    assert_eq!(
        names(&home.incoming()),
        [SECOND, "000000010000000000000003"]
    );
}

#[test]
fn abort_and_stop_after_a_file_is_ignored() {
    let home = home_with_hook(&[("post_archive_retry_script", "{root}/hook")], "exit 63");
    home.incoming_segments(1..=2);
    home.archive().exits(0);
    assert_eq!(home.listed(), [FIRST, SECOND]);
}

#[test]
fn the_pre_hook_may_still_change_the_file() {
    let home = Home::with(&[
        ("pre_archive_script", "cp -p {root}/better \"$BARMAN_FILE\""),
        ("compression", "gzip"),
    ]);
    let better = Segment::small(1).seed(77).bytes();
    put(home.root(), "better", &better);
    home.incoming_segments([1]);
    home.archive().exits(0);
    assert!(decode(&home.archived(FIRST)).unwrap() == better);
}

#[test]
fn the_post_hook_finds_the_file_archived_and_its_bytes_whole() {
    let home = Home::with(&[("post_archive_script", "cp \"$BARMAN_FILE\" {root}/seen")]);
    let files = home.incoming_segments([1]);
    home.archive().exits(0);
    assert!(fs::read(home.root().join("seen")).unwrap() == files[FIRST]);
}

#[test]
fn no_hook_runs_under_the_xlogdb_lock() {
    let home = home_with_hook(
        &ALL_FOUR,
        "flock -n {root}/home/.main-xlogdb.lock true && echo free >> {root}/locks || echo held >> {root}/locks",
    );
    home.incoming_segments(1..=2);
    home.archive().exits(0);
    assert_eq!(text(&home, "locks"), "free\n".repeat(8));
}

#[test]
fn post_hooks_are_told_the_true_error() {
    let options = [
        ("post_archive_script", "{root}/hook"),
        ("post_archive_retry_script", "{root}/hook"),
    ];
    let home = home_with_hook(&options, "exit 0");
    home.incoming_segments([1]);
    home.archive().exits(0);
    home.script("hook", "echo \"$BARMAN_HOOK:$BARMAN_ERROR\" >> {root}/told");
    put(&home.incoming(), FIRST, &Segment::small(1).seed(5).bytes());
    home.archive().exits(0);
    let told = text(&home, "told");
    let errors: Vec<&str> = told
        .lines()
        .map(|line| line.split_once(':').unwrap().1)
        .collect();
    assert_eq!(errors.len(), 2, "{told}");
    assert!(errors.iter().all(|error| error.contains(FIRST)), "{told}");
}

#[test]
fn an_identical_copy_is_no_error_to_post_hooks() {
    let home = home_with_hook(
        &[("post_archive_script", "{root}/hook")],
        "echo \"[$BARMAN_ERROR]\" >> {root}/told",
    );
    for _ in 0..2 {
        home.incoming_segments([1]);
        home.archive().exits(0);
    }
    assert!(
        text(&home, "told").lines().all(|line| line == "[]"),
        "{}",
        text(&home, "told")
    );
}

#[test]
fn a_hanging_hook_is_ended_by_the_timeout() {
    let home = home_with_hook(&[("pre_archive_script", "{root}/hook")], "sleep 100")
        .walarch_toml("[walarch]\nhook_timeout_s = 1\n");
    home.incoming_segments([1]);
    let start = Instant::now();
    home.archive().exits(0);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(home.listed(), [FIRST]);
}

/// Starts archiving, asks it to stop as soon as the hook has written `started`, and waits for its end.
fn archive_until_the_hook_has_started(home: &Home) -> Run {
    let child = start(&mut Walarch.command(home, &["archive-wal", "main"]));
    wait_for("the hook", || {
        home.root().join("started").exists().then_some(())
    });
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(id, Signal::SIGTERM).unwrap();
    finish(child, Duration::from_secs(60)).exits(1)
}

#[test]
fn a_stop_request_waits_for_the_post_hook_of_an_archived_file() {
    let home = home_with_hook(
        &[("post_archive_script", "{root}/hook")],
        "touch {root}/started; sleep 0.5; echo \"$BARMAN_SEGMENT\" >> {root}/told",
    );
    home.incoming_segments(1..=3);
    archive_until_the_hook_has_started(&home);
    assert_eq!(text(&home, "told"), format!("{FIRST}\n"));
    assert_eq!(home.listed(), [FIRST]);
    assert_eq!(names(&home.incoming()).len(), 2);
}

#[test]
fn a_stop_request_during_the_pre_hook_leaves_its_file_in_the_queue() {
    let home = home_with_hook(
        &[("pre_archive_script", "{root}/hook")],
        "touch {root}/started; sleep 30; touch {root}/ended",
    );
    home.incoming_segments(1..=2);
    let start = Instant::now();
    archive_until_the_hook_has_started(&home);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(!home.root().join("ended").exists());
    assert_eq!(home.listed(), [""; 0]);
    assert!(!home.archived(FIRST).exists());
    assert_eq!(names(&home.incoming()), [FIRST, SECOND]);
}
