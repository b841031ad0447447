//! Does PostgreSQL recover from what walarch received and stored? A base backup, WAL that came in both ways, a cluster that
//! is gone; to a point in time, a restore point, the end of WAL with the last partial segment, and across a promotion; from
//! plain, compressed and encrypted archives; by walarch's commands, by Barman's, and by one of each.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::home::names;
use crate::support::life::{
    CODECS, Life, POINT, install_client, life, log, path, restore_command, state,
    wait_for_promotion,
};
use crate::support::postgres::Postgres;
use crate::support::sshd::{HOST, Sshd};
use crate::support::tool::{Barman, Walarch, barman_venv, wait_for};

/// Recovers with these settings and compares what is there then.
#[track_caller]
fn assert_recovers(
    life: &Life,
    sshd: &Sshd,
    restore: impl FnOnce(&str) -> String,
    target: &str,
    expected: &str,
) -> Postgres {
    let server = Postgres::recovering(&life.backup, |folder| {
        install_client(Path::new(folder), sshd);
        let restore = restore(folder);
        format!("restore_command = '{restore}'\nrecovery_target_action = promote\n{target}")
    });
    wait_for_promotion(&server);
    assert_eq!(state(&server), expected, "{}", log(&server));
    server
}

/// By walarch's client, from each of the three archives that WAL reached in this way.
#[track_caller]
fn assert_walarch_recovers(way: &str, options: &str, target: &str, expected: &str) {
    let life = life();
    let sshd = Sshd::start(&life.home, Walarch);
    for codec in CODECS {
        let restore = |folder: &str| {
            // A spool of its own for each folder.
            let options = format!("{options} --spool-dir {folder}/spool");
            restore_command(folder, &sshd, &options, &format!("{way}_{codec}"))
        };
        assert_recovers(life, &sshd, restore, target, expected);
    }
}

fn to_time() -> String {
    format!(
        "recovery_target_time = '{}'\nrecovery_target_timeline = current\n",
        life().time
    )
}

fn to_point() -> String {
    format!("recovery_target_name = '{POINT}'\nrecovery_target_timeline = current\n")
}

#[test]
fn to_a_point_in_time() {
    assert_walarch_recovers("shipped", "-p 2", &to_time(), &life().at_time);
}

#[test]
fn to_a_restore_point() {
    assert_walarch_recovers(
        "streamed",
        "--keep-compression",
        &to_point(),
        &life().at_point,
    );
}

#[test]
fn to_the_end_of_wal_with_the_last_partial_segment() {
    assert_walarch_recovers("streamed", "-P", "", &life().at_end);
}

#[test]
fn across_a_promotion() {
    assert_walarch_recovers("shipped", "-p 4", "", &life().at_end_of_timeline_2);
}

#[test]
fn beside_the_archive() {
    let life = life();
    let sshd = Sshd::start(&life.home, Walarch);
    let home = life.home.copy();
    // The server runs as another user when the tests run as root.
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("barman_user = root", "barman_user = postgres"));
    let restore = |folder: &str| {
        let copied = Command::new("cp")
            .args(["-a", home.root().to_str().unwrap()])
            .arg(format!("{folder}/home"))
            .status();
        assert!(copied.unwrap().success());
        let (from, to) = (home.root().to_str().unwrap(), format!("{folder}/home"));
        let config = format!("{to}/barman.conf");
        let text = fs::read_to_string(&config).unwrap().replace(from, &to);
        fs::write(&config, text).unwrap();
        let options = format!("-p 2 --local --spool-dir {folder}/spool");
        format!("{folder}/walarch -c {config} wal-restore {options} shipped_zstd %f %p")
    };
    assert_recovers(life, &sshd, restore, "", &life.at_end_of_timeline_2);
}

/// Barman's client, for a user who may not look into the virtual environment: its packages in the server's folder.
fn barman_wal_restore(folder: &str, sshd: &Sshd, options: &str, server: &str) -> String {
    let library = barman_venv().join("lib");
    let [python] = &names(&library)[..] else {
        panic!("no one Python in {library:?}");
    };
    let packages = library.join(python).join("site-packages");
    let own = format!("{folder}/packages");
    fs::create_dir(&own).unwrap();
    for package in ["barman", "dateutil", "six.py"] {
        let source = packages.join(package);
        if source.exists() {
            let copied = Command::new("cp")
                .arg("-r")
                .args([&source, Path::new(&own)])
                .status();
            assert!(copied.unwrap().success());
        }
    }
    let (path, user) = (path(folder), sshd.user());
    format!(
        "{path} PYTHONPATH={own} /usr/bin/python3 -m barman.clients.walrestore \
         --spool-dir {folder}/spool {options} -U {user} {HOST} {server} %f %p"
    )
}

#[test]
fn by_barman_s_client_from_a_barman() {
    let life = life();
    let sshd = Sshd::start(&life.home, Barman);
    let restore = |folder: &str| barman_wal_restore(folder, &sshd, "-p 4", "shipped_zstd");
    assert_recovers(life, &sshd, restore, "", &life.at_end_of_timeline_2);
}

#[test]
fn by_barman_s_client_from_walarch() {
    let life = life();
    let sshd = Sshd::start(&life.home, Walarch);
    let restore = |folder: &str| barman_wal_restore(folder, &sshd, "-P", "streamed_none");
    assert_recovers(life, &sshd, restore, "", &life.at_end);
}

#[test]
fn by_barman_s_get_wal() {
    let life = life();
    let sshd = Sshd::start(&life.home, Barman);
    let restore = |folder: &str| {
        let (path, user) = (path(folder), sshd.user());
        format!("{path} ssh {user}@{HOST} barman get-wal shipped_gpg %f > %p")
    };
    assert_recovers(life, &sshd, restore, &to_time(), &life.at_time);
}

#[test]
fn by_walarch_from_a_barman() {
    let life = life();
    let sshd = Sshd::start(&life.home, Barman);
    let restore = |folder: &str| {
        let options = format!("-p 2 --spool-dir {folder}/spool");
        restore_command(folder, &sshd, &options, "streamed_zstd")
    };
    assert_recovers(life, &sshd, restore, &to_point(), &life.at_point);
}

/// As the README says it.
const UNLESS_ABSENT: &str = "|| exit $(( $? > 1 ? 126 : 1 ))";

#[test]
fn a_recovery_stops_at_a_damaged_file_when_it_is_told_to() {
    let life = life();
    let home = life.home.copy();
    let wals = home
        .barman_home()
        .join("shipped_zstd/wals/0000000100000000");
    let segments: Vec<String> = names(&wals)
        .into_iter()
        .filter(|name| name.len() == 24)
        .collect();
    let damaged = &segments[segments.len() / 2];
    let bytes = fs::read(wals.join(damaged)).unwrap();
    fs::write(wals.join(damaged), &bytes[..bytes.len() / 2]).unwrap();
    let sshd = Sshd::start(&home, Walarch);
    let server = Postgres::restored(&life.backup, |folder| {
        install_client(Path::new(folder), &sshd);
        let restore = restore_command(folder, &sshd, "", "shipped_zstd");
        format!("restore_command = '{restore} {UNLESS_ABSENT}'\n")
    });
    let mut process = server.spawn("postgres", &["-D", server.data().to_str().unwrap()]);
    let status = wait_for("the end of the server", || process.try_wait().unwrap());
    assert!(!status.success());
    let log = log(&server);
    let expected = format!("FATAL:  could not restore file \"{damaged}\" from archive");
    assert!(log.contains(&expected), "{log}");
    assert!(log.contains("is damaged"), "{log}");
    assert!(!log.contains("archive recovery complete"), "{log}");
}
