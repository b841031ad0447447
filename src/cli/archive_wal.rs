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
    Archive, Local, Recognition, SaveReport, Validation, WalFile, WalStorageStrategy, rebuild,
};
#[cfg(feature = "cloud")]
use crate::storage::{Cloud, Written};
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
    pub(super) storage: Box<dyn WalStorageStrategy>,
    catalog: Catalog,
}

impl Parts {
    /// `at_a_time` is how many files a cloud archive is sent at a time, if that is not the configured number.
    pub(super) fn new(
        server: &ServerConfig,
        at_a_time: Option<NonZeroUsize>,
    ) -> Result<Self, String> {
        let (storage, local_root): (Box<dyn WalStorageStrategy>, _) = match &server.wals_directory {
            WalsDirectory::Local(root) => {
                (Box::new(Local::new(root, server)), Some(root.as_path()))
            }
            WalsDirectory::Cloud(url) => (cloud_storage(url, server, at_a_time)?, None),
        };
        let (xlogdb, locks) = (&server.xlogdb_directory, &server.lock_directory);
        Ok(Parts {
            storage,
            catalog: Catalog::new(&server.name, xlogdb, locks, local_root),
        })
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
        rebuild(&self.catalog, &*self.storage)
    }
}

#[cfg(feature = "cloud")]
fn cloud_storage(
    url: &str,
    server: &ServerConfig,
    at_a_time: Option<NonZeroUsize>,
) -> Result<Box<dyn WalStorageStrategy>, String> {
    let cloud = Cloud::new(url, server).map_err(|error| error.to_string())?;
    Ok(Box::new(match at_a_time {
        Some(files) => cloud.with_concurrency(files),
        None => cloud,
    }))
}

#[cfg(not(feature = "cloud"))]
fn cloud_storage(
    url: &str,
    server: &ServerConfig,
    _at_a_time: Option<NonZeroUsize>,
) -> Result<Box<dyn WalStorageStrategy>, String> {
    Err(format!(
        "server '{}' keeps its WAL in an object store, for which this walarch was not built: {url}\n\
         HINT: build it with the feature cloud",
        server.name
    ))
}

fn archive_queues(
    server: &ServerConfig,
    configuration_path: &Path,
    output: &Output,
) -> Result<(), String> {
    let parts = Parts::new(server, None)?;
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
            match archiver::run(&*archiver, archive, &reporter) {
                Ok(report) => note_success(server, report),
                Err(error) => output.error(&format!(
                    "cannot read the queue of {}: {error}",
                    archiver.name()
                )),
            }
            if archive.stop.load(Ordering::Relaxed) {
                output.error("Process interrupted by user (KeyboardInterrupt)");
                break;
            }
        }
    })
}

/// A run in which everything went well: from now on files need not be looked for before they are sent.
#[cfg(feature = "cloud")]
fn note_success(server: &ServerConfig, report: SaveReport) {
    let is_cloud = matches!(server.wals_directory, WalsDirectory::Cloud(_));
    let went_well = report.archived > 0 && report.failed == 0 && !report.stopped;
    if is_cloud
        && went_well
        && let Err(error) = Written::of(server).record()
    {
        tracing::warn!("cannot record how files are stored: {error}");
    }
}

#[cfg(not(feature = "cloud"))]
fn note_success(_server: &ServerConfig, _report: SaveReport) {}

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
    let file = WalFile {
        name,
        path: path.to_owned(),
    };
    #[cfg(feature = "cloud")]
    if matches!(server.wals_directory, WalsDirectory::Cloud(_)) {
        let parallel = server.cloud.wal_archive_parallel;
        return super::cloud_wal_archive::send(server, configuration_path, file, parallel, output);
    }
    let parts = Parts::new(server, None)?;
    let _lock = lock(server, Wait::Forever)?;
    with_archive(server, configuration_path, &parts, |archive| {
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
pub(super) fn with_archive(
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
    work(&Archive {
        storage: &*parts.storage,
        catalog: &parts.catalog,
        encoder: &encoder,
        decoder: &decoder,
        hooks: &hooks,
        validation: server.own.validate_wal.then(|| validation(server)),
        recognition: &recognition,
        jobs: jobs(server),
        stop: &stop,
    });
    Ok(())
}

fn validation(server: &ServerConfig) -> Validation {
    let system_identifier = archiver::system_identifier(&server.backup_directory);
    if let Err(error) = &system_identifier {
        tracing::warn!("{error}; WAL is not checked against it");
    }
    Validation {
        system_identifier: system_identifier.ok().flatten(),
    }
}

fn jobs(server: &ServerConfig) -> NonZeroUsize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    server.own.jobs.unwrap_or_else(cores)
}
