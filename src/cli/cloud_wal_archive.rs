//! `cloud-wal-archive`, and `archive-wal SERVER PATH` where the archive is in an object store

use std::cell::{Cell, RefCell};
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use super::archive_wal::{Parts, with_archive};
use super::output::Output;
use super::servers::select_one;
use crate::archiver::{Direct, Fingerprint, Sent, ready_after};
use crate::config::{Config, ServerConfig, WalsDirectory};
use crate::durable::Identity;
use crate::hooks::Work;
use crate::observe::{Event, Observer};
use crate::storage::WalFile;
use crate::wal::WalName;

/// Archives the file that PostgreSQL names, and those that it will name next.
pub(super) fn run(
    config: Config,
    server_name: &str,
    wal_path: &Path,
    parallel: Option<usize>,
    output: &Output,
) {
    let wal = match requested(wal_path) {
        Ok(wal) => wal,
        Err(message) => return output.error(&message),
    };
    let configuration_path = config.path.clone();
    let Some(server) = select_one(config, server_name, output) else {
        // A server that is passed over archives nothing, and PostgreSQL would recycle the file.
        return output.error(&format!("{} was not archived", wal_path.display()));
    };
    let sent = check(&server).and_then(|()| {
        let parallel = parallel.unwrap_or(server.cloud.wal_archive_parallel);
        send(&server, &configuration_path, wal, parallel, output)
    });
    if let Err(message) = sent {
        output.error(&message);
    }
}

/// The file that the command is for, with Barman's words for what is none.
fn requested(path: &Path) -> Result<WalFile, String> {
    if path.is_dir() {
        return Err(format!(
            "wal_path cannot be a directory: {}",
            path.display()
        ));
    }
    if !path.exists() {
        return Err(format!("WAL file does not exist: {}", path.display()));
    }
    let name = path
        .file_name()
        .and_then(|name| WalName::parse(name.to_str()?).ok());
    let name = name.ok_or_else(|| format!("File is not a valid WAL file: {}", path.display()))?;
    Ok(WalFile {
        name,
        path: path.to_owned(),
    })
}

fn check(server: &ServerConfig) -> Result<(), String> {
    if server.passive {
        return Err(format!(
            "'{}' is a passive server: archive on its primary",
            server.name
        ));
    }
    match server.wals_directory {
        WalsDirectory::Cloud(_) => Ok(()),
        WalsDirectory::Local(_) => Err(format!(
            "cloud-wal-archive is not supported for server {} because no cloud storage configuration is \
             set in 'wals_directory'. Please check the server configuration.",
            server.name
        )),
    }
}

/// Archives a file, unless exactly it was sent before, and up to `parallel - 1` that follow it, all at the same time.
/// Only the first one decides whether the command has failed.
///
/// No lock is taken: nothing that two processes do to a bucket at a time can harm it.
pub(super) fn send(
    server: &ServerConfig,
    configuration_path: &Path,
    requested: WalFile,
    parallel: usize,
    output: &Output,
) -> Result<(), String> {
    let (name, path) = (requested.name.clone(), requested.path.clone());
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    let mut sent = Sent::of(server);
    if sent.holds(&requested).map_err(unreadable)? {
        output.debug(&format!("WAL file {name} is already archived, skipping."));
        return Ok(());
    }
    let mut files = vec![requested];
    files.extend(following(
        &sent,
        files.first(),
        parallel.saturating_sub(1),
        output,
    ));
    let at_a_time = NonZeroUsize::new(parallel).unwrap_or(NonZeroUsize::MIN);
    let parts = Parts::sending(server, Some(at_a_time))?;
    with_archive(server, configuration_path, &parts, |archive| {
        if archive.hooks.any(Work::Archive) {
            // Scripts run for one file after the other: PostgreSQL would wait for all of them.
            files.truncate(1);
        }
        let found: Vec<_> = files.iter().map(identity).collect();
        let reporter = SendReporter::new(output, &server.name, &name);
        archive.save(&files, None, &Direct, &reporter);
        if !reporter.is_requested_archived() && !reporter.has_said_why() {
            output.error(&format!("{} was not archived", path.display()));
        }
        let ahead = files.iter().zip(found).skip(1);
        let prints = ahead
            .filter(|(wal, _)| reporter.is_archived(&wal.name))
            .filter_map(|(wal, found)| Fingerprint::of(wal, Some(found?)).ok())
            .collect();
        if let Err(error) = sent.remember(prints) {
            tracing::warn!("cannot remember what was sent ahead: {error}");
        }
    })
}

fn identity(wal: &WalFile) -> Option<Identity> {
    fs::metadata(&wal.path).ok().as_ref().map(Identity::of)
}

/// The files that will be asked for next and have not been sent yet.
fn following(
    sent: &Sent,
    requested: Option<&WalFile>,
    limit: usize,
    output: &Output,
) -> Vec<WalFile> {
    let Some(requested) = requested.filter(|_| limit > 0) else {
        return Vec::new();
    };
    match ready_after(requested, limit) {
        Ok(ready) => ready
            .into_iter()
            .filter(|wal| matches!(sent.holds(wal), Ok(false)))
            .collect(),
        Err(error) => {
            let directory = requested.path.with_file_name("archive_status");
            output.warning(&format!(
                "archive_status directory {} cannot be read ({error}); prefetching skipped.",
                directory.display()
            ));
            Vec::new()
        }
    }
}

/// Errors are about the requested file only; what happens to the others is a warning.
struct SendReporter<'a> {
    output: &'a Output,
    server: &'a str,
    requested: &'a WalName,
    archived: RefCell<Vec<WalName>>,
    has_said_why: Cell<bool>,
}

impl<'a> SendReporter<'a> {
    fn new(output: &'a Output, server: &'a str, requested: &'a WalName) -> Self {
        SendReporter {
            output,
            server,
            requested,
            archived: RefCell::default(),
            has_said_why: Cell::new(false),
        }
    }

    fn is_archived(&self, name: &WalName) -> bool {
        self.archived.borrow().contains(name)
    }

    fn is_requested_archived(&self) -> bool {
        self.is_archived(self.requested)
    }

    fn has_said_why(&self) -> bool {
        self.has_said_why.get()
    }
}

impl Observer for SendReporter<'_> {
    fn notice(&self, event: &Event<'_>) {
        let server = self.server;
        match event {
            Event::Archived { name, .. } => {
                tracing::info!("Archived {server}/{name}");
                self.archived.borrow_mut().push((*name).clone());
            }
            Event::Failed { name, error } if *name == self.requested => {
                let text = format!("Archival of WAL file {name} failed: {error}");
                self.output.error_with_hint(&text, error.hint());
                self.has_said_why.set(true);
            }
            Event::Failed { name, error } => {
                self.output
                    .warning(&format!("Prefetch of WAL file {name} failed: {error}"));
            }
            Event::AbortedByHook { name, reason } => {
                self.output
                    .error(&format!("{server}/{name} was not archived: {reason}"));
                self.has_said_why.set(true);
            }
            _ => {}
        }
    }
}
