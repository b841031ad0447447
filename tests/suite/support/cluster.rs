//! Real WAL from a throw-away PostgreSQL, taken once per test process.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::unistd::{User, getuid};
use tempfile::TempDir;

use super::home::{Files, Home, names, tree};
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
    WAL.get_or_init(|| Cluster::start(|folder| format!("cp %p {folder}/archive/%f")).live_and_die())
}

/// Lets a cluster of its own archive by `walarch archive-wal main %p` into the home. Returns what it
/// believes to be archived and still has.
pub fn archived_by_walarch(home: &Home) -> Files {
    let mut cluster = Cluster::start(|folder| {
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
        fs::read_to_string(cluster.dir("postgres")).unwrap()
    );
    cluster.stop_server();
    let pg_wal = cluster.dir("data/pg_wal");
    names(&pg_wal.join("archive_status"))
        .iter()
        .filter_map(|name| name.strip_suffix(".done"))
        .filter_map(|name| Some((name.to_owned(), fs::read(pg_wal.join(name)).ok()?)))
        .collect()
}

struct Cluster {
    folder: TempDir,
    bin: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    /// `archive_command` is told the cluster's folder.
    fn start(archive_command: impl FnOnce(&str) -> String) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-pg.")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut cluster = Self {
            folder,
            bin: newest_postgres(),
            server: None,
        };
        let (archive, received) = (cluster.dir("archive"), cluster.dir("received"));
        for dir in [&archive, &received] {
            fs::create_dir(dir).unwrap();
        }
        for dir in [cluster.folder.path(), &archive, &received] {
            cluster.give(dir);
        }
        let data = cluster.dir("data");
        let data = data.to_str().unwrap();
        cluster.succeed(
            "initdb",
            &[
                "-D", data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8",
            ],
        );
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\narchive_mode = on\n\
             archive_command = '{}'\nmax_wal_size = 4GB\nwal_keep_size = 4GB\n",
            cluster.socket(),
            archive_command(cluster.socket())
        );
        fs::write(cluster.dir("data/postgresql.auto.conf"), settings).unwrap();
        cluster.run_server();
        cluster
    }

    fn live_and_die(mut self) -> RealWal {
        let (data, received) = (self.dir("data"), self.dir("received"));
        let receiver = self.spawn(
            "pg_receivewal",
            &[
                "-h",
                self.socket(),
                "-U",
                "postgres",
                "-D",
                received.to_str().unwrap(),
            ],
        );
        self.sql("CREATE TABLE t AS SELECT i, md5(i::text) AS a, repeat('x', 60) AS b FROM generate_series(1, 150000) AS i");
        self.sql("SELECT pg_backup_start('nightly', true)");
        self.sql("CHECKPOINT");
        self.sql("UPDATE t SET a = md5(a) WHERE i % 7 = 0");
        self.sql("CREATE INDEX ON t (a)");
        // A session of its own each time: start and stop must share one.
        self.sql("SELECT pg_backup_start('nightly', true); SELECT pg_backup_stop(false)");
        self.sql("SELECT pg_switch_wal(); CREATE TABLE last AS SELECT 1 AS one");
        let current = self.ask("SELECT pg_walfile_name(pg_current_wal_lsn())");
        let partial = format!("{}.partial", current.trim());
        // pg_receivewal fills a new file up to its full size before it writes WAL into it.
        wait_for("the current partial file", || {
            let size = received.join(&partial).metadata().ok()?.len();
            (size == 16 << 20).then_some(())
        });
        end(receiver);
        let bytes = fs::read(received.join(&partial)).unwrap();
        self.stop_server();
        // A promotion from standby mode starts the next timeline.
        fs::write(data.join("standby.signal"), "").unwrap();
        self.run_server();
        self.succeed("pg_ctl", &["promote", "-w", "-D", data.to_str().unwrap()]);
        self.sql("CHECKPOINT; SELECT pg_switch_wal()");
        self.stop_server();
        let control = self.succeed("pg_controldata", &["-D", data.to_str().unwrap()]);
        let system_id = control
            .lines()
            .find_map(|line| line.strip_prefix("Database system identifier:"))
            .map(|id| id.trim().parse().unwrap())
            .unwrap();
        let archive = self.dir("archive");
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

    fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Makes the server's user the owner of all below.
    fn give(&self, path: &Path) {
        if getuid().is_root() {
            let postgres = postgres_user();
            for path in tree(path)
                .iter()
                .map(|inner| path.join(inner))
                .chain([path.to_owned()])
            {
                chown(
                    path,
                    Some(postgres.uid.as_raw()),
                    Some(postgres.gid.as_raw()),
                )
                .unwrap();
            }
        }
    }

    fn sql(&self, statement: &str) {
        self.ask(statement);
    }

    fn ask(&self, statement: &str) -> String {
        self.succeed(
            "psql",
            &[
                "-X",
                "-q",
                "-At",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                self.socket(),
                "-U",
                "postgres",
                "-c",
                statement,
            ],
        )
    }

    fn run_server(&mut self) {
        self.server = Some(self.spawn("postgres", &["-D", self.dir("data").to_str().unwrap()]));
        wait_for("the server", || {
            let ready = self
                .command("pg_isready", &["-q", "-h", self.socket()])
                .status()
                .unwrap();
            ready.success().then_some(())
        });
    }

    fn stop_server(&mut self) {
        self.succeed(
            "pg_ctl",
            &[
                "stop",
                "-m",
                "fast",
                "-w",
                "-D",
                self.dir("data").to_str().unwrap(),
            ],
        );
        self.server.take().unwrap().wait().unwrap();
    }

    /// PostgreSQL refuses to run as root.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if getuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("LANG", "C")
            .stdin(Stdio::null());
        command
    }

    fn spawn(&self, program: &str, arguments: &[&str]) -> Child {
        let log = fs::File::create(self.dir(program)).unwrap();
        let mut command = self.command(program, arguments);
        command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    #[track_caller]
    fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Cluster {
    /// A test that failed half-way must not leave a server behind.
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = self
                .command("pg_ctl", &["stop", "-m", "immediate", "-D", "data"])
                .output();
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A polite end, so that pg_receivewal leaves its partial file as it is.
fn end(mut child: Child) {
    use nix::sys::signal::{Signal, kill};
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(id, Signal::SIGINT).unwrap();
    child.wait().unwrap();
}

fn newest_postgres() -> PathBuf {
    let versions = Path::new("/usr/lib/postgresql");
    let newest = names(versions)
        .into_iter()
        .max_by_key(|version| version.parse::<u32>().unwrap_or(0));
    versions
        .join(newest.expect("no PostgreSQL: run tests/setup.sh"))
        .join("bin")
}

fn postgres_user() -> User {
    User::from_name("postgres")
        .unwrap()
        .expect("no user postgres: run tests/setup.sh")
}
