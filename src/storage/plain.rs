//! Stored files as the WAL that they hold.

use std::io::{self, Read};
use std::ops::ControlFlow;

use super::{Contents, StoredWal, WalStorageStrategy};
use crate::catalog::{Catalog, CatalogError};
use crate::codec::{CodecError, Decoder, Encoding};
use crate::config::Compression;
use crate::wal::{
    InvalidHistory, LONG_HEADER_SIZE_BYTES, LongPageHeader, SegmentSize, TimelineHistory, WalKind,
    WalName,
};

/// No history file is longer by far: a line per promotion.
const HISTORY_SIZE_MAX_BYTES: u64 = 16 << 20;

/// Reads a storage decoded.
#[derive(Clone, Copy)]
pub struct PlainWal<'a> {
    /// Where WAL is.
    pub storage: &'a dyn WalStorageStrategy,
    /// What undoes its wrappings.
    pub decoder: &'a Decoder,
}

/// Compressions to try, in this order.
type Guesses = Vec<Option<Compression>>;

/// Why a history file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// It cannot be read or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// PostgreSQL would not understand it.
    #[error(transparent)]
    Invalid(#[from] InvalidHistory),
}

impl PlainWal<'_> {
    /// Lets `read` read the plain bytes of a file.
    ///
    /// Where the stored form leaves open how it is compressed, `read` is called again with the next
    /// possibility after damage, so it must begin anew each time.
    ///
    /// # Errors
    ///
    /// Those of the storage, as [`CodecError::ReadSource`], of the decoder, and of `read` itself.
    pub fn read<T>(
        &self,
        stored: &StoredWal,
        mut read: impl FnMut(&mut (dyn Read + Send)) -> io::Result<T>,
    ) -> Result<T, CodecError> {
        let mut tried = 0;
        loop {
            let (compressions, clear) = self.open(stored)?;
            let encoding = Encoding {
                compression: compressions.get(tried).copied().flatten(),
                encryption: None,
            };
            tried += 1;
            let outcome = self
                .decoder
                .decode(clear, &encoding)
                .and_then(|mut plain| read(&mut *plain).map_err(CodecError::from_read));
            match outcome {
                Err(CodecError::Damaged { .. } | CodecError::CommandFailed { .. })
                    if tried < compressions.len() => {}
                outcome => return outcome,
            }
        }
    }

    /// The header of a segment's first page, if it can be read and is one.
    pub fn header(&self, stored: &StoredWal) -> Option<LongPageHeader> {
        let head = self.read(stored, |plain| {
            let mut head = Vec::with_capacity(LONG_HEADER_SIZE_BYTES);
            let head_only = plain.take(LONG_HEADER_SIZE_BYTES as u64);
            { head_only }.read_to_end(&mut head)?;
            Ok(head)
        });
        LongPageHeader::parse(&head.ok()?)
    }

    /// What a history file says.
    pub fn history(&self, stored: &StoredWal) -> Result<TimelineHistory, HistoryError> {
        let content = self.read(stored, |plain| {
            let mut content = Vec::new();
            plain
                .take(HISTORY_SIZE_MAX_BYTES)
                .read_to_end(&mut content)?;
            Ok(content)
        })?;
        let timeline = stored.info.name.timeline();
        Ok(TimelineHistory::parse(timeline, &content)?)
    }

    /// [`history`](Self::history) by name; `None` if there is no such file.
    pub fn history_of(&self, name: &WalName) -> Option<Result<TimelineHistory, HistoryError>> {
        match self.storage.find(name) {
            Ok(None) => None,
            Ok(Some(stored)) => Some(self.history(&stored)),
            Err(error) => Some(Err(CodecError::ReadSource(error.source).into())),
        }
    }

    /// How the file may be compressed, best guess first, and its bytes without any encryption.
    fn open(&self, stored: &StoredWal) -> Result<(Guesses, Box<dyn Read + Send>), CodecError> {
        let opened = self.storage.open(stored);
        let stored = opened.map_err(|error| CodecError::ReadSource(error.source))?;
        let clear = self.decoder.clear(stored)?;
        Ok((self.decoder.compressions_to_try(&clear.head), clear.stream))
    }
}

/// How many listed segments are looked at for a header: where none can be read (encrypted, perhaps),
/// the others would not tell either.
const HEADER_ATTEMPTS: u32 = 8;

/// The first page header that a listed segment shows, which tells what cluster the WAL comes from.
pub fn first_header(
    plain: &PlainWal<'_>,
    catalog: &Catalog,
) -> Result<Option<LongPageHeader>, CatalogError> {
    let (mut found, mut attempts) = (None, 0);
    catalog.visit(&Contents(plain.storage), &mut |line| {
        let name = line.ok().map(|info| info.name);
        if let Some(segment) = name.filter(|name| name.kind() == WalKind::Segment) {
            attempts += 1;
            let stored = plain.storage.find(&segment).ok().flatten();
            found = stored.and_then(|stored| plain.header(&stored));
        }
        match found.is_some() || attempts == HEADER_ATTEMPTS {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok(found)
}

/// The segment size of the cluster that the WAL comes from: what the first readable segment says,
/// else what the names allow, else PostgreSQL's default.
pub fn segment_size(plain: &PlainWal<'_>, catalog: &Catalog) -> Result<SegmentSize, CatalogError> {
    let header = first_header(plain, catalog)?;
    let said = header.and_then(|header| SegmentSize::new(header.segment_size_bytes.into()).ok());
    Ok(match said {
        Some(said) => said,
        None => {
            let by_names = catalog.survey(None)?.segment_size_by_names();
            by_names.unwrap_or(SegmentSize::DEFAULT)
        }
    })
}
