//! Compression and encryption of WAL files as streams, and their recognition by magic bytes.
//!
//! ```text
//! Encoder:  source --> compressor or filter --> gpg --> sink         pushes; no temporary files
//! Decoder:  stored --> gpg --> decompressor or filter --> Read       pulls; errors at the latest at the end
//! ```
//!
//! [`identify_compression`] and [`is_encrypted`] look at the first [`HEAD_SIZE_BYTES`] of a file. What the words low,
//! medium and high mean, and the measurements behind that, is in `level`.

mod command;
mod compress;
mod decoder;
mod decompress;
mod deflate;
mod divided;
mod encoder;
mod error;
mod filter;
mod flow;
mod gpg;
mod level;
mod lz4_frames;
mod magic;
mod memory;
mod openpgp;
mod options;
mod rehearsal;
mod segment_size;
mod snappy_stream;
mod zstd_frame;
mod zstd_parts;

pub use decoder::{Clear, Decoder, peek_head};
pub use divided::{FileInMemory, Taker};
pub use encoder::Encoder;
pub use error::CodecError;
pub use flow::{Output, Roomless};
pub use magic::{HEAD_SIZE_BYTES, identify_compression};
pub use openpgp::is_encrypted;
pub use options::CodecOptions;
pub use rehearsal::{Rehearsal, check_compression, rehearse_encryption};

#[cfg(test)]
mod tests;

use crate::config::{Compression, Encryption};

/// How the bytes of a stored WAL file are wrapped: compressed first, then encrypted. The last two columns of
/// its xlogdb line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// The compression, by the name it has in the configuration.
    pub compression: Option<Compression>,
    /// The encryption around it.
    pub encryption: Option<Encryption>,
}
