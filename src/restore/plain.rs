//! The plain bytes of a stored file, on their way.

use std::io::{self, Read};

use super::RestoreError;
use super::checked::{Checked, Validation};
use super::delivery::{Delivery, PIECE_SIZE_BYTES};
use crate::codec::{CodecError, Decoder, Encoding};
use crate::config::Compression;
use crate::wal::WalName;

/// So much is held back from a stream that takes nothing back: a segment of the usual size, so that nothing of a damaged
/// one gets out. Of a larger one the last half of this stays behind, so that it never arrives complete.
pub(super) const HELD_SIZE_BYTES: usize = (16 << 20) + (64 << 10);

type Stream = Box<dyn Read + Send>;

/// A stored file without its encryption, about to be read.
pub(super) struct Clear {
    pub(super) location: String,
    /// Encrypted, and no passphrase is known: whether it can be read shows only at the attempt.
    pub(super) is_locked: bool,
    pub(super) head: Vec<u8>,
    pub(super) stream: Stream,
}

/// The plain bytes of a stored file, checked while they pass.
pub(super) struct Plain<'a> {
    pub(super) checked: Checked<Stream>,
    location: String,
    is_locked: bool,
    name: &'a WalName,
    validation: Option<Validation>,
}

impl<'a> Plain<'a> {
    /// `fills` is for [`Checked::new`].
    pub(super) fn new(
        decoder: &Decoder,
        validation: Option<Validation>,
        clear: Clear,
        compression: Option<Compression>,
        fills: bool,
        name: &'a WalName,
    ) -> Result<Self, RestoreError> {
        let encoding = Encoding {
            compression,
            encryption: None,
        };
        let stream = decoder.decode(clear.stream, &encoding).map_err(|error| {
            RestoreError::decoding(&clear.location, name, clear.is_locked, error)
        })?;
        Ok(Plain {
            checked: Checked::new(stream, fills),
            location: clear.location,
            is_locked: clear.is_locked,
            name,
            validation,
        })
    }

    fn failed(&self, error: io::Error) -> RestoreError {
        let error = CodecError::from_read(error);
        RestoreError::decoding(&self.location, self.name, self.is_locked, error)
    }

    /// Judges what has passed by, up to its end.
    pub(super) fn judge(&self) -> Result<(), RestoreError> {
        match self.checked.fault(self.name, self.validation) {
            None => Ok(()),
            Some(fault) => Err(RestoreError::Invalid {
                location: self.location.clone(),
                name: self.name.clone(),
                fault,
            }),
        }
    }

    /// Reads to the end and judges.
    pub(super) fn drain(&mut self) -> Result<(), RestoreError> {
        io::copy(&mut self.checked, &mut io::sink()).map_err(|error| self.failed(error))?;
        self.judge()
    }

    /// Reads as much as is held back at most.
    pub(super) fn fill(&mut self, held: &mut Vec<u8>) -> Result<(), RestoreError> {
        (&mut self.checked)
            .take(HELD_SIZE_BYTES as u64)
            .read_to_end(held)
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    /// Delivers everything, the end only after the judgement.
    pub(super) fn pump(&mut self, delivery: &mut Delivery<'_>) -> Result<(), RestoreError> {
        let is_revocable = delivery.outlet.is_revocable();
        let size_bytes = match is_revocable {
            true => PIECE_SIZE_BYTES,
            false => HELD_SIZE_BYTES,
        };
        let mut buffer = vec![0; size_bytes];
        let mut filled_bytes = 0;
        delivery.begin()?;
        loop {
            let room = buffer.get_mut(filled_bytes..).unwrap_or_default();
            match self.checked.read(room) {
                Ok(0) => break,
                Ok(count) => filled_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
            if filled_bytes == size_bytes {
                let out_bytes = if is_revocable {
                    size_bytes
                } else {
                    size_bytes / 2
                };
                delivery.send(buffer.get(..out_bytes).unwrap_or_default())?;
                buffer.copy_within(out_bytes.., 0);
                filled_bytes -= out_bytes;
            }
        }
        self.judge()?;
        delivery.send(buffer.get(..filled_bytes).unwrap_or_default())?;
        delivery.finish()
    }
}
