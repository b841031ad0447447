//! Where a WAL file may lie, in the order in which Barman looks for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::RestoreError;
use crate::storage::WalStorageStrategy;
use crate::wal::{WalKind, WalName};

/// One place where the wanted file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The file's name there: the wanted one, or that of its partial segment.
    pub(super) name: WalName,
    /// `None` is the archive, otherwise the file in a queue.
    pub(super) queued: Option<PathBuf>,
}

/// The places of one server.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) storage: &'a dyn WalStorageStrategy,
    pub(super) incoming: &'a Path,
    pub(super) streaming: &'a Path,
    pub(super) only_archive: bool,
}

/// Something that was found, before anything was read from it.
pub(super) struct Found {
    /// As a person would name it.
    pub(super) location: String,
    /// The stored bytes.
    pub(super) stored: Box<dyn Read + Send>,
}

impl Places<'_> {
    /// Every place for a file, in order. The archive comes once more at the end, because the archiver may move the file
    /// there while we look; and so does `streaming` behind its partial segments, because a receiver completes them.
    pub(super) fn of(&self, name: &WalName, partial: bool) -> Vec<Candidate> {
        let archived = |name: &WalName| Candidate {
            name: name.clone(),
            queued: None,
        };
        let queued = |directory: &Path, name: &WalName| Candidate {
            name: name.clone(),
            queued: Some(directory.join(name.as_str())),
        };
        if self.only_archive {
            let partial_name = partial_of(name).filter(|_| partial);
            return [Some(name.clone()), partial_name]
                .iter()
                .flatten()
                .map(archived)
                .collect();
        }
        let mut places = vec![
            archived(name),
            queued(self.incoming, name),
            queued(self.streaming, name),
        ];
        if let Some(partial_name) = partial_of(name).filter(|_| partial) {
            places.extend([
                queued(self.streaming, &partial_name),
                queued(self.streaming, name),
                // What a promotion left of the old timeline's last segment.
                archived(&partial_name),
                queued(self.incoming, &partial_name),
            ]);
        }
        places.push(archived(name));
        places
    }

    /// Whether the file is in one of its places. One that is there and cannot be looked at counts.
    pub(super) fn hold(&self, name: &WalName) -> bool {
        self.of(name, false)
            .iter()
            .any(|candidate| match &candidate.queued {
                None => !matches!(self.storage.find(&candidate.name), Ok(None)),
                Some(path) => match fs::metadata(path) {
                    Ok(_) => true,
                    Err(error) => error.kind() != io::ErrorKind::NotFound,
                },
            })
    }

    /// Opens a candidate; `None` if it is not there.
    pub(super) fn open(&self, candidate: &Candidate) -> Result<Option<Found>, RestoreError> {
        match &candidate.queued {
            None => self.open_archived(&candidate.name),
            Some(path) => open_queued(path),
        }
    }

    fn open_archived(&self, name: &WalName) -> Result<Option<Found>, RestoreError> {
        let fetched = self.storage.fetch(name)?;
        Ok(fetched.map(|(found, stored)| Found {
            location: found.location,
            stored,
        }))
    }
}

fn open_queued(path: &Path) -> Result<Option<Found>, RestoreError> {
    let unreadable = |source| RestoreError::Unreadable {
        location: path.display().to_string(),
        source,
    };
    // A pipe under a WAL file's name must not block us.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let file: File = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is not a regular file")));
    }
    Ok(Some(Found {
        location: path.display().to_string(),
        stored: Box::new(file),
    }))
}

/// The name under which a receiver, or a promotion, keeps an incomplete segment.
fn partial_of(name: &WalName) -> Option<WalName> {
    match name.kind() {
        WalKind::Segment => WalName::parse(&format!("{name}.partial")).ok(),
        WalKind::Partial | WalKind::BackupLabel | WalKind::History => None,
    }
}
