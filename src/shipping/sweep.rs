//! What put-wal writes before it is whole, and what becomes of it when the writer dies.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::iter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::durable;
use crate::wal::WalName;

/// How many processes of one number, each in a PID namespace of its own, can receive the same file at a time.
const NAMESAKES_MAX: u32 = 100;

/// Where this process writes a file that is not whole yet: `.PID-NAME`, as Barman does it. Archivers pass over hidden
/// files.
pub(super) fn temporary_path(incoming: &Path, name: &WalName) -> PathBuf {
    let process = process::id();
    let first = incoming.join(format!(".{process}-{name}"));
    // In another PID namespace over the same directory a process may have our number.
    let others =
        (2..NAMESAKES_MAX).map(|number| incoming.join(format!(".{process}-{name}.{number}")));
    iter::once(first.clone())
        .chain(others)
        .find(|path| !is_in_use(path))
        .unwrap_or(first)
}

/// Shows every sweeper that a file is being written, as long as it is open: the number in its name says nothing in
/// another PID namespace. Where files cannot be locked, the number must do.
pub(super) fn mark_in_use(file: &File) {
    if let Err(error) = file.lock() {
        tracing::debug!("a temporary file cannot be locked: {error}");
    }
}

fn is_in_use(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    let opened = options
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Removes what dead processes, ours or Barman's, left half-written. To fail here is no reason to refuse a file.
pub(super) fn remove_leftovers(incoming: &Path) {
    let Ok(entries) = fs::read_dir(incoming) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if !owner(&entry.file_name()).is_some_and(is_dead) || is_in_use(&path) {
            continue;
        }
        match durable::remove(&path) {
            Ok(()) => tracing::info!("Removed {}, which a killed put-wal left", path.display()),
            Err(error) => tracing::warn!("cannot remove {}: {error}", path.display()),
        }
    }
}

/// The process that a temporary file belongs to.
fn owner(file_name: &OsStr) -> Option<Pid> {
    let (digits, name) = file_name.to_str()?.strip_prefix('.')?.split_once('-')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let pid: i32 = digits.parse().ok().filter(|pid| is_number && *pid > 0)?;
    (!name.is_empty()).then_some(Pid::from_raw(pid))
}

/// A process of our own number is a former one: this one has not written anything yet.
fn is_dead(pid: Pid) -> bool {
    pid == Pid::this() || kill(pid, None) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namesake_of_ours_keeps_its_file() {
        let incoming = tempfile::TempDir::new().unwrap();
        let name = WalName::parse("000000010000000000000001").unwrap();
        let ours = temporary_path(incoming.path(), &name);
        assert_eq!(temporary_path(incoming.path(), &name), ours);
        let file = File::create(&ours).unwrap();
        mark_in_use(&file);
        let other = temporary_path(incoming.path(), &name);
        assert_ne!(other, ours);
        assert_eq!(owner(other.file_name().unwrap()), Some(Pid::this()));
        remove_leftovers(incoming.path());
        assert!(ours.exists());
        drop(file);
        remove_leftovers(incoming.path());
        assert!(!ours.exists());
    }

    #[test]
    fn only_temporary_names_have_an_owner() {
        let of = |name: &str| owner(OsStr::new(name)).map(Pid::as_raw);
        assert_eq!(of(".12-000000010000000000000001"), Some(12));
        for other in ["12-x", ".x-12", ".-x", ".0-x", ".+1-x", ".12-", ".12", "."] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
