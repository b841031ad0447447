//! A store, or a way to it, that fails: nothing is lost, nothing overwritten, nothing claimed.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{CloudHome, key};
use crate::support::fake_s3::{FakeS3, Fault};
use crate::support::home::{names, put};
use crate::support::object_stores::SECRET_KEY;
use crate::support::tool::{finish, wait_for};
use crate::support::wal::{SYSTEM_ID, Segment};

/// Short limits, so that a test is.
const QUICK: &str = "cloud_request_timeout_s = 1\ncloud_total_timeout_s = 5\ncloud_retries = 2\n";

const ONE: &str = "000000010000000000000001";

fn home(s3: &FakeS3) -> CloudHome {
    let home = CloudHome::s3(&s3.endpoint(), &[], QUICK);
    put(&home.home.incoming(), "00000009.history", b"1\t0/1\tx\n");
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
fn a_claim_that_it_exists_is_not_believed() {
    arrives_in_spite_of(1, Fault::Refuse(412, "PreconditionFailed"));
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
    arrives_in_spite_of(1, Fault::Refuse(429, "TooManyRequests"));
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_the_body_is_made_again() {
    let s3 = FakeS3::start();
    let cut = Cut::before(s3.port(), 20_000);
    let home = CloudHome::s3(&cut.endpoint(), &[("compression", "none")], QUICK);
    let files = home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    assert!(cut.has_happened());
    assert_eq!(home.listed(), [ONE]);
    home.assert_holds(&files);
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
    let log = home.home.log();
    assert_eq!(errors_of(&log).len(), 1, "{log}");

    s3.heal();
    home.archive().exits(0);
    assert_eq!(home.listed().len(), 6);
}

fn errors_of(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains(" ERROR:"))
        .collect()
}

/// One line in the log, which says what did not go where, and why.
#[test]
fn every_failure_is_named_in_one_line() {
    for (fault, reason) in [
        (Fault::Cut, "HTTP error"),
        (Fault::Refuse(403, "AccessDenied"), "AccessDenied"),
        (Fault::Refuse(404, "NoSuchBucket"), "NoSuchBucket"),
        (
            Fault::Refuse(409, "ConditionalRequestConflict"),
            "ConditionalRequestConflict",
        ),
        (
            Fault::Refuse(412, "PreconditionFailed"),
            "PreconditionFailed",
        ),
        (Fault::Refuse(500, "InternalError"), "InternalError"),
        (Fault::Refuse(503, "SlowDown"), "SlowDown"),
        (Fault::Refuse(429, "TooManyRequests"), "TooManyRequests"),
        (Fault::Refuse(403, "ExpiredToken"), "ExpiredToken"),
        (Fault::Damage, "XAmzContentSHA256Mismatch"),
    ] {
        let s3 = FakeS3::start();
        let home = home(&s3);
        home.home.incoming_segments(1..=2);
        let shown = format!("{fault:?}");
        s3.fail(move |request| match request.method.as_str() {
            "PUT" => fault.clone(),
            _ => Fault::None,
        });
        let run = home.archive().exits(1);
        let log = home.home.log();
        let errors = errors_of(&log);
        assert_eq!(errors.len(), 1, "{shown}: {errors:#?}");
        assert!(errors[0].contains(&key(ONE, ".zst")), "{shown}: {errors:?}");
        assert!(errors[0].contains(reason), "{shown}: {errors:?}");
        assert_eq!(run.stderr.matches("ERROR:").count(), 1, "{}", run.stderr);
        assert_eq!(names(&home.home.incoming()).len(), 2, "{shown}");
        assert_eq!(home.listed().len(), 1, "{shown}");
    }
}

#[test]
fn a_store_that_never_answers_is_given_up() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    home.home.incoming_segments(1..=1);
    s3.fail(|_| Fault::Late(Duration::from_secs(60)));
    let start = Instant::now();
    home.archive().exits(1);
    let log = home.home.log();
    let errors = errors_of(&log);
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0].contains(&key(ONE, ".zst")), "{log}");
    assert!(errors[0].contains("timed out"), "{log}");
    let goal = home.home.root().join("goal");
    home.run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()])
        .exits(2);
    assert!(start.elapsed() < Duration::from_secs(50));
}

#[test]
fn a_run_that_was_killed_is_made_up_for_by_the_next() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let files = home.home.incoming_segments(1..=3);
    // Stored, and the answer never comes.
    s3.fail(|request| match request.method.as_str() {
        "PUT" => Fault::Late(Duration::from_secs(3)),
        _ => Fault::None,
    });
    let mut run = home.start(&["archive-wal", "main"]);
    wait_for("an object", || {
        s3.keys().contains(&key(ONE, ".zst")).then_some(())
    });
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(names(&home.home.incoming()).len(), 3);
    assert_eq!(home.listed(), ["00000009.history"]);

    s3.heal();
    home.archive().exits(0);
    assert_eq!(names(&home.home.incoming()), [] as [&str; 0]);
    assert_eq!(home.listed().len(), 4);
    home.assert_holds(&files);
}

#[test]
fn two_who_send_the_same_file_both_succeed_and_list_it_once() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let segment = Segment::small(1);
    let path = put(home.home.root(), ONE, &segment.bytes());
    s3.delay(Duration::from_millis(300));
    let send = ["cloud-wal-archive", "main", path.to_str().unwrap()];
    let both = [home.start(&send), home.start(&send)];
    for run in both {
        finish(run, Duration::from_secs(60)).exits(0);
    }
    assert_eq!(home.listed(), ["00000009.history", ONE]);
}

#[test]
fn of_two_who_send_different_files_of_one_name_one_fails() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let mut bytes = Segment::small(1).bytes();
    let first = put(home.home.root(), ONE, &bytes);
    *bytes.last_mut().unwrap() ^= 1;
    fs::create_dir(home.home.root().join("other")).unwrap();
    let second = put(&home.home.root().join("other"), ONE, &bytes);
    s3.delay(Duration::from_millis(300));
    let both = [&first, &second]
        .map(|path| home.start(&["cloud-wal-archive", "main", path.to_str().unwrap()]));
    let mut codes = both.map(|run| finish(run, Duration::from_secs(60)).code);
    let stored = home.restored(ONE);
    let winner = if codes[0] == 0 { &first } else { &second };
    assert!(fs::read(winner).unwrap() == stored);
    codes.sort();
    assert_eq!(codes, [0, 1]);
    assert_eq!(home.listed(), ["00000009.history", ONE]);
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
fn wal_of_another_cluster_is_not_restored() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    let data = home.home.root().join("data");
    fs::create_dir_all(data.join("pg_wal")).unwrap();
    fs::create_dir(data.join("global")).unwrap();
    let goal = data.join("pg_wal/RECOVERYXLOG");
    let restore = |system_id: u64, options: &[&str]| {
        fs::write(data.join("global/pg_control"), system_id.to_ne_bytes()).unwrap();
        let words = ["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()];
        home.run(&[&words[..], options].concat())
    };
    let run = restore(42, &[]).exits(4);
    assert!(run.stderr.contains("this server is system 42"), "{run:?}");
    assert!(!goal.exists());
    // Options put together by a script.
    restore(SYSTEM_ID, &["-p", "4", "--par", "1"]).exits(0);
    assert!(fs::read(&goal).unwrap() == Segment::small(1).bytes());
}

/// PostgreSQL would take its end for the end of the WAL.
#[test]
fn an_incomplete_segment_never_stands_in_for_one_that_cannot_be_read() {
    let s3 = FakeS3::start();
    let home = home(&s3);
    let files = home.home.incoming_segments(1..=1);
    let partial = format!("{ONE}.partial");
    put(&home.home.incoming(), &partial, &files[ONE][..1 << 15]);
    home.archive().exits(0);
    let complete = key(ONE, ".zst");
    assert!(s3.keys().contains(&key(&partial, ".zst")) && s3.keys().contains(&complete));
    let goal = home.home.root().join("goal");
    let restore = || home.run(&["cloud-wal-restore", "main", ONE, goal.to_str().unwrap()]);
    let object = complete.clone();
    s3.fail(
        move |request| match request.path().ends_with(object.as_str()) {
            true => Fault::Refuse(503, "SlowDown"),
            false => Fault::None,
        },
    );
    let log_before = home.home.log().len();
    restore().exits(2);
    let log = home.home.log()[log_before..].to_owned();
    assert_eq!(log.matches("SlowDown").count(), 1, "{log}");
    s3.heal();
    s3.put(&complete, b"\x28\xb5\x2f\xfdgarbage");
    restore().exits(4);
    assert!(!goal.exists());
    // Where there is no complete one it will do.
    s3.remove(&complete);
    restore().exits(0);
    let delivered = fs::read(&goal).unwrap();
    assert_eq!(delivered[..1 << 15], files[ONE][..1 << 15]);
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

/// Passes connections on, and cuts the first one that brings more than so many bytes.
struct Cut {
    port: u16,
    has_happened: Arc<AtomicBool>,
}

impl Cut {
    fn before(port: u16, bytes_max: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cut = Cut {
            port: listener.local_addr().unwrap().port(),
            has_happened: Arc::default(),
        };
        let has_happened = Arc::clone(&cut.has_happened);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let has_happened = Arc::clone(&has_happened);
                thread::spawn(move || {
                    let _ = pass_on(&client, port, bytes_max, &has_happened);
                });
            }
        });
        cut
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn has_happened(&self) -> bool {
        self.has_happened.load(Ordering::Relaxed)
    }
}

fn pass_on(
    mut client: &TcpStream,
    port: u16,
    bytes_max: u64,
    has_happened: &AtomicBool,
) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut &server, &mut &*client));
        let (mut passed, mut buffer) = (0, [0; 4096]);
        loop {
            let count = client.read(&mut buffer)?;
            passed += count as u64;
            let is_too_much = passed > bytes_max && !has_happened.load(Ordering::Relaxed);
            if count == 0 || is_too_much {
                has_happened.fetch_or(is_too_much, Ordering::Relaxed);
                let _ = client.shutdown(std::net::Shutdown::Both);
                return server.shutdown(std::net::Shutdown::Both);
            }
            (&server).write_all(&buffer[..count])?;
        }
    })
}
