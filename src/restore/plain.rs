//! The plain bytes of a stored file, on their way.

use std::io::{self, Read};
use std::mem;
use std::sync::mpsc;
use std::thread;

use super::checked::{Checked, Validation};
use super::delivery::{Delivery, PIECE_SIZE_BYTES};
use super::error::{Origin, RestoreError};
use crate::codec::{CodecError, Decoder, Encoding};
use crate::config::Compression;
use crate::wal::{WalFault, WalKind, WalName};

/// So much is held back from a stream that takes nothing back: a segment of the usual size, so that nothing of a damaged
/// one gets out. Of a larger one the last half of this stays behind, so that it never arrives complete.
pub(super) const HELD_SIZE_BYTES: usize = (16 << 20) + (64 << 10);

/// How many pieces are on their way from the decoder to the disk. The decoder has two of them.
const PIECES: usize = 5;

type Stream = Box<dyn Read + Send>;

/// A stored file without its encryption, about to be read.
pub(super) struct Opened {
    pub(super) location: String,
    pub(super) origin: Origin,
    /// Encrypted, and no passphrase is known: whether it can be read shows only at the attempt.
    pub(super) is_locked: bool,
    pub(super) head: Vec<u8>,
    pub(super) stream: Stream,
}

/// The plain bytes of a stored file, checked while they pass.
pub(super) struct Plain<'a> {
    pub(super) checked: Checked<Stream>,
    location: String,
    origin: Origin,
    is_locked: bool,
    name: &'a WalName,
    is_incomplete: bool,
    validation: Option<Validation>,
}

impl<'a> Plain<'a> {
    /// `is_incomplete` is for [`Checked::new`].
    pub(super) fn new(
        decoder: &Decoder,
        validation: Option<Validation>,
        opened: Opened,
        compression: Option<Compression>,
        is_incomplete: bool,
        name: &'a WalName,
    ) -> Result<Self, RestoreError> {
        let encoding = Encoding {
            compression,
            encryption: None,
        };
        let stream = decoder.decode(opened.stream, &encoding).map_err(|error| {
            RestoreError::decoding(&opened.location, name, opened.is_locked, error)
        })?;
        Ok(Plain {
            checked: Checked::new(stream, name, is_incomplete),
            location: opened.location,
            origin: opened.origin,
            is_locked: opened.is_locked,
            name,
            is_incomplete,
            validation,
        })
    }

    fn failed(&self, error: io::Error) -> RestoreError {
        let error = CodecError::from_read(error);
        RestoreError::decoding(&self.location, self.name, self.is_locked, error)
    }

    /// Judges what has passed by, up to its end.
    pub(super) fn judge(&self) -> Result<(), RestoreError> {
        if self.is_incomplete && self.checked.is_blank() {
            let location = self.location.clone();
            return Err(RestoreError::NothingReceived { location });
        }
        match self.checked.fault(self.name, self.validation) {
            None => Ok(()),
            Some(fault) => Err(self.invalid(fault)),
        }
    }

    fn invalid(&self, fault: WalFault) -> RestoreError {
        RestoreError::Invalid {
            location: self.location.clone(),
            name: self.name.clone(),
            origin: self.origin,
            fault,
        }
    }

    /// Before a part leaves for good: nothing does of a file whose beginning tells already that it is of no use.
    fn judge_beginning(&mut self) -> Result<(), RestoreError> {
        let is_segment = matches!(self.name.kind(), WalKind::Segment | WalKind::Partial);
        if !is_segment || self.validation.is_none() {
            return Ok(());
        }
        let Some(fault) = self.checked.fault_of_first_page() else {
            return Ok(());
        };
        self.drain()?;
        Err(self.invalid(fault))
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

    /// Delivers everything; it becomes visible, or leaves for good, only after the judgement.
    pub(super) fn pump(&mut self, delivery: &mut Delivery<'_>) -> Result<(), RestoreError> {
        delivery.begin()?;
        match delivery.outlet.is_revocable() {
            true => self.pump_aside(delivery)?,
            false => self.pump_held(delivery)?,
        }
        delivery.finish()
    }

    /// Writes while the next piece is decoded: either takes about as long as the other. The end waits for the judgement,
    /// so that nothing takes a file for a segment, whenever we are killed.
    fn pump_aside(&mut self, delivery: &mut Delivery<'_>) -> Result<(), RestoreError> {
        let mut first = vec![0; PIECE_SIZE_BYTES];
        let size_bytes = self.read_piece(&mut first)?;
        if size_bytes < PIECE_SIZE_BYTES {
            self.judge()?;
            return delivery.send(first.get(..size_bytes).unwrap_or_default());
        }
        let end = thread::scope(|scope| {
            let (full, written) = mpsc::sync_channel::<Vec<u8>>(PIECES);
            let (done, empty) = mpsc::channel();
            let delivery = &mut *delivery;
            let writer = thread::Builder::new().spawn_scoped(scope, move || {
                for piece in written {
                    delivery.send(&piece)?;
                    // At the end nobody needs it any more.
                    let _ = done.send(piece);
                }
                Ok(())
            });
            let writer = writer.ok()?;
            let spare = (1..PIECES).map(|_| vec![0; PIECE_SIZE_BYTES]);
            let decoded = self.decode_into(mem::take(&mut first), full, &mut spare.chain(empty));
            let written = writer
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Some(written.and(decoded))
        });
        let Some(end) = end else {
            // The system has no second thread to give.
            delivery.send(&first)?;
            return self.pump_held(delivery);
        };
        let end = end?;
        self.judge()?;
        delivery.send(&end)
    }

    /// Passes `piece`, and then all other pieces, on, except for the last full one and what comes behind it, which are
    /// returned. Ends early if nobody takes them any more.
    fn decode_into(
        &mut self,
        mut piece: Vec<u8>,
        full: mpsc::SyncSender<Vec<u8>>,
        empty: &mut dyn Iterator<Item = Vec<u8>>,
    ) -> Result<Vec<u8>, RestoreError> {
        for mut next in empty {
            let size_bytes = self.read_piece(&mut next)?;
            if size_bytes < PIECE_SIZE_BYTES {
                piece.extend(next.get(..size_bytes).unwrap_or_default());
                break;
            }
            if full.send(piece).is_err() {
                return Ok(next);
            }
            piece = next;
        }
        Ok(piece)
    }

    /// Fills a piece, unless the end comes first. Returns how much of it was filled.
    fn read_piece(&mut self, piece: &mut [u8]) -> Result<usize, RestoreError> {
        let mut filled_bytes = 0;
        while filled_bytes < piece.len() {
            let room = piece.get_mut(filled_bytes..).unwrap_or_default();
            match self.checked.read(room) {
                Ok(0) => break,
                Ok(count) => filled_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled_bytes)
    }

    /// Holds the end back until everything was found good.
    fn pump_held(&mut self, delivery: &mut Delivery<'_>) -> Result<(), RestoreError> {
        let mut buffer = vec![0; HELD_SIZE_BYTES];
        let mut held_bytes = 0;
        loop {
            let room = buffer.get_mut(held_bytes..).unwrap_or_default();
            let (room_bytes, filled_bytes) = (room.len(), self.read_piece(room)?);
            held_bytes += filled_bytes;
            if filled_bytes < room_bytes {
                break;
            }
            self.judge_beginning()?;
            let out_bytes = HELD_SIZE_BYTES / 2;
            delivery.send(buffer.get(..out_bytes).unwrap_or_default())?;
            buffer.copy_within(out_bytes.., 0);
            held_bytes -= out_bytes;
        }
        self.judge()?;
        delivery.send(buffer.get(..held_bytes).unwrap_or_default())
    }
}
