//! Real WAL from a throw-away PostgreSQL, taken once per test process.

use std::fs;
use std::process::Child;
use std::sync::OnceLock;

use super::home::{Files, Home, names};
use super::postgres::Postgres;
use super::tool::{Walarch, wait_for};

/// What a cluster archived in a short life: 16 MiB segments of a bulk load, of updates with full-page
/// images and of an index build; a backup label; a promotion with its history file.
pub struct RealWal {
    /// Everything that `archive_command` was given, by name.
    pub archived: Files,
    /// The file that pg_receivewal was still writing to, `NAME.partial`.
    pub partial: (String, Vec<u8>),
    /// As `pg_controldata` tells it.
    pub system_id: u64,
}

impl RealWal {
    /// The whole 16 MiB segments of the first timeline, in order.
    pub fn segments(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.archived
            .iter()
            .filter(|(name, _)| name.len() == 24 && name.starts_with("00000001"))
    }

    /// The one archived file whose name ends so.
    #[track_caller]
    pub fn with_suffix(&self, suffix: &str) -> (&String, &Vec<u8>) {
        self.archived
            .iter()
            .find(|(name, _)| name.ends_with(suffix))
            .unwrap()
    }
}

/// The real WAL; the first caller waits some seconds for it.
pub fn real_wal() -> &'static RealWal {
    static WAL: OnceLock<RealWal> = OnceLock::new();
    WAL.get_or_init(|| live_and_die(start(|folder| format!("cp %p {folder}/archive/%f"))))
}

/// Lets a cluster of its own archive by `walarch archive-wal main %p` into the home. Returns what it
/// believes to be archived and still has.
pub fn archived_by_walarch(home: &Home) -> Files {
    let mut cluster = start(|folder| {
        let config = home.config_file();
        format!(
            "{folder}/walarch -c {} archive-wal main %p",
            config.display()
        )
    });
    // The user of the server may not look into the folder where the program was built.
    fs::copy(Walarch.program(), cluster.dir("walarch")).unwrap();
    cluster.give(home.root());
    cluster
        .sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a FROM generate_series(1, 100000) AS i");
    cluster.sql("SELECT pg_switch_wal(); CREATE INDEX ON t (a)");
    cluster.sql("SELECT pg_switch_wal(); CREATE TABLE last AS SELECT 1 AS one");
    let failed = cluster.ask("SELECT failed_count FROM pg_stat_archiver");
    assert_eq!(
        failed.trim(),
        "0",
        "{}",
        fs::read_to_string(cluster.log_file()).unwrap()
    );
    cluster.stop();
    let pg_wal = cluster.dir("data/pg_wal");
    names(&pg_wal.join("archive_status"))
        .iter()
        .filter_map(|name| name.strip_suffix(".done"))
        .filter_map(|name| Some((name.to_owned(), fs::read(pg_wal.join(name)).ok()?)))
        .collect()
}

/// A cluster that archives by this command, which is told the cluster's folder.
fn start(archive_command: impl FnOnce(&str) -> String) -> Postgres {
    Postgres::start(|folder| {
        for directory in ["archive", "received"] {
            fs::create_dir(format!("{folder}/{directory}")).unwrap();
        }
        let command = archive_command(folder);
        format!(
            "archive_mode = on\narchive_command = '{command}'\nmax_wal_size = 4GB\nwal_keep_size = 4GB\n"
        )
    })
}

fn live_and_die(mut cluster: Postgres) -> RealWal {
    let (data, received) = (cluster.dir("data"), cluster.dir("received"));
    let receiver = cluster.spawn(
        "pg_receivewal",
        &[
            "-h",
            cluster.socket(),
            "-U",
            "postgres",
            "-D",
            received.to_str().unwrap(),
        ],
    );
    cluster.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a, repeat('x', 60) AS b FROM generate_series(1, 150000) AS i");
    cluster.sql("SELECT pg_backup_start('nightly', true)");
    cluster.sql("CHECKPOINT");
    cluster.sql("UPDATE t SET a = md5(a) WHERE i % 7 = 0");
    cluster.sql("CREATE INDEX ON t (a)");
    // A session of its own each time: start and stop must share one.
    cluster.sql("SELECT pg_backup_start('nightly', true); SELECT pg_backup_stop(false)");
    cluster.sql("SELECT pg_switch_wal(); CREATE TABLE last AS SELECT 1 AS one");
    let current = cluster.ask("SELECT pg_walfile_name(pg_current_wal_lsn())");
    let partial = format!("{}.partial", current.trim());
    // pg_receivewal fills a new file up to its full size before it writes WAL into it.
    wait_for("the current partial file", || {
        let size = received.join(&partial).metadata().ok()?.len();
        (size == 16 << 20).then_some(())
    });
    end(receiver);
    let bytes = fs::read(received.join(&partial)).unwrap();
    cluster.stop();
    // A promotion from standby mode starts the next timeline.
    fs::write(data.join("standby.signal"), "").unwrap();
    cluster.run();
    cluster.promote();
    cluster.sql("CHECKPOINT; SELECT pg_switch_wal()");
    cluster.stop();
    let system_id = cluster.system_identifier();
    let archive = cluster.dir("archive");
    let archived = names(&archive)
        .into_iter()
        .map(|name| (name.clone(), fs::read(archive.join(name)).unwrap()))
        .collect();
    RealWal {
        archived,
        partial: (partial, bytes),
        system_id,
    }
}

/// A polite end, so that pg_receivewal leaves its partial file as it is.
fn end(mut child: Child) {
    use nix::sys::signal::{Signal, kill};
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(id, Signal::SIGINT).unwrap();
    child.wait().unwrap();
}
