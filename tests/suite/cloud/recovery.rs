//! A PostgreSQL cluster that archives into a bucket and comes back from there alone, at a point in time.

use std::fs;

use super::CloudHome;
use crate::support::object_stores::{Kind, ObjectStore};
use crate::support::postgres::Postgres;
use crate::support::tool::{Walarch, wait_for};

#[test]
fn a_cluster_goes_back_in_time_from_the_bucket_alone() {
    let store = ObjectStore::start(Kind::Moto);
    let home = CloudHome::s3(&store.endpoint(), &[], "");
    let variables: String = store
        .environment()
        .into_iter()
        .map(|(name, value)| format!("{name}={value} "))
        .collect();
    run_as_server_user(&home);
    // The commands are those of the README: everything else is in the environment and below HOME.
    let command = |folder: &str, words: &str| {
        format!("HOME={folder} PATH={folder}:$PATH {variables}walarch {words}")
    };
    let mut cluster = Postgres::start(|folder| {
        fs::copy(Walarch.program(), format!("{folder}/walarch")).unwrap();
        for (from, to) in [
            ("barman.conf", ".barman.conf"),
            ("walarch.toml", "walarch.toml"),
        ] {
            fs::copy(home.home.root().join(from), format!("{folder}/{to}")).unwrap();
        }
        let archive = command(folder, "cloud-wal-archive main %p -p 4");
        format!("archive_mode = on\narchive_command = '{archive}'\nmax_wal_size = 1GB\n")
    });
    cluster.give(home.home.root());
    cluster.sql("CREATE TABLE t AS SELECT 1 AS n");

    // Its data directory as it is now is the base backup.
    let base = home.home.root().join("base");
    let arguments = [
        "-D",
        base.to_str().unwrap(),
        "-d",
        &cluster.conninfo(),
        "-c",
        "fast",
        "-X",
        "none",
    ];
    cluster.succeed("pg_basebackup", &arguments);
    for n in 2..=6 {
        cluster.sql(&format!(
            "INSERT INTO t VALUES ({n}); SELECT pg_switch_wal()"
        ));
    }
    let target = cluster.ask("SELECT clock_timestamp()");
    cluster.sql("INSERT INTO t VALUES (99); SELECT pg_switch_wal()");
    let last = cluster.ask("SELECT pg_walfile_name(pg_current_wal_lsn())");
    wait_for("the archiver", || {
        let archived = cluster.ask("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
        (archived.len() == 24 && archived < last && archived.as_str() >= previous(&last).as_str())
            .then_some(())
    });
    let failed = cluster.ask("SELECT failed_count FROM pg_stat_archiver");
    assert_eq!(
        failed,
        "0",
        "{}",
        fs::read_to_string(cluster.log_file()).unwrap()
    );
    cluster.stop();

    let data = cluster.data();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&base, &data)
        .or_else(|_| copy(&base, &data))
        .unwrap();
    // Not in /var/tmp, which other users share.
    let spool = format!("--spool-dir {}/spool", cluster.socket());
    let restore = command(
        cluster.socket(),
        &format!("cloud-wal-restore main %f %p -p 4 {spool}"),
    );
    cluster.configure(&format!(
        "restore_command = '{restore}'\nrecovery_target_time = '{target}'\nrecovery_target_action = 'promote'\n"
    ));
    fs::write(data.join("recovery.signal"), "").unwrap();
    cluster.give(&data);
    cluster.run();
    wait_for("the end of recovery", || {
        (cluster.ask("SELECT pg_is_in_recovery()") == "f").then_some(())
    });
    let rows = cluster.ask("SELECT string_agg(n::text, ',' ORDER BY n) FROM t");
    assert_eq!(rows, "1,2,3,4,5,6");
    cluster.stop();
}

/// PostgreSQL's commands run as its own user.
fn run_as_server_user(home: &CloudHome) {
    let text = fs::read_to_string(home.home.config_file()).unwrap();
    home.home
        .write_config_text(&text.replace("barman_user = root", "barman_user = postgres"));
}

/// The name of the segment before, in the same log.
fn previous(name: &str) -> String {
    let number = u32::from_str_radix(&name[16..], 16).unwrap();
    format!("{}{:08X}", &name[..16], number - 1)
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()?;
    assert!(status.success());
    Ok(())
}
