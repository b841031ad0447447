//! Files of the archive on their way to their final name.

use std::fs::Metadata;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Local;
use crate::catalog::WalFileInfo;
use crate::codec::{Encoding, Output};
use crate::durable::{self, DirectWriter, Identity, Publication, Temporary};
use crate::storage::{SealedWal, Source, StagedWal, StorageError};

/// Nobody else reads a file that is still being written.
pub(super) const STAGED_MODE: u32 = 0o600;

pub(super) struct Staged {
    pub(super) sealed: Sealed,
    pub(super) writer: DirectWriter,
    pub(super) path: PathBuf,
    pub(super) source: Metadata,
}

pub(super) struct Sealed {
    pub(super) temporary: Temporary,
    pub(super) goal: PathBuf,
    pub(super) info: WalFileInfo,
    pub(super) is_shared: bool,
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Output for Staged {
    fn room(&mut self, size_bytes: usize) -> Option<&mut [u8]> {
        self.writer.room(size_bytes)
    }

    fn fill(&mut self, filled_bytes: usize) {
        self.writer.fill(filled_bytes);
    }
}

impl StagedWal for Staged {
    fn seal(self: Box<Self>, encoding: &Encoding) -> Result<Box<dyn SealedWal>, StorageError> {
        let Staged {
            mut sealed,
            writer,
            path,
            source,
        } = *self;
        let file = writer.finish().map_err(Local::error("write", &path))?;
        let size_bytes = durable::keep_attributes(&file, &source)
            .and_then(|()| durable::sync_file(&file, &path))
            .and_then(|()| Ok(file.metadata()?.size()))
            .map_err(Local::error("write", &path))?;
        sealed.info.size_bytes = size_bytes;
        sealed.info.compression = encoding.compression.map(|codec| codec.name().to_owned());
        sealed.info.encryption = encoding
            .encryption
            .map(|encryption| encryption.name().to_owned());
        Ok(Box::new(sealed))
    }
}

impl SealedWal for Sealed {
    fn info(&self) -> &WalFileInfo {
        &self.info
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn publish(self: Box<Self>) -> Result<Publication, StorageError> {
        self.temporary
            .publish(&self.goal)
            .map_err(Local::error("publish", &self.goal))
    }
}

/// A durable copy of a source under a temporary name.
pub(super) fn copy(source: &Source, path: &Path) -> io::Result<Temporary> {
    let (temporary, mut copy) = Temporary::create(path.to_owned(), STAGED_MODE)?;
    let mut original = &source.file;
    original.rewind()?;
    io::copy(&mut original, &mut copy)?;
    original.rewind()?;
    durable::keep_attributes(&copy, &source.metadata)?;
    durable::sync_file(&copy, path)?;
    match Identity::of(&source.file.metadata()?) == Identity::of(&source.metadata) {
        true => Ok(temporary),
        false => Err(io::Error::other("it changed while it was read")),
    }
}
