//! Runs a shell command line with a time limit and keeps what it printed.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::config::search_path;

/// How much of a script's output is kept for the log.
const OUTPUT_SIZE_MAX_BYTES: u64 = 64 << 10;

/// The first pause between two looks at the child; it doubles up to
const POLL_MIN: Duration = Duration::from_micros(200);
/// this one.
const POLL_MAX: Duration = Duration::from_millis(20);

/// How long output is waited for that a background process of the script still holds open.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// How a script ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It was killed after this many seconds, the configured limit.
    TimedOut(u64),
    /// It was killed because walarch was asked to stop.
    Stopped,
}

/// What came of a script.
pub(super) struct Run {
    pub(super) ending: Ending,
    /// Standard output, then standard error.
    pub(super) output: String,
}

impl Ending {
    /// The exit code, if the script ended by itself.
    pub(super) fn exit_code(self) -> Option<i32> {
        match self {
            Ending::Exit(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "returned {code}"),
            Ending::Signal(number) => write!(f, "returned -{number}"),
            Ending::TimedOut(limit_s) => write!(f, "did not end within {limit_s} s and was killed"),
            Ending::Stopped => write!(f, "was killed because walarch was asked to stop"),
        }
    }
}

/// Runs `script` by `/bin/sh`, with these variables added to our environment and `path_prefix`
/// before `PATH`.
///
/// The script gets a process group of its own, all of which is killed when the time is over or
/// `stop`, if given, becomes true. Returns an error only when the shell cannot be started.
pub(super) fn run(
    script: &str,
    environment: &[(&'static str, String)],
    path_prefix: Option<&str>,
    time_limit: Option<Duration>,
    stop: Option<&AtomicBool>,
) -> io::Result<Run> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(script)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(path) = search_path(path_prefix) {
        command.env("PATH", path);
    }
    let mut child = command.spawn()?;
    let (sender, outputs) = mpsc::channel();
    collect(0, child.stdout.take(), &sender);
    collect(1, child.stderr.take(), &sender);
    drop(sender);

    let ending = wait(&mut child, time_limit, stop)?;
    let mut output = [String::new(), String::new()];
    while let Ok((at, text)) = outputs.recv_timeout(OUTPUT_GRACE) {
        if let Some(slot) = output.get_mut(at) {
            *slot = text;
        }
    }
    Ok(Run {
        ending,
        output: output.concat(),
    })
}

/// Reads a pipe to its end on a thread of its own, so that the script never blocks on it.
fn collect(
    at: usize,
    pipe: Option<impl Read + Send + 'static>,
    sender: &mpsc::Sender<(usize, String)>,
) {
    let Some(mut pipe) = pipe else { return };
    let sender = sender.clone();
    thread::spawn(move || {
        let mut kept = Vec::new();
        // What was read before an error is still worth logging.
        let _ = (&mut pipe)
            .take(OUTPUT_SIZE_MAX_BYTES)
            .read_to_end(&mut kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
        let _ = sender.send((at, String::from_utf8_lossy(&kept).into_owned()));
    });
}

fn wait(
    child: &mut Child,
    time_limit: Option<Duration>,
    stop: Option<&AtomicBool>,
) -> io::Result<Ending> {
    let start = Instant::now();
    let mut poll = POLL_MIN;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(ending_of(status));
        }
        let over = time_limit.filter(|limit| start.elapsed() >= *limit);
        if over.is_some() || stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            if let Ok(group) = i32::try_from(child.id()) {
                // The script may have ended in this very moment.
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            child.wait()?;
            return Ok(over.map_or(Ending::Stopped, |limit| Ending::TimedOut(limit.as_secs())));
        }
        thread::sleep(poll);
        poll = (poll * 2).min(POLL_MAX);
    }
}

fn ending_of(status: ExitStatus) -> Ending {
    match status.code() {
        Some(code) => Ending::Exit(code),
        None => Ending::Signal(status.signal().unwrap_or_default()),
    }
}
