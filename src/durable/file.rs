//! Files: temporary ones that become visible in one step, and what makes bytes durable.

use std::ffi::OsString;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use nix::unistd::geteuid;

/// Which file a name stood for when it was looked at.
///
/// Names can be given to other files at any time: a sender that tries again replaces its file by
/// renaming. What is removed or published must be the file that was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified_ns: (i64, i64),
}

impl Identity {
    /// The identity of an open file.
    pub fn of(metadata: &Metadata) -> Self {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Whether the name still stands for the same file, with the same size and modification time.
    pub fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == *self)
    }

    /// Whether another name stands for the same file.
    pub fn same_file(&self, path: &Path) -> bool {
        fs::symlink_metadata(path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode))
    }
}

/// When a file was last touched in any way. Nobody can set that, unlike the modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision((i64, i64));

impl Revision {
    /// The revision of an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Revision((metadata.ctime(), metadata.ctime_nsec())))
    }
}

/// A file under a name that nobody looks at. Dropping it removes it.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
    identity: Identity,
    /// As long as the file is open, the system gives its inode number to no other one. None for a
    /// link: who makes one has the source open.
    _open: Option<File>,
    /// The file has left its temporary name, so that dropping must not touch that name again.
    gone: bool,
}

/// What became of an attempt to publish a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// The file now has its final name.
    Created,
    /// The final name was taken; it was left as it is, and the temporary file is removed.
    AlreadyExists,
}

impl Temporary {
    /// Creates an empty file with this mode, less the process's umask.
    ///
    /// A leftover of a killed run under the same name is removed first, never opened: it may be a
    /// hard link to a WAL file.
    pub fn create(path: PathBuf, mode: u32) -> io::Result<(Self, File)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(mode);
        let file = without_leftover(&path, || options.open(&path))?;
        let identity = Identity::of(&file.metadata()?);
        Ok((
            Temporary {
                path,
                identity,
                _open: Some(file.try_clone()?),
                gone: false,
            },
            file,
        ))
    }

    /// Gives a file a second, temporary name, so that no byte needs to be copied.
    ///
    /// Fails where the file system cannot do that, with `EXDEV` across file systems, and where the
    /// name stands for another file than `expected` by now.
    pub fn link(source: &Path, expected: Identity, path: PathBuf) -> io::Result<Self> {
        without_leftover(&path, || fs::hard_link(source, &path))?;
        let linked = Identity::of(&fs::symlink_metadata(&path)?);
        let temporary = Temporary {
            path,
            identity: linked,
            _open: None,
            gone: false,
        };
        if linked != expected {
            return Err(replaced());
        }
        Ok(temporary)
    }

    /// Where the file is as long as it is temporary.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name unless that name is taken.
    ///
    /// The name is durable only after [`sync_directory`](super::sync_directory).
    pub fn publish(mut self, goal: &Path) -> io::Result<Publication> {
        self.check()?;
        let publication = publish_file(&self.path, goal)?;
        self.gone = publication == Publication::Created;
        Ok(publication)
    }

    /// Gives the file its final name, replacing what is there, and makes that durable.
    pub fn replace(self, goal: &Path) -> io::Result<()> {
        self.rename(goal)?;
        super::directory::sync_parent(goal)
    }

    /// Gives the file its final name, replacing what is there; nothing is made durable.
    pub fn rename(mut self, goal: &Path) -> io::Result<()> {
        self.check()?;
        fs::rename(&self.path, goal)?;
        self.gone = true;
        Ok(())
    }

    /// Fails when the temporary name stands for another file by now.
    ///
    /// Locks keep other processes away from the temporary name; but two that do not agree on the
    /// lock directory must not publish each other's unfinished files.
    pub fn check(&mut self) -> io::Result<()> {
        if self.identity.same_file(&self.path) {
            return Ok(());
        }
        self.gone = true;
        Err(replaced())
    }
}

/// Gives a file another name unless that is taken; then it keeps the one it has.
///
/// The name is durable only after [`sync_directory`](super::sync_directory).
pub fn publish_file(source: &Path, goal: &Path) -> io::Result<Publication> {
    let no_replace = RenameFlags::RENAME_NOREPLACE;
    match renameat2(AT_FDCWD, source, AT_FDCWD, goal, no_replace) {
        Ok(()) => Ok(Publication::Created),
        Err(Errno::EEXIST) => Ok(Publication::AlreadyExists),
        // Network and user-space file systems without the flag: a link never overwrites either.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            match fs::hard_link(source, goal) {
                Ok(()) => {
                    // The file is where it shall be; a second name does no harm.
                    let _ = fs::remove_file(source);
                    Ok(Publication::Created)
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Ok(Publication::AlreadyExists)
                }
                Err(error) => Err(error),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

fn replaced() -> io::Error {
    io::Error::other("another process has put another file in its place")
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.gone && self.identity.same_file(&self.path) {
            // A leftover is harmless and the next run removes it: nothing to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Runs an operation that must not find `path` taken; a leftover there is removed once.
fn without_leftover<T>(path: &Path, operation: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match operation() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            operation()
        }
        other => other,
    }
}

/// Writes a small file, replacing the one of that name if there is one; durable, and never seen half
/// written. The mode is cut by the process's umask.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    written(path, bytes, mode)?.replace(path)
}

/// Writes a small file, replacing the one of that name if there is one; never seen half written, but not
/// durable: for what is written again all the time.
pub fn refresh_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (temporary, mut file) = Temporary::create(temporary_path(path), mode)?;
    file.write_all(bytes)?;
    temporary.rename(path)
}

/// Writes a small file unless the name is taken; durable, and never seen half written. The mode is
/// cut by the process's umask.
pub fn create_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Publication> {
    let publication = written(path, bytes, mode)?.publish(path)?;
    super::directory::sync_parent(path).map(|()| publication)
}

/// The bytes, durable under the hidden name `.NAME.tmp` beside `path`.
fn written(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Temporary> {
    let (temporary, mut file) = Temporary::create(temporary_path(path), mode)?;
    file.write_all(bytes)?;
    sync_file(&file, temporary.path())?;
    Ok(temporary)
}

/// `.NAME.tmp` beside `path`.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Gives a file another name, replacing what is there; with `durably` the name outlasts a crash.
pub fn move_file(source: &Path, goal: &Path, durably: bool) -> io::Result<()> {
    fs::rename(source, goal)?;
    match durably {
        true => super::directory::sync_parent(goal),
        false => Ok(()),
    }
}

/// Gives a file the modification time, the mode and, as root, the owner of another one.
pub fn keep_attributes(file: &File, like: &Metadata) -> io::Result<()> {
    if geteuid().is_root() {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    // After fchown, which clears set-id bits.
    file.set_permissions(like.permissions())?;
    let mut times = FileTimes::new().set_modified(like.modified()?);
    if let Ok(accessed) = like.accessed() {
        times = times.set_accessed(accessed);
    }
    file.set_times(times)
}

/// Makes a file's bytes and attributes durable.
///
/// Some network file systems refuse to synchronise through a handle that cannot write (`EACCES`,
/// `EBADF`); a writable one is tried then.
pub fn sync_file(file: &File, path: &Path) -> io::Result<()> {
    match file.sync_all() {
        Err(error)
            if matches!(
                error.raw_os_error().map(Errno::from_raw),
                Some(Errno::EACCES | Errno::EBADF)
            ) =>
        {
            OpenOptions::new().write(true).open(path)?.sync_all()
        }
        other => other,
    }
}

/// Appends to a file and makes that durable; on an error the file has its former length again, if
/// the file system lets us.
pub fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let former_size_bytes = file.seek(SeekFrom::End(0))?;
    let appended = file.write_all(bytes).and_then(|()| file.sync_data());
    if appended.is_err() {
        // The first error is the one to report; a torn line is repaired by the next run.
        let _ = file.set_len(former_size_bytes);
    }
    appended
}

/// Makes a file's bytes durable, and what of its attributes is needed to read them.
pub fn sync_data(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Takes room for these bytes of a file, which then reaches at least to their end; what it holds
/// stays. Durable with the next synchronisation.
///
/// Where the file system cannot take room, the file has that length all the same, and a write to it
/// may find none.
pub fn allocate(file: &File, place: Range<u64>) -> io::Result<()> {
    let signed = |bytes| i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge);
    let (start, end) = (signed(place.start)?, signed(place.end)?);
    let mut allocated = Err(Errno::EINTR);
    while allocated == Err(Errno::EINTR) {
        allocated = fallocate(file, FallocateFlags::empty(), start, end - start);
    }
    match allocated {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) if file.metadata()?.len() < place.end => {
            file.set_len(place.end)
        }
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}

/// Cuts a file to a length. Durable with the next synchronisation.
pub fn truncate(file: &File, size_bytes: u64) -> io::Result<()> {
    file.set_len(size_bytes)
}

/// Removes a file; one that is already gone is no error. Durable after
/// [`sync_directory`](super::sync_directory).
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// As two processes do it that do not share a lock directory: both write `.WAL.tmp`.
    fn rivals(folder: &TempDir) -> (Temporary, Temporary) {
        let path = folder.path().join(".wal.tmp");
        // Sealed: the handle is closed, so that the system may use the inode again at once.
        let ours = Temporary::create(path.clone(), 0o600).unwrap().0;
        let (theirs, mut file) = Temporary::create(path, 0o600).unwrap();
        file.write_all(b"half").unwrap();
        (ours, theirs)
    }

    #[test]
    fn another_process_s_unfinished_file_is_not_published() {
        let folder = TempDir::new().unwrap();
        let (ours, theirs) = rivals(&folder);
        let goal = folder.path().join("wal");
        ours.publish(&goal).unwrap_err();
        assert!(!goal.exists());
        assert_eq!(fs::read(theirs.path()).unwrap(), b"half");
        assert_eq!(theirs.publish(&goal).unwrap(), Publication::Created);
        assert_eq!(fs::read(&goal).unwrap(), b"half");
    }

    #[test]
    fn another_process_s_unfinished_file_replaces_nothing() {
        let folder = TempDir::new().unwrap();
        let (ours, theirs) = rivals(&folder);
        let goal = folder.path().join("wal");
        fs::write(&goal, b"old").unwrap();
        ours.replace(&goal).unwrap_err();
        assert_eq!(fs::read(&goal).unwrap(), b"old");
        assert_eq!(fs::read(theirs.path()).unwrap(), b"half");
    }

    #[test]
    fn another_process_s_unfinished_file_is_not_removed() {
        let folder = TempDir::new().unwrap();
        let (ours, theirs) = rivals(&folder);
        drop(ours);
        assert_eq!(fs::read(theirs.path()).unwrap(), b"half");
    }

    #[test]
    fn a_source_that_was_replaced_is_not_linked() {
        let folder = TempDir::new().unwrap();
        let source = folder.path().join("wal");
        fs::write(&source, b"first").unwrap();
        let opened = File::open(&source).unwrap();
        let expected = Identity::of(&opened.metadata().unwrap());
        let arrived = folder.path().join("arrived");
        fs::write(&arrived, b"other").unwrap();
        fs::rename(&arrived, &source).unwrap();
        let path = folder.path().join(".wal.tmp");
        Temporary::link(&source, expected, path.clone()).unwrap_err();
        assert!(!path.exists());
        assert_eq!(fs::read(&source).unwrap(), b"other");
    }
}
