//! Waiting for a task that works on the same server.

use std::time::Duration;

use super::archive_wal::{lock_path, lock_task};
use super::output::Output;
use crate::config::ServerConfig;
use crate::durable::{LockFile, Wait, lock_holder};

/// From this time on a person wonders why nothing happens.
const SILENT_MAX: Duration = Duration::from_secs(1);

/// How long one task may keep another waiting: a run that archives a long backlog takes longer, and the next time
/// will do.
const PATIENCE: Duration = Duration::from_secs(600);

/// Takes the lock of a task, and says whom it waits for if that is not over in a moment. What could not be done
/// meanwhile is `purpose`, as in "no WAL was deleted".
pub(super) fn wait_for_task(
    server: &ServerConfig,
    task: &str,
    purpose: &str,
    output: &Output,
) -> Result<Option<LockFile>, String> {
    let lock = lock_task(server, task, Wait::AtMost(SILENT_MAX))?;
    if lock.is_some() {
        return Ok(lock);
    }
    let holder = lock_holder(&lock_path(server, task)).ok().flatten();
    let holder = holder.map_or(String::new(), |pid| format!(" (PID {pid})"));
    let who = format!("{task} of server {}{holder}", server.name);
    output.info(&format!("Waiting for {who}"));
    match lock_task(server, task, Wait::AtMost(PATIENCE))? {
        None => Err(format!(
            "{purpose}: {who} did not end within {} seconds\nHINT: try again when it has ended",
            PATIENCE.as_secs()
        )),
        lock => Ok(lock),
    }
}
