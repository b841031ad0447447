//! What the library tells whoever runs it while it works. It never prints anything itself.

use std::io;
use std::path::Path;

use crate::catalog::WalFileInfo;
use crate::storage::{SaveError, StorageError};
use crate::wal::WalName;

/// One thing that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A batch was chosen.
    BatchChosen {
        /// "file archival" or "streaming".
        archiver: &'a str,
        /// Everything that lies in the queue, strangers and files to be left alone included.
        listed: usize,
        /// How many files this run takes.
        chosen: usize,
    },
    /// A file is about to be committed.
    Archiving {
        /// Its place in the batch, from 1.
        number: usize,
        /// The file.
        name: &'a WalName,
    },
    /// A file is durable in the archive and listed.
    Archived {
        /// The file.
        name: &'a WalName,
        /// The size of its source.
        source_size_bytes: u64,
    },
    /// The archive holds another file of this name; this one was set aside.
    DuplicateSetAside {
        /// The file.
        name: &'a WalName,
        /// Where it is now.
        path: &'a Path,
    },
    /// A file was not archived.
    Failed {
        /// The file.
        name: &'a WalName,
        /// Why.
        error: &'a SaveError,
    },
    /// A pre hook asked to stop here.
    AbortedByHook {
        /// The file that was about to be archived.
        name: &'a WalName,
        /// Which hook.
        reason: &'a str,
    },
    /// A file was deleted from the archive.
    Deleted {
        /// What xlogdb said of it.
        info: &'a WalFileInfo,
    },
    /// A file could not be deleted from the archive.
    NotDeleted {
        /// The file.
        name: &'a WalName,
        /// Why.
        error: &'a StorageError,
    },
    /// Nothing was there to be archived.
    NothingFound,
    /// Objects that are no WAL files are about to be moved to the errors directory.
    StrangersFound {
        /// Their names, in order.
        names: &'a [String],
    },
    /// One of them could not be moved.
    StrangerStays {
        /// Where it is.
        path: &'a Path,
        /// Why it cannot be moved.
        error: &'a io::Error,
    },
}

/// Receives events, in their order, on the thread that commits.
pub trait Observer {
    /// Called for each event. Must not block for long: the next file waits.
    fn notice(&self, event: &Event<'_>);
}
