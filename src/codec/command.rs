//! External commands: how they are found, started, ended and judged.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::config::search_path;

use super::error::CodecError;

/// How much of a command's messages is kept, in bytes, counted from their end.
const STDERR_SIZE_BYTES: usize = 8 * 1024;

/// A command that has ended may leave a process behind that holds its standard error open.
const STDERR_PATIENCE: Duration = Duration::from_secs(1);

/// The most an ordinary user may ask for by default.
const PIPE_SIZE_BYTES: i32 = 1024 * 1024;

/// A command line, ready to be started any number of times.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// The program, or the whole line for a shell command: what messages call it.
    name: String,
    arguments: Vec<OsString>,
    path: Option<OsString>,
}

impl Program {
    /// A program that is searched in `path_prefix`, then in PATH.
    pub(super) fn new<I, S>(name: &str, arguments: I, path_prefix: Option<&str>) -> Program
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let mut all = vec![OsString::from(name)];
        all.extend(arguments.into_iter().map(Into::into));
        Program {
            name: name.to_owned(),
            arguments: all,
            path: search_path(path_prefix),
        }
    }

    /// A line for the shell. It is passed on as it stands, so that pipelines, lists and quotes work.
    pub(super) fn shell(line: &str, path_prefix: Option<&str>) -> Program {
        Program {
            name: line.to_owned(),
            arguments: ["sh", "-c", line].map(OsString::from).to_vec(),
            path: search_path(path_prefix),
        }
    }

    /// As [`Program::shell`], but where the shell can, the failure of any part of a pipeline counts.
    pub(super) fn careful_shell(line: &str, path_prefix: Option<&str>) -> Program {
        let careful = format!("(set -o pipefail) 2>/dev/null && set -o pipefail\n{line}");
        Program {
            name: line.to_owned(),
            ..Program::shell(&careful, path_prefix)
        }
    }

    pub(super) fn command(&self) -> Command {
        let mut arguments = self.arguments.iter();
        let mut command = Command::new(arguments.next().map_or_else(OsString::new, Clone::clone));
        command.args(arguments);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
    }

    /// Starts the command as the leader of a process group, so that all parts of a pipeline can be ended.
    pub(super) fn start(&self) -> Result<(Running, ChildStdin, ChildStdout), CodecError> {
        let not_started = |source| CodecError::CommandNotStarted {
            program: self.name.clone(),
            source,
        };
        let mut child = self
            .command()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(not_started)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut running = Running {
            name: self.name.clone(),
            group: Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)),
            child,
            stderr: None,
            is_reaped: false,
        };
        match (stdin, stdout, stderr) {
            (Some(stdin), Some(stdout), Some(stderr)) => {
                widen(&stdin);
                widen(&stdout);
                running.stderr = Some(collect_stderr(stderr));
                Ok((running, stdin, stdout))
            }
            _ => Err(not_started(io::Error::other("it has no pipes"))),
        }
    }

    pub(super) fn failed(&self, outcome: &str, stderr: String) -> CodecError {
        CodecError::CommandFailed {
            program: self.name.clone(),
            outcome: outcome.to_owned(),
            stderr,
        }
    }
}

/// Fewer, larger portions mean fewer switches between the processes. Where the system refuses, because the user has too
/// many wide pipes already, the usual 64 KiB do as well.
fn widen(pipe: impl AsFd) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE_BYTES));
}

/// A started command. Dropping it ends the whole process group.
pub(super) struct Running {
    name: String,
    pub(super) group: Pid,
    child: Child,
    stderr: Option<mpsc::Receiver<String>>,
    is_reaped: bool,
}

impl Running {
    /// Ends everything in the process group at once.
    pub(super) fn kill(group: Pid) {
        // It may have ended already.
        let _ = killpg(group, Signal::SIGKILL);
    }

    /// Waits for the command, ends what it left behind in its group, and returns its messages.
    fn reap(&mut self) -> io::Result<(ExitStatus, String)> {
        // While the leader is a zombie, the number of the group cannot belong to anybody else.
        while let Err(nix::errno::Errno::EINTR) = waitid(
            Id::Pid(self.group),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        ) {}
        Running::kill(self.group);
        let status = self.child.wait()?;
        self.is_reaped = true;
        let stderr = self
            .stderr
            .take()
            .and_then(|stderr| stderr.recv_timeout(STDERR_PATIENCE).ok());
        Ok((status, stderr.unwrap_or_default()))
    }

    /// The command's verdict, and its messages.
    pub(super) fn verdict(&mut self) -> Result<String, CodecError> {
        let (status, stderr) = self.reap().map_err(|error| CodecError::CommandFailed {
            program: self.name.clone(),
            outcome: format!("cannot be waited for ({error})"),
            stderr: String::new(),
        })?;
        if status.success() {
            return Ok(stderr);
        }
        Err(CodecError::CommandFailed {
            program: self.name.clone(),
            outcome: describe(status),
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            Running::kill(self.group);
            let _ = self.child.wait();
        }
    }
}

/// How a command ended, as a verb phrase.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => describe_code(code),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// The same of one that ended by itself.
pub(super) fn describe_code(code: i32) -> String {
    format!("exited with status {code}")
}

/// Reads a command's messages to their end, so that it never blocks on them, and keeps the last of them.
fn collect_stderr(mut stderr: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match stderr.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => kept.extend_from_slice(super::flow::head(&piece, count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            let surplus_bytes = kept.len().saturating_sub(STDERR_SIZE_BYTES);
            kept.drain(..surplus_bytes);
        }
        // Nobody waits any more when the command was ended from our side.
        let _ = sender.send(String::from_utf8_lossy(&kept).trim().to_owned());
    });
    receiver
}
