//! `archive-wal`

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::Output;
use super::report::{DirectReporter, Reporter};
use super::servers::select_one;
use crate::archiver::{self, Direct};
use crate::catalog::{Catalog, CatalogError, RebuildCounts};
use crate::codec::{Decoder, Encoder};
use crate::config::{Config, ServerConfig, WalsDirectory};
use crate::durable::{LockFile, Wait};
use crate::hooks::Hooks;
use crate::storage::{
    Archive, Local, Recognition, Validation, WalFile, WalStorageStrategy, rebuild,
};
use crate::wal::WalName;

/// Archives a queue, or the one file that PostgreSQL names.
pub(super) fn run(config: Config, server_name: &str, wal_path: Option<&Path>, output: &Output) {
    let configuration_path = config.path.clone();
    let Some(server) = select_one(config, server_name, output) else {
        if let Some(path) = wal_path {
            // A round of cron's may pass over a server; PostgreSQL would recycle the file.
            output.error(&format!("{} was not archived", path.display()));
        }
        return;
    };
    output.debug(&format!("Starting archive-wal for server {server_name}"));
    let archived = match wal_path {
        Some(path) => archive_one(&server, &configuration_path, path, output),
        None => archive_queues(&server, &configuration_path, output),
    };
    if let Err(message) = archived {
        output.error(&message);
    }
}

/// What a server's archive is made of, apart from what encodes and runs.
pub(super) struct Parts {
    pub(super) storage: Local,
    catalog: Catalog,
}

impl Parts {
    /// Refuses a server whose archive is not on this host.
    pub(super) fn new(server: &ServerConfig) -> Result<Self, String> {
        match &server.wals_directory {
            WalsDirectory::Local(root) => Ok(Parts {
                storage: Local::new(root, server),
                catalog: Catalog::new(
                    &server.name,
                    &server.xlogdb_directory,
                    &server.lock_directory,
                    Some(root),
                ),
            }),
            WalsDirectory::Cloud(url) => Err(format!(
                "server '{}' keeps its WAL in an object store, which this version of walarch \
                 cannot use: {url}\nHINT: set wals_directory to a directory of this host",
                server.name
            )),
        }
    }

    /// An archive that has gone while xlogdb lists it is a file system that is not mounted: nothing
    /// must be put in its place.
    fn check_mounted(&self, server: &ServerConfig) -> Result<(), String> {
        let WalsDirectory::Local(root) = &server.wals_directory else {
            return Ok(());
        };
        let lists_something =
            fs::metadata(self.catalog.path()).is_ok_and(|metadata| metadata.len() > 0);
        if root.exists() || !lists_something {
            return Ok(());
        }
        Err(format!(
            "{} does not exist, and {} lists files in it\nHINT: is its file system mounted?",
            root.display(),
            self.catalog.path().display()
        ))
    }

    pub(super) fn rebuild_catalog(&self) -> Result<RebuildCounts, CatalogError> {
        rebuild(&self.catalog, &self.storage)
    }
}

fn archive_queues(
    server: &ServerConfig,
    configuration_path: &Path,
    output: &Output,
) -> Result<(), String> {
    let parts = Parts::new(server)?;
    let Some(_lock) = lock(server, Wait::Never)? else {
        output.info(&format!(
            "Another archive-wal process is already running on server {}. \
             Skipping to the next server",
            server.name
        ));
        return Ok(());
    };
    with_archive(server, configuration_path, &parts, |archive| {
        let reporter = Reporter::new(output, &server.name);
        for archiver in archiver::archivers(server) {
            if let Err(error) = archiver::run(&*archiver, archive, &reporter) {
                output.error(&format!(
                    "cannot read the queue of {}: {error}",
                    archiver.name()
                ));
            }
            if archive.stop.load(Ordering::Relaxed) {
                output.error("Process interrupted by user (KeyboardInterrupt)");
                break;
            }
        }
    })
}

fn archive_one(
    server: &ServerConfig,
    configuration_path: &Path,
    path: &Path,
    output: &Output,
) -> Result<(), String> {
    let name = path
        .file_name()
        .and_then(|name| WalName::parse(&name.to_string_lossy()).ok())
        .ok_or_else(|| format!("{} is not the name of a WAL file", path.display()))?;
    if server.passive {
        return Err(format!(
            "'{}' is a passive server: archive on its primary",
            server.name
        ));
    }
    // Found now, a mistyped path is no reason to wait for the lock.
    fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let parts = Parts::new(server)?;
    let _lock = lock(server, Wait::Forever)?;
    with_archive(server, configuration_path, &parts, |archive| {
        let file = WalFile {
            name,
            path: path.to_owned(),
        };
        let reporter = DirectReporter::new(output, &server.name);
        let report = archive.save(&[file], None, &Direct, &reporter);
        if report.archived != 1 && !reporter.has_said_why() {
            output.error(&format!("{} was not archived", path.display()));
        }
    })
}

/// Takes the lock that keeps every other archiver of this server away.
fn lock(server: &ServerConfig, wait: Wait) -> Result<Option<LockFile>, String> {
    let path = server
        .lock_directory
        .join(format!(".{}-archive-wal.lock", server.name));
    LockFile::acquire(&path, wait)
        .map_err(|error| format!("cannot lock {}: {error}", path.display()))
}

/// Puts the archive together and lets `work` use it. A request to stop raises the archive's flag; a
/// second one ends the process at once, which loses nothing either.
fn with_archive(
    server: &ServerConfig,
    configuration_path: &Path,
    parts: &Parts,
    work: impl FnOnce(&Archive<'_>),
) -> Result<(), String> {
    parts.check_mounted(server)?;
    let encoder = Encoder::new(server).map_err(|error| error.to_string())?;
    if let Some(notice) = encoder.level_notice() {
        tracing::warn!("{notice}");
    }
    let decoder = Decoder::new(server);
    let recognition = Recognition::new(server);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| format!("cannot watch for signals: {error}"))?;
    }
    let hooks = Hooks::new(server, configuration_path, &stop);
    let storage: &dyn WalStorageStrategy = &parts.storage;
    work(&Archive {
        storage,
        catalog: &parts.catalog,
        encoder: &encoder,
        decoder: &decoder,
        hooks: &hooks,
        validation: validation(server),
        recognition: &recognition,
        jobs: jobs(server),
        stop: &stop,
    });
    Ok(())
}

/// What segments are checked against; `None` if they are not to be.
pub(super) fn validation(server: &ServerConfig) -> Option<Validation> {
    if !server.own.validate_wal {
        return None;
    }
    let system_identifier = archiver::system_identifier(&server.backup_directory);
    if let Err(error) = &system_identifier {
        tracing::warn!("{error}; WAL is not checked against it");
    }
    Some(Validation {
        system_identifier: system_identifier.ok().flatten(),
    })
}

fn jobs(server: &ServerConfig) -> NonZeroUsize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    server.own.jobs.unwrap_or_else(cores)
}
