//! A file that is received, and one of the same name that waits to be archived already.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::members::FILE_SIZE_MAX_BYTES;
use crate::codec::{self, CodecError, Decoder, Encoding, HEAD_SIZE_BYTES};
use crate::durable::Identity;
use crate::storage::{Recognition, Validation};
use crate::wal::{
    LONG_HEADER_SIZE_BYTES, LongPageHeader, WalFault, WalKind, WalName, judged_bytes,
};

/// How much of each side is held in memory.
const CHUNK_SIZE_BYTES: usize = 256 << 10;

/// Knows what a good file looks like.
pub(super) struct Judge {
    pub(super) decoder: Decoder,
    pub(super) recognition: Recognition,
    /// `None` when the operator does not want segments to be judged.
    pub(super) validation: Option<Validation>,
}

/// A file that is there already.
pub(super) struct Existing {
    pub(super) file: File,
    pub(super) identity: Identity,
}

/// What the file that is there is worth, next to a good one of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same WAL.
    Same,
    /// The beginning of the good file and no more: a writer was cut off.
    Beginning,
    /// Nothing that could be restored from.
    Damaged,
    /// Good, too, or not ours to condemn.
    Different,
}

impl Existing {
    /// Opens a file; `None` if there is none.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        // A pipe under a WAL file's name must not block us.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let text = "it is not a regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let identity = Identity::of(&metadata);
        Ok(Some(Existing { file, identity }))
    }
}

impl Judge {
    /// Why a file that was received as it was sent cannot be what its name says.
    pub(super) fn fault(&self, name: &WalName, size_bytes: u64, head: &[u8]) -> Option<WalFault> {
        let system_identifier = self.validation?.system_identifier;
        let recognition = &self.recognition;
        recognition.fault_of_source(name, size_bytes, head, system_identifier)
    }

    /// Weighs the file that is there against a good one.
    ///
    /// # Errors
    ///
    /// Only when one of the two cannot be read, or a codec's command cannot be run: damage is an answer.
    pub(super) fn weigh(
        &self,
        name: &WalName,
        existing: &File,
        good: &File,
    ) -> io::Result<Verdict> {
        match compare(&mut rewound(existing)?, &mut rewound(good)?)? {
            Comparison::Equal => return Ok(Verdict::Same),
            Comparison::Beginning if !is_whole_text(name, existing)? => {
                return Ok(Verdict::Beginning);
            }
            Comparison::Beginning | Comparison::Different => {}
        }
        let head = read_some(&mut rewound(existing)?, HEAD_SIZE_BYTES)?;
        if codec::is_encrypted(&head) {
            return Ok(Verdict::Different);
        }
        // What is damaged itself must not condemn anything.
        match read_to_end(&mut self.decoded(good)?).map_err(CodecError::from_read) {
            Ok(_) => {}
            Err(error) if error.is_damage() => return Ok(Verdict::Different),
            Err(error) => return Err(io::Error::other(error)),
        }
        match self.weigh_decoded(name, existing, good) {
            Ok(verdict) => Ok(verdict),
            Err(error) => match CodecError::from_read(error) {
                error if error.is_damage() => Ok(Verdict::Damaged),
                error => Err(io::Error::other(error)),
            },
        }
    }

    fn weigh_decoded(&self, name: &WalName, existing: &File, good: &File) -> io::Result<Verdict> {
        let compared = compare(&mut self.decoded(existing)?, &mut self.decoded(good)?)?;
        if compared == Comparison::Equal {
            return Ok(Verdict::Same);
        }
        // To the end: what is damaged there shows only there.
        let mut stream = self.decoded(existing)?;
        let first = read_some(&mut stream, judged_bytes(name))?;
        let size_bytes = first.len() as u64 + read_to_end(&mut stream)?;
        let Some(validation) = self.validation else {
            return Ok(Verdict::Different);
        };
        let good_first = read_some(&mut self.decoded(good)?, LONG_HEADER_SIZE_BYTES)?;
        let has_lost_its_head = name.kind() == WalKind::Segment
            && LongPageHeader::parse(&good_first).is_some()
            && LongPageHeader::parse(&first).is_none();
        let head = read_some(&mut rewound(existing)?, HEAD_SIZE_BYTES)?;
        let system_identifier = validation.system_identifier;
        let fault =
            self.recognition
                .fault_of_decoded(name, size_bytes, &first, &head, system_identifier);
        Ok(match has_lost_its_head || fault.is_some() {
            true => Verdict::Damaged,
            false => Verdict::Different,
        })
    }

    /// The WAL in a file that a sender may have compressed. No more of it than any file can hold, whatever a codec
    /// makes of a few bytes.
    fn decoded(&self, file: &File) -> io::Result<Box<dyn Read + Send>> {
        let (head, whole) = codec::peek_head(Box::new(rewound(file)?)).map_err(io::Error::other)?;
        let encoding = Encoding {
            compression: self.recognition.of_source(&head),
            encryption: None,
        };
        let decoded = self.decoder.decode(whole, &encoding);
        let decoded = decoded.map_err(io::Error::other)?;
        Ok(Box::new(decoded.take(FILE_SIZE_MAX_BYTES)))
    }
}

/// Whether a file is a history or a label that ends with a line's end: nobody has cut that off, whatever another one
/// says besides.
fn is_whole_text(name: &WalName, mut file: &File) -> io::Result<bool> {
    if !matches!(name.kind(), WalKind::History | WalKind::BackupLabel) {
        return Ok(false);
    }
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    Ok(read_some(&mut file, 1)? == b"\n")
}

/// How two streams relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    /// The first one ends where the second one goes on.
    Beginning,
    Different,
}

/// Reads both to the first difference.
fn compare(first: &mut dyn Read, second: &mut dyn Read) -> io::Result<Comparison> {
    loop {
        let a = read_some(first, CHUNK_SIZE_BYTES)?;
        let b = read_some(second, CHUNK_SIZE_BYTES)?;
        if a != b {
            return Ok(match b.starts_with(&a) {
                true => Comparison::Beginning,
                false => Comparison::Different,
            });
        }
        if a.is_empty() {
            return Ok(Comparison::Equal);
        }
    }
}

/// So many bytes, or all that are left.
fn read_some(stream: &mut dyn Read, size_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size_bytes.min(CHUNK_SIZE_BYTES));
    stream.take(size_bytes as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns how many bytes were left.
fn read_to_end(stream: &mut dyn Read) -> io::Result<u64> {
    io::copy(stream, &mut io::sink())
}

/// The file once more from its beginning.
fn rewound(mut file: &File) -> io::Result<File> {
    file.rewind()?;
    file.try_clone()
}
