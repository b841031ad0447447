//! Log shipping: WAL that PostgreSQL's `archive_command` puts into `incoming`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::{Batch, WalArchiver};
use crate::config::ServerConfig;
use crate::storage::SourceKeeper;

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
            // A sender may have compressed it.
            queue: Queue::new(&server.incoming_wals_directory, true, server),
            batch_size: server.archiver_batch_size,
        }
    }
}

impl WalArchiver for File {
    fn name(&self) -> &'static str {
        "file archival"
    }

    fn keeper(&self) -> &dyn SourceKeeper {
        &self.queue
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
