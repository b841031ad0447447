//! The stored bytes of an object, as they arrive.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::Shared;
use super::remote::Pieces;

pub(super) struct ObjectReader {
    shared: Arc<Shared>,
    stream: Pieces,
    piece: Bytes,
}

impl ObjectReader {
    pub(super) fn new(shared: &Arc<Shared>, stream: Pieces) -> Self {
        ObjectReader {
            shared: Arc::clone(shared),
            stream,
            piece: Bytes::new(),
        }
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.shared.remote.next(&mut self.stream)? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece
            .split_to(length)
            .copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
