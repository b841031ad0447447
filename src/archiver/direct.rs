//! `archive_command`: one file, straight from where PostgreSQL keeps it.

use std::io;
use std::path::PathBuf;

use crate::storage::{SetAside, SourceKeeper, WalFile};

/// Keeps its hands off the source: PostgreSQL recycles it once we have said that it is archived.
#[derive(Debug)]
pub struct Direct;

impl SourceKeeper for Direct {
    fn is_ours(&self) -> bool {
        false
    }

    fn may_be_compressed(&self) -> bool {
        true
    }

    fn remove(&self, _wal: &WalFile) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_aside(&self, _wal: &WalFile, _reason: SetAside) -> io::Result<Option<PathBuf>> {
        Ok(None)
    }
}
