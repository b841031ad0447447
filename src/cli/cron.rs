//! `cron`: starts for every server what shall run now, and goes away.

use std::fs;
use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::detach::Launcher;
use super::output::Output;
use super::processes;
use super::servers::select_due;
use crate::config::{Config, GlobalConfig, ServerConfig};
use crate::durable::{self, LockFile, Wait};
use crate::receiver::ReceiverState;

/// The locks that Barman waits for. It would go on waiting for a file that has been removed, beside
/// whoever holds the new one.
const WAITED_FOR: [&str; 2] = ["-xlogdb.lock", "-sync-wal.lock"];

pub(super) fn run(
    config: Config,
    keep_descriptors: bool,
    log_level: Option<&str>,
    output: &Output,
) {
    let (path, global) = (config.path.clone(), config.global.clone());
    if !config.global_errors.is_empty() {
        // They are printed; as in Barman, nothing else happens.
        select_due(config, output);
        return;
    }
    let launcher = Launcher {
        config: &path,
        log_level,
        keep_descriptors,
    };
    for server in select_due(config, output) {
        run_for(&server, &launcher, output);
    }
    clean_lock_directory(&global, output);
}

/// Does what is due for one server, unless another cron is at it, walarch's or Barman's.
fn run_for(server: &ServerConfig, launcher: &Launcher<'_>, output: &Output) {
    let name = &server.name;
    let path = server.lock_directory.join(format!(".{name}-cron.lock"));
    let _lock = match LockFile::acquire(&path, Wait::Never) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            output.info(&format!(
                "Another cron process is already running on server {name}. \
                 Skipping to the next server"
            ));
            return;
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let path = path.display();
            output.error(&format!("Permission denied, unable to access '{path}'"));
            return;
        }
        Err(error) => {
            output.error(&format!("cannot lock {}: {error}", path.display()));
            return;
        }
    };
    if server.passive {
        output.info(&format!("Skipping passive server '{name}'"));
        return;
    }
    start_archiving(server, launcher, output);
    if server.streaming_archiver {
        start_receiving(server, launcher, output);
    } else {
        processes::end_task(server, "receive-wal", output);
    }
}

fn start_archiving(server: &ServerConfig, launcher: &Launcher<'_>, output: &Output) {
    let name = &server.name;
    if processes::find(server, "archive-wal").is_some() {
        output.info(&format!(
            "Another archive-wal process is already running on server {name}. \
             Skipping to the next server"
        ));
        return;
    }
    output.line(&format!("Starting WAL archiving for server {name}"));
    start(launcher, "archive-wal", name, output);
}

fn start_receiving(server: &ServerConfig, launcher: &Launcher<'_>, output: &Output) {
    let name = &server.name;
    if processes::find(server, "receive-wal").is_some() {
        tracing::debug!("Another STREAMING ARCHIVER process is running for server {name}");
        return;
    }
    if let Some(reason) = reason_to_wait(server, Timestamp::now()) {
        output.info(&format!(
            "Not starting streaming archiver for server {name} {reason}"
        ));
        return;
    }
    output.line(&format!("Starting streaming archiver for server {name}"));
    start(launcher, "receive-wal", name, output);
}

/// Until when, and why, the receiver shall not be started.
fn reason_to_wait(server: &ServerConfig, now: Timestamp) -> Option<String> {
    let state = ReceiverState::load(server)
        .inspect_err(|error| tracing::warn!("{error}"))
        .ok()?;
    let until = state.may_start_at(now)?.to_zoned(TimeZone::system());
    let until = until.strftime("%H:%M:%S");
    let failures = match state.consecutive_failures {
        1 => "it failed".to_owned(),
        failures => format!("it failed {failures} times in a row"),
    };
    let reason = state
        .last_exit
        .and_then(|exit| exit.reason.lines().next().map(|line| format!(": {line}")))
        .unwrap_or_default();
    Some(format!("before {until}: {failures}{reason}"))
}

fn start(launcher: &Launcher<'_>, task: &str, server_name: &str, output: &Output) {
    if let Err(error) = launcher.start(task, server_name) {
        output.error(&format!(
            "cannot start {task} for server {server_name}: {error}"
        ));
    }
}

/// Removes lock files that nobody holds.
fn clean_lock_directory(global: &GlobalConfig, output: &Output) {
    let directory = &global.barman_lock_directory;
    if !global.lock_directory_cleanup {
        tracing::debug!(
            "Auto-cleanup of '{}' directory disabled",
            directory.display()
        );
        return;
    }
    tracing::info!("Cleaning up lockfiles directory.");
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            output.error(&format!("cannot read {}: {error}", directory.display()));
            return;
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let is_lock = is_file && name.starts_with('.') && name.ends_with(".lock");
        if !is_lock || WAITED_FOR.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        match durable::remove_idle_lock(&entry.path()) {
            Ok(true) => tracing::debug!("{name} deleted"),
            Ok(false) => tracing::debug!("{name} file lock already acquired, skipping removal"),
            Err(error) => tracing::warn!("cannot remove {name}: {error}"),
        }
    }
}
