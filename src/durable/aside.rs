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
    let mut moving = Moving::There(source);
    for name in names.take(NAMES_MAX) {
        let goal = directory.join(name);
        match rename_without_replacing(moving.path(), &goal) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                moving = Moving::Copied(Copy::make(source, directory)?);
                match rename_without_replacing(moving.path(), &goal) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    other => other?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        }
        sync_directory(directory)?;
        if let Moving::Copied(copy) = moving {
            copy.remove_originals()?;
        }
        sync_parent(source)?;
        return Ok(goal);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// What is to be renamed: the object itself or, across file systems, a copy of it.
enum Moving<'a> {
    There(&'a Path),
    Copied(Copy),
}

impl Moving<'_> {
    fn path(&self) -> &Path {
        match self {
            Moving::There(path) => path,
            Moving::Copied(copy) => &copy.path,
        }
    }
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

/// A complete and durable copy under a hidden name. Dropping it removes it, unless it was renamed.
struct Copy {
    path: PathBuf,
    /// What was copied, directories before what is in them.
    originals: Vec<PathBuf>,
}

impl Copy {
    fn make(source: &Path, directory: &Path) -> io::Result<Self> {
        let mut hidden_name = OsString::from(".");
        hidden_name.push(source.file_name().unwrap_or_default());
        hidden_name.push(".tmp");
        let path = directory.join(hidden_name);
        remove_tree(&path)?;
        let mut copy = Copy {
            path,
            originals: Vec::new(),
        };
        let goal = copy.path.clone();
        copy.copy_tree(source, &goal)?;
        Ok(copy)
    }

    fn copy_tree(&mut self, source: &Path, goal: &Path) -> io::Result<()> {
        let metadata = source.symlink_metadata()?;
        self.originals.push(source.to_owned());
        if metadata.is_symlink() {
            symlink(fs::read_link(source)?, goal)
        } else if metadata.is_dir() {
            fs::create_dir(goal)?;
            for entry in fs::read_dir(source)? {
                let entry = entry?;
                self.copy_tree(&entry.path(), &goal.join(entry.file_name()))?;
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

    /// Removes what was copied and nothing else: somebody may have put more into a directory.
    fn remove_originals(mut self) -> io::Result<()> {
        while let Some(original) = self.originals.pop() {
            let removed = match original.symlink_metadata()?.is_dir() {
                true => fs::remove_dir(&original),
                false => fs::remove_file(&original),
            };
            match removed {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => other?,
            }
        }
        Ok(())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // After a rename there is nothing under the hidden name; otherwise the next attempt would
        // remove it as well.
        let _ = remove_tree(&self.path);
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
