//! Looking at an archive in a bucket, giving files back, pruning it.

use std::fs;

use super::{CloudHome, key};
use crate::support::fake_s3::{FakeS3, Fault};
use crate::support::home::{names, put};
use crate::support::tool::{Run, wait_for};
use crate::support::wal::{self, Segment};

fn name(number: u64) -> String {
    Segment::small(number).name()
}

/// Segments 1 to 6 in a bucket.
fn archive(s3: &FakeS3, options: &[(&str, &str)]) -> CloudHome {
    let home = CloudHome::s3(&s3.endpoint(), options, "cloud_retries = 0\n");
    home.home.incoming_segments(1..=6);
    home.archive().exits(0);
    s3.take_asked();
    home
}

fn asked(s3: &FakeS3, method: &str) -> usize {
    let all = s3.take_asked();
    all.iter().filter(|line| line.starts_with(method)).count()
}

/// The lines of `check` about the bucket.
fn check(home: &CloudHome) -> (Run, String) {
    let run = home.run(&["check", "main", "--check-timeout", "20"]);
    let line = run
        .stdout
        .lines()
        .find(|line| line.contains("cloud storage configuration"))
        .unwrap_or_else(|| panic!("{}", run.stdout))
        .trim()
        .to_owned();
    (run, line)
}

#[test]
fn check_reaches_the_bucket_and_leaves_nothing_in_it() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let before = s3.keys();
    assert_eq!(check(&home).1, "cloud storage configuration: OK");
    assert_eq!(s3.keys(), before);
}

#[test]
fn check_names_what_keeps_a_bucket_from_being_used() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let fails = |text: &str| {
        let (run, line) = check(&home);
        let sentence = "cloud storage configuration: FAILED (Could not connect to the cloud provider for WAL \
                        storage. Check your credentials and configuration: ";
        assert!(line.starts_with(sentence), "{line}");
        assert!(line.contains(text), "{line}");
        assert_eq!(run.code, 1);
    };
    s3.fail(|_| Fault::Refuse(403, "AccessDenied"));
    fails("AccessDenied");
    // It may be read and not written.
    s3.fail(|request| match request.method.as_str() {
        "PUT" => Fault::Refuse(403, "AccessDenied"),
        _ => Fault::None,
    });
    fails("cannot write to");
    s3.fail(|_| Fault::Refuse(404, "NoSuchBucket"));
    fails("NoSuchBucket");
    s3.heal();
    assert_eq!(check(&home).1, "cloud storage configuration: OK");
}

#[test]
fn check_refuses_a_store_that_would_overwrite() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let before = s3.keys();
    s3.ignore_conditions();
    let (_, line) = check(&home);
    assert!(line.contains("the store ignores If-None-Match"), "{line}");
    assert_eq!(s3.keys(), before);
}

#[test]
fn check_ends_in_time_when_the_store_does_not_answer() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    s3.delay(std::time::Duration::from_secs(20));
    let start = std::time::Instant::now();
    let run = home
        .run(&["check", "main", "--check-timeout", "1"])
        .exits(1);
    assert!(
        run.stdout.contains("check timeout: FAILED"),
        "{}",
        run.stdout
    );
    assert!(start.elapsed().as_secs() < 15);
}

#[test]
fn check_says_which_codecs_a_bucket_takes() {
    let home = CloudHome::s3("http://127.0.0.1:9", &[("compression", "pigz")], "");
    let (_, line) = check(&home);
    assert!(line.contains("in-memory compression algorithms"), "{line}");
}

#[test]
fn get_wal_gives_files_back_and_tells_absence_from_silence() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let goal = home.home.root().join("out");
    fs::create_dir(&goal).unwrap();
    let get = |name: &str| home.run(&["get-wal", "main", name, "-o", goal.to_str().unwrap()]);
    get(&name(2)).exits(0);
    assert_eq!(
        fs::read(goal.join(name(2))).unwrap(),
        Segment::small(2).bytes()
    );
    get(&name(9)).exits(1);
    s3.put(&key(&name(3), ".zst"), b"\x28\xb5\x2f\xfdgarbage");
    get(&name(3)).exits(4);
    s3.fail(|_| Fault::Cut);
    get(&name(4)).exits(6);
    assert_eq!(names(&goal), [name(2)]);
}

#[test]
fn list_wals_lists_what_is_in_the_bucket_and_what_is_missing() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    home.home.incoming_segments(8..=8);
    home.archive().exits(0);
    let run = home.run(&["list-wals", "main"]).exits(0);
    assert!(run.stdout.contains(&name(8)), "{}", run.stdout);
    assert!(
        run.stdout.contains("7 WAL files,") && run.stdout.contains("1 gap (1 segments missing)"),
        "{}",
        run.stdout
    );
}

#[test]
fn verify_wals_finds_damaged_and_missing_objects() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let verify = |code: i32| home.run(&["verify-wals", "main"]).exits(code);
    let run = verify(0);
    assert!(
        run.stdout.contains("Verified 6 WAL files"),
        "{}",
        run.stdout
    );
    s3.put(&key(&name(2), ".zst"), b"\x28\xb5\x2f\xfdgarbage");
    s3.remove(&key(&name(5), ".zst"));
    let run = verify(1);
    for number in [2, 5] {
        assert!(run.stderr.contains(&name(number)), "{}", run.stderr);
    }
    assert!(!run.stderr.contains(&name(3)), "{}", run.stderr);
}

#[test]
fn delete_wals_deletes_in_bulk() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let run = home
        .run(&["delete-wals", "main", "--before", &name(5)])
        .exits(0);
    assert!(run.stdout.contains("4 WAL files"), "{}", run.stdout);
    assert_eq!(asked(&s3, "POST"), 1);
    assert_eq!(s3.keys(), [key(&name(5), ".zst"), key(&name(6), ".zst")]);
    assert_eq!(home.listed(), [name(5), name(6)]);
}

#[test]
fn delete_wals_names_no_more_objects_at_a_time_than_configured() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[("cloud_delete_batch_size", "2")]);
    home.run(&["delete-wals", "main", "--before", &name(6)])
        .exits(0);
    assert_eq!(asked(&s3, "POST"), 3);
    assert_eq!(s3.keys(), [key(&name(6), ".zst")]);
}

#[test]
fn what_cannot_be_deleted_stays_listed() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[("cloud_delete_batch_size", "2")]);
    let mut requests = 0;
    s3.fail(move |request| {
        requests += usize::from(request.method == "POST");
        match request.method == "POST" && requests > 1 {
            true => Fault::Refuse(403, "AccessDenied"),
            false => Fault::None,
        }
    });
    let before = ["delete-wals", "main", "--before", &name(5)];
    home.run(&before).exits(1);
    s3.heal();
    let left: Vec<String> = (3..=6).map(name).collect();
    assert_eq!(home.listed(), left);
    assert_eq!(s3.keys().len(), 4);
    home.run(&before).exits(0);
    assert_eq!(s3.keys().len(), 2);
}

#[test]
fn deletion_hooks_see_where_an_object_is() {
    let s3 = FakeS3::start();
    let hook = "echo $BARMAN_PHASE $BARMAN_FILE >>{root}/hook.log";
    let home = archive(
        &s3,
        &[
            ("pre_wal_delete_script", hook),
            ("post_wal_delete_script", hook),
        ],
    );
    home.run(&["delete-wals", "main", "--before", &name(2)])
        .exits(0);
    let location = format!("s3://wal/{}", key(&name(1), ".zst"));
    assert_eq!(
        fs::read_to_string(home.home.root().join("hook.log")).unwrap(),
        format!("pre {location}\npost {location}\n")
    );
}

#[test]
fn the_catalogue_is_rebuilt_with_one_listing() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let (history, text) = wal::history(2);
    put(&home.home.incoming(), &history, &text);
    home.archive().exits(0);
    let before = home.xlogdb();
    fs::remove_file(home.home.dir("meta").join("main-xlog.db")).unwrap();
    s3.take_asked();
    let run = home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert!(
        run.stdout
            .contains("(history: 1, backup_labels: 0, wal_file: 6)"),
        "{}",
        run.stdout
    );
    assert_eq!(asked(&s3, ""), 1);
    let strip = |lines: Vec<crate::support::home::XlogdbLine>| -> std::collections::BTreeSet<_> {
        let strip =
            |line: crate::support::home::XlogdbLine| (line.name, line.size_bytes, line.compression);
        lines.into_iter().map(strip).collect()
    };
    assert_eq!(strip(home.xlogdb()), strip(before));
}

#[test]
fn the_catalogue_may_lie_elsewhere() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[("xlogdb_directory", "{root}/elsewhere")]);
    let text = fs::read_to_string(home.home.root().join("elsewhere/main-xlog.db")).unwrap();
    assert_eq!(text.lines().count(), 6);
    assert_eq!(home.xlogdb_text(), "");
}

#[test]
fn check_wal_archive_wants_an_empty_bucket() {
    let s3 = FakeS3::start();
    let home = CloudHome::s3(&s3.endpoint(), &[], "");
    home.run(&["check-wal-archive", "main"]).exits(0);
    let home = archive(&s3, &[]);
    let run = home.run(&["check-wal-archive", "main"]).exits(1);
    assert!(
        run.stderr.contains("Expected empty archive"),
        "{}",
        run.stderr
    );
    // Nobody has listed anything here yet: the bucket is asked.
    fs::remove_file(home.home.dir("meta").join("main-xlog.db")).unwrap();
    home.run(&["check-wal-archive", "main"]).exits(1);
}

#[test]
fn errors_are_compared_with_the_bucket() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let stamp = "20260101T000000Z.duplicate";
    let (same, other) = (
        format!("{}.{stamp}", name(1)),
        format!("{}.{stamp}", name(2)),
    );
    put(&home.home.errors(), &same, &Segment::small(1).bytes());
    let mut bytes = Segment::small(2).bytes();
    *bytes.last_mut().unwrap() ^= 1;
    put(&home.home.errors(), &other, &bytes);
    home.run(&["errors", "main", "--resolve"]).exits(0);
    assert_eq!(names(&home.home.errors()), [other]);
}

#[test]
fn status_shows_the_newest_wal_in_the_bucket() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    let run = home.run(&["status", "main"]).exits(0);
    let newest = format!("Newest WAL in the archive: {}", name(6));
    assert!(run.stdout.contains(&newest), "{}", run.stdout);
}

#[test]
fn cron_archives_into_the_bucket() {
    let s3 = FakeS3::start();
    let home = archive(&s3, &[]);
    home.home.incoming_segments(7..=7);
    home.run(&["cron"]).exits(0);
    wait_for("the archiver", || (home.listed().len() == 7).then_some(()));
    assert!(s3.keys().contains(&key(&name(7), ".zst")));
}

#[test]
fn the_streaming_queue_goes_into_the_bucket_too() {
    let s3 = FakeS3::start();
    let home = CloudHome::s3(
        &s3.endpoint(),
        &[("archiver", "off"), ("streaming_archiver", "on")],
        "",
    );
    let files = home.home.streaming_segments(1..=3);
    home.archive().exits(0);
    // The newest one stays: the receiver goes on from it.
    assert_eq!(names(&home.home.streaming()), [name(3)]);
    let sent = files
        .into_iter()
        .filter(|(file, _)| *file != name(3))
        .collect();
    home.assert_holds(&sent);
}
