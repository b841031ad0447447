//! Whether an archived file and a source hold the same WAL.

use std::error::Error;
use std::io::{self, Read, Seek};

use super::prepare::{Opened, open_as};
use super::{SaveError, Validation, WalFile, source_error};
use crate::codec::{CodecError, Decoder, Encoding};
use crate::config::Compression;
use crate::storage::{Recognition, Source, StoredWal, WalStorageStrategy};
use crate::wal::{
    LONG_HEADER_SIZE_BYTES, LongPageHeader, WalFault, WalKind, WalName, find_fault,
    find_fault_of_plain, judged_bytes,
};

/// How much of each side is held in memory.
const CHUNK_SIZE_BYTES: u64 = 256 << 10;

type Stream = Box<dyn Read + Send>;

/// Which of two files could not be read.
enum Side {
    Archived(io::Error),
    Source(io::Error),
}

/// How an archived file and a source of the same name compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// The same bytes, once decoded.
    Same,
    /// Other bytes.
    Different,
    /// The archived file is encrypted, and we cannot decrypt it.
    Unknown,
}

/// Compares sources with what an archive holds.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    /// Where WAL is.
    pub storage: &'a dyn WalStorageStrategy,
    /// Undoes wrappings.
    pub decoder: &'a Decoder,
    /// Tells which codec a file carries.
    pub recognition: &'a Recognition,
    /// Whether segments are checked, and against which system identifier.
    pub validation: Option<Validation>,
}

/// Where two files of one name differ, once decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The first byte that is not the same; the length of the shorter file if there is none.
    pub offset_bytes: u64,
    /// How the source begins.
    pub source: Option<LongPageHeader>,
    /// How the archived file begins.
    pub archived: Option<LongPageHeader>,
}

impl Comparison<'_> {
    /// Opens a file that is only looked at, and judges it as before it is archived. A sender may
    /// have compressed it.
    pub fn open(&self, wal: &WalFile) -> Result<(Source, Option<WalFault>), SaveError> {
        match open_as(wal, false, Some(self.recognition))? {
            Some(Opened { source, head }) => {
                let fault = self.fault_of(&source, &head);
                Ok((source, fault))
            }
            None => Err(source_error(&wal.path)(io::ErrorKind::NotFound.into())),
        }
    }

    /// The evidence against a source, if it is not compressed and validation is on.
    pub(super) fn fault_of(&self, source: &Source, head: &[u8]) -> Option<WalFault> {
        let system_identifier = self.validation?.system_identifier;
        let size_bytes = source.metadata.len();
        self.recognition
            .fault_of_source(&source.name, size_bytes, head, system_identifier)
    }

    /// Looks for the first difference between a source and an archived file that can be decoded.
    pub fn difference(&self, source: &Source, stored: &StoredWal) -> io::Result<Difference> {
        let mut archived = self.plain(stored)?;
        let again = from_start(source).map_err(|side| match side {
            Side::Archived(error) | Side::Source(error) => error,
        })?;
        let mut plain_source = self.decode(again, source.carried)?;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut difference = None;
        loop {
            read_chunk(&mut archived, &mut a)?;
            read_chunk(&mut plain_source, &mut b)?;
            let found = difference.get_or_insert_with(|| Difference {
                offset_bytes: 0,
                source: LongPageHeader::parse(&b),
                archived: LongPageHeader::parse(&a),
            });
            let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
            found.offset_bytes += same as u64;
            if a != b || a.is_empty() {
                return Ok(*found);
            }
        }
    }

    /// Compares content, byte for byte, never sizes or times alone.
    ///
    /// An archived file that cannot be decoded, or that cannot be what its name says, is
    /// [`SaveError::ArchivedCopy`]: it must not condemn a good source.
    pub fn compare(&self, source: &Source, stored: &StoredWal) -> Result<Likeness, SaveError> {
        match self.likeness(source, stored) {
            Ok(Likeness::Different) => match self.archived_fault(source, stored)? {
                Some(fault) => Err(archived_copy(source, stored, fault)),
                None => Ok(Likeness::Different),
            },
            Ok(likeness) => Ok(likeness),
            Err(Side::Source(error)) => Err(source_error(&source.path)(error)),
            Err(Side::Archived(error)) => {
                // Without a passphrase we could only try; Barman does not even do that.
                let only_tried = stored.info.encryption.is_some() && !self.decoder.can_decrypt();
                match CodecError::from_read(error) {
                    CodecError::CommandFailed { .. } if only_tried => Ok(Likeness::Unknown),
                    CodecError::ReadSource(error) => Err(archived_copy(source, stored, error)),
                    error @ (CodecError::Damaged { .. } | CodecError::CommandFailed { .. }) => {
                        Err(archived_copy(source, stored, io::Error::other(error)))
                    }
                    error => Err(SaveError::Decoder {
                        name: source.name.clone(),
                        location: stored.location.clone(),
                        source: error,
                    }),
                }
            }
        }
    }

    fn likeness(&self, source: &Source, stored: &StoredWal) -> Result<Likeness, Side> {
        // As they stand first: stored without any wrapping, or as the sender wrapped it.
        if stored.info.size_bytes == source.metadata.len()
            && same(
                self.stored_form(stored).map_err(Side::Archived)?,
                from_start(source)?,
            )?
        {
            return Ok(Likeness::Same);
        }
        let archived = self.plain(stored).map_err(Side::Archived)?;
        let plain_source = match self.decode(from_start(source)?, source.carried) {
            Ok(plain_source) => plain_source,
            Err(error) => return Err(Side::Source(error)),
        };
        match same(archived, plain_source) {
            Ok(true) => Ok(Likeness::Same),
            Ok(false) => Ok(Likeness::Different),
            // Whatever the archive has, it can be decoded, and this cannot.
            Err(Side::Source(error)) if is_damage(&error) => Ok(Likeness::Different),
            Err(side) => Err(side),
        }
    }

    /// Why an archived file cannot be what its name says, if validation is on: by itself, or next to a source of the
    /// same name that begins as a segment does.
    fn archived_fault(
        &self,
        source: &Source,
        stored: &StoredWal,
    ) -> Result<Option<io::Error>, SaveError> {
        if self.validation.is_none() {
            return Ok(None);
        }
        let name = &stored.info.name;
        let find = match name.kind() {
            // The room for it may be all that there was to archive.
            WalKind::Partial => find_fault,
            _ => find_fault_of_plain,
        };
        let judged = self.plain(stored).and_then(|mut stream| {
            let head = beginning(&mut stream, name)?;
            let size_bytes = head.len() as u64 + io::copy(&mut stream, &mut io::sink())?;
            Ok((find(name, size_bytes, &head, None), head))
        });
        let (fault, head) = judged
            .map_err(|error| SaveError::archived_copy(name, stored.location.clone(), error))?;
        let reason: Box<dyn Error + Send + Sync> = match (fault, name.kind()) {
            (Some(fault), _) => fault.into(),
            (None, WalKind::Segment) if self.has_lost_its_first_page(&head, source) => {
                "it does not begin with the header of a segment's first page".into()
            }
            (None, WalKind::History) if self.is_cut_from(&head, source) => {
                "it ends within a line".into()
            }
            (None, _) => return Ok(None),
        };
        Ok(Some(io::Error::new(io::ErrorKind::InvalidData, reason)))
    }

    /// Whether an archived segment, which begins like this, has no page header there, and a source has.
    fn has_lost_its_first_page(&self, archived: &[u8], source: &Source) -> bool {
        LongPageHeader::parse(archived).is_none()
            && LongPageHeader::parse(&self.beginning_of(source)).is_some()
    }

    /// Whether a source goes on where an archived history stops in the middle of a line.
    fn is_cut_from(&self, archived: &[u8], source: &Source) -> bool {
        !archived.ends_with(b"\n") && self.beginning_of(source).starts_with(archived)
    }

    /// How a source begins, once decoded. One that cannot be read does not.
    fn beginning_of(&self, source: &Source) -> Vec<u8> {
        let Ok(stream) = from_start(source) else {
            return Vec::new();
        };
        let decoded = self.decode(stream, source.carried);
        let beginning = decoded.and_then(|mut stream| beginning(&mut stream, &source.name));
        beginning.unwrap_or_default()
    }

    fn stored_form(&self, stored: &StoredWal) -> io::Result<Stream> {
        self.storage.open(stored).map_err(|error| error.source)
    }

    /// The archived file without its encryption, if it has any, and its compression.
    fn plain(&self, stored: &StoredWal) -> io::Result<Stream> {
        let clear = self.decoder.clear(self.stored_form(stored)?);
        let clear = clear.map_err(CodecError::into_read)?;
        self.decode(clear.stream, self.recognition.of_stored(&clear.head))
    }

    fn decode(&self, stream: Stream, compression: Option<Compression>) -> io::Result<Stream> {
        let encoding = Encoding {
            compression,
            encryption: None,
        };
        self.decoder
            .decode(stream, &encoding)
            .map_err(CodecError::into_read)
    }
}

/// Reads both to the first difference.
fn same(mut archived: Stream, mut source: Stream) -> Result<bool, Side> {
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

/// As much as a judgement needs.
fn beginning(stream: &mut Stream, name: &WalName) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(LONG_HEADER_SIZE_BYTES);
    stream
        .take(judged_bytes(name) as u64)
        .read_to_end(&mut head)?;
    Ok(head)
}

fn read_chunk(stream: &mut Stream, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    stream.take(CHUNK_SIZE_BYTES).read_to_end(chunk).map(drop)
}

/// The source once more from its beginning.
fn from_start(source: &Source) -> Result<Stream, Side> {
    let again = (&source.file)
        .rewind()
        .and_then(|()| source.file.try_clone());
    match again {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(Side::Source(error)),
    }
}

fn is_damage(error: &io::Error) -> bool {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<CodecError>());
    cause.is_some_and(|cause| {
        matches!(
            cause,
            CodecError::Damaged { .. } | CodecError::CommandFailed { .. }
        )
    })
}

fn archived_copy(source: &Source, stored: &StoredWal, error: io::Error) -> SaveError {
    SaveError::archived_copy(&source.name, stored.location.clone(), error)
}
