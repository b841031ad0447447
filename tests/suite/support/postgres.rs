//! PostgreSQL servers that live as long as a test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, getuid};
use tempfile::TempDir;

use super::home::{names, tree};
use super::tool::wait_for;

/// Which PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Major {
    /// The one that Debian brings.
    Debian,
    /// A newer one, which `tests/setup.sh` fetches.
    Newer,
}

impl Major {
    /// Where `postgres`, `psql` and `pg_receivewal` are.
    pub fn bin(self) -> PathBuf {
        match self {
            Major::Debian => newest_of_debian(),
            Major::Newer => {
                let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres-newer/bin");
                assert!(bin.exists(), "no newer PostgreSQL: run tests/setup.sh");
                bin
            }
        }
    }
}

/// A cluster in a folder of its own, with its sockets in that folder and no network. Stopped and
/// removed when dropped.
pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    server: Option<Child>,
}

impl Postgres {
    /// A running server of Debian's version with these settings, one a line. The settings are told
    /// the cluster's folder.
    pub fn start(settings: impl FnOnce(&str) -> String) -> Self {
        Self::start_major(Major::Debian, &[], settings)
    }

    /// A running server of some version, from `initdb` with these arguments besides, such as
    /// `--wal-segsize=1`.
    pub fn start_major(
        major: Major,
        initdb_arguments: &[&str],
        settings: impl FnOnce(&str) -> String,
    ) -> Self {
        let mut postgres = Self::folder(major.bin());
        let data = postgres.data();
        let mut arguments = vec!["-D", data.to_str().unwrap(), "-U", "postgres"];
        arguments.extend(["-A", "trust", "-N", "-E", "UTF8"]);
        arguments.extend(initdb_arguments);
        postgres.succeed("initdb", &arguments);
        let settings = settings(postgres.socket());
        postgres.give(postgres.folder.path());
        postgres.configure(&settings);
        postgres.run();
        postgres
    }

    /// A running standby of this server, made from a base backup of it.
    pub fn standby(&self, settings: &str) -> Self {
        let mut standby = Self::folder(self.bin.clone());
        let data = standby.data();
        standby.succeed(
            "pg_basebackup",
            &[
                "-D",
                data.to_str().unwrap(),
                "-d",
                &self.conninfo(),
                "-R",
                "-N",
                "-c",
                "fast",
            ],
        );
        // pg_basebackup -R appended primary_conninfo, and takes the socket directory along.
        let file = data.join("postgresql.auto.conf");
        let socket = format!("unix_socket_directories = '{}'\n", standby.socket());
        let text = fs::read_to_string(&file).unwrap() + &socket + settings;
        fs::write(file, text).unwrap();
        standby.run();
        standby
    }

    /// A server of Debian's version that recovers from a copy of a base backup, with these settings. Returns when it
    /// answers.
    pub fn recovering(backup: &Path, settings: impl FnOnce(&str) -> String) -> Self {
        let mut postgres = Self::restored(backup, settings);
        postgres.run();
        postgres
    }

    /// The same before it is started. The settings are told the folder, to put things there.
    pub fn restored(backup: &Path, settings: impl FnOnce(&str) -> String) -> Self {
        let postgres = Self::folder(newest_of_debian());
        let data = postgres.data();
        let copied = Command::new("cp").arg("-a").arg(backup).arg(&data).status();
        assert!(copied.unwrap().success());
        let settings = settings(postgres.socket());
        fs::write(data.join("recovery.signal"), "").unwrap();
        postgres.configure(&settings);
        postgres.give(postgres.folder.path());
        postgres
    }

    fn folder(bin: PathBuf) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-pg.")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let postgres = Self {
            folder,
            bin,
            server: None,
        };
        postgres.give(postgres.folder.path());
        postgres
    }

    /// Replaces all settings; they take effect at the next start or reload.
    pub fn configure(&self, settings: &str) {
        let text = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n{settings}",
            self.socket(),
        );
        fs::write(self.data().join("postgresql.auto.conf"), text).unwrap();
    }

    /// From now on a commit returns only when a receiver has it, besides these settings. Whether anybody waits for it
    /// a receiver asks when it starts.
    pub fn wait_for_receiver_at_commit(&self, settings: &str) {
        self.configure(&format!(
            "{settings}synchronous_commit = on\nsynchronous_standby_names = 'barman_receive_wal'\n"
        ));
        self.sql("SELECT pg_reload_conf()");
        wait_for("the setting", || {
            let names = self.ask("SHOW synchronous_standby_names");
            (names == "barman_receive_wal").then_some(())
        });
    }

    /// Where this PostgreSQL's programs are.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A path in the cluster's folder.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.dir("data")
    }

    /// What the server printed.
    pub fn log_file(&self) -> PathBuf {
        self.dir("postgres.log")
    }

    /// The folder, which holds the socket as well.
    pub fn socket(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// A connection string for the superuser; add `dbname`, `application_name` and the like.
    pub fn conninfo(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.socket())
    }

    /// As `pg_controldata` tells it.
    pub fn system_identifier(&self) -> u64 {
        let control = self.succeed("pg_controldata", &["-D", self.data().to_str().unwrap()]);
        control
            .lines()
            .find_map(|line| line.strip_prefix("Database system identifier:"))
            .map(|id| id.trim().parse().unwrap())
            .unwrap()
    }

    #[track_caller]
    pub fn sql(&self, statement: &str) {
        self.ask(statement);
    }

    /// What psql prints, without a newline at its end.
    #[track_caller]
    pub fn ask(&self, statement: &str) -> String {
        let arguments = ["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d"];
        let conninfo = self.conninfo();
        let arguments = [&arguments[..], &[&conninfo, "-c", statement]].concat();
        self.succeed("psql", &arguments).trim_end().to_owned()
    }

    /// Closes the current segment, with something in it. Returns its name.
    #[track_caller]
    pub fn fill_segment(&self) -> String {
        self.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
        self.ask("SELECT pg_walfile_name(pg_switch_wal())")
    }

    /// Starts the server and waits until it answers.
    pub fn run(&mut self) {
        let mut server = self.spawn("postgres", &["-D", self.data().to_str().unwrap()]);
        wait_for("the server", || {
            if let Some(status) = server.try_wait().unwrap() {
                let log = fs::read_to_string(self.log_file()).unwrap();
                panic!("the server ended with {status}:\n{log}");
            }
            let ready = self
                .command("pg_isready", &["-q", "-h", self.socket()])
                .status();
            ready.unwrap().success().then_some(())
        });
        self.server = Some(server);
    }

    /// A regular stop, which waits until receivers have got everything.
    pub fn stop(&mut self) {
        self.stop_by("fast");
    }

    /// A stop without goodbye to anybody; the next start recovers.
    pub fn crash(&mut self) {
        self.stop_by("immediate");
    }

    /// Kills every process of the server at once, with SIGKILL.
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        let id = server.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        server.kill().unwrap();
        for child in children.split_whitespace() {
            // It may have ended already.
            let _ = kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGKILL);
        }
        server.wait().unwrap();
    }

    fn stop_by(&mut self, mode: &str) {
        let data = self.data();
        self.succeed(
            "pg_ctl",
            &["stop", "-m", mode, "-w", "-D", data.to_str().unwrap()],
        );
        self.server.take().unwrap().wait().unwrap();
    }

    /// Makes a standby a primary, on the next timeline.
    pub fn promote(&self) {
        self.succeed(
            "pg_ctl",
            &["promote", "-w", "-D", self.data().to_str().unwrap()],
        );
    }

    /// Makes the server's user the owner of all below.
    pub fn give(&self, path: &Path) {
        if !getuid().is_root() {
            return;
        }
        let user = User::from_name("postgres").unwrap();
        let user = user.expect("no user postgres: run tests/setup.sh");
        let inner = tree(path).into_iter().map(|inner| path.join(inner));
        for path in inner.chain([path.to_owned()]) {
            chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
    }

    /// A program of this PostgreSQL, which refuses to run as root.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = if getuid().is_root() {
            let mut command = Command::new("setpriv");
            let user = ["--reuid=postgres", "--regid=postgres", "--init-groups"];
            command.args(user).arg(program);
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

    /// Starts a program whose output goes to `PROGRAM.log` in the cluster's folder.
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Child {
        let mut options = fs::File::options();
        let log = options
            .create(true)
            .append(true)
            .open(self.dir(&format!("{program}.log")));
        let log = log.unwrap();
        let mut command = self.command(program, arguments);
        command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Runs a program that must succeed. Returns what it printed.
    #[track_caller]
    pub fn succeed(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Postgres {
    /// A test that failed half-way must not leave a server behind.
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let id = Pid::from_raw(i32::try_from(server.id()).unwrap());
            // SIGQUIT is the immediate shutdown.
            let _ = kill(id, Signal::SIGQUIT);
            let _ = server.wait();
        }
    }
}

fn newest_of_debian() -> PathBuf {
    let versions = Path::new("/usr/lib/postgresql");
    let newest = names(versions)
        .into_iter()
        .max_by_key(|version| version.parse::<u32>().unwrap_or(0));
    versions
        .join(newest.expect("no PostgreSQL: run tests/setup.sh"))
        .join("bin")
}
