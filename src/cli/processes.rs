//! `list-processes`, `terminate-process`, and what other commands need to know of running tasks.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::output::Output;
use crate::config::{Config, ServerConfig};
use crate::durable;

/// How often, a second apart, a process is looked at after it was asked to end.
const TERMINATE_RETRIES: u32 = 10;

/// The tasks that have a lock file `.SERVER-TASK.lock` of their own, Barman's included.
pub(super) const TASKS: [&str; 6] = [
    "receive-wal",
    "sync-backup",
    "backup",
    "cron",
    "archive-wal",
    "sync-wal",
];

/// A task that runs for a server, in walarch or in Barman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) task: &'static str,
}

/// The process that does a task for a server now: the holder of its lock.
pub(super) fn find(server: &ServerConfig, task: &'static str) -> Option<Process> {
    let path = server
        .lock_directory
        .join(format!(".{}-{task}.lock", server.name));
    match durable::lock_holder(&path) {
        Ok(pid) => pid.map(|pid| Process { pid, task }),
        Err(error) => {
            tracing::warn!(
                "Skipping the {task} process for server {}: Error reading the PID from lock file \
                 '{}': {error}",
                server.name,
                path.display()
            );
            None
        }
    }
}

/// Asks a process to end, as Barman does, and waits for that. Returns whether it has ended.
pub(super) fn end(process: Process, output: &Output) -> bool {
    match kill(process.pid, Signal::SIGINT) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return true,
        Err(errno) => {
            output.error(&format!("cannot signal process {}: {errno}", process.pid));
            return false;
        }
    }
    for _ in 0..TERMINATE_RETRIES * 10 {
        if kill(process.pid, None) == Err(Errno::ESRCH) || is_zombie(process.pid) {
            return true;
        }
        thread::sleep(Duration::from_millis(100));
    }
    false
}

/// Whether a process has ended and only its parent has not looked yet: in a container there may be
/// nobody who ever does.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before may hold any character, parentheses too (manual page proc(5)).
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

pub(super) fn list(_config: Config, _server_name: &str, output: &Output) {
    output.error("unfinished");
}

pub(super) fn terminate(_config: Config, _server_name: &str, _task: &str, output: &Output) {
    output.error("unfinished");
}
