//! The same on every kind of store, with real server software.

use std::fs;

use super::CloudHome;
use crate::support::home::{names, put};
use crate::support::object_stores::{Kind, ObjectStore};
use crate::support::tool::wait_for;
use crate::support::wal::Segment;

fn home(store: &ObjectStore, path: &str, options: &[(&str, &str)]) -> CloudHome {
    let (url, environment) = (store.url(path), store.environment());
    CloudHome::new(&url, &store.endpoint(), environment, options, "")
}

/// Everything that archiving and restoring need, from the queue and by path.
fn works_on(kind: Kind) {
    let store = ObjectStore::start(kind);
    queue_is_archived_and_rebuilt(&store);
    different_content_is_never_overwritten(&store);
    every_codec_comes_back(&store);
    archive_is_inspected_and_pruned(&store);
}

fn queue_is_archived_and_rebuilt(store: &ObjectStore) {
    let home = home(store, "queue", &[]);
    let files = home.home.incoming_segments(1..=5);
    put(
        &home.home.incoming(),
        "00000002.history",
        b"1\t0/3000000\tno recovery target specified\n",
    );
    home.archive().exits(0);
    assert_eq!(names(&home.home.incoming()), [] as [&str; 0]);
    assert_eq!(home.listed().len(), 6);
    home.assert_holds(&files);
    // The same files once more: recognised by their content, listed once.
    home.home.incoming_segments(1..=5);
    home.archive().exits(0);
    assert_eq!(names(&home.home.incoming()), [] as [&str; 0]);
    assert_eq!(home.listed().len(), 6);

    let before = home.xlogdb();
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    let strip = |lines: Vec<_>| -> Vec<_> {
        let mut lines: Vec<_> = lines
            .into_iter()
            .map(|line: crate::support::home::XlogdbLine| {
                (line.name, line.size_bytes, line.compression)
            })
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(strip(home.xlogdb()), strip(before));
}

fn different_content_is_never_overwritten(store: &ObjectStore) {
    let home = home(store, "different", &[]);
    let files = home.home.incoming_segments(1..=1);
    home.archive().exits(0);
    let (name, bytes) = files.first_key_value().unwrap();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    let path = put(home.home.root(), name, &other);
    let run = home
        .run(&["archive-wal", "main", path.to_str().unwrap()])
        .exits(1);
    assert!(run.stderr.contains("different content"), "{}", run.stderr);
    assert_eq!(fs::read(&path).unwrap(), other);
    put(&home.home.incoming(), name, &other);
    home.archive().exits(0);
    assert!(names(&home.home.errors())[0].ends_with(".duplicate"));
    home.assert_holds(&files);
}

fn every_codec_comes_back(store: &ObjectStore) {
    for codec in ["none", "gzip", "bzip2", "xz", "lz4", "snappy"] {
        let home = home(store, codec, &[("compression", codec)]);
        let files = home.home.incoming_segments(1..=1);
        home.archive().exits(0);
        home.assert_holds(&files);
    }
}

/// Every command that looks at an archive or changes it.
fn archive_is_inspected_and_pruned(store: &ObjectStore) {
    let home = home(store, "upkeep", &[]);
    home.run(&["check-wal-archive", "main"]).exits(0);
    home.home.incoming_segments(1..=6);
    home.archive().exits(0);
    let says = |arguments: &[&str], code: i32, text: &str| {
        let run = home.run(arguments);
        assert!(
            run.stdout.contains(text) || run.stderr.contains(text),
            "{run:?}"
        );
        assert_eq!(run.code, code, "{run:?}");
    };
    let name = |number| Segment::small(number).name();
    // PostgreSQL cannot be reached.
    says(&["check", "main"], 1, "cloud storage configuration: OK\n");
    says(
        &["status", "main"],
        0,
        &format!("Newest WAL in the archive: {}", name(6)),
    );
    says(&["list-wals", "main"], 0, "6 WAL files");
    says(&["verify-wals", "main"], 0, "Verified 6 WAL files");
    says(&["check-wal-archive", "main"], 1, "Expected empty archive");
    let duplicate = format!("{}.20260101T000000Z.duplicate", name(2));
    put(&home.home.errors(), &duplicate, &Segment::small(2).bytes());
    says(&["errors", "main", "--resolve"], 0, "removed");

    says(
        &["delete-wals", "main", "--before", &name(4)],
        0,
        "3 WAL files",
    );
    home.run(&["rebuild-xlogdb", "main"]).exits(0);
    assert_eq!(home.listed(), [4, 5, 6].map(name));
    let goal = home.home.root().join("out");
    fs::create_dir(&goal).unwrap();
    let get = |number| {
        home.run(&[
            "get-wal",
            "main",
            &name(number),
            "-o",
            goal.to_str().unwrap(),
        ])
    };
    get(3).exits(1);
    get(4).exits(0);
    assert!(fs::read(goal.join(name(4))).unwrap() == Segment::small(4).bytes());

    home.home.incoming_segments(7..=7);
    home.run(&["cron"]).exits(0);
    wait_for("cron's archiver", || {
        (home.listed().len() == 4).then_some(())
    });
    says(&["verify-wals", "main"], 0, "Verified 4 WAL files");
}

#[test]
fn s3_by_moto_works() {
    works_on(Kind::Moto);
}

#[test]
fn s3_with_checked_signatures_works() {
    works_on(Kind::S3sFs);
}

#[test]
fn azure_works() {
    works_on(Kind::Azurite);
}

#[test]
fn google_works() {
    works_on(Kind::Google);
}
