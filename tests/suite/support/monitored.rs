//! A home beside a live server, looked at by Barman and by walarch.

use std::fs::{self, File};
use std::process::Child;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use super::compare::masked;
use super::home::{Home, put_at};
use super::postgres::{Major, Postgres};
use super::tool::{Barman, Run, Tool, Walarch, wait_for};
use super::wal::Segment;

/// Checks and lines of `status` that belong to base backups: Barman prints them, walarch does not.
const BASE_BACKUP_LINES: [&str; 15] = [
    "retention policy settings",
    "backup maximum age",
    "backup minimum size",
    "failed backups",
    "minimum redundancy requirements",
    "pg_basebackup",
    "pg_basebackup compatible",
    "pg_basebackup supports tablespaces mapping",
    "ssh",
    "Current data size",
    "Retention policies",
    "No. of available backups",
    "First available backup",
    "Last available backup",
    "Minimum redundancy requirements",
];

/// A server whose WAL is archived without a failure, one for all tests that run at a time.
pub fn healthy_server() -> Arc<Postgres> {
    static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut shared = SERVER.lock().unwrap_or_else(|error| error.into_inner());
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Postgres::start(|_| {
        "archive_mode = on\narchive_command = '/bin/true'\nmax_wal_senders = 50\n\
         max_replication_slots = 50\n"
            .to_owned()
    }));
    *shared = Arc::downgrade(&server);
    server
}

/// A home whose server `main` is this one, in which one segment is archived. `pg_receivewal` receives, as with Barman.
pub fn home_of(server: &Postgres, options: &[(&str, &str)]) -> Home {
    let conninfo = server.conninfo();
    let path_prefix = Major::Debian.bin();
    let mut all = vec![
        ("conninfo", conninfo.as_str()),
        ("streaming_conninfo", conninfo.as_str()),
        ("path_prefix", path_prefix.to_str().unwrap()),
        ("backup_method", "postgres"),
    ];
    all.extend(options);
    let home = Home::with(&all).walarch_toml("[walarch]\nreceiver = \"pg_receivewal\"\n");
    archive_segment(&home, 1, SystemTime::now());
    home
}

/// Archives a segment of 16 MiB clusters that was written at this time.
pub fn archive_segment(home: &Home, number: u64, written: SystemTime) {
    let segment = Segment::of_size(16 << 20, number);
    put_at(
        &home.incoming(),
        &segment.name(),
        &segment.bytes(),
        written,
        0o600,
    );
    // The configured archivers may be others.
    let conf = fs::read_to_string(home.config_file()).unwrap();
    fs::write(
        home.config_file(),
        conf.replace("archiver = off\n", "archiver = on\n"),
    )
    .unwrap();
    home.archive().exits(0);
    fs::write(home.config_file(), conf).unwrap();
}

/// What Barman writes down when a base backup is complete, whose WAL is this one segment.
pub fn base_backup(home: &Home, begin_wal: &str) {
    let text = format!(
        "backup_label=None\nbegin_offset=40\nbegin_time=2026-01-01 00:00:00.000000+00:00\n\
         begin_wal={begin_wal}\nbegin_xlog=0/1000028\nend_offset=312\n\
         end_time=2026-01-01 00:00:01.000000+00:00\nend_wal={begin_wal}\nend_xlog=0/1000138\n\
         error=None\nmode=postgres\nserver_name=main\nsize=1\nstatus=DONE\nsystemid=None\n\
         timeline=1\nversion=150018\nxlog_segment_size=16777216\n"
    );
    fs::write(home.dir("meta").join("20260101T000000-backup.info"), text).unwrap();
}

/// Somebody who streams from a slot, as `receive-wal` does.
pub struct Streamer(Child);

impl Streamer {
    /// Creates the slot and streams from it.
    pub fn start(server: &Postgres, slot: &str) -> Self {
        let directory = server.dir(slot);
        fs::create_dir(&directory).unwrap();
        server.give(&directory);
        server.ask(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}')"
        ));
        let conninfo = format!("{} application_name=barman_receive_wal", server.conninfo());
        let directory = directory.to_str().unwrap().to_owned();
        let child = server.spawn(
            "pg_receivewal",
            &["-S", slot, "-D", &directory, "-d", &conninfo],
        );
        wait_for("the streaming client", || {
            let active = format!(
                "SELECT count(*) FROM pg_replication_slots JOIN pg_stat_replication \
                 ON pid = active_pid WHERE slot_name = '{slot}' AND restart_lsn IS NOT NULL \
                 AND state = 'streaming' AND write_lsn IS NOT NULL"
            );
            (server.ask(&active) == "1").then_some(())
        });
        Streamer(child)
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Holds the lock of `receive-wal` as a running one does.
pub fn pretend_to_receive(home: &Home) -> File {
    let path = home.barman_home().join(".main-receive-wal.lock");
    fs::write(&path, format!("{}\n", std::process::id())).unwrap();
    home.hold_lock(".main-receive-wal.lock")
}

/// What a tool says of the WAL side, in a copy of the home in which somebody receives, or nobody.
pub fn say(tool: Tool, home: &Home, receiving: bool, arguments: &[&str]) -> (Run, Vec<String>) {
    let copy = home.copy();
    let _lock = receiving.then(|| pretend_to_receive(&copy));
    let mut run = tool.run(&copy, arguments);
    run.stdout = masked(&run.stdout, &copy);
    let lines = run
        .stdout
        .lines()
        .filter(|line| {
            let name = line.trim().split(':').next().unwrap();
            !BASE_BACKUP_LINES.contains(&name)
        })
        .map(in_days)
        .collect();
    (run, lines)
}

/// The two tools look at a WAL file's age at different moments: its days have to do.
fn in_days(line: &str) -> String {
    match line.split_once("latest wal age: ") {
        Some((before, age)) => {
            let days = age.split(',').next().unwrap();
            format!("{before}latest wal age: {days}")
        }
        None => line.to_owned(),
    }
}

/// Both tools must say the same of the WAL side, with the same exit code. Returns what they say.
/// walarch may add how far the archive is behind.
#[track_caller]
pub fn both_say(home: &Home, receiving: bool, arguments: &[&str]) -> Vec<String> {
    let (barman, expected) = say(Barman, home, receiving, arguments);
    let (walarch, mut lines) = say(Walarch, home, receiving, arguments);
    lines.retain(|line| !line.starts_with("\tWAL archive lag: OK"));
    assert_eq!(lines, expected, "{}\n{}", walarch.stderr, barman.stderr);
    assert_eq!(walarch.code, barman.code, "exit code; {lines:?}");
    lines
}

/// Some time ago.
pub fn ago(days: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(days * 86_400 + 1800)
}
