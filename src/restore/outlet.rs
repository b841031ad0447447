//! Where delivered bytes go.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::durable::{self, Temporary};

/// Where delivered bytes go. Nobody may take them for the file before [`finish`](Outlet::finish) has succeeded.
pub trait Outlet: Write + Send {
    /// As a person would name it.
    fn location(&self) -> String;

    /// Begins, or begins anew: what was written before is forgotten, if it can be.
    fn begin(&mut self) -> io::Result<()>;

    /// Whether everything written can still be taken back.
    fn is_revocable(&self) -> bool;

    /// A place for the next `size_bytes`, which may be written there in any order; `None` where one byte has to come
    /// after the other. They count as written from now on.
    fn place(&mut self, size_bytes: u64) -> io::Result<Option<Place<'_>>>;

    /// All bytes were written and found good.
    fn finish(&mut self) -> io::Result<()>;
}

/// A stretch of a file that is being delivered.
#[derive(Debug)]
pub struct Place<'a> {
    file: &'a File,
    start_bytes: u64,
}

impl Place<'_> {
    /// Writes bytes that begin `offset_bytes` behind the start of the place.
    pub fn write_at(&self, bytes: &[u8], offset_bytes: u64) -> io::Result<()> {
        self.file
            .write_all_at(bytes, self.start_bytes + offset_bytes)
    }
}

/// A stream that was opened by somebody else, such as standard output.
///
/// A pipe takes nothing back. From a file (`command > file`), what was written is removed again, if nothing of it is
/// to be delivered.
pub struct StreamOutlet {
    name: &'static str,
    file: File,
    /// Of a file: where it ended before.
    end_bytes: Option<u64>,
    /// Whatever is written goes to the end of the file (`>>`), also what names another position.
    appends: bool,
    is_dirty: bool,
}

impl StreamOutlet {
    /// `name` is what messages call it.
    pub fn new(name: &'static str, mut file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let end_bytes = match metadata.is_file() {
            // Behind other bytes of the file nothing can be taken back.
            true => Some(file.stream_position()?).filter(|at| *at >= metadata.len()),
            false => None,
        };
        let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        Ok(StreamOutlet {
            name,
            appends: flags.contains(OFlag::O_APPEND),
            file,
            end_bytes,
            is_dirty: false,
        })
    }

    fn take_back(&mut self) -> io::Result<()> {
        if let Some(end_bytes) = self.end_bytes.filter(|_| self.is_dirty) {
            durable::truncate(&self.file, end_bytes)?;
            self.file.seek(SeekFrom::Start(end_bytes))?;
            self.is_dirty = false;
        }
        Ok(())
    }
}

impl Write for StreamOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_dirty = true;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Outlet for StreamOutlet {
    fn location(&self) -> String {
        self.name.to_owned()
    }

    fn begin(&mut self) -> io::Result<()> {
        self.take_back()
    }

    fn is_revocable(&self) -> bool {
        self.end_bytes.is_some()
    }

    fn place(&mut self, size_bytes: u64) -> io::Result<Option<Place<'_>>> {
        let Some(start_bytes) = self.end_bytes.filter(|_| !self.appends && !self.is_dirty) else {
            return Ok(None);
        };
        self.is_dirty = true;
        let end_bytes = start_bytes + size_bytes;
        durable::allocate(&self.file, start_bytes..end_bytes)?;
        // Where whoever gave us the file goes on.
        self.file.seek(SeekFrom::Start(end_bytes))?;
        Ok(Some(Place {
            file: &self.file,
            start_bytes,
        }))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.is_dirty = false;
        Ok(())
    }
}

impl Drop for StreamOutlet {
    fn drop(&mut self) {
        // The exit code tells that the file is of no use, whatever is in it.
        let _ = self.take_back();
    }
}

/// A file that has its name only once it is complete; a hidden one beside it until then.
#[derive(Debug)]
pub struct FileOutlet {
    goal: PathBuf,
    temporary: Option<(Temporary, File)>,
    /// Something was written to the temporary file.
    is_used: bool,
    syncs: bool,
    /// Before the user's mask.
    mode: u32,
    /// One byte after the other.
    in_order: bool,
}

/// What is written down for ourselves.
const PRIVATE: u32 = 0o600;

/// As any program makes its files. PostgreSQL's mask leaves of it what its own files have: 0600, or 0640 where the
/// cluster allows its group access (`initdb --allow-group-access`).
const ORDINARY: u32 = 0o666;

impl FileOutlet {
    /// A durable file at `goal`, replacing what is there, for others to read as well as far as the user's mask lets them.
    pub fn durable(goal: &Path) -> Self {
        FileOutlet {
            goal: goal.to_owned(),
            temporary: None,
            is_used: false,
            syncs: true,
            mode: ORDINARY,
            in_order: false,
        }
    }

    /// The same, but it need not survive a crash of the machine.
    pub fn volatile(goal: &Path) -> Self {
        FileOutlet {
            syncs: false,
            ..FileOutlet::durable(goal)
        }
    }

    /// A volatile file for this user alone.
    pub(super) fn private(goal: &Path) -> Self {
        FileOutlet {
            mode: PRIVATE,
            ..FileOutlet::volatile(goal)
        }
    }

    /// One of several at the same time: none may take the memory and the processors that filling it in any order takes.
    /// It may become the file at another goal, so that it is as readable.
    pub(super) fn among_others(goal: &Path) -> Self {
        FileOutlet {
            in_order: true,
            ..FileOutlet::volatile(goal)
        }
    }

    /// Whether somebody has begun, and not finished, a file of this name.
    pub(super) fn is_begun(&self) -> bool {
        self.temporary_path().exists()
    }

    /// Gives the goal's name to a complete file that nobody else needs; where it is on another file system, to a copy.
    ///
    /// Fails when a later call has begun the goal anew: what it puts there must not be replaced by what came before.
    pub(super) fn take_over(&mut self, path: &Path, mut file: File) -> io::Result<()> {
        if let Some((temporary, _)) = &mut self.temporary {
            temporary.check()?;
        }
        if self.syncs {
            durable::sync_file(&file, path)?;
        }
        match durable::move_file(path, &self.goal, self.syncs) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.begin()?;
                file.rewind()?;
                io::copy(&mut file, self)?;
                self.finish()?;
                // The copy is there; what is left of the other goes with the next position.
                durable::remove(path).unwrap_or_else(|error| tracing::warn!("{error}"));
                Ok(())
            }
            other => {
                self.temporary = None;
                other
            }
        }
    }

    fn temporary_path(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.goal.file_name().unwrap_or_default());
        name.push(".tmp");
        self.goal.with_file_name(name)
    }
}

impl Write for FileOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.temporary {
            Some((_, file)) => {
                self.is_used = true;
                file.write(bytes)
            }
            None => Err(io::Error::other("it was not begun")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Outlet for FileOutlet {
    fn location(&self) -> String {
        self.goal.display().to_string()
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.is_used || self.temporary.is_none() {
            self.temporary = None;
            self.temporary = Some(Temporary::create(self.temporary_path(), self.mode)?);
            self.is_used = false;
        }
        Ok(())
    }

    fn is_revocable(&self) -> bool {
        true
    }

    fn place(&mut self, size_bytes: u64) -> io::Result<Option<Place<'_>>> {
        if self.in_order || self.is_used {
            return Ok(None);
        }
        let Some((_, file)) = &self.temporary else {
            return Ok(None);
        };
        self.is_used = true;
        durable::allocate(file, 0..size_bytes)?;
        Ok(Some(Place {
            file,
            start_bytes: 0,
        }))
    }

    fn finish(&mut self) -> io::Result<()> {
        let Some((temporary, file)) = self.temporary.take() else {
            return Err(io::Error::other("nothing was written"));
        };
        if !self.syncs {
            return temporary.rename(&self.goal);
        }
        durable::sync_file(&file, temporary.path())?;
        temporary.replace(&self.goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_call_that_was_overtaken_does_not_put_its_file_in_the_place_of_the_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let (goal, spooled) = (folder.path().join("goal"), folder.path().join("spooled"));
        fs::write(&spooled, "earlier").unwrap();
        let mut earlier = FileOutlet::durable(&goal);
        earlier.begin().unwrap();
        let mut later = FileOutlet::durable(&goal);
        later.begin().unwrap();
        let file = File::open(&spooled).unwrap();
        let error = earlier.take_over(&spooled, file).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(earlier);
        later.write_all(b"later").unwrap();
        later.finish().unwrap();
        assert_eq!(fs::read(&goal).unwrap(), b"later");
        assert!(spooled.exists());
    }
}
