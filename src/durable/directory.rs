//! Directories: what is in them is durable only after they have been synchronised themselves.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Makes the names in a directory durable: what was created, renamed or removed in it.
///
/// A file system that cannot synchronise directories says `EINVAL`; there is nothing more that
/// could be done on it, so that answer counts as success. Every other error is returned.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECTORY.bits())
        .open(path)?;
    sync_handle(&directory)
}

fn sync_handle(directory: &File) -> io::Result<()> {
    match directory.sync_all() {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(()),
        other => other,
    }
}

/// Creates a directory and every missing one above it, and makes their names durable.
///
/// Does nothing when the directory is already there.
pub fn create_directories(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                create_directories(parent)?;
                match fs::create_dir(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => sync_parent(path),
                }
            }
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Removes an empty directory and makes that durable.
///
/// Returns false when the directory is not empty or is not there.
pub fn remove_directory(path: &Path) -> io::Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) => match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// Synchronises the directory that holds `path`.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}
