//! Straight into a bucket: what the built-in receiver archives while it receives from a real server.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{CloudHome, key};
use crate::receive::handover::busy;
use crate::receive::support::{Receiving, options, partials, received, wait_for_segments};
use crate::support::fake_s3::{FakeS3, Fault};
use crate::support::home::names;
use crate::support::object_stores::{Kind, ObjectStore};
use crate::support::postgres::Postgres;
use crate::support::tool::{Walarch, wait_for};

/// Short limits, so that a test is.
const QUICK: &str = "cloud_request_timeout_s = 1\ncloud_total_timeout_s = 3\ncloud_retries = 1\n";

/// A home that streams from this server into a bucket, with a slot.
fn home(
    postgres: &Postgres,
    slot: &str,
    url: &str,
    endpoint: &str,
    environment: Vec<(&'static str, String)>,
    toml: &str,
) -> CloudHome {
    let options = options(postgres, slot);
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let toml = format!("receiver = \"builtin\"\n{toml}");
    let home = CloudHome::new(url, endpoint, environment, &options, &toml);
    home.run(&["receive-wal", "--create-slot", "main"]).exits(0);
    home
}

fn s3_home(postgres: &Postgres, slot: &str, s3: &FakeS3, toml: &str) -> CloudHome {
    let environment = crate::support::object_stores::s3_environment();
    home(
        postgres,
        slot,
        "s3://wal/pre",
        &s3.endpoint(),
        environment,
        toml,
    )
}

fn streaming(home: &CloudHome) -> Receiving {
    let command = home.command(Walarch, &["receive-wal", "main"]);
    let receiving = Receiving::start_command(command, &home.home);
    receiving.wait_until_it_prints("starting log streaming at");
    receiving
}

#[track_caller]
fn wait_until_listed(home: &CloudHome, segments: &[String]) {
    for segment in segments {
        wait_for(segment, || home.listed().contains(segment).then_some(()));
    }
}

/// The bucket gives back the server's own bytes, and `meta` lists each segment once.
#[track_caller]
fn assert_all_archived_once(home: &CloudHome, postgres: &Postgres, segments: &[String]) {
    for segment in segments {
        let theirs = fs::read(postgres.data().join("pg_wal").join(segment)).unwrap();
        assert!(home.restored(segment) == theirs, "{segment} differs");
    }
    let listed = home.listed();
    let distinct: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(distinct.len(), listed.len(), "double lines: {listed:?}");
    assert!(segments.iter().all(|segment| listed.contains(segment)));
    assert_eq!(names(&home.home.errors()), [] as [&str; 0]);
}

fn errors_in_log(home: &CloudHome) -> Vec<String> {
    let log = home.home.log();
    let errors = log.lines().filter(|line| line.contains("ERROR"));
    errors.map(str::to_owned).collect()
}

/// How far this receiver has told the server that WAL is safe.
fn flushed(postgres: &Postgres, slot: &str) -> String {
    postgres.ask(&format!(
        "SELECT flush_lsn FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid \
         WHERE slot_name = '{slot}'"
    ))
}

fn goes_straight_into(kind: Kind, slot: &str) {
    let postgres = busy();
    let store = ObjectStore::start(kind);
    let (url, environment) = (store.url("straight"), store.environment());
    let home = home(&postgres, slot, &url, &store.endpoint(), environment, "");
    let receiving = streaming(&home);
    let segments: Vec<String> = (0..3).map(|_| postgres.fill_segment()).collect();
    wait_until_listed(&home, &segments);
    wait_for("the queue to empty", || {
        received(&home.home).is_empty().then_some(())
    });
    assert_eq!(partials(&home.home).len(), 1, "it says where to go on");
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_eq!(errors_in_log(&home), [] as [&str; 0]);
    assert_all_archived_once(&home, &postgres, &segments);
    assert_eq!(
        names(&home.home.wals()),
        [] as [&str; 0],
        "nothing stays on the disk"
    );
    home.run(&["verify-wals", "main"]).exits(0);
}

#[test]
fn s3_gets_what_is_received() {
    goes_straight_into(Kind::S3sFs, "into_s3");
}

#[test]
fn azure_gets_what_is_received() {
    goes_straight_into(Kind::Azurite, "into_azure");
}

#[test]
fn google_gets_what_is_received() {
    goes_straight_into(Kind::Google, "into_google");
}

#[test]
fn after_the_first_segment_each_one_is_one_request() {
    let postgres = busy();
    let s3 = FakeS3::start();
    let home = s3_home(&postgres, "one_request", &s3, "");
    let receiving = streaming(&home);
    wait_until_listed(&home, &[postgres.fill_segment()]);
    let segments: Vec<String> = (0..3).map(|_| postgres.fill_segment()).collect();
    wait_until_listed(&home, &segments);
    receiving.end_by(Signal::SIGTERM).exits(0);
    // Others close segments of this server, too, also while the first one is on its way.
    let listed = home.listed();
    let expected: Vec<String> = listed[1..]
        .iter()
        .map(|name| format!("PUT /wal/{}", key(name, ".zst")))
        .collect();
    let mut asked = s3.take_asked();
    asked.retain(|request| request.contains("/wals/0") && !request.contains(&listed[0]));
    asked.sort();
    assert_eq!(asked, expected);
}

#[test]
fn killed_at_any_instant_it_leaves_what_the_next_one_goes_on_from() {
    let postgres = busy();
    let s3 = FakeS3::start();
    let home = s3_home(&postgres, "killed_into", &s3, "");
    s3.delay(Duration::from_millis(60));
    let mut segments = Vec::new();
    for round in 0..8 {
        let receiving = streaming(&home);
        segments.extend((0..3).map(|_| postgres.fill_segment()));
        // From before the first of them is on its way to after the last one is listed.
        thread::sleep(Duration::from_millis(50 * round));
        receiving.end_by(Signal::SIGKILL);
        if round % 3 == 2 {
            home.archive().exits(0);
        }
    }
    let receiving = streaming(&home);
    segments.push(postgres.fill_segment());
    wait_until_listed(&home, &segments);
    receiving.end_by(Signal::SIGTERM).exits(0);
    s3.delay(Duration::ZERO);
    assert_all_archived_once(&home, &postgres, &segments);
    home.run(&["verify-wals", "main"]).exits(0);
}

#[test]
fn while_the_store_is_down_receiving_goes_on_and_nothing_is_lost() {
    let postgres = busy();
    let s3 = FakeS3::start();
    let slot = "store_down";
    let home = s3_home(&postgres, slot, &s3, QUICK);
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_until_listed(&home, &[first]);
    s3.fail(|_| Fault::Cut);
    s3.take_asked();
    let down = Instant::now();
    let segments: Vec<String> = (0..3).map(|_| postgres.fill_segment()).collect();
    let end = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    wait_for_segments(&home.home, &segments);
    // PostgreSQL hears that its WAL is safe, which it is: on this disk.
    wait_for("the acknowledgement", || {
        let flushed = flushed(&postgres, slot);
        let reached = postgres.ask(&format!("SELECT '{flushed}'::pg_lsn >= '{end}'::pg_lsn"));
        (reached == "t").then_some(())
    });
    let complaints = || {
        let errors = errors_in_log(&home);
        let errors = errors
            .iter()
            .filter(|line| line.contains("is not archived"));
        errors.count()
    };
    wait_for("a complaint", || (complaints() > 0).then_some(()));
    thread::sleep(Duration::from_secs(6));
    assert_eq!(complaints(), 1, "{}", home.home.log());
    let status = home.run(&["status", "main"]).stdout;
    assert!(status.contains("wait to be archived; "), "{status}");
    let asked = s3.take_asked().len() as u64;
    // Each try is a few requests, and the pauses between tries grow.
    assert!(
        asked < 20 + 8 * down.elapsed().as_secs(),
        "{asked} requests: a hot loop"
    );
    // It heals, and nobody has to come.
    s3.heal();
    wait_until_listed(&home, &segments);
    wait_for("word of it", || {
        home.home.log().contains("is archived again").then_some(())
    });
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_all_archived_once(&home, &postgres, &segments);
}

#[test]
fn a_store_that_answers_slowly_delays_neither_receiving_nor_a_stop() {
    let postgres = busy();
    let s3 = FakeS3::start();
    let slot = "store_slow";
    let home = s3_home(&postgres, slot, &s3, "");
    let receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_until_listed(&home, &[first]);
    s3.take_asked();
    s3.delay(Duration::from_secs(60));
    let segments: Vec<String> = (0..4).map(|_| postgres.fill_segment()).collect();
    wait_for("a request", || (!s3.take_asked().is_empty()).then_some(()));
    wait_for_segments(&home.home, &segments);
    let end = postgres.ask("SELECT pg_current_wal_flush_lsn()");
    wait_for("the acknowledgement", || {
        let flushed = flushed(&postgres, slot);
        let reached = postgres.ask(&format!("SELECT '{flushed}'::pg_lsn >= '{end}'::pg_lsn"));
        (reached == "t").then_some(())
    });
    let asked = Instant::now();
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert!(asked.elapsed() < Duration::from_secs(20));
    s3.delay(Duration::ZERO);
    let receiving = streaming(&home);
    wait_until_listed(&home, &segments);
    receiving.end_by(Signal::SIGTERM).exits(0);
    assert_all_archived_once(&home, &postgres, &segments);
}
