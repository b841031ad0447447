//! A directory in which WAL files wait.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::config::ServerConfig;
use crate::durable;
use crate::storage::{SetAside, SourceKeeper, WalFile};
use crate::wal::WalName;

/// The directory of one archiver, and where its outcasts go.
#[derive(Debug)]
pub(super) struct Queue {
    directory: PathBuf,
    errors_directory: PathBuf,
    may_be_compressed: bool,
}

/// What lies in a queue, sorted by name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<WalFile>,
    pub(super) strangers: Vec<PathBuf>,
    pub(super) listed: usize,
}

impl Queue {
    pub(super) fn new(directory: &Path, may_be_compressed: bool, server: &ServerConfig) -> Self {
        Queue {
            directory: directory.to_owned(),
            errors_directory: server.errors_directory.clone(),
            may_be_compressed,
        }
    }

    /// Reads the directory once. One that does not exist is empty.
    pub(super) fn list(&self) -> io::Result<Listing> {
        list(&self.directory)
    }

    pub(super) fn move_to_errors(&self, path: &Path, suffix: &str) -> io::Result<PathBuf> {
        move_to_errors(path, &self.errors_directory, suffix)
    }
}

/// Moves an object to the errors directory, as `NAME.STAMP.SUFFIX`; a number comes between where
/// that name is taken.
pub fn move_to_errors(path: &Path, errors_directory: &Path, suffix: &str) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default();
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let names = (0..).map(|number| errors_name(name, &stamp, number, suffix));
    durable::move_aside(path, errors_directory, names)
}

/// What waits in a directory to be archived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many objects lie there, hidden and temporary ones aside. Of `streaming`, the one that the
    /// receiver writes does not count.
    pub count: usize,
    /// The WAL files among them.
    pub names: Vec<WalName>,
    directory: PathBuf,
}

/// What waits in `incoming_wals_directory`, whether it is archived or not.
pub fn incoming_backlog(server: &ServerConfig) -> io::Result<Backlog> {
    backlog(&server.incoming_wals_directory, 0)
}

/// What waits in `streaming_wals_directory`, whether it is archived or not.
pub fn streaming_backlog(server: &ServerConfig) -> io::Result<Backlog> {
    backlog(&server.streaming_wals_directory, 1)
}

fn backlog(directory: &Path, in_use: usize) -> io::Result<Backlog> {
    let listing = list(directory)?;
    let count = listing.files.len() + listing.strangers.len();
    Ok(Backlog {
        count: count.saturating_sub(in_use),
        names: listing.files.into_iter().map(|wal| wal.name).collect(),
        directory: directory.to_owned(),
    })
}

impl Backlog {
    /// The size of the WAL files in bytes, and when the oldest of them was last written. Files that
    /// have gone meanwhile do not count.
    pub fn measure(&self) -> (u64, Option<SystemTime>) {
        let metadata = self
            .names
            .iter()
            .filter_map(|name| fs::metadata(self.directory.join(name.as_str())).ok());
        metadata.fold((0, None), |(size_bytes, oldest), file| {
            let modified = file.modified().ok();
            let oldest = match (oldest, modified) {
                (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
                (a, b) => a.or(b),
            };
            (size_bytes + file.len(), oldest)
        })
    }
}

impl SourceKeeper for Queue {
    fn is_ours(&self) -> bool {
        true
    }

    fn may_be_compressed(&self) -> bool {
        self.may_be_compressed
    }

    fn remove(&self, wal: &WalFile) -> io::Result<()> {
        durable::remove(&wal.path)
    }

    fn sync(&self) -> io::Result<()> {
        durable::sync_directory(&self.directory)
    }

    fn set_aside(&self, wal: &WalFile, reason: SetAside) -> io::Result<Option<PathBuf>> {
        self.move_to_errors(&wal.path, reason.suffix()).map(Some)
    }
}

/// Reads a directory once. Hidden objects are nobody's business; temporary ones (`.tmp`) are counted, as
/// Barman does, and left alone.
fn list(directory: &Path) -> io::Result<Listing> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!("{} does not exist", directory.display());
            return Ok(Listing::default());
        }
        entries => entries?,
    };
    let mut listing = Listing::default();
    for entry in entries {
        let entry = entry?;
        let file_name = entry.file_name();
        if file_name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        listing.listed += 1;
        if file_name.as_encoded_bytes().ends_with(b".tmp") {
            continue;
        }
        match wal_name(&file_name).filter(|_| is_file(&entry)) {
            Some(name) => listing.files.push(WalFile {
                name,
                path: entry.path(),
            }),
            None => listing.strangers.push(entry.path()),
        }
    }
    listing.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    listing.strangers.sort_unstable();
    Ok(listing)
}

fn errors_name(name: &OsStr, stamp: &str, number: usize, suffix: &str) -> OsString {
    let mut errors_name = name.to_owned();
    errors_name.push(match number {
        0 => format!(".{stamp}.{suffix}"),
        _ => format!(".{stamp}.{number}.{suffix}"),
    });
    errors_name
}

fn wal_name(file_name: &OsStr) -> Option<WalName> {
    WalName::parse(file_name.to_str()?).ok()
}

/// Whether an entry is a file or a link to one. One that is gone by now was one: whoever opens it
/// will see.
fn is_file(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_symlink() => match fs::metadata(entry.path()) {
            Ok(metadata) => metadata.is_file(),
            Err(_) => entry.path().symlink_metadata().is_err(),
        },
        Ok(kind) => kind.is_file(),
        Err(_) => true,
    }
}
