//! Properties every codec has to have, and what each format notices when its bytes are harmed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;

use super::*;
use crate::config::CompressionLevel;

mod any_bytes;
mod commands;
mod divided;
mod failures;
mod formats;
mod memory;
mod recognition;
mod zstd_frames;

const IN_PROCESS: [Compression; 8] = [
    Compression::Gzip,
    Compression::PyGzip,
    Compression::Bzip2,
    Compression::PyBzip2,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4,
    Compression::Snappy,
];

const WORDS: [CompressionLevel; 3] = [
    CompressionLevel::Low,
    CompressionLevel::Medium,
    CompressionLevel::High,
];

fn options(compression: Compression, level: CompressionLevel) -> CodecOptions {
    CodecOptions {
        compression: Some(compression),
        compression_level: level,
        ..CodecOptions::default()
    }
}

fn custom(compress: &str, decompress: &str) -> CodecOptions {
    CodecOptions {
        compression: Some(Compression::Custom),
        custom_compression_filter: Some(compress.to_owned()),
        custom_decompression_filter: Some(decompress.to_owned()),
        ..CodecOptions::default()
    }
}

fn encode(options: &CodecOptions, content: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut stored = Vec::new();
    Encoder::with_options(options)?.encode(
        &mut &content[..],
        content.len() as u64,
        None,
        &mut stored,
    )?;
    Ok(stored)
}

fn decode(options: &CodecOptions, stored: &[u8]) -> Result<Vec<u8>, CodecError> {
    let encoding = Encoding {
        compression: options.compression,
        encryption: options.encryption,
    };
    let stored = Box::new(Cursor::new(stored.to_vec()));
    let mut reader = Decoder::with_options(options.clone()).decode(stored, &encoding)?;
    let mut content = Vec::new();
    reader
        .read_to_end(&mut content)
        .map_err(CodecError::from_read)?;
    Ok(content)
}

/// Bytes of a fixed pseudo-random sequence (xorshift64*).
fn noise(size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Something that compresses like WAL: 8 KiB pages with headers, repeated and random parts, a zero tail.
/// The first page states a segment size of `size_bytes` when that is a valid one.
fn wal_like(size_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_bytes + 8192);
    let random = noise(size_bytes / 8 + 8192, 7);
    for page in 0..size_bytes.div_ceil(8192) {
        let info: u8 = if page == 0 { 2 } else { 0 };
        let start = bytes.len();
        bytes.extend_from_slice(&[0x10, 0xD1, info, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&(page as u64 * 8192).to_le_bytes());
        bytes.resize(start + 32, 0);
        bytes.extend_from_slice(&(size_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&8192_u32.to_le_bytes());
        while bytes.len() < start + 8192 && page * 8192 < size_bytes / 4 * 3 {
            let at = (bytes.len() * 7 / 64) % (random.len() - 64);
            bytes.extend_from_slice(&random[at..at + 12]);
            bytes.extend_from_slice(b"\0\0\0\0heap insert off\0\0\x01\x02");
        }
        bytes.resize(start + 8192, 0);
    }
    bytes.truncate(size_bytes);
    bytes
}

fn contents() -> Vec<Vec<u8>> {
    let mut contents = vec![Vec::new(), vec![b'x']];
    for size_bytes in [8192, 65536, 1 << 20, (1 << 20) + 1] {
        contents.push(noise(size_bytes, size_bytes as u64));
        contents.push(wal_like(size_bytes));
    }
    contents.push(wal_like(3 << 20));
    contents
}
