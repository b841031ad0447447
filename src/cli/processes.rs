//! `list-processes`, `terminate-process`, and what other commands need to know of running tasks.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::output::Output;
use super::servers::select_one;
use crate::config::{Config, ServerConfig};
use crate::durable;

/// How long a process may take to end after it was asked to, as in Barman.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two looks at whether it has ended.
const END_INTERVAL: Duration = Duration::from_millis(100);

/// How often a process must be seen to hold its lock before it is ended, and the pause before each
/// look: longer than anybody holds a lock to look at it.
const LOOKS: u32 = 5;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// The tasks that have lock files of their own, Barman's included.
const TASKS: [&str; 6] = [
    "receive-wal",
    SYNC_BACKUP,
    "backup",
    "cron",
    "archive-wal",
    "sync-wal",
];

/// The one task that runs several times for a server: `.SERVER-BACKUP-sync-backup.lock`.
const SYNC_BACKUP: &str = "sync-backup";

/// A task that runs for a server, in walarch or in Barman.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) task: &'static str,
    lock_path: PathBuf,
}

/// The process that does a task for a server now: the holder of its lock.
pub(super) fn find(server: &ServerConfig, task: &'static str) -> Option<Process> {
    let name = format!(".{}-{task}.lock", server.name);
    holder(server, task, server.lock_directory.join(name))
}

fn holder(server: &ServerConfig, task: &'static str, lock_path: PathBuf) -> Option<Process> {
    match durable::lock_holder(&lock_path) {
        Ok(pid) => pid.map(|pid| Process {
            pid,
            task,
            lock_path,
        }),
        Err(error) => {
            tracing::warn!(
                "Skipping the {task} process for server {}: Error reading the PID from lock file \
                 '{}': {error}",
                server.name,
                lock_path.display()
            );
            None
        }
    }
}

/// The processes of one task, or of all.
fn find_all(server: &ServerConfig, wanted: Option<&str>) -> Vec<Process> {
    let mut found = Vec::new();
    for task in TASKS {
        if wanted.is_some_and(|wanted| wanted != task) {
            continue;
        }
        if task == SYNC_BACKUP {
            let locks = sync_backup_locks(&server.lock_directory, &server.name);
            found.extend(
                locks
                    .into_iter()
                    .filter_map(|path| holder(server, task, path)),
            );
        } else {
            found.extend(find(server, task));
        }
    }
    found
}

/// In no particular order. Nothing is found in a directory that cannot be read.
fn sync_backup_locks(directory: &Path, server: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_ours = |name: &str| {
        name.strip_prefix(&format!(".{server}-"))
            .and_then(|rest| rest.strip_suffix("-sync-backup.lock"))
            .is_some_and(is_backup_id)
    };
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_ours))
        .map(|entry| entry.path())
        .collect()
}

/// `YYYYMMDDTHHMMSS`: a server's name may begin with that of another one and a dash.
fn is_backup_id(text: &str) -> bool {
    let (date, time) = text.split_once('T').unwrap_or_default();
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    date.len() == 8 && time.len() == 6 && digits(date) && digits(time)
}

/// Asks a process to end, as Barman does, and waits for that. Returns whether it has ended.
fn end(process: &Process, output: &Output) -> bool {
    match kill(process.pid, Signal::SIGINT) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return true,
        Err(errno) => {
            output.error(&format!("cannot signal process {}: {errno}", process.pid));
            return false;
        }
    }
    let deadline = Instant::now() + END_TIMEOUT;
    loop {
        if kill(process.pid, None) == Err(Errno::ESRCH) || is_zombie(process.pid) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(END_INTERVAL);
    }
}

/// Whether a process really does the task whose lock file names it. A start of Barman holds each free
/// lock for an instant, and the file then still names who held it last: that number may belong to
/// anybody by now.
fn is_at_work(process: &Process) -> bool {
    let holds_lock = |_| {
        thread::sleep(LOOK_INTERVAL);
        durable::lock_holder(&process.lock_path).is_ok_and(|pid| pid == Some(process.pid))
    };
    (0..LOOKS).all(holds_lock)
}

/// Whether a process has ended and only its parent has not looked yet: in a container there may be
/// nobody who ever does.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before may hold any character, parentheses too (manual page proc(5)).
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// Prints what runs for a server.
pub(super) fn list(config: Config, server_name: &str, output: &Output) {
    let Some(server) = select_one(config, server_name, output) else {
        return;
    };
    let processes = find_all(&server, None);
    if output.is_json() {
        let list = processes
            .iter()
            .map(|process| json!({ "pid": process.pid.as_raw(), "name": process.task }));
        output.value(server_name, list.collect());
    } else if processes.is_empty() {
        output.info(&format!(
            "No active subprocesses found for server {server_name}."
        ));
    } else {
        output.info(&format!("Active subprocesses for server {server_name}:"));
        for process in processes {
            output.info(&format!("{} {}", process.pid, process.task));
        }
    }
}

/// Ends the process that does a task for a server.
pub(super) fn terminate(config: Config, server_name: &str, task: &str, output: &Output) {
    if let Some(server) = select_one(config, server_name, output) {
        end_running_task(&server, task, output);
    }
}

/// Ends the process that does a task, which must be there.
pub(super) fn end_running_task(server: &ServerConfig, task: &str, output: &Output) {
    if !end_task(server, task, output) {
        output.error(&format!(
            "Termination of {task} failed: no such process for server {}",
            server.name
        ));
    }
}

/// Ends the first process that does a task, and says how that went. Returns whether there is one.
///
/// A receiver that archives what it has received is not ended for that: nobody asked it to stop
/// receiving.
pub(super) fn end_task(server: &ServerConfig, task: &str, output: &Output) -> bool {
    let receiver = find(server, "receive-wal").map(|process| process.pid);
    let is_meant = |process: &Process| {
        let is_receiver = Some(process.pid) == receiver && process.task != "receive-wal";
        !is_receiver && is_at_work(process)
    };
    let found = find_all(server, Some(task));
    let Some(process) = found.into_iter().find(is_meant) else {
        return false;
    };
    let named = format!("process {}({})", process.task, process.pid);
    if end(&process, output) {
        output.info(&format!("Stopped {named}"));
    } else {
        output.error(&format!("Cannot terminate {named}"));
    }
    true
}
