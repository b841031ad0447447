//! Bytes leaving through an outlet.

use std::io::{self, Read, Write};

use super::RestoreError;
use super::outlet::Outlet;
use crate::codec::{CodecError, CodecOptions, Encoder};
use crate::config::Compression;
use crate::wal::WalName;

/// How much is decoded and written at a time.
pub(super) const PIECE_SIZE_BYTES: usize = 1 << 20;

/// An outlet, and whether bytes have left through it for good.
pub(super) struct Delivery<'a> {
    pub(super) outlet: &'a mut dyn Outlet,
    pub(super) is_spoiled: bool,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(outlet: &'a mut dyn Outlet) -> Self {
        Delivery {
            outlet,
            is_spoiled: false,
        }
    }

    fn failed(&self, source: io::Error) -> RestoreError {
        RestoreError::Outlet {
            location: self.outlet.location(),
            source,
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), RestoreError> {
        self.outlet.begin().map_err(|error| self.failed(error))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.write_all(bytes).map_err(|error| self.failed(error))
    }

    pub(super) fn finish(&mut self) -> Result<(), RestoreError> {
        self.outlet.finish().map_err(|error| self.failed(error))
    }

    /// Delivers a stream as it is.
    pub(super) fn copy(
        &mut self,
        stream: &mut dyn Read,
        reading_failed: impl Fn(io::Error) -> RestoreError,
    ) -> Result<(), RestoreError> {
        let mut piece = vec![0; PIECE_SIZE_BYTES];
        self.begin()?;
        loop {
            match stream.read(&mut piece) {
                Ok(0) => return self.finish(),
                Ok(count) => self.send(piece.get(..count).unwrap_or_default())?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(reading_failed(error)),
            }
        }
    }

    /// Delivers plain bytes that were found good, compressed.
    pub(super) fn encode(
        &mut self,
        wanted: Compression,
        plain: &mut (dyn Read + Send),
        size_bytes: u64,
        name: &WalName,
    ) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Encoder {
            name: name.clone(),
            source,
        };
        let encoder = Encoder::with_options(&CodecOptions {
            compression: Some(wanted),
            ..CodecOptions::default()
        })
        .map_err(failed)?;
        self.begin()?;
        match encoder.encode(plain, size_bytes, None, self) {
            Ok(_) => self.finish(),
            Err(CodecError::WriteSink(error)) => Err(self.failed(error)),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Write for Delivery<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_spoiled |= !self.outlet.is_revocable() && !bytes.is_empty();
        self.outlet.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.outlet.flush()
    }
}
