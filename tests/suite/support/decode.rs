//! The plain bytes of a stored WAL file.
//!
//! Two ways, on purpose: `decode` uses the codec crates and is quick enough for thousands of files;
//! `decode_with_tools` asks gzip, zstd, gpg and Barman's Python modules, which users have.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::home::Home;
use super::tool::{barman_venv, in_home};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Plain,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Lz4,
    Snappy,
    Gpg,
}

impl Format {
    pub fn of(bytes: &[u8]) -> Self {
        const MAGIC: [(&[u8], Format); 6] = [
            (b"\x1f\x8b\x08", Format::Gzip),
            (b"BZh", Format::Bzip2),
            (b"\xfd7zXZ\0", Format::Xz),
            (b"\x28\xb5\x2f\xfd", Format::Zstd),
            (b"\x04\x22\x4d\x18", Format::Lz4),
            (b"\xff\x06\0\0sNaPpY", Format::Snappy),
        ];
        let known = MAGIC
            .into_iter()
            .find(|(magic, _)| bytes.starts_with(magic));
        match known {
            Some((_, format)) => format,
            // OpenPGP: a public-key encrypted session key packet, in the old or the new header form.
            None if bytes.len() > 3 && matches!(bytes[0], 0x84 | 0x85 | 0xC1) => Format::Gpg,
            None => Format::Plain,
        }
    }
}

/// The plain bytes of a file, by the codec crates; an error when it is cut short or damaged.
pub fn decode(path: &Path) -> io::Result<Vec<u8>> {
    let stored = fs::read(path)?;
    let mut plain = Vec::new();
    match Format::of(&stored) {
        Format::Plain => return Ok(stored),
        Format::Gzip => {
            flate2::read::MultiGzDecoder::new(&stored[..]).read_to_end(&mut plain)?;
        }
        Format::Bzip2 => {
            bzip2::read::MultiBzDecoder::new(&stored[..]).read_to_end(&mut plain)?;
        }
        Format::Xz => {
            xz2::read::XzDecoder::new_multi_decoder(&stored[..]).read_to_end(&mut plain)?;
        }
        Format::Zstd => {
            zstd::Decoder::new(&stored[..])?.read_to_end(&mut plain)?;
        }
        Format::Lz4 => {
            lz4_flex::frame::FrameDecoder::new(&stored[..]).read_to_end(&mut plain)?;
        }
        Format::Snappy => {
            snap::read::FrameDecoder::new(&stored[..]).read_to_end(&mut plain)?;
        }
        Format::Gpg => return Err(io::Error::other("encrypted: needs decode_with_tools")),
    }
    Ok(plain)
}

/// The plain bytes of a file, by the programs and Python modules that users have; layers (a compressed
/// file within an encrypted one) come off one by one.
#[track_caller]
pub fn decode_with_tools(home: &Home, path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    loop {
        bytes = match Format::of(&bytes) {
            Format::Plain => return bytes,
            Format::Gzip => filter(home, "gzip", &["-dc"], bytes),
            Format::Bzip2 => filter(home, "bzip2", &["-dc"], bytes),
            Format::Xz => filter(home, "xz", &["-dc"], bytes),
            Format::Zstd => filter(home, "zstd", &["-dc"], bytes),
            Format::Lz4 => filter(home, "lz4", &["-dc"], bytes),
            Format::Gpg => filter(home, "gpg", &GPG_DECRYPT, bytes),
            Format::Snappy => {
                let script = "import sys, snappy; \
                              snappy.stream_decompress(sys.stdin.buffer, sys.stdout.buffer)";
                let python = barman_venv().join("bin/python");
                filter(home, python.to_str().unwrap(), &["-c", script], bytes)
            }
        }
    }
}

const GPG_DECRYPT: [&str; 7] = [
    "--batch",
    "--quiet",
    "--pinentry-mode",
    "loopback",
    "--passphrase",
    "secret",
    "--decrypt",
];

/// What the program makes of the bytes; it must succeed.
#[track_caller]
pub fn filter(home: &Home, program: &str, arguments: &[&str], bytes: Vec<u8>) -> Vec<u8> {
    let mut command = in_home(Command::new(program), home);
    let input = home.root().join(".filter-input");
    File::create(&input).unwrap().write_all(&bytes).unwrap();
    let output = command
        .args(arguments)
        .stdin(Stdio::from(File::open(&input).unwrap()))
        .output()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    fs::remove_file(&input).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} refuses the file: {stderr}"
    );
    output.stdout
}
