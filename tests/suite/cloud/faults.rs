//! A store, or a way to it, that fails: nothing is lost, nothing overwritten, nothing claimed.

use std::fs;
use std::time::{Duration, Instant};

use super::{CloudHome, key};
use crate::support::fake_s3::{FakeS3, Fault};
use crate::support::home::names;
use crate::support::object_stores::SECRET_KEY;

/// Short limits, so that a test is.
const QUICK: &str = "cloud_request_timeout_s = 1\ncloud_total_timeout_s = 5\ncloud_retries = 2\n";

const ONE: &str = "000000010000000000000001";

fn home(s3: &FakeS3) -> CloudHome {
    let home = CloudHome::s3(&s3.endpoint(), &[], QUICK);
    crate::support::home::put(&home.home.incoming(), "00000009.history", b"history");
    home.archive().exits(0);
    s3.take_asked();
    home
}

/// One file meets a fault and arrives all the same, exactly once.
#[track_caller]
fn arrives_in_spite_of(count: usize, fault: Fault) {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let files = home.home.incoming_segments(1..=1);
    s3.fail_first(count, "PUT", fault);
    home.archive().exits(0);
    s3.heal();
    assert_eq!(names(&home.home.incoming()), [] as [&str; 0]);
    assert_eq!(home.listed(), ["00000009.history", ONE]);
    home.assert_holds(&files);
}

#[test]
fn a_conflict_is_tried_again() {
    arrives_in_spite_of(1, Fault::Refuse(409, "ConditionalRequestConflict"));
}

#[test]
fn an_error_after_the_object_was_stored_is_recognised() {
    arrives_in_spite_of(1, Fault::DoneBut(500, "InternalError"));
}

#[test]
fn an_answer_that_was_lost_is_made_up_for() {
    arrives_in_spite_of(1, Fault::DoneAndCut);
}

#[test]
fn a_connection_that_is_cut_is_made_again() {
    arrives_in_spite_of(1, Fault::Cut);
}

#[test]
fn an_answer_that_comes_too_late_is_made_up_for() {
    arrives_in_spite_of(1, Fault::Late(Duration::from_secs(2)));
}

#[test]
fn throttling_is_waited_out() {
    arrives_in_spite_of(2, Fault::Refuse(503, "SlowDown"));
}

#[test]
fn bytes_that_change_on_their_way_are_sent_again() {
    arrives_in_spite_of(1, Fault::Damage);
}

#[test]
fn a_store_that_is_down_leaves_everything_queued() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    home.home.incoming_segments(1..=5);
    s3.fail(|_| Fault::Cut);
    let start = Instant::now();
    let run = home.archive().exits(1);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(names(&home.home.incoming()).len(), 5);
    assert_eq!(home.listed(), ["00000009.history"]);
    assert_eq!(run.stderr.matches("ERROR:").count(), 1, "{}", run.stderr);
    let asked = s3.take_asked().len();
    assert!(asked < 60, "{asked} requests: a hot loop");
    let errors: Vec<_> = home
        .home
        .log()
        .lines()
        .filter(|line| line.contains(" ERROR:"))
        .map(str::to_owned)
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");

    s3.heal();
    home.archive().exits(0);
    assert_eq!(home.listed().len(), 6);
}

#[test]
fn nobody_at_the_endpoint_is_an_error_soon() {
    let home = CloudHome::s3("http://127.0.0.1:9", &[], QUICK);
    home.home.incoming_segments(1..=2);
    home.archive().exits(1);
    assert_eq!(names(&home.home.incoming()).len(), 2);
}

#[test]
fn a_batch_keeps_what_was_committed_before_the_failure() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let files = home.home.incoming_segments(1..=8);
    s3.fail(
        |request| match request.method == "PUT" && request.target.contains("0000000003") {
            true => Fault::Refuse(500, "InternalError"),
            false => Fault::None,
        },
    );
    home.archive().exits(1);
    let listed = home.listed();
    assert_eq!(
        listed[1..],
        ["000000010000000000000001", "000000010000000000000002"]
    );
    assert_eq!(names(&home.home.incoming()).len(), 6);

    s3.heal();
    home.archive().exits(0);
    let mut expected: Vec<String> = files.keys().cloned().collect();
    expected.insert(0, "00000009.history".to_owned());
    assert_eq!(home.listed(), expected);
    home.assert_holds(&files);
}

#[test]
fn expired_credentials_are_named_and_secrets_are_not() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    home.home.incoming_segments(1..=1);
    s3.fail(|_| Fault::Refuse(403, "ExpiredToken"));
    let run = home.archive().exits(1);
    assert!(run.stderr.contains("ExpiredToken"), "{}", run.stderr);
    assert_eq!(names(&home.home.incoming()).len(), 1);
    for text in [&run.stderr, &run.stdout, &home.home.log()] {
        assert!(!text.contains(SECRET_KEY));
    }
}

#[test]
fn a_missing_bucket_is_not_an_empty_one() {
    let s3 = FakeS3::start();
    let home = CloudHome::new(
        "s3://other/pre",
        &s3.endpoint(),
        crate::support::object_stores::s3_environment(),
        &[],
        QUICK,
    );
    let goal = home.home.root().join("goal");
    let run = home
        .run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()])
        .exits(2);
    assert!(run.stderr.contains("NoSuchBucket"), "{}", run.stderr);
    home.home.incoming_segments(1..=1);
    home.archive().exits(1);
    assert_eq!(names(&home.home.incoming()).len(), 1);
}

#[test]
fn a_body_that_breaks_off_is_read_on() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let files = home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    s3.fail_first(1, "GET", Fault::TearBody(1000));
    home.assert_holds(&files);
}

#[test]
fn nothing_half_is_delivered() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    s3.fail(|request| match request.method.as_str() {
        "GET" => Fault::TearBody(10),
        _ => Fault::None,
    });
    let goal = home.home.root().join("goal");
    home.run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()])
        .exits(2);
    assert!(!goal.exists());
}

#[test]
fn damaged_objects_are_told_from_missing_ones() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    s3.put(&key(ONE, ".zst"), b"\x28\xb5\x2f\xfdgarbage");
    let goal = home.home.root().join("goal");
    let restore = |name| home.run(&["cloud-wal-restore", "main", name, goal.to_str().unwrap()]);
    restore(ONE).exits(4);
    restore("000000010000000000000002").exits(1);
    for fault in [
        Fault::Cut,
        Fault::Refuse(403, "AccessDenied"),
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(503, "SlowDown"),
    ] {
        s3.fail(move |_| fault.clone());
        restore("000000010000000000000002").exits(2);
    }
    assert!(!goal.exists());
}

#[test]
fn a_recovery_to_a_target_is_stopped_rather_than_ended() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let data = home.home.root().join("data");
    fs::create_dir_all(data.join("pg_wal")).unwrap();
    fs::write(data.join("recovery.signal"), "").unwrap();
    let goal = data.join("pg_wal/RECOVERYXLOG");
    let restore = || home.run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()]);
    restore().exits(1);
    s3.fail(|_| Fault::Cut);
    restore().exits(202);
    let configuration = fs::read_to_string(home.home.config_file()).unwrap();
    home.home.write_config_text("no configuration");
    restore().exits(205);
    fs::write(data.join("standby.signal"), "").unwrap();
    restore().exits(5);
    home.home.write_config_text(&configuration);
    restore().exits(2);
}
