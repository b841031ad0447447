//! The same on every kind of store, with real server software.

use std::fs;

use super::CloudHome;
use crate::support::home::{names, put};
use crate::support::object_stores::{Kind, ObjectStore};

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
