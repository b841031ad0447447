//! OpenPGP by the `gpg` command: the keyring, trust and expiry rules of the people who run it stay in force.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::Arc;

use super::CodecOptions;
use super::command::{Program, describe};
use super::error::CodecError;
use super::filter::FilterReader;

/// Never ask anybody anything; where a passphrase is needed, take it from where we say (gpg 2.1 or later).
const UNATTENDED: [&str; 4] = ["--yes", "--batch", "--pinentry-mode", "loopback"];

/// A passphrase is the first line of at most so many bytes that `encryption_passphrase_command` writes.
const PASSPHRASE_SIZE_BYTES_MAX: usize = 16 * 1024;

/// The command that encrypts its standard input for the owner of `key_id`.
///
/// gpg would otherwise run its own zlib over data that is compressed already: four times slower, and no
/// smaller.
pub(super) fn encryption(key_id: &str, path_prefix: Option<&str>) -> Program {
    let arguments = UNATTENDED.into_iter().chain([
        "--compress-algo",
        "none",
        "--recipient",
        key_id,
        "--encrypt",
    ]);
    Program::new("gpg", arguments, path_prefix)
}

/// The same without a trace on this host: no locks, no random seed, no look at who
/// trusts whom, no key fetched from elsewhere.
pub(super) fn rehearsal(key_id: &str, trust: &[&str], path_prefix: Option<&str>) -> Program {
    let arguments = UNATTENDED
        .into_iter()
        .chain([
            "--lock-never",
            "--no-random-seed-file",
            "--no-auto-check-trustdb",
            "--no-auto-key-locate",
        ])
        .chain(trust.iter().copied())
        .chain(["--recipient", key_id, "--encrypt"]);
    Program::new("gpg", arguments, path_prefix)
}

/// The configured key.
pub(super) fn key_id(options: &CodecOptions) -> Result<&str, CodecError> {
    options
        .encryption_key_id
        .as_deref()
        .filter(|key_id| !key_id.trim().is_empty())
        .ok_or_else(|| CodecError::Configuration {
            message: "encryption is gpg, but encryption_key_id is not set".to_owned(),
            hint:
                "set encryption_key_id to a key of this user's keyring; gpg --list-keys shows them."
                    .to_owned(),
        })
}

/// Reads the clear form of `stored`.
///
/// With a passphrase, its line goes first on gpg's standard input and the message follows: gpg reads the
/// line byte by byte up to its end and leaves the rest. So the secret is in a pipe only, never in
/// arguments, environment or a file, and the message may come from anywhere.
pub(super) fn decrypt(
    passphrase: Option<Arc<Passphrase>>,
    path_prefix: Option<&str>,
    stored: Box<dyn Read + Send>,
) -> Result<FilterReader, CodecError> {
    let from_stdin: &[&str] = match passphrase {
        Some(_) => &["--passphrase-fd", "0"],
        None => &[],
    };
    let arguments = UNATTENDED
        .into_iter()
        .chain(from_stdin.iter().copied())
        .chain(["--decrypt"]);
    let program = Program::new("gpg", arguments, path_prefix);
    let prologue = move |stdin: &mut ChildStdin| match passphrase {
        Some(passphrase) => passphrase.write_line(stdin),
        None => Ok(()),
    };
    FilterReader::start(program, prologue, stored)
}

/// A secret that is overwritten when it is no longer needed. It has no `Debug`, `Clone` or `Display`.
pub(super) struct Passphrase {
    /// The line, then its newline; never reallocated, so that there is no second copy of it.
    buffer: Box<[u8]>,
    length_bytes: usize,
}

impl Passphrase {
    /// Runs `encryption_passphrase_command`.
    ///
    /// Its standard error is thrown away, as in Barman: it may hold the secret by mistake. It stays in our
    /// process group, because it may want to talk to the terminal.
    pub(super) fn ask(line: &str, path_prefix: Option<&str>) -> Result<Passphrase, CodecError> {
        let failed = |reason: String| CodecError::PassphraseCommand { reason };
        let mut child = Program::shell(line, path_prefix)
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let passphrase = match child.stdout.take() {
            Some(stdout) => Passphrase::read_from(stdout),
            None => Err(io::Error::other("it has no standard output")),
        };
        let status = child
            .wait()
            .map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        if !status.success() {
            return Err(failed(describe(status)));
        }
        let passphrase = passphrase.map_err(|error| failed(format!("cannot be read: {error}")))?;
        match passphrase.length_bytes {
            0 => Err(failed("wrote an empty passphrase".to_owned())),
            _ => Ok(passphrase),
        }
    }

    fn read_from(mut output: impl Read) -> io::Result<Passphrase> {
        let mut passphrase = Passphrase {
            buffer: vec![0; PASSPHRASE_SIZE_BYTES_MAX + 1].into_boxed_slice(),
            length_bytes: 0,
        };
        let mut filled_bytes = 0;
        loop {
            let room = passphrase
                .buffer
                .get_mut(filled_bytes..)
                .unwrap_or_default();
            if room.is_empty() {
                return Err(io::Error::other("it is too long"));
            }
            match output.read(room) {
                Ok(0) => break,
                Ok(count) => filled_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let output = super::flow::head(&passphrase.buffer, filled_bytes);
        passphrase.length_bytes = output
            .iter()
            .position(|&byte| byte == b'\n')
            .unwrap_or(filled_bytes);
        Ok(passphrase)
    }

    fn write_line(&self, sink: &mut impl Write) -> io::Result<()> {
        sink.write_all(super::flow::head(&self.buffer, self.length_bytes))?;
        sink.write_all(b"\n")
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.buffer.fill(0);
        // Keeps the compiler from leaving out a store nobody reads.
        std::hint::black_box(&self.buffer);
    }
}
