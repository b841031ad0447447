//! Zstandard frames of two parts that can be decoded at the same time.
//!
//! To every decoder this is one frame like any other (RFC 8878, 3.1.1), which Barman's needs:
//!
//! ```text
//! header | blocks of the first part | seam | blocks of the rest | checksum
//! ```
//!
//! The rest is compressed as if nothing stood before it: it refers to no bytes and to no tables of the first part.
//! One thing a decoder carries over all the same, the last three offsets (3.1.1.5), which are 1, 4 and 8 at the start of
//! a frame. The seam makes them so again: among the bytes behind the first part three are found that are a copy of
//! those 8 bytes before, then three that copy what is 4 bytes before, then 1, and each becomes a block of its own. In WAL,
//! which is full of small numbers, these are seldom more than a hundred bytes further on. Where there are none the frame
//! is an ordinary one.
//!
//! On segments of PostgreSQL 15 two parts are 0.005 % (bulk load) to 0.1 % (OLTP) larger than one.

use std::hash::Hasher;

use twox_hash::XxHash64;

/// Of `Frame_Header_Descriptor` (3.1.1.1.1): the content's size in 4 bytes, a window, a checksum, no dictionary. With
/// [`SIZED`] instead it is what libzstd writes for the first part alone.
const DESCRIPTOR: u8 = SIZED | 0x04;
const SIZED: u8 = 0x80;

const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Magic, descriptor, window, content size.
const HEADER_SIZE_BYTES: usize = 10;
pub(super) const CHECKSUM_SIZE_BYTES: usize = 4;
const BLOCK_HEADER_SIZE_BYTES: usize = 3;

/// A block that begins a seam. Nobody else has a reason to write one that holds nothing and is not the last.
const MARK: [u8; 3] = [0, 0, 0];

/// Each block of a seam copies so many bytes, the fewest that can be copied.
const COPIED_BYTES: usize = 3;

/// Compressed blocks of one sequence, without literals (3.1.1.3): how far back it copies from, and the block. After the
/// block's header come the size of the literals (none), the number of sequences (1), the modes of its three
/// tables (each is one symbol, of which no state is written), the symbols (no literals before, the offset's code, the
/// least length), and the offset's other bits behind the bit that ends the stream. An offset is written plus 3.
const RESETS: [(usize, [u8; RESET_SIZE_BYTES]); 3] = [
    (8, [0x3C, 0, 0, 0, 1, 0x54, 0, 3, 0, 0b1011]),
    (4, [0x3C, 0, 0, 0, 1, 0x54, 0, 2, 0, 0b111]),
    (1, [0x3C, 0, 0, 0, 1, 0x54, 0, 2, 0, 0b100]),
];

const RESET_SIZE_BYTES: usize = 10;

/// How many bytes the search may pass over for each block; they are stored as they are.
const SEARCH_BYTES: usize = 8 * 1024;

/// What has to be changed of the first part's frame, and put behind it, so that another part can follow.
pub(super) struct Seam {
    blocks: Vec<u8>,
    /// How many bytes of the content it holds.
    content_bytes: usize,
}

impl Seam {
    /// Looks for one behind the end of the first part of `content`.
    pub(super) fn find(content: &[u8]) -> Option<Seam> {
        let middle = middle(content.len());
        let mut blocks = MARK.to_vec();
        let mut at = middle;
        for (distance, block) in RESETS {
            let from = at.checked_sub(distance)?;
            let searched = content.get(from..)?.windows(distance + COPIED_BYTES);
            let passed_bytes = searched
                .take(SEARCH_BYTES)
                .position(|window| window.get(..COPIED_BYTES) == window.get(distance..))?;
            if passed_bytes > 0 {
                blocks.extend(block_header(passed_bytes));
                blocks.extend(content.get(at..at + passed_bytes)?);
            }
            blocks.extend(block);
            at += passed_bytes + COPIED_BYTES;
        }
        Some(Seam {
            blocks,
            content_bytes: at - middle,
        })
    }

    /// The two parts of a content; the seam holds what is between them.
    pub(super) fn parts<'a>(&self, content: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (first, rest) = content.split_at(middle(content.len()));
        (first, rest.get(self.content_bytes..).unwrap_or_default())
    }

    /// Makes one frame of a buffer that begins with the first part's frame, `first_bytes` long. `compress` puts the
    /// second part's frame into the room it gets and returns its size; both frames have the size of their content in
    /// them, and no checksum. Returns the size of the frame.
    ///
    /// `None` if there is not enough room, or a frame is not of that kind.
    pub(super) fn join(
        &self,
        content: &[u8],
        buffer: &mut [u8],
        first_bytes: usize,
        compress: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<usize> {
        let seam_end = first_bytes + self.blocks.len();
        // Where its header is, the seam goes afterwards.
        let second_start = seam_end.checked_sub(HEADER_SIZE_BYTES)?;
        let second = buffer.get_mut(second_start..)?;
        let second_bytes = compress(second)?;
        has_header(second.get(..second_bytes)?, SIZED).then_some(())?;
        let second_window = window(second)?;
        let seam = buffer.get_mut(first_bytes..seam_end)?;
        seam.copy_from_slice(&self.blocks);

        let first = buffer.get_mut(..first_bytes)?;
        has_header(first, SIZED).then_some(())?;
        // The first part's header is for both.
        (window(first)? == second_window).then_some(())?;
        // The lowest bit says that no block follows.
        let last = last_block(first)?;
        *first.get_mut(last)? &= !1;
        let content_bytes = u32::try_from(content.len()).ok()?.to_le_bytes();
        *first.get_mut(MAGIC.len())? = DESCRIPTOR;
        first
            .get_mut(HEADER_SIZE_BYTES - content_bytes.len()..HEADER_SIZE_BYTES)?
            .copy_from_slice(&content_bytes);

        let end = second_start + second_bytes;
        let frame_bytes = end + CHECKSUM_SIZE_BYTES;
        let mut hasher = hasher();
        hasher.write(content);
        let room = buffer.get_mut(end..frame_bytes)?;
        room.copy_from_slice(&checksum(&hasher));
        Some(frame_bytes)
    }
}

/// The digest whose lowest four bytes end a frame (3.1.1).
pub(super) fn hasher() -> XxHash64 {
    XxHash64::with_seed(0)
}

/// The last bytes of a frame with such a content.
pub(super) fn checksum(hasher: &XxHash64) -> [u8; CHECKSUM_SIZE_BYTES] {
    let [a, b, c, d, ..] = hasher.finish().to_le_bytes();
    [a, b, c, d]
}

/// Where the first part ends. It is a little larger than the second, whose thread has to find it first, and to look at
/// the checksum at the end.
fn middle(content_bytes: usize) -> usize {
    content_bytes / 64 * 35
}

fn has_header(frame: &[u8], descriptor: u8) -> bool {
    frame.len() > HEADER_SIZE_BYTES
        && frame.starts_with(&MAGIC)
        && frame.get(MAGIC.len()) == Some(&descriptor)
}

/// The header of a raw block that is not the last (3.1.1.2).
fn block_header(size_bytes: usize) -> [u8; BLOCK_HEADER_SIZE_BYTES] {
    let [a, b, c, ..] = (size_bytes << 3).to_le_bytes();
    [a, b, c]
}

/// How much content the frame that begins with `head` has, if its header is such as [`Seam::join`] makes. Frames of one
/// part have the same.
pub(super) fn content_bytes(head: &[u8]) -> Option<usize> {
    let size = head.get(HEADER_SIZE_BYTES - 4..)?.first_chunk()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    has_header(head, DESCRIPTOR).then_some(size)
}

/// In front of the second part's blocks this makes a frame of it, one that ends without a checksum.
pub(super) fn second_header(head: &[u8]) -> Option<[u8; 6]> {
    let [a, b, c, d] = MAGIC;
    Some([a, b, c, d, 0, window(head)?])
}

/// `Window_Descriptor` (3.1.1.1.2).
fn window(frame: &[u8]) -> Option<u8> {
    frame.get(MAGIC.len() + 1).copied()
}

/// The header of a block (3.1.1.2).
#[derive(Clone, Copy)]
struct BlockHeader {
    is_last: bool,
    is_raw: bool,
    stored_bytes: usize,
}

impl BlockHeader {
    fn parse(bytes: &[u8]) -> Option<BlockHeader> {
        let [a, b, c] = *bytes.first_chunk()?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        let (kind, size) = (header >> 1 & 3, header as usize >> 3);
        Some(BlockHeader {
            is_last: header & 1 != 0,
            is_raw: kind == 0,
            // One byte that is repeated is there once.
            stored_bytes: if kind == 1 { 1 } else { size },
        })
    }
}

/// Where the last block of a frame begins.
fn last_block(frame: &[u8]) -> Option<usize> {
    let mut at = HEADER_SIZE_BYTES;
    loop {
        let header = BlockHeader::parse(frame.get(at..)?)?;
        if header.is_last {
            return Some(at);
        }
        at += BLOCK_HEADER_SIZE_BYTES + header.stored_bytes;
    }
}

/// Looks for a seam in a frame that passes by in pieces.
pub(super) struct SeamSearch {
    /// How much passes before there is something to look at; `None` when there will be nothing more.
    passing_bytes: Option<usize>,
    /// The beginning of a block: its header, or all of it if it may belong to a seam.
    block: Vec<u8>,
    has_begun: bool,
    resets: usize,
    content_bytes: usize,
}

impl SeamSearch {
    /// From the first byte of a frame on.
    pub(super) fn new() -> Self {
        SeamSearch {
            passing_bytes: Some(HEADER_SIZE_BYTES),
            block: Vec::new(),
            has_begun: false,
            resets: 0,
            content_bytes: 0,
        }
    }

    /// Whether the seam ends in this piece, and where in it.
    pub(super) fn find_end(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(passing_bytes) = self.passing_bytes {
            let passed_bytes = passing_bytes.min(piece.len() - at);
            at += passed_bytes;
            self.passing_bytes = Some(passing_bytes - passed_bytes);
            if passed_bytes < passing_bytes {
                return None;
            }
            let missing_bytes = self.wanted_bytes().saturating_sub(self.block.len());
            let rest = piece.get(at..).unwrap_or_default();
            let taken = rest.get(..missing_bytes).unwrap_or(rest);
            self.block.extend(taken);
            at += taken.len();
            if taken.len() < missing_bytes {
                return None;
            }
            if self.block.len() == self.wanted_bytes() && self.is_over() {
                return Some(at);
            }
        }
        None
    }

    /// How much of the block has to be seen.
    fn wanted_bytes(&self) -> usize {
        let is_like_a_reset = RESETS.iter().any(|(_, reset)| {
            self.block
                .starts_with(reset.get(..BLOCK_HEADER_SIZE_BYTES).unwrap_or(reset))
        });
        match is_like_a_reset {
            true => RESET_SIZE_BYTES,
            false => BLOCK_HEADER_SIZE_BYTES,
        }
    }

    /// Whether the block that was just seen ends a seam.
    fn is_over(&mut self) -> bool {
        let Some(header) = BlockHeader::parse(&self.block) else {
            return false;
        };
        let reset = RESETS.get(self.resets).map(|(_, reset)| &reset[..]);
        if self.block == MARK {
            (self.has_begun, self.resets, self.content_bytes) = (true, 0, 0);
        } else if self.has_begun && header.is_raw {
            self.content_bytes += header.stored_bytes;
        } else if self.has_begun && Some(&self.block[..]) == reset {
            self.resets += 1;
            self.content_bytes += COPIED_BYTES;
        } else {
            self.has_begun = false;
        }
        let seen_bytes = self.block.len() - BLOCK_HEADER_SIZE_BYTES;
        self.passing_bytes = (!header.is_last).then(|| header.stored_bytes - seen_bytes);
        self.block.clear();
        self.has_begun && self.resets == RESETS.len()
    }

    /// Once it was found: where the second part begins in a content of this size.
    pub(super) fn second_start(&self, content_bytes: usize) -> usize {
        middle(content_bytes) + self.content_bytes
    }
}
