//! What put-wal writes before it is whole, and what becomes of it when the writer dies.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::durable;
use crate::wal::WalName;

/// Where this process writes a file that is not whole yet: `.PID-NAME`, as Barman does it. Archivers pass over hidden
/// files.
pub(super) fn temporary_path(incoming: &Path, name: &WalName) -> PathBuf {
    incoming.join(format!(".{}-{name}", process::id()))
}

/// Removes what dead processes, ours or Barman's, left half-written. To fail here is no reason to refuse a file.
pub(super) fn remove_leftovers(incoming: &Path) {
    let Ok(entries) = fs::read_dir(incoming) else {
        return;
    };
    for entry in entries.flatten() {
        if !owner(&entry.file_name()).is_some_and(is_dead) {
            continue;
        }
        let path = entry.path();
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
    fn only_temporary_names_have_an_owner() {
        let of = |name: &str| owner(OsStr::new(name)).map(Pid::as_raw);
        assert_eq!(of(".12-000000010000000000000001"), Some(12));
        for other in ["12-x", ".x-12", ".-x", ".0-x", ".+1-x", ".12-", ".12", "."] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
