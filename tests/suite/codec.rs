//! Stored files are exchanged with everybody else who reads and writes them: the command-line tools, gpg, and the
//! real Barman's compressors.

mod compressors;
mod gpg;

use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use walarch::codec::{
    CodecError, CodecOptions, Decoder, Encoder, Encoding, HEAD_SIZE_BYTES, identify_compression,
    is_encrypted,
};
use walarch::config::{Compression, CompressionLevel, Encryption};

use crate::support::tool::barman_venv;

const LEVELS: [CompressionLevel; 4] = [
    CompressionLevel::Low,
    CompressionLevel::Medium,
    CompressionLevel::High,
    CompressionLevel::Number(3),
];

/// The tool that handles a codec's format, with its arguments for "decompress standard input".
const TOOLS: [(Compression, &str, &[&str]); 6] = [
    (Compression::Gzip, "gzip", &["-dc"]),
    (Compression::Pigz, "pigz", &["-dc"]),
    (Compression::Bzip2, "bzip2", &["-dc"]),
    (Compression::Xz, "xz", &["-dc"]),
    (Compression::Zstd, "zstd", &["-dcq"]),
    (Compression::Lz4, "lz4", &["-dcq"]),
];

/// Pages with headers, then something like records: half of it repeats.
fn wal_like(size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(size_bytes + 32);
    while bytes.len() < size_bytes {
        if bytes.len().is_multiple_of(8192) {
            bytes.extend_from_slice(&[0x10, 0xD1, 5, 0, 1, 0, 0, 0]);
        }
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend_from_slice(&state.to_be_bytes()[..4]);
        bytes.extend_from_slice(b"\0\0\0\x20heap/upd\0\0\0\0");
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Runs a tool over `input`; its standard output.
fn run(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
    output.stdout
}

fn options(compression: Compression, level: CompressionLevel) -> CodecOptions {
    CodecOptions {
        compression: Some(compression),
        compression_level: level,
        ..CodecOptions::default()
    }
}

fn encode(options: &CodecOptions, content: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut stored = Vec::new();
    let size_bytes = content.len() as u64;
    Encoder::with_options(options)?.encode(&mut &content[..], size_bytes, None, &mut stored)?;
    Ok(stored)
}

fn decode(options: &CodecOptions, stored: &[u8]) -> Result<Vec<u8>, CodecError> {
    let encoding = Encoding {
        compression: options.compression,
        encryption: options.encryption,
    };
    let stored = Box::new(Cursor::new(stored.to_vec()));
    let mut clear = Vec::new();
    Decoder::with_options(options.clone())
        .decode(stored, &encoding)?
        .read_to_end(&mut clear)
        .map_err(CodecError::from_read)?;
    Ok(clear)
}

/// Runs a Python program that has Barman; its standard output.
fn barman(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(barman_venv().join("bin/python"))
        .args(["-c", program])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
