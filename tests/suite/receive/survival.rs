//! Does a commit survive whose COMMIT returned? The receiver is the only synchronous standby, it is killed again and
//! again, at last the primary is lost, and a base backup recovers from what was received.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::support::{Receiving, SETTINGS, SMALL_SEGMENT, Way, assert_holds, collect, streaming};
use crate::support::chance::Chance;
use crate::support::faults::is_full_sweep;
use crate::support::home::{Home, names};
use crate::support::life::{log, wait_for_promotion};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Walarch, wait_for};
use crate::support::wire::position;
use crate::support::writers::{Promised, Writers};

/// A primary with a base backup, and a home that receives from it.
struct Survival {
    primary: Postgres,
    home: Home,
    backup: tempfile::TempDir,
}

impl Survival {
    /// The receiver is running already: WAL is there from the backup on.
    fn begin(way: Way) -> (Self, Receiving) {
        let primary = Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |_| {
            format!("{SETTINGS}wal_keep_size = 1GB\n")
        });
        let home = way.archiving_home(&primary, "survival", &[("create_slot", "auto")]);
        Writers::prepare(&primary);
        let receiving = streaming(&home);
        let backup = tempfile::tempdir().unwrap();
        let own = primary.dir("backup");
        let (conninfo, goal) = (primary.conninfo(), own.to_str().unwrap());
        primary.succeed(
            "pg_basebackup",
            &["-X", "none", "-c", "fast", "-d", &conninfo, "-D", goal],
        );
        copy(&own, backup.path());
        let survival = Self {
            primary,
            home,
            backup,
        };
        (survival, receiving)
    }

    /// From now on a commit returns only when the receiver has it. Whether anybody waits for it the receiver asks when
    /// it starts.
    fn wait_for_receiver_at_commit(&self, receiving: Receiving) -> Receiving {
        receiving.end_by(Signal::SIGINT).exits(0);
        let settings = format!("{SETTINGS}wal_keep_size = 1GB\n");
        self.primary.wait_for_receiver_at_commit(&settings);
        Receiving::start(Walarch, &self.home)
    }

    /// Whatever segment is complete is the server's, byte for byte.
    #[track_caller]
    fn assert_segments_are_the_servers(&self, received: &Path) {
        let pg_wal = self.primary.data().join("pg_wal");
        let mut segments = names(received);
        segments.retain(|name| name.len() == 24);
        assert!(segments.len() > 2, "{segments:?}");
        for name in segments {
            let (ours, theirs) = (fs::read(received.join(&name)), fs::read(pg_wal.join(&name)));
            assert!(ours.unwrap() == theirs.unwrap(), "{name} differs");
        }
    }

    /// Recovers the backup from what was received alone. Returns the numbers that are there.
    fn recover(self, received: &Path) -> BTreeSet<u64> {
        let Self {
            mut primary,
            backup,
            ..
        } = self;
        primary.kill();
        fs::remove_dir_all(primary.data()).unwrap();
        let server = Postgres::recovering(&backup.path().join("backup"), |folder| {
            let wal = Path::new(folder).join("wal");
            copy(received, &wal);
            // What was never completed is found under the name that recovery asks for.
            for name in names(&wal) {
                if let Some(segment) = name.strip_suffix(".partial") {
                    let complete = wal.join(segment);
                    assert!(!complete.exists(), "{segment} twice");
                    fs::rename(wal.join(&name), complete).unwrap();
                }
            }
            format!("{SETTINGS}restore_command = 'cp {folder}/wal/%f %p'\n")
        });
        wait_for_promotion(&server);
        assert!(log(&server).contains("archive recovery complete"));
        let numbers = server.ask("SELECT number FROM numbers");
        numbers.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// With owners and modes.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Kills receivers at random instants until that has happened so often, and so much was committed.
fn kill_again_and_again(
    survival: &Survival,
    mut receiving: Receiving,
    writers: &Writers,
    kills: u32,
    commits: usize,
) {
    let mut chance = Chance::new();
    let start = position(&survival.primary.ask("SELECT pg_current_wal_flush_lsn()"));
    let mut killed = 0;
    while killed < kills || writers.count() < commits {
        if chance.once_in(4) {
            // Perhaps it has not even begun to receive.
            chance.sleep_below(400);
        } else {
            let goal = 1 + usize::try_from(chance.below(150)).unwrap();
            receiving = receive_until(receiving, survival, writers, goal);
            chance.sleep_below(10);
        }
        drop(receiving);
        killed += 1;
        // The primary could be lost now.
        let end = writers.promised().position;
        let begin = start.max(end.saturating_sub(4 * SMALL_SEGMENT));
        assert_holds(&survival.primary, &survival.home, begin..end, "killed");
        if chance.once_in(4) {
            survival.home.archive();
        }
        receiving = Receiving::start(Walarch, &survival.home);
    }
    // The last ones do not live to see the end either.
    drop(receive_until(receiving, survival, writers, 50));
    let last = Receiving::start(Walarch, &survival.home);
    chance.sleep_below(500);
    drop(last);
    println!("{killed} receivers were killed");
}

/// Waits for so many commits. A receiver that ends by itself is started again, as cron or systemd would do it.
#[track_caller]
fn receive_until(
    mut receiving: Receiving,
    survival: &Survival,
    writers: &Writers,
    commits: usize,
) -> Receiving {
    let goal = writers.count() + commits;
    wait_for("commits", || {
        if receiving.has_ended() {
            println!("it ended: {}", receiving.output());
            receiving = Receiving::start(Walarch, &survival.home);
        }
        (writers.count() >= goal).then_some(())
    });
    receiving
}

#[track_caller]
fn assert_survives(way: Way, kills: u32, commits: usize) {
    let (survival, receiving) = Survival::begin(way);
    let receiving = survival.wait_for_receiver_at_commit(receiving);
    let writers = Writers::start(&survival.primary, 8);
    kill_again_and_again(&survival, receiving, &writers, kills, commits);
    let received = collect(&survival.home);
    survival.assert_segments_are_the_servers(received.path());
    let recovered = survival.recover(received.path());
    assert_nothing_is_missing(&writers.end(), &recovered);
}

#[track_caller]
fn assert_nothing_is_missing(promised: &Promised, recovered: &BTreeSet<u64>) {
    let missing: Vec<_> = promised.numbers.difference(recovered).collect();
    let (count, all) = (missing.len(), promised.numbers.len());
    assert!(count == 0, "{count} of {all} are lost: {missing:?}");
    println!("{all} commits were promised, {} recovered", recovered.len());
}

/// How many kills, of how many commits at least.
fn thoroughness() -> (u32, usize) {
    match is_full_sweep() {
        true => (120, 10_000),
        false => (10, 1000),
    }
}

#[test]
fn no_promised_commit_is_lost() {
    let (kills, commits) = thoroughness();
    assert_survives(Way::Builtin, kills, commits);
}

#[test]
fn no_promised_commit_is_lost_with_pg_receivewal() {
    let (kills, commits) = thoroughness();
    assert_survives(Way::PgReceivewal, kills / 2, commits / 2);
}

/// What finds nothing here would find nothing anywhere.
#[test]
fn commits_that_waited_for_nobody_are_missed() {
    let (survival, receiving) = Survival::begin(Way::PgReceivewal);
    let writers = Writers::start(&survival.primary, 8);
    writers.wait_for(200);
    let so_far = survival.primary.ask("SELECT pg_current_wal_flush_lsn()");
    let sql = format!("SELECT count(*) FROM pg_stat_replication WHERE write_lsn >= '{so_far}'");
    wait_for("the receiver", || {
        (survival.primary.ask(&sql) == "1").then_some(())
    });
    receiving.end_by(Signal::SIGKILL).exits(128 + 9);
    writers.wait_for(200);
    let received = collect(&survival.home);
    let recovered = survival.recover(received.path());
    let promised = writers.end().numbers;
    assert!(recovered.len() > 100, "{}", recovered.len());
    assert!(promised.difference(&recovered).count() > 100);
}
