//! Where delivered bytes go.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use crate::durable::{self, Temporary};

/// Where delivered bytes go. Nobody may take them for the file before [`finish`](Outlet::finish) has succeeded.
pub trait Outlet: Write + Send {
    /// As a person would name it.
    fn location(&self) -> String;

    /// Begins, or begins anew: what was written before is forgotten, if it can be.
    fn begin(&mut self) -> io::Result<()>;

    /// Whether everything written can still be taken back.
    fn is_revocable(&self) -> bool;

    /// All bytes were written and found good.
    fn finish(&mut self) -> io::Result<()>;
}

/// A stream that somebody reads, such as standard output.
pub struct StreamOutlet<'a> {
    name: &'static str,
    sink: &'a mut (dyn Write + Send),
}

impl<'a> StreamOutlet<'a> {
    /// `name` is what messages call it.
    pub fn new(name: &'static str, sink: &'a mut (dyn Write + Send)) -> Self {
        StreamOutlet { name, sink }
    }
}

impl Write for StreamOutlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Outlet for StreamOutlet<'_> {
    fn location(&self) -> String {
        self.name.to_owned()
    }

    fn begin(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_revocable(&self) -> bool {
        false
    }

    fn finish(&mut self) -> io::Result<()> {
        self.sink.flush()
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
}

/// As PostgreSQL makes its own files.
const MODE: u32 = 0o600;

impl FileOutlet {
    /// A durable file at `goal`, replacing what is there.
    pub fn durable(goal: &Path) -> Self {
        FileOutlet {
            goal: goal.to_owned(),
            temporary: None,
            is_used: false,
            syncs: true,
        }
    }

    /// A file that need not survive a crash of the machine.
    pub fn volatile(goal: &Path) -> Self {
        FileOutlet {
            syncs: false,
            ..FileOutlet::durable(goal)
        }
    }

    /// Whether somebody has begun, and not finished, a file of this name.
    pub(super) fn is_begun(&self) -> bool {
        self.temporary_path().exists()
    }

    /// Gives the goal's name to a complete file that nobody else needs; where it is on another file system, to a copy.
    pub(super) fn take_over(&mut self, path: &Path, mut file: File) -> io::Result<()> {
        if self.syncs {
            durable::sync_file(&file, path)?;
        }
        match durable::move_file(path, &self.goal, self.syncs) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.begin()?;
                file.rewind()?;
                io::copy(&mut file, self)?;
                self.finish()?;
                durable::remove(path)
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
            self.temporary = Some(Temporary::create(self.temporary_path(), MODE)?);
            self.is_used = false;
        }
        Ok(())
    }

    fn is_revocable(&self) -> bool {
        true
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
