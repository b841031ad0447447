//! Moving a file or directory out of the way, without ever overwriting anything.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::directory::{create_directories, sync_directory, sync_parent};
use super::file::{keep_attributes, sync_file};

/// How many names are tried before giving up: more entries than that cannot meet in one second.
const NAMES_MAX: usize = 100_000;

/// Moves a file, a directory or a symbolic link into another directory, and makes that durable.
///
/// `names` yields the names to try, best first; the first one that is free is taken, and the path
/// is returned. Works across file systems (the copy is complete and durable before the original
/// goes). The directory is created when it is missing.
pub fn move_aside(
    source: &Path,
    directory: &Path,
    names: impl Iterator<Item = OsString>,
) -> io::Result<PathBuf> {
    create_directories(directory)?;
    for name in names.take(NAMES_MAX) {
        let goal = directory.join(name);
        match rename_without_replacing(source, &goal) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy_across(source, &goal)?;
            }
            other => other?,
        }
        sync_directory(directory)?;
        sync_parent(source)?;
        return Ok(goal);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn rename_without_replacing(source: &Path, goal: &Path) -> io::Result<()> {
    match renameat2(
        AT_FDCWD,
        source,
        AT_FDCWD,
        goal,
        RenameFlags::RENAME_NOREPLACE,
    ) {
        // A file system without the flag: the look before the leap leaves a gap that only another
        // walarch could use, and the archive lock keeps that one out.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            if goal.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(source, goal)
        }
        other => Ok(other?),
    }
}

/// Copies under a hidden name, renames, then removes the original.
fn copy_across(source: &Path, goal: &Path) -> io::Result<()> {
    let hidden_name = goal
        .file_name()
        .map(|name| format!(".{}.tmp", name.to_string_lossy()));
    let hidden = goal.with_file_name(hidden_name.unwrap_or_default());
    remove_tree(&hidden)?;
    copy_tree(source, &hidden)?;
    rename_without_replacing(&hidden, goal)?;
    sync_parent(goal)?;
    remove_tree(source)
}

fn copy_tree(source: &Path, goal: &Path) -> io::Result<()> {
    let metadata = source.symlink_metadata()?;
    if metadata.is_symlink() {
        symlink(fs::read_link(source)?, goal)
    } else if metadata.is_dir() {
        fs::create_dir(goal)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy_tree(&entry.path(), &goal.join(entry.file_name()))?;
        }
        sync_directory(goal)
    } else if metadata.is_file() {
        let mut copy = File::create_new(goal)?;
        io::copy(&mut File::open(source)?, &mut copy)?;
        keep_attributes(&copy, &metadata)?;
        sync_file(&copy, goal)
    } else {
        // A socket, a pipe or a device has no content that could be copied.
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
