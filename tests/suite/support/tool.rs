//! walarch and the real Barman, started alike.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::home::Home;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Walarch,
    Barman,
}

pub use Tool::{Barman, Walarch};

/// What a run left on its standard streams, and how it ended.
#[derive(Debug)]
pub struct Run {
    pub stdout: String,
    pub stderr: String,
    /// The exit code, or 128 plus the signal that ended the process.
    pub code: i32,
}

impl Run {
    /// The run, which must have ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "exit code; stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }
}

impl Tool {
    pub fn program(self) -> PathBuf {
        match self {
            // Another program in its place: a release build, or Barman, which shows the expectations that
            // the two share and those in which walarch means to differ.
            Walarch => std::env::var_os("WALARCH_TEST_PROGRAM").map_or_else(
                || PathBuf::from(env!("CARGO_BIN_EXE_walarch")),
                PathBuf::from,
            ),
            Barman => barman_venv().join("bin/barman"),
        }
    }

    /// The tool with the home's configuration file and the given arguments.
    pub fn command(self, home: &Home, arguments: &[&str]) -> Command {
        let mut command = in_home(Command::new(self.program()), home);
        command.arg("-c").arg(home.config_file()).args(arguments);
        command
    }

    pub fn run(self, home: &Home, arguments: &[&str]) -> Run {
        finish(
            start(&mut self.command(home, arguments)),
            Duration::from_secs(120),
        )
    }

    /// The same with these bytes on standard input.
    pub fn run_with_input(self, home: &Home, arguments: &[&str], input: &[u8]) -> Run {
        let mut command = self.command(home, arguments);
        finish(
            start_with(&mut command, input_of(home, input)),
            Duration::from_secs(120),
        )
    }
}

/// The command in an environment that holds nothing of whoever runs the tests.
pub fn in_home(mut command: Command, home: &Home) -> Command {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", home.root())
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(home.root());
    if home.gpg_home().exists() {
        command.env("GNUPGHOME", home.gpg_home());
    }
    command
}

pub fn start(command: &mut Command) -> Child {
    start_with(command, Stdio::null())
}

/// A standard input that brings these bytes.
pub fn input_of(home: &Home, bytes: &[u8]) -> Stdio {
    let path = home.root().join("input");
    fs::write(&path, bytes).unwrap();
    File::open(path).unwrap().into()
}

pub fn start_with(command: &mut Command, input: Stdio) -> Child {
    command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"))
}

/// Waits for the child, reading both its streams; a child that takes longer than `limit` is killed
/// and fails the test.
#[track_caller]
pub fn finish(mut child: Child, limit: Duration) -> Run {
    let stdout = read_aside(child.stdout.take().unwrap());
    let stderr = read_aside(child.stderr.take().unwrap());
    let status = wait(&mut child, limit);
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let status = status.unwrap_or_else(|| {
        panic!("did not end within {limit:?}; stdout:\n{stdout}\nstderr:\n{stderr}")
    });
    Run {
        stdout,
        stderr,
        code: code_of(status),
    }
}

/// Asks again and again until there is an answer; fails the test when there is none within a minute.
#[track_caller]
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn read_aside(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap())
}

/// The virtual environment of the real Barman, as `tests/setup.sh` made or checked it.
pub fn barman_venv() -> &'static Path {
    static VENV: OnceLock<PathBuf> = OnceLock::new();
    VENV.get_or_init(|| {
        let venv = std::env::var_os("WALARCH_BARMAN_VENV").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/barman-venv"),
            PathBuf::from,
        );
        assert!(
            venv.join("bin/barman").exists(),
            "no Barman in {venv:?}: run tests/setup.sh"
        );
        venv
    })
}
