//! Real segments, of a cluster that is made for this run or of an earlier one.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use crate::Result;

/// How many segments each kind of WAL gives.
const KINDS: [(&str, usize); 3] = [("bulk", 11), ("index", 11), ("oltp", 10)];

const BULK: &str = "CREATE TABLE bulk AS SELECT g AS id, md5(g::text) AS key, \
    repeat(md5((g * 7)::text), 3) AS filler, random() AS value, \
    now() - g * interval '1 second' AS stamp FROM generate_series(1, 1500000) AS g";

const INDEX: &str = "CREATE INDEX ON bulk (key); CREATE INDEX ON bulk (value); \
    CREATE INDEX ON bulk (stamp, id); CREATE INDEX ON bulk (filler)";

/// Where Debian has the programs of PostgreSQL 15.
const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

/// How long the cluster may take for a step.
const PATIENCE: Duration = Duration::from_secs(120);

/// The segments that everybody archives.
pub(crate) struct Corpus {
    /// At most 32, in WAL order.
    pub(crate) segments: Vec<PathBuf>,
    /// In words.
    pub(crate) origin: String,
    /// The cluster that wrote them, if it is ours.
    pub(crate) data_directory: Option<PathBuf>,
    _cluster: Option<TempDir>,
}

impl Corpus {
    /// Takes what `$WALARCH_BENCH_WAL` has, or makes a cluster that leaves its WAL in `directory`.
    pub(crate) fn obtain(directory: &Path) -> Result<Self> {
        match std::env::var_os("WALARCH_BENCH_WAL") {
            Some(given) => Corpus::given(Path::new(&given)),
            None => Corpus::generate(directory),
        }
    }

    fn given(directory: &Path) -> Result<Self> {
        let mut segments = Vec::new();
        for kind in fs::read_dir(directory)? {
            segments.extend(files(&kind?.path())?);
        }
        segments.sort_by_key(|path| path.file_name().map(OsStr::to_owned));
        segments.truncate(KINDS.iter().map(|(_, count)| count).sum());
        if segments.is_empty() {
            return Err(format!("no segments in {}", directory.display()).into());
        }
        Ok(Corpus {
            segments,
            origin: "16 MiB, given".to_owned(),
            data_directory: None,
            _cluster: None,
        })
    }

    fn generate(directory: &Path) -> Result<Self> {
        let kept = directory.join("corpus");
        fs::create_dir_all(&kept)?;
        let home = cluster_home()?;
        let cluster = Cluster::start(home.path())?;
        let mut segments = Vec::new();
        for (kind, count) in KINDS {
            for segment in cluster.write(kind, count)? {
                let copy = kept.join(segment.file_name().ok_or("a segment without a name")?);
                fs::copy(&segment, &copy)?;
                segments.push(copy);
            }
        }
        let data_directory = Some(cluster.data.clone());
        drop(cluster);
        let kinds = KINDS.map(|(kind, count)| format!("{count} {kind}"));
        Ok(Corpus {
            segments,
            origin: format!("16 MiB, PostgreSQL 15 ({})", kinds.join(", ")),
            data_directory,
            _cluster: Some(home),
        })
    }
}

/// The files of a directory in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_none() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A running PostgreSQL. Dropping it stops it.
pub(crate) struct Cluster {
    home: PathBuf,
    data: PathBuf,
    archive: PathBuf,
}

impl Cluster {
    pub(crate) fn start(home: &Path) -> Result<Self> {
        Self::start_with(home, "")
    }

    /// The same with these settings, one a line, instead of some of its own.
    pub(crate) fn start_with(home: &Path, more: &str) -> Result<Self> {
        let cluster = Cluster {
            home: home.to_owned(),
            data: home.join("data"),
            archive: home.join("archive"),
        };
        fs::create_dir(&cluster.archive)?;
        give_to_postgres(&cluster.archive)?;
        init(&cluster.data)?;
        let archive = cluster.archive.display();
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\narchive_mode = on\n\
             archive_command = 'cp %p {archive}/%f.part && mv {archive}/%f.part {archive}/%f'\n\
             shared_buffers = 256MB\nmax_wal_size = 4GB\nwal_keep_size = 4GB\ncheckpoint_timeout = 1h\n\
             synchronous_commit = off\nfsync = off\nautovacuum = off\n{more}",
            home.display()
        );
        let path = cluster.data.join("postgresql.auto.conf");
        fs::write(&path, settings)?;
        let log = home.join("log");
        run(postgres_program("pg_ctl")
            .args(["-w", "-s", "-D"])
            .arg(&cluster.data)
            .arg("-l")
            .arg(&log)
            .arg("start")
            // The server inherits what we give, and `output` would wait for the server.
            .stdout(Stdio::null())
            .stderr(Stdio::null()))?;
        Ok(cluster)
    }

    /// Writes one kind of WAL and returns the first `count` segments of it.
    pub(crate) fn write(&self, kind: &str, count: usize) -> Result<Vec<PathBuf>> {
        if kind == "oltp" {
            self.pgbench(&["-i", "-q", "-s", "20"])?;
            // Now each page is logged as a whole when it is first changed.
            self.sql("CHECKPOINT")?;
            self.switch()?;
        }
        let before = files(&self.archive)?.len();
        match kind {
            "bulk" => drop(self.sql(BULK)?),
            "index" => drop(self.sql(INDEX)?),
            _ => self.small_transactions(before + count)?,
        }
        self.switch()?;
        let mut written = files(&self.archive)?.split_off(before);
        // The last one was ended before it was full.
        if written.len() <= count {
            return Err(format!("{} segments of {kind} are too few", written.len()).into());
        }
        written.truncate(count);
        Ok(written)
    }

    fn small_transactions(&self, until: usize) -> Result<()> {
        let start = Instant::now();
        while files(&self.archive)?.len() < until && start.elapsed() < PATIENCE {
            self.pgbench(&["-n", "-c", "4", "-j", "2", "-T", "3"])?;
        }
        Ok(())
    }

    /// Ends the segment and waits until it is archived.
    fn switch(&self) -> Result<()> {
        let last = self.sql("SELECT pg_walfile_name(pg_switch_wal())")?;
        let last = self.archive.join(last.trim());
        let start = Instant::now();
        while !last.exists() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{} was not archived", last.display()).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(crate) fn sql(&self, text: &str) -> Result<String> {
        run(postgres_program("psql")
            .args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-h"])
            .arg(&self.home)
            .args(["-c", text]))
    }

    pub(crate) fn pgbench(&self, arguments: &[&str]) -> Result<String> {
        run(postgres_program("pgbench")
            .arg("-h")
            .arg(&self.home)
            .args(arguments)
            .arg("postgres"))
    }
}

impl Cluster {
    /// An empty directory that the server's user may write to.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.home.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        give_to_postgres(&path)?;
        Ok(path)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = run(postgres_program("pg_ctl")
            .args(["-w", "-s", "-m", "fast", "-D"])
            .arg(&self.data)
            .arg("stop"));
        if let Err(error) = stopped {
            eprintln!("the throw-away cluster does not stop: {error}");
        }
    }
}

/// A cluster for a tool that wants to see one; nothing runs in it. It is in `data`.
pub(crate) fn idle_cluster() -> Result<TempDir> {
    let home = cluster_home()?;
    init(&home.path().join("data"))?;
    Ok(home)
}

/// A directory for a cluster: socket paths are short, and another user must be able to go there.
pub(crate) fn cluster_home() -> Result<TempDir> {
    let home = tempfile::Builder::new()
        .prefix("walarch-bench-")
        .tempdir_in("/var/tmp")?;
    give_to_postgres(home.path())?;
    Ok(home)
}

fn init(data: &Path) -> Result<()> {
    run(postgres_program("initdb")
        .args(["-N", "-A", "trust", "-D"])
        .arg(data))
    .map(drop)
}

/// PostgreSQL does not run as root.
fn postgres_user() -> Option<&'static str> {
    geteuid().is_root().then_some("postgres")
}

/// Where a program of PostgreSQL is.
pub(crate) fn postgres_path(name: &str) -> PathBuf {
    let bin = std::env::var_os("WALARCH_BENCH_POSTGRES_BIN");
    Path::new(bin.as_deref().unwrap_or(OsStr::new(POSTGRES_BIN))).join(name)
}

fn postgres_program(name: &str) -> Command {
    let program = postgres_path(name);
    let mut command = match postgres_user() {
        Some(user) => {
            let mut command = Command::new("runuser");
            command.args(["-u", user, "--"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.current_dir("/");
    command
}

fn give_to_postgres(path: &Path) -> Result<()> {
    let Some(name) = postgres_user() else {
        return Ok(());
    };
    let user = User::from_name(name)?.ok_or("there is no user postgres")?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    Ok(())
}

/// Runs a command that must succeed and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
