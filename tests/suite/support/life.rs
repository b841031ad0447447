//! The life of a cluster, told by its own table, whose WAL went through walarch both ways: by `archive_command` over ssh,
//! and by `receive-wal`. Three servers hold what came the one way, three what came the other. Taken once per test process.
//!
//! ```text
//! base backup -- load -- a point in time -- load -- a restore point -- load -- the last commit, in a partial segment
//!                                                                                 |
//!                                             recovered there and promoted: timeline 2 -- load -- its last commit
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::home::{Home, names};
use super::postgres::{Major, Postgres};
use super::sshd::{HOST, Sshd};
use super::tool::{Walarch, wait_for};

/// How the archives of a life are stored.
pub const CODECS: [&str; 3] = ["none", "zstd", "gpg"];

pub struct Life {
    /// The backup host: servers `shipped_CODEC` and `streamed_CODEC`.
    pub home: Home,
    /// The base backup.
    pub backup: PathBuf,
    /// `recovery_target_time`
    pub time: String,
    /// What the table held at each moment.
    pub at_time: String,
    pub at_point: String,
    pub at_end: String,
    pub at_end_of_timeline_2: String,
    _folder: tempfile::TempDir,
}

/// The restore point's name.
pub const POINT: &str = "before the mistake";

/// What tells one state of the database from another.
pub fn state(server: &Postgres) -> String {
    server.ask(
        "SELECT string_agg(what, ' ' ORDER BY id) || ' ' || count(*) || ' ' || md5(string_agg(filler, '' ORDER BY id)) \
         FROM life",
    )
}

pub fn life() -> &'static Life {
    static LIFE: OnceLock<Life> = OnceLock::new();
    LIFE.get_or_init(live)
}

/// The options of `shipped_CODEC` and `streamed_CODEC`.
fn options(codec: &str, way: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut options = match codec {
        "none" => vec![],
        "zstd" => vec![("compression", "zstd")],
        _ => vec![
            ("compression", "gzip"),
            ("encryption", "gpg"),
            ("encryption_key_id", "barman@example.com"),
            ("encryption_passphrase_command", "echo secret"),
        ],
    };
    if way == "streamed" {
        let slot = match codec {
            "none" => "streamed_none",
            "zstd" => "streamed_zstd",
            _ => "streamed_gpg",
        };
        options.extend([
            ("archiver", "off"),
            ("streaming_archiver", "on"),
            ("slot_name", slot),
            ("create_slot", "auto"),
        ]);
    }
    options
}

fn backup_host() -> Home {
    let mut servers = Vec::new();
    for way in ["shipped", "streamed"] {
        for codec in CODECS {
            servers.push((format!("{way}_{codec}"), options(codec, way)));
        }
    }
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, options)| (name.as_str(), options.as_slice()))
        .collect();
    Home::with_servers(&servers).gpg_key()
}

/// Makes walarch and the way to the backup host available in a cluster's folder.
pub fn install_client(folder: &Path, sshd: &Sshd) {
    fs::copy(Walarch.program(), folder.join("walarch")).unwrap();
    sshd.install_client(&folder.join("client"));
}

/// PATH for commands that PostgreSQL starts.
pub fn path(folder: &str) -> String {
    format!("PATH={folder}/client:/usr/local/bin:/usr/bin:/bin")
}

/// Sends each file to the first of the servers that WAL is shipped to.
fn archive_command(folder: &str, sshd: &Sshd) -> String {
    let (path, user) = (path(folder), sshd.user());
    format!("{path} {folder}/walarch wal-archive -U {user} {HOST} shipped_none %p")
}

fn live() -> Life {
    let home = backup_host();
    let sshd = Sshd::start(&home, Walarch);
    let folder = tempfile::tempdir().unwrap();
    let mut primary = Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |folder| {
        install_client(Path::new(folder), &sshd);
        let command = archive_command(folder, &sshd);
        format!("archive_mode = on\narchive_command = '{command}'\nwal_keep_size = 1GB\n")
    });
    let home = streaming_from(&primary, home);
    let receivers = receive(&primary, &home);
    primary.sql("CREATE TABLE life (id serial, what text, filler text)");
    let backup = back_up(&primary, folder.path());
    work(&primary, "begun");
    let (at_time, time) = (state(&primary), primary.ask("SELECT clock_timestamp()"));
    work(&primary, "later");
    primary.sql(&format!("SELECT pg_create_restore_point('{POINT}')"));
    let at_point = state(&primary);
    let closed = work(&primary, "mistaken");
    // What arrived while it is handed on would reach one server only.
    wait_for_archived(&primary, &closed);
    archive(&home, "shipped");
    let closed = primary.fill_segment();
    // In a segment that will never be complete.
    primary.sql("INSERT INTO life (what) VALUES ('last')");
    let at_end = state(&primary);
    wait_for_archived(&primary, &closed);
    wait_for_received(&primary);
    primary.crash();
    receivers.into_iter().for_each(end);
    drop(primary);
    archive(&home, "streamed");
    let at_end_of_timeline_2 = live_on(&backup, &at_end, &home, &sshd);
    archive(&home, "shipped");
    Life {
        home,
        backup,
        time,
        at_time,
        at_point,
        at_end,
        at_end_of_timeline_2,
        _folder: folder,
    }
}

/// Two MiB of WAL and a commit that tells of itself. Returns the last of its segments.
fn work(server: &Postgres, what: &str) -> String {
    server.sql(&format!("INSERT INTO life (what) VALUES ('{what}')"));
    server.sql(
        "INSERT INTO life (filler) SELECT repeat(md5(random()::text), 10) FROM generate_series(1, 4000)",
    );
    server.fill_segment()
}

/// Lets the servers of the home receive from here, each byte durable at once: the last ones are in no complete segment.
fn streaming_from(primary: &Postgres, home: Home) -> Home {
    let text = fs::read_to_string(home.config_file()).unwrap();
    let nowhere = [
        "host=/nonexistent user=barman dbname=postgres",
        "host=/nonexistent user=streaming_barman",
    ];
    let here = nowhere.iter().fold(text, |text, nowhere| {
        text.replace(nowhere, &primary.conninfo())
    });
    home.write_config_text(&here);
    home.walarch_toml("[walarch]\nreceiver = \"builtin\"\nreceive_wal_synchronous = true\n")
}

/// walarch's own receivers, one for each server that WAL is streamed to; they archive what is complete.
fn receive(primary: &Postgres, home: &Home) -> Vec<Child> {
    let receivers = CODECS.map(|codec| {
        Walarch
            .command(home, &["-q", "receive-wal", &format!("streamed_{codec}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // It says that the primary has gone.
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    // What was written before they came would be missing.
    wait_for("the receivers", || {
        let query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        (primary.ask(query) == receivers.len().to_string()).then_some(())
    });
    receivers.into()
}

fn back_up(primary: &Postgres, folder: &Path) -> PathBuf {
    let own = primary.dir("backup");
    let arguments = ["-X", "none", "-c", "fast", "-d", &primary.conninfo(), "-D"];
    let arguments = [&arguments[..], &[own.to_str().unwrap()]].concat();
    primary.succeed("pg_basebackup", &arguments);
    let backup = folder.join("backup");
    let copied = Command::new("cp").arg("-a").args([&own, &backup]).status();
    assert!(copied.unwrap().success());
    backup
}

/// Archives what waits; what was shipped to one server reaches the others only now.
fn archive(home: &Home, way: &str) {
    let incoming = |codec: &str| home.barman_home().join(format!("{way}_{codec}/incoming"));
    for codec in &CODECS[1..] {
        copy_files(&incoming(CODECS[0]), &incoming(codec));
    }
    for codec in CODECS {
        home.run(&["archive-wal", &format!("{way}_{codec}")])
            .exits(0);
    }
}

fn copy_files(from: &Path, to: &Path) {
    for name in names(from).iter().filter(|name| !name.starts_with('.')) {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

fn wait_for_archived(server: &Postgres, segment: &str) {
    wait_for("the archiver", || {
        let last = server.ask("SELECT last_archived_wal FROM pg_stat_archiver");
        (last.as_str() >= segment).then_some(())
    });
}

fn wait_for_received(primary: &Postgres) {
    let end = primary.ask("SELECT pg_current_wal_flush_lsn()");
    wait_for("the receivers", || {
        let query = format!("SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{end}'");
        (primary.ask(&query) == CODECS.len().to_string()).then_some(())
    });
}

fn end(mut receiver: Child) {
    let id = Pid::from_raw(i32::try_from(receiver.id()).unwrap());
    kill(id, Signal::SIGINT).unwrap();
    assert!(receiver.wait().unwrap().success());
}

/// Recovers to the very end and lives on, on timeline 2. Returns its last state.
fn live_on(backup: &Path, at_end: &str, home: &Home, sshd: &Sshd) -> String {
    let mut server = Postgres::recovering(backup, |folder| {
        install_client(Path::new(folder), sshd);
        let restore = restore_command(folder, sshd, "-P", "streamed_none");
        let archive = archive_command(folder, sshd);
        format!("restore_command = '{restore}'\narchive_mode = on\narchive_command = '{archive}'\n")
    });
    wait_for_promotion(&server);
    assert_eq!(state(&server), at_end, "{}", log(&server));
    work(&server, "on timeline 2");
    let closed = server.fill_segment();
    assert!(closed.starts_with("00000002"), "{closed}");
    wait_for_archived(&server, &closed);
    archive(home, "shipped");
    let state = state(&server);
    server.stop();
    state
}

/// walarch's client.
pub fn restore_command(folder: &str, sshd: &Sshd, options: &str, server: &str) -> String {
    let (path, user) = (path(folder), sshd.user());
    format!("{path} {folder}/walarch wal-restore {options} -U {user} {HOST} {server} %f %p")
}

/// Waits for the end of a recovery.
pub fn wait_for_promotion(server: &Postgres) {
    wait_for("the end of recovery", || {
        (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(())
    });
}

/// What a server said, for failures.
pub fn log(server: &Postgres) -> String {
    fs::read_to_string(server.log_file()).unwrap()
}
