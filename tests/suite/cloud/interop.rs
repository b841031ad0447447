//! The real Barman's cloud commands read what walarch wrote on S3, and the reverse.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use super::CloudHome;
use crate::support::home::{names, put};
use crate::support::object_stores::{Kind, ObjectStore};
use crate::support::tool::{Barman, Run, Tool, Walarch, barman_venv, in_home};
use crate::support::wal::{MIB, Segment};

/// Barman's `cloud-wal-archive` asks for this method of base backups.
const LOCAL_TO_CLOUD: [(&str, &str); 2] = [
    ("backup_method", "local-to-cloud"),
    ("basebackups_directory", "s3://wal/pre"),
];

fn home(store: &ObjectStore, codec: &str) -> CloudHome {
    let mut options = LOCAL_TO_CLOUD.to_vec();
    options.push(("compression", codec));
    let mut environment = store.environment();
    environment.push(("AWS_ENDPOINT_URL", store.endpoint()));
    let url = format!("s3://wal/{codec}");
    CloudHome::new(&url, &store.endpoint(), environment, &options, "")
}

fn crosses_over(writer: Tool, reader: Tool) {
    let store = ObjectStore::start(Kind::Moto);
    for codec in ["gzip", "bzip2", "xz", "zstd", "lz4", "snappy"] {
        let home = home(&store, codec);
        let segment = Segment::small(1);
        let pg_wal = home.home.root().join("pg_wal");
        fs::create_dir(&pg_wal).unwrap();
        let history = "00000002.history";
        for (name, bytes) in [
            (segment.name(), segment.bytes()),
            (history.to_owned(), b"1\t0/1\tx\n".to_vec()),
        ] {
            let path = put(&pg_wal, &name, &bytes);
            home.run_as(
                writer,
                &["cloud-wal-archive", "main", path.to_str().unwrap()],
            )
            .exits(0);
            let goal = home.home.root().join("goal");
            home.run_as(
                reader,
                &["cloud-wal-restore", "main", &name, goal.to_str().unwrap()],
            )
            .exits(0);
            assert!(fs::read(goal).unwrap() == bytes, "{codec}: {name}");
            // The second one to archive it finds it there, and lists it where it is listed already.
            home.run_as(
                reader,
                &["cloud-wal-archive", "main", path.to_str().unwrap()],
            )
            .exits(0);
        }
        assert_eq!(home.xlogdb()[0].compression, codec);
    }
}

#[test]
fn barman_reads_what_walarch_wrote() {
    crosses_over(Walarch, Barman);
}

#[test]
fn walarch_reads_what_barman_wrote() {
    crosses_over(Barman, Walarch);
}

/// What CloudNativePG and others run, without a Barman home.
fn barman_cloud(home: &CloudHome, store: &ObjectStore, program: &str, rest: &[&str]) -> Run {
    let mut command = in_home(
        Command::new(barman_venv().join("bin").join(program)),
        &home.home,
    );
    command
        .args(["--endpoint-url", &store.endpoint()])
        .args(rest);
    home.finish(command)
}

#[test]
fn the_commands_of_barman_cloud_read_and_write_the_same_bucket() {
    let store = ObjectStore::start(Kind::Moto);
    for (codec, option) in [
        ("gzip", "--gzip"),
        ("zstd", "--zstd"),
        ("snappy", "--snappy"),
    ] {
        let home = home(&store, codec);
        let bucket = format!("s3://wal/{codec}");
        // gzip has several members from a certain size on.
        let ours = Segment::of_size(16 * MIB, 1);
        put(&home.home.incoming(), &ours.name(), &ours.bytes());
        home.archive().exits(0);
        let goal = home.home.root().join("goal");
        let restore = [&bucket, "main", &ours.name(), goal.to_str().unwrap()];
        barman_cloud(&home, &store, "barman-cloud-wal-restore", &restore).exits(0);
        assert!(fs::read(&goal).unwrap() == ours.bytes(), "{codec}");

        let theirs = Segment::of_size(16 * MIB, 2);
        let path = put(home.home.root(), &theirs.name(), &theirs.bytes());
        let archive = [option, &bucket, "main", path.to_str().unwrap()];
        barman_cloud(&home, &store, "barman-cloud-wal-archive", &archive).exits(0);
        assert!(home.restored(&theirs.name()) == theirs.bytes(), "{codec}");
        // It lists nothing; the bucket does.
        home.run(&["rebuild-xlogdb", "main"]).exits(0);
        assert_eq!(home.listed(), [ours.name(), theirs.name()]);
        home.run(&["verify-wals", "main"]).exits(0);
    }
}

#[test]
fn barmans_queue_archiver_and_walarchs_fill_one_bucket() {
    let store = ObjectStore::start(Kind::Moto);
    let home = home(&store, "gzip");
    let first = home.home.incoming_segments(1..=2);
    home.run_as(Barman, &["archive-wal", "main"]).exits(0);
    let second = home.home.incoming_segments(3..=4);
    home.archive().exits(0);
    // As Barman's own copies, sent again.
    home.home.incoming_segments(1..=4);
    home.run_as(Barman, &["archive-wal", "main"]).exits(0);
    home.home.incoming_segments(1..=4);
    home.archive().exits(0);
    home.assert_holds(&first);
    home.assert_holds(&second);
    let listed: BTreeSet<String> = home.listed().into_iter().collect();
    let sent: BTreeSet<String> = first.into_keys().chain(second.into_keys()).collect();
    assert_eq!(listed, sent);
    assert_eq!(names(&home.home.errors()), [] as [&str; 0]);
}
