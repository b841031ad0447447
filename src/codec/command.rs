//! External filters: a command that reads one form on its standard input and writes the other on its
//! standard output. Its success counts only when it exited with 0 after taking everything it was given.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
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

/// How much passes from one pipe to the other at a time.
const PIECE_SIZE_BYTES: usize = 256 * 1024;

const WROTE_NOTHING: &str = "wrote nothing to its standard output";

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
    fn start(&self) -> Result<(Running, ChildStdin, ChildStdout), CodecError> {
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

    fn failed(&self, outcome: &str, stderr: String) -> CodecError {
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
struct Running {
    name: String,
    group: Pid,
    child: Child,
    stderr: Option<mpsc::Receiver<String>>,
    is_reaped: bool,
}

impl Running {
    fn kill(group: Pid) {
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
    fn verdict(&mut self) -> Result<String, CodecError> {
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
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
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

/// What came out of the thread that writes to a command.
enum Fed {
    Everything,
    /// The command closed its standard input; why, its exit status has to tell.
    Refused,
    /// Something before the command failed; the command is not to blame and was killed.
    Failed(CodecError),
}

/// Runs `program` with what `feed` writes as its input and `sink` as its output.
///
/// Returns [`CodecError::CommandFailed`] when the command fails, when it exits with 0 without having
/// taken all of its input, or when it turns something into nothing; an error of `feed` as it is; and
/// [`CodecError::WriteSink`] for an error of `sink`. The command is gone when this returns.
pub(super) fn pipe_through(
    program: &Program,
    feed: impl FnOnce(&mut (dyn Write + Send)) -> Result<(), CodecError> + Send,
    sink: &mut (dyn Write + Send),
) -> Result<(), CodecError> {
    let (mut running, stdin, stdout) = program.start()?;
    let group = running.group;
    thread::scope(|scope| {
        let feeder = scope.spawn(move || {
            let mut input = CommandInput {
                stdin,
                fed_bytes: 0,
            };
            let fed = match feed(&mut input) {
                Ok(()) => Fed::Everything,
                Err(CodecError::WriteSink(_)) => Fed::Refused,
                Err(error) => {
                    // Before its input is closed: it must not take the part it got for the whole.
                    Running::kill(group);
                    Fed::Failed(error)
                }
            };
            (fed, input.fed_bytes)
        });
        let drained = drain(program, stdout, sink);
        if drained.is_err() {
            Running::kill(group);
        }
        let verdict = running.verdict();
        // The command is gone, and with it every reader of the pipe the feeder writes to.
        let (fed, fed_bytes) = feeder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if let Fed::Failed(error) = fed {
            return Err(error);
        }
        let drained_bytes = drained?;
        let stderr = verdict?;
        match fed {
            Fed::Refused => {
                Err(program.failed("ended before it had read all of its input", stderr))
            }
            _ if fed_bytes > 0 && drained_bytes == 0 => Err(program.failed(WROTE_NOTHING, stderr)),
            _ => Ok(()),
        }
    })
}

/// A command's standard input; knows whether there was anything to filter at all.
struct CommandInput {
    stdin: ChildStdin,
    fed_bytes: u64,
}

impl Write for CommandInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stdin.write(bytes)?;
        self.fed_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdin.flush()
    }
}

/// Copies a command's output to the sink; returns its size in bytes.
fn drain(
    program: &Program,
    mut stdout: ChildStdout,
    sink: &mut (dyn Write + Send),
) -> Result<u64, CodecError> {
    let mut piece = vec![0; PIECE_SIZE_BYTES];
    let mut drained_bytes = 0;
    loop {
        match stdout.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                sink.write_all(super::flow::head(&piece, count))
                    .map_err(CodecError::WriteSink)?;
                drained_bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let outcome = format!("has an output that cannot be read ({error})");
                return Err(program.failed(&outcome, String::new()));
            }
        }
    }
    super::flow::flush_all(sink)?;
    Ok(drained_bytes)
}

/// Reads what a command makes of `stored`, which another thread feeds to it.
///
/// The end of the data is only reported once the command has exited with 0; otherwise the last `read` is an error. A
/// command that exits with 0 without reading all of its input is believed: it knows its own format. One
/// that turns something into nothing is not: gpg does so, with 0, when a message stops before its encrypted part.
pub(super) struct FilterReader {
    program: Program,
    stdout: ChildStdout,
    running: Running,
    /// Returns how many of the stored bytes it fed.
    feeder: Option<JoinHandle<io::Result<u64>>>,
    read_bytes: u64,
    outcome: Option<Result<(), ()>>,
}

impl FilterReader {
    /// Starts `program`; `prologue` is written to it before the stored bytes.
    pub(super) fn start(
        program: Program,
        prologue: impl FnOnce(&mut ChildStdin) -> io::Result<()> + Send + 'static,
        stored: Box<dyn Read + Send>,
    ) -> Result<FilterReader, CodecError> {
        let (running, mut stdin, stdout) = program.start()?;
        let group = running.group;
        let feeder = thread::spawn(move || match prologue(&mut stdin) {
            Ok(()) => feed_stored(stored, stdin, group),
            // Closed by the command; its exit status tells why.
            Err(_) => Ok(0),
        });
        Ok(FilterReader {
            program,
            stdout,
            running,
            feeder: Some(feeder),
            read_bytes: 0,
            outcome: None,
        })
    }

    fn conclude(&mut self) -> io::Result<()> {
        let verdict = self.running.verdict();
        // Without a command to write to, the feeder has ended or is about to.
        let fed_bytes = match self.feeder.take() {
            Some(feeder) => feeder
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            None => 0,
        };
        let stderr = verdict.map_err(CodecError::into_read)?;
        match fed_bytes > 0 && self.read_bytes == 0 {
            true => Err(self.program.failed(WROTE_NOTHING, stderr).into_read()),
            false => Ok(()),
        }
    }
}

fn feed_stored(
    mut stored: Box<dyn Read + Send>,
    mut stdin: ChildStdin,
    group: Pid,
) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_SIZE_BYTES];
    let mut fed_bytes = 0;
    loop {
        let count = match stored.read(&mut piece) {
            Ok(0) => return Ok(fed_bytes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                // Before its input is closed: it must not take the part it got for the whole.
                Running::kill(group);
                return Err(error);
            }
        };
        fed_bytes += count as u64;
        if stdin.write_all(super::flow::head(&piece, count)).is_err() {
            // Closed by the command; its exit status tells why.
            return Ok(fed_bytes);
        }
    }
}

impl Read for FilterReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.outcome {
            _ if buffer.is_empty() => return Ok(0),
            Some(Ok(())) => return Ok(0),
            Some(Err(())) => return Err(io::Error::other("reading goes on after an error")),
            None => {}
        }
        let count = self.stdout.read(buffer)?;
        self.read_bytes += count as u64;
        if count == 0 {
            let conclusion = self.conclude();
            self.outcome = Some(conclusion.as_ref().map(drop).map_err(drop));
            conclusion?;
        }
        Ok(count)
    }
}
