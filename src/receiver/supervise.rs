//! Runs a program that must not outlive us, line by line.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getppid};

use super::error::Ending;

/// How long a request to stop, or the end of a program that has closed its output, can stay
/// unnoticed. A signal interrupts the wait.
const TICK: Duration = Duration::from_millis(500);

/// How long a program may take to stop before it is killed. Whoever asked us (`receive-wal --stop`)
/// waits for ten seconds.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// A line that is longer is cut into several.
const LINE_SIZE_MAX_BYTES: usize = 64 << 10;

/// Runs a program until it ends. Both its output streams go to `on_line`; `on_turn` is called at least
/// once per [`TICK`].
///
/// When `stop` becomes true, the program gets SIGINT, and SIGKILL if it does not end on that. It is
/// killed by the kernel when the thread that called this ends in any way, SIGKILL included. It runs
/// in a process group of its own, so that Ctrl-C reaches it through us only.
pub(super) fn run(
    mut command: Command,
    stop: &AtomicBool,
    on_turn: &dyn Fn(),
    on_line: &mut dyn FnMut(&str),
) -> io::Result<Ending> {
    let (output, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    die_with_us(&mut command);
    let child = command.spawn()?;
    // The command holds the pipe's other end.
    drop(command);
    let mut supervised = Supervised {
        child,
        stop,
        on_turn,
        stop_sent: None,
        killed: false,
    };
    supervised.relay(output, on_line)?;
    loop {
        if let Some(status) = supervised.child.try_wait()? {
            return Ok(ending(status));
        }
        supervised.turn();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[allow(
    unsafe_code,
    reason = "the parent's death signal can be asked for only between fork and exec"
)]
fn die_with_us(command: &mut Command) {
    let parent = getpid();
    let ask = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // We may have died before the kernel was asked.
        match getppid() == parent {
            true => Ok(()),
            false => Err(io::ErrorKind::NotConnected.into()),
        }
    };
    // SAFETY: two system calls and nothing else, no allocation: allowed in a forked child.
    unsafe { command.pre_exec(ask) };
}

struct Supervised<'a> {
    child: Child,
    stop: &'a AtomicBool,
    on_turn: &'a dyn Fn(),
    stop_sent: Option<Instant>,
    killed: bool,
}

impl Supervised<'_> {
    /// Until the program has closed its output or, should one of its own children keep that open,
    /// has ended.
    fn relay(&mut self, mut output: PipeReader, on_line: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut lines = Lines::default();
        loop {
            self.turn();
            let readable = {
                let mut wanted = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO);
                match poll(&mut wanted, timeout) {
                    Ok(ready) => ready > 0,
                    Err(Errno::EINTR) => continue,
                    Err(errno) => return Err(errno.into()),
                }
            };
            if readable {
                let mut bytes = [0; 4096];
                let size_bytes = output.read(&mut bytes)?;
                lines.take(bytes.get(..size_bytes).unwrap_or_default(), on_line);
                if size_bytes == 0 {
                    break;
                }
            } else if self.child.try_wait()?.is_some() {
                break;
            }
        }
        lines.end(on_line);
        Ok(())
    }

    fn turn(&mut self) {
        (self.on_turn)();
        self.pass_stop_on();
    }

    fn pass_stop_on(&mut self) {
        match self.stop_sent {
            None if self.stop.load(Ordering::Relaxed) => {
                self.signal(Signal::SIGINT);
                self.stop_sent = Some(Instant::now());
            }
            Some(since) if !self.killed && since.elapsed() > STOP_GRACE => {
                tracing::warn!(
                    "pg_receivewal has not stopped within {} s and is killed",
                    STOP_GRACE.as_secs()
                );
                self.signal(Signal::SIGKILL);
                self.killed = true;
            }
            _ => {}
        }
    }

    fn signal(&self, signal: Signal) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            // It may have ended already.
            let _ = killpg(Pid::from_raw(id), signal);
        }
    }
}

impl Drop for Supervised<'_> {
    /// After an error on our side: nobody would listen to the program any more.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes cut into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.iter().position(|&byte| byte == b'\n') {
            let rest = self.0.split_off(end + 1);
            self.end(on_line);
            self.0 = rest;
        }
        if self.0.len() >= LINE_SIZE_MAX_BYTES {
            self.end(on_line);
        }
    }

    /// What has arrived is a line; an empty one is none.
    fn end(&mut self, on_line: &mut dyn FnMut(&str)) {
        let line = std::mem::take(&mut self.0);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if !line.is_empty() {
            on_line(line);
        }
    }
}

fn ending(status: ExitStatus) -> Ending {
    match status.signal() {
        Some(number) => Ending::Signal(number),
        None => Ending::Exit(status.code().unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script; the line `stop` makes us ask it to.
    fn shell(script: &str) -> (Ending, Vec<String>) {
        // Whoever runs the tests in the background may have SIGINT ignored, which no shell could undo.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT", "sh", "-c", script]);
        let stop = AtomicBool::new(false);
        let mut lines = Vec::new();
        let ending = run(command, &stop, &|| {}, &mut |line| match line {
            "stop" => stop.store(true, Ordering::Relaxed),
            line => lines.push(line.to_owned()),
        });
        (ending.unwrap(), lines)
    }

    #[test]
    fn both_streams_are_relayed_in_their_order() {
        let (ending, lines) = shell("echo a; echo b >&2; echo; printf c; exit 3");
        assert_eq!(lines, ["a", "b", "c"]);
        assert_eq!(ending, Ending::Exit(3));
    }

    #[test]
    fn a_signal_that_ended_it_is_told_apart() {
        assert_eq!(shell("kill -9 $$").0, Ending::Signal(9));
    }

    #[test]
    fn a_stop_request_is_passed_on_as_sigint() {
        let (ending, lines) = shell("trap 'echo asked; exit 0' INT; echo stop; sleep 60 & wait");
        assert_eq!((ending, lines), (Ending::Exit(0), vec!["asked".to_owned()]));
    }

    #[test]
    fn a_child_that_keeps_the_output_open_does_not_keep_us() {
        let (ending, lines) = shell("sleep 5 & echo gone");
        assert_eq!((ending, lines), (Ending::Exit(0), vec!["gone".to_owned()]));
    }

    #[test]
    fn endless_lines_are_cut() {
        let (_, lines) = shell("head -c 200000 /dev/zero | tr '\\0' x");
        assert!(lines.len() > 1);
        assert_eq!(lines.concat().len(), 200_000);
    }
}
