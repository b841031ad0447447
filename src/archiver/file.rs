//! Log shipping: WAL that PostgreSQL's `archive_command` puts into `incoming`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::{Batch, WalArchiver};
use crate::config::ServerConfig;
use crate::durable;
use crate::storage::{SetAside, SourceKeeper, WalFile};

/// Archives `incoming_wals_directory`.
#[derive(Debug)]
pub struct File {
    queue: Queue,
    batch_size: Option<NonZeroUsize>,
}

impl File {
    /// Touches nothing.
    pub fn new(server: &ServerConfig) -> Self {
        File {
            queue: Queue::new(&server.incoming_wals_directory, server),
            batch_size: server.archiver_batch_size,
        }
    }
}

impl SourceKeeper for File {
    fn is_ours(&self) -> bool {
        true
    }

    fn may_be_compressed(&self) -> bool {
        true
    }

    fn remove(&self, wal: &WalFile) -> io::Result<()> {
        durable::remove(&wal.path)
    }

    fn sync(&self) -> io::Result<()> {
        self.queue.sync()
    }

    fn set_aside(&self, wal: &WalFile, reason: SetAside) -> io::Result<Option<PathBuf>> {
        self.queue
            .move_to_errors(&wal.path, reason.suffix())
            .map(Some)
    }
}

impl WalArchiver for File {
    fn name(&self) -> &'static str {
        "file archival"
    }

    fn next_batch(&self) -> io::Result<Batch> {
        let listing = self.queue.list()?;
        Ok(Batch {
            files: listing.files,
            limit: self.batch_size,
            strangers: listing.strangers,
            listed: listing.listed,
        })
    }

    fn set_stranger_aside(&self, path: &Path) -> io::Result<PathBuf> {
        self.queue.move_to_errors(path, "unknown")
    }
}
