//! Whether a server's compression and encryption would work, found out without touching a file.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::encoder::Encoder;
use super::error::CodecError;
use super::filter::pipe_through;
use super::{CodecOptions, gpg};
use crate::config::{Compression, search_path};

/// What is encrypted on trial.
const TRIAL: &[u8] = b"walarch";

/// Where gpg keeps public keys, in its directory: today's file, that of before version 2.1, and that of its
/// key daemon.
const KEYRINGS: [&str; 3] = ["pubring.kbx", "pubring.gpg", "public-keys.d/pubring.db"];

/// Where it keeps how far it trusts them.
const TRUST_DATABASE: &str = "trustdb.gpg";

/// What gpg says when it may not bring its trust database up to date.
const TRUST_UNKNOWN: &str = "--check-trustdb";

/// How a trial encryption ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// As the archiving of a file would.
    Complete,
    /// It works if the key is trusted. gpg would have to write to know that, which it does when it
    /// encrypts in earnest.
    TrustUnknown,
}

/// Looks whether the configured compression can be done: the filters are set, the command is installed.
///
/// # Errors
///
/// As [`Encoder::new`], and [`CodecError::CommandNotStarted`] for a command that is not there.
pub fn check_compression(options: &CodecOptions) -> Result<(), CodecError> {
    Encoder::with_options(&CodecOptions {
        encryption: None,
        ..options.clone()
    })?;
    match options.compression {
        Some(Compression::Pigz) => find_command("pigz", options.path_prefix.as_deref()),
        _ => Ok(()),
    }
}

/// Encrypts a few bytes and throws the result away. gpg is told to write nothing, not even a lock; where
/// it has no keys yet it is not run, because it would make a keyring.
///
/// # Errors
///
/// As [`Encoder::new`] and [`Encoder::encode`].
pub fn rehearse_encryption(options: &CodecOptions) -> Result<Rehearsal, CodecError> {
    let key_id = gpg::key_id(options)?;
    let trial = |trust: &[&str]| {
        let program = gpg::rehearsal(key_id, trust, options.path_prefix.as_deref());
        let write = |stdin: &mut dyn Write| stdin.write_all(TRIAL).map_err(CodecError::WriteSink);
        pipe_through(&program, |stdin| write(stdin), &mut io::sink())
    };
    let directory = gpg_directory();
    let has = |name: &str| directory.join(name).exists();
    if !KEYRINGS.iter().any(|name| has(name)) {
        return Err(CodecError::Configuration {
            message: format!("gpg has no keys in {}", directory.display()),
            hint: format!("import the public key {key_id} as this user."),
        });
    }
    let regardless = || trial(&["--trust-model", "always"]).map(|()| Rehearsal::TrustUnknown);
    if !has(TRUST_DATABASE) {
        return regardless();
    }
    match trial(&[]) {
        Err(CodecError::CommandFailed { stderr, .. }) if stderr.contains(TRUST_UNKNOWN) => {
            regardless()
        }
        other => other.map(|()| Rehearsal::Complete),
    }
}

/// Where gpg keeps its keys (its manual, "Environment Variables").
fn gpg_directory() -> PathBuf {
    let home = || Some(Path::new(&env::var_os("HOME")?).join(".gnupg"));
    let chosen = env::var_os("GNUPGHOME").map(PathBuf::from);
    chosen.or_else(home).unwrap_or_default()
}

fn find_command(program: &str, path_prefix: Option<&str>) -> Result<(), CodecError> {
    let path: Option<OsString> = search_path(path_prefix).or_else(|| env::var_os("PATH"));
    let found = env::split_paths(&path.unwrap_or_default())
        .map(|directory| directory.join(program))
        .any(|path| path.is_file() && access(&path, AccessFlags::X_OK).is_ok());
    match found {
        true => Ok(()),
        false => Err(CodecError::CommandNotStarted {
            program: program.to_owned(),
            source: io::Error::from(io::ErrorKind::NotFound),
        }),
    }
}
