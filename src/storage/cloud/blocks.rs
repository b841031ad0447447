//! Memory for files on their way, used again and again: the allocator would keep what one thread frees from
//! the others, and the peak would be several times what is in use.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::PutPayload;

const BLOCK_SIZE_BYTES: usize = 256 << 10;

/// Blocks that are free.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Vec<Vec<u8>>>);

impl Blocks {
    fn take(&self) -> Vec<u8> {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Vec::with_capacity(BLOCK_SIZE_BYTES))
    }
}

/// A full block, which comes back when the last one who holds it lets go.
struct Full {
    bytes: Vec<u8>,
    blocks: Arc<Blocks>,
}

impl AsRef<[u8]> for Full {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let mut block = std::mem::take(&mut self.bytes);
        block.clear();
        let mut free = self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(block);
    }
}

/// Collects what is written in blocks.
pub(super) struct Collector {
    blocks: Arc<Blocks>,
    full: Vec<Bytes>,
    current: Vec<u8>,
}

impl Collector {
    pub(super) fn new(blocks: &Arc<Blocks>) -> Self {
        Collector {
            blocks: Arc::clone(blocks),
            full: Vec::new(),
            current: blocks.take(),
        }
    }

    fn finish_block(&mut self, next: Vec<u8>) {
        let bytes = std::mem::replace(&mut self.current, next);
        let blocks = Arc::clone(&self.blocks);
        self.full.push(Bytes::from_owner(Full { bytes, blocks }));
    }

    /// What was written, to be sent; it can be sent again without a copy.
    pub(super) fn freeze(mut self) -> PutPayload {
        self.finish_block(Vec::new());
        self.full.into_iter().collect()
    }
}

impl Write for Collector {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.current.len() == BLOCK_SIZE_BYTES {
            let next = self.blocks.take();
            self.finish_block(next);
        }
        let room = BLOCK_SIZE_BYTES - self.current.len();
        let piece = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.current.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(blocks: &Arc<Blocks>, size_bytes: usize) -> PutPayload {
        let mut collector = Collector::new(blocks);
        let bytes: Vec<u8> = (0..size_bytes).map(|at| (at % 251) as u8).collect();
        collector.write_all(&bytes).unwrap();
        let payload = collector.freeze();
        assert!(Bytes::from(payload.clone()) == bytes);
        payload
    }

    #[test]
    fn blocks_are_used_again() {
        let blocks = Arc::new(Blocks::default());
        for size_bytes in [0, 1, BLOCK_SIZE_BYTES, 3 * BLOCK_SIZE_BYTES + 7] {
            drop(collected(&blocks, size_bytes));
        }
        let free = |count| assert_eq!(blocks.0.lock().unwrap().len(), count);
        free(4);
        let held = collected(&blocks, 2 * BLOCK_SIZE_BYTES + 1);
        free(1);
        drop(held.clone());
        free(1);
        drop(held);
        free(4);
    }
}
