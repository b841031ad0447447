//! Whether an archived file and a source hold the same WAL.

use std::io::{self, Cursor, Read, Seek};

use super::prepare::Likeness;
use super::{Archive, SaveError, source_error};
use crate::codec::{Encoding, HEAD_SIZE_BYTES};
use crate::config::{Compression, Encryption};
use crate::storage::{Source, StoredWal};

/// How much of each side is held in memory.
const CHUNK_SIZE_BYTES: usize = 256 << 10;

impl Archive<'_> {
    /// Compares content, byte for byte, never sizes or times alone.
    ///
    /// An archived file that cannot be decoded is [`SaveError::ArchivedCopy`]; a source that
    /// cannot is different from anything that can.
    pub(super) fn compare(
        &self,
        source: &Source,
        stored: &StoredWal,
    ) -> Result<Likeness, SaveError> {
        let archived_error = |error: io::Error| SaveError::ArchivedCopy {
            name: source.name.clone(),
            location: stored.location.clone(),
            source: error,
        };
        // As they stand first: stored without any wrapping, or as the sender wrapped it.
        if stored.info.size_bytes == source.metadata.len() {
            let same = self.same(self.storage.open(stored)?, duplicate(source)?);
            if same.map_err(|side| side.into_error(archived_error, &source.path))? {
                return Ok(Likeness::Same);
            }
        }
        if stored.info.encryption.is_some() && !self.decoder.can_decrypt() {
            return Ok(Likeness::Unknown);
        }
        let archived = match self.plain_archived(stored) {
            Ok(archived) => archived,
            Err(error) => return Err(archived_error(error)),
        };
        let Ok(plain_source) = self.decode(duplicate(source)?, source.carried, None) else {
            return Ok(Likeness::Different);
        };
        match self.same(archived, plain_source) {
            Ok(true) => Ok(Likeness::Same),
            Ok(false) | Err(Side::Source(_)) => Ok(Likeness::Different),
            Err(Side::Archived(error)) => Err(archived_error(error)),
        }
    }

    /// The archived file without its encryption, if it has any, and its compression.
    fn plain_archived(&self, stored: &StoredWal) -> io::Result<Box<dyn Read + Send>> {
        let mut stream = self.storage.open(stored).map_err(io::Error::other)?;
        if stored.info.encryption.is_some() {
            stream = self.decode(stream, None, Some(Encryption::Gpg))?;
        }
        let mut head = Vec::with_capacity(HEAD_SIZE_BYTES);
        (&mut stream)
            .take(HEAD_SIZE_BYTES as u64)
            .read_to_end(&mut head)?;
        let compression = self.recognition.of_stored(&head);
        self.decode(Box::new(Cursor::new(head).chain(stream)), compression, None)
    }

    fn decode(
        &self,
        stream: Box<dyn Read + Send>,
        compression: Option<Compression>,
        encryption: Option<Encryption>,
    ) -> io::Result<Box<dyn Read + Send>> {
        let encoding = Encoding {
            compression,
            encryption,
        };
        self.decoder
            .decode(stream, &encoding)
            .map_err(io::Error::other)
    }

    /// Reads both to the first difference.
    fn same(
        &self,
        mut archived: Box<dyn Read + Send>,
        mut source: Box<dyn Read + Send>,
    ) -> Result<bool, Side> {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        loop {
            read_chunk(&mut archived, &mut a).map_err(Side::Archived)?;
            read_chunk(&mut source, &mut b).map_err(Side::Source)?;
            if a != b {
                // A damaged file also differs; only its end tells which of the two it is.
                io::copy(&mut archived, &mut io::sink()).map_err(Side::Archived)?;
                return Ok(false);
            }
            if a.is_empty() {
                return Ok(true);
            }
        }
    }
}

/// Which of the two files could not be read.
enum Side {
    Archived(io::Error),
    Source(io::Error),
}

impl Side {
    fn into_error(
        self,
        archived: impl FnOnce(io::Error) -> SaveError,
        source_path: &std::path::Path,
    ) -> SaveError {
        match self {
            Side::Archived(error) => archived(error),
            Side::Source(error) => source_error(source_path)(error),
        }
    }
}

fn read_chunk(stream: &mut Box<dyn Read + Send>, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    stream
        .take(CHUNK_SIZE_BYTES as u64)
        .read_to_end(chunk)
        .map(drop)
}

/// The source once more from its beginning.
fn duplicate(source: &Source) -> Result<Box<dyn Read + Send>, SaveError> {
    let again = (&source.file)
        .rewind()
        .and_then(|()| source.file.try_clone());
    match again {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(source_error(&source.path)(error)),
    }
}
