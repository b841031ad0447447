//! The checks that need only this host: directories, codecs, what was set aside.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::archiver::{self, CheckResult};
use crate::codec::{self, CodecError, CodecOptions, Rehearsal};
use crate::config::{ServerConfig, WalsDirectory};

/// `directories`: all that WAL passes through are there and can be written to. Barman creates missing
/// ones; a file system that is not mounted would then be written under.
pub(super) fn check_directories(server: &ServerConfig) -> CheckResult {
    let result = |passed| CheckResult::new("directories", passed);
    let (mut problems, mut missing) = (Vec::new(), Vec::new());
    for path in directories(server) {
        if let Err(errno) = examine(path) {
            problems.push(format!("{}: {}", path.display(), errno.desc()));
            if errno == Errno::ENOENT {
                missing.push(path.display().to_string());
            }
        }
    }
    if problems.is_empty() {
        return result(true);
    }
    let mut hint = problems.join(", ");
    if !missing.is_empty() {
        hint.push_str(&format!(
            ". Please execute 'mkdir -p {}'",
            missing.join(" ")
        ));
    }
    result(false).hint(hint)
}

fn directories(server: &ServerConfig) -> Vec<&Path> {
    let wals: Option<&PathBuf> = match &server.wals_directory {
        WalsDirectory::Local(root) => Some(root),
        WalsDirectory::Cloud(_) => None,
    };
    let mut directories = vec![&server.backup_directory, &server.errors_directory];
    directories.extend(Some(&server.incoming_wals_directory).filter(|_| server.archiver));
    directories
        .extend(Some(&server.streaming_wals_directory).filter(|_| server.streaming_archiver));
    directories.extend(wals);
    directories.extend(Some(&server.xlogdb_directory).filter(|path| Some(*path) != wals));
    directories.into_iter().map(PathBuf::as_path).collect()
}

fn examine(path: &Path) -> Result<(), Errno> {
    // What is no directory cannot be entered.
    access(&path.join("."), AccessFlags::F_OK)?;
    access(
        path,
        AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK,
    )
}

/// `encryption`, after something was encrypted on trial.
pub(super) fn judge_rehearsal(rehearsal: Result<Rehearsal, CodecError>) -> CheckResult {
    let result = |passed| CheckResult::new("encryption", passed);
    match rehearsal {
        Ok(Rehearsal::Complete) => result(true).hint("encryption test succeeded"),
        Ok(Rehearsal::TrustUnknown) => result(true)
            .hint("encryption test succeeded, whether the key is trusted is not known yet"),
        Err(CodecError::Configuration { message, .. }) => result(false).hint(message),
        Err(error) => {
            result(false).hint(format!("encryption test failed: {}", on_one_line(&error)))
        }
    }
}

/// `compression settings`
pub(super) fn check_compression(server: &ServerConfig) -> CheckResult {
    let result = |passed| CheckResult::new("compression settings", passed);
    match codec::check_compression(&CodecOptions::from(server)) {
        Ok(()) => result(true),
        Err(error) => result(false).hint(on_one_line(&error)),
    }
}

/// `archiver errors`: what had to be set aside.
pub(super) fn check_errors(server: &ServerConfig) -> CheckResult {
    let result = |passed| CheckResult::new("archiver errors", passed);
    match archiver::summarise_errors(&server.errors_directory) {
        Ok(None) => result(true),
        Ok(Some(summary)) => result(false).hint(summary),
        Err(error) => result(false).hint(format!(
            "cannot read {}: {error}",
            server.errors_directory.display()
        )),
    }
}

/// A hint belongs on the line of its check.
fn on_one_line(error: &CodecError) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}
