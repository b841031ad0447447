//! External filters: a command that reads one form on its standard input and writes the other on its standard output.
//! Its success counts only when it exited with 0 after taking everything it was given.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::thread::{self, JoinHandle};

use nix::unistd::Pid;

use super::command::{Program, Running};
use super::error::CodecError;

/// How much passes from one pipe to the other at a time.
const PIECE_SIZE_BYTES: usize = 256 * 1024;

const WROTE_NOTHING: &str = "wrote nothing to its standard output";

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
    sink: &mut dyn Write,
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
    sink: &mut dyn Write,
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
