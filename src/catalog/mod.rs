//! xlogdb: the text file that lists every archived WAL file, one line each.
//!
//! Barman and walarch share it, under a lock that is held only while the file is read or written.

mod backup;
mod line;
mod read;
mod remove;
mod repair;
mod survey;

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use backup::{Backup, BackupWal, BackupsError, backups, has_backups_directory, last_backup};
pub use line::{InvalidLine, WalFileInfo, modification_time_s};
pub use remove::Removed;
pub use survey::Survey;

use crate::config::{ServerConfig, WalsDirectory};
use crate::durable::{self, Identity, LockFile, Temporary, Wait};
use crate::wal::{WalKind, WalName};

/// Permissions of a new xlogdb, less the umask, as Barman creates it.
const NEW_FILE_MODE: u32 = 0o666;

/// The name that xlogdb had before Barman 3.13, in `wals_directory`.
const LEGACY_NAME: &str = "xlog.db";

/// What is in the archive, for the times when xlogdb does not know.
pub trait ArchiveContents {
    /// What xlogdb should say about a file; `None` if it is not in the archive.
    fn look_up(&self, name: &WalName) -> Result<Option<WalFileInfo>, Box<dyn Error + Send + Sync>>;

    /// Passes every archived file to `visit`, in the order in which xlogdb lists them, and stops
    /// at the first error.
    fn visit_all(
        &self,
        visit: &mut dyn FnMut(WalFileInfo) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// A file that xlogdb shall list.
#[derive(Debug)]
pub struct Entry {
    /// What the line says.
    pub info: WalFileInfo,
    /// Whether an earlier run may have listed it already; it is then looked for first.
    pub may_be_listed: bool,
}

/// Why xlogdb could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb phrase.
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The archive could not be asked what it holds.
    #[error("cannot find out from the archive what {} should list: {source}", path.display())]
    Contents {
        /// xlogdb.
        path: PathBuf,
        /// The storage's answer.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Somebody rewrote the file in its place while it was read.
    #[error("{} was rewritten while it was read\nHINT: try again", path.display())]
    Rewritten {
        /// xlogdb.
        path: PathBuf,
    },
}

/// What xlogdb was at some moment, see [`Catalog::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogState(Option<Identity>);

/// How many files of each kind a rebuilt xlogdb lists. Partial segments are listed but, for the
/// sake of Barman's message, not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RebuildCounts {
    /// History files.
    pub history: usize,
    /// Backup labels.
    pub backup_labels: usize,
    /// Complete segments.
    pub wal_files: usize,
}

/// The xlogdb of one server.
#[derive(Debug)]
pub struct Catalog {
    path: PathBuf,
    lock_path: PathBuf,
    legacy_path: Option<PathBuf>,
}

impl Catalog {
    /// Names the files; touches none of them.
    ///
    /// `wals_directory` is where an xlogdb of before Barman 3.13 may lie; `None` if the archive is
    /// not on this host.
    pub fn new(
        server: &str,
        xlogdb_directory: &Path,
        lock_directory: &Path,
        wals_directory: Option<&Path>,
    ) -> Self {
        Catalog {
            path: xlogdb_directory.join(format!("{server}-xlog.db")),
            lock_path: lock_directory.join(format!(".{server}-xlogdb.lock")),
            legacy_path: wals_directory.map(|directory| directory.join(LEGACY_NAME)),
        }
    }

    /// The xlogdb of a server, wherever its archive is.
    pub fn of(server: &ServerConfig) -> Self {
        let wals_directory = match &server.wals_directory {
            WalsDirectory::Local(root) => Some(root.as_path()),
            WalsDirectory::Cloud(_) => None,
        };
        Self::new(
            &server.name,
            &server.xlogdb_directory,
            &server.lock_directory,
            wals_directory,
        )
    }

    /// Where xlogdb is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What xlogdb is at this moment, to notice whether somebody else has changed it since.
    pub fn state(&self) -> CatalogState {
        CatalogState(fs::metadata(&self.path).ok().as_ref().map(Identity::of))
    }

    /// Lists files, durably, under the lock.
    ///
    /// `seen` is the state from before the files were published: if xlogdb has changed since, a
    /// rebuild may have found them already, and all of them are looked for.
    ///
    /// An xlogdb that is missing comes from its old name or is rebuilt from the archive first; a
    /// torn last line is written anew or removed. On an error the file ends where it ended before,
    /// or in a torn line that the next call repairs.
    pub fn append(
        &self,
        entries: Vec<Entry>,
        seen: CatalogState,
        contents: &dyn ArchiveContents,
    ) -> Result<(), CatalogError> {
        let _lock = self.lock()?;
        self.append_locked(entries, seen, contents)
    }

    fn append_locked(
        &self,
        mut entries: Vec<Entry>,
        seen: CatalogState,
        contents: &dyn ArchiveContents,
    ) -> Result<(), CatalogError> {
        let mut file = self.open_or_create(contents, &entries)?;
        let changed = self.state() != seen;
        let torn = repair::cut_torn_line(&mut file, contents).map_err(|e| self.io("repair", e))?;
        entries.extend(torn.into_iter().map(|info| Entry {
            info,
            may_be_listed: true,
        }));

        let doubtful: HashSet<&str> = entries
            .iter()
            .filter(|entry| changed || entry.may_be_listed)
            .map(|entry| entry.info.name.as_str())
            .collect();
        let mut listed = self.listed_among(&doubtful)?;
        let lines: String = entries
            .iter()
            .filter(|entry| listed.insert(entry.info.name.as_str().to_owned()))
            .map(|entry| format!("{}\n", entry.info))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        durable::append(&mut file, lines.as_bytes()).map_err(|e| self.io("append to", e))
    }

    /// Writes xlogdb anew from what is in the archive. The old one stays until the new one is
    /// complete and durable.
    ///
    /// An archive without a single file is more likely a file system that is not mounted: an xlogdb
    /// that lists something stays, with [`CatalogError::Contents`].
    pub fn rebuild(&self, contents: &dyn ArchiveContents) -> Result<RebuildCounts, CatalogError> {
        let _lock = self.lock()?;
        let counts = self.rebuild_locked(contents, &[])?;
        if let Some(legacy) = &self.legacy_path {
            durable::remove(legacy).map_err(|e| Self::io_at("remove", legacy, e))?;
        }
        Ok(counts)
    }

    fn lock(&self) -> Result<Option<LockFile>, CatalogError> {
        LockFile::acquire(&self.lock_path, Wait::Forever)
            .map_err(|e| Self::io_at("lock", &self.lock_path, e))
    }

    /// Opens xlogdb for reading and appending. What is about to be appended is left out of one that
    /// has to be rebuilt: its codec is known better than it looks.
    fn open_or_create(
        &self,
        contents: &dyn ArchiveContents,
        entries: &[Entry],
    ) -> Result<File, CatalogError> {
        let open = || OpenOptions::new().read(true).append(true).open(&self.path);
        match open() {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.io("open", error)),
        }
        if !self.migrate_legacy()? {
            self.rebuild_locked(contents, entries)?;
        }
        open().map_err(|e| self.io("open", e))
    }

    /// Takes over an xlogdb under its old name: copied, published durably, only then removed.
    fn migrate_legacy(&self) -> Result<bool, CatalogError> {
        let Some(legacy) = &self.legacy_path else {
            return Ok(false);
        };
        let mut old = match File::open(legacy) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Self::io_at("open", legacy, error)),
        };
        self.write_anew(|new| {
            io::copy(&mut old, new)
                .map(drop)
                .map_err(|e| self.io("write a new", e))
        })?;
        durable::remove(legacy).map_err(|e| Self::io_at("remove", legacy, e))?;
        tracing::info!("{} continues in {}", legacy.display(), self.path.display());
        Ok(true)
    }

    fn rebuild_locked(
        &self,
        contents: &dyn ArchiveContents,
        except: &[Entry],
    ) -> Result<RebuildCounts, CatalogError> {
        let except: HashSet<&WalName> = except.iter().map(|entry| &entry.info.name).collect();
        let mut counts = RebuildCounts::default();
        let lists_nothing = fs::metadata(&self.path).map_or(true, |metadata| metadata.len() == 0);
        self.write_anew(|new| {
            let mut found = !except.is_empty();
            let visited = contents.visit_all(&mut |info| {
                found = true;
                if except.contains(&info.name) {
                    return Ok(());
                }
                match info.name.kind() {
                    WalKind::History => counts.history += 1,
                    WalKind::BackupLabel => counts.backup_labels += 1,
                    WalKind::Segment => counts.wal_files += 1,
                    WalKind::Partial => {}
                }
                writeln!(new, "{info}")
            });
            let listed = visited.and_then(|()| match found || lists_nothing {
                true => Ok(()),
                false => Err("the archive is empty, and xlogdb lists files\n\
                     HINT: is its file system mounted? If it really is empty, remove xlogdb first"
                    .into()),
            });
            listed.map_err(|source| CatalogError::Contents {
                path: self.path.clone(),
                source,
            })
        })?;
        Ok(counts)
    }

    /// Replaces xlogdb by what `fill` writes, in one durable step.
    fn write_anew(
        &self,
        fill: impl FnOnce(&mut BufWriter<&File>) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        if let Some(directory) = self.path.parent() {
            durable::create_directories(directory)
                .map_err(|e| Self::io_at("create", directory, e))?;
        }
        // Barman's rebuild passes over every name that begins with xlogdb's own.
        let mut temporary_path = self.path.clone().into_os_string();
        temporary_path.push(".tmp");
        let (temporary, file) = Temporary::create(temporary_path.into(), NEW_FILE_MODE)
            .map_err(|e| self.io("write a new", e))?;
        if let Ok(old) = fs::metadata(&self.path) {
            file.set_permissions(old.permissions())
                .map_err(|e| self.io("write a new", e))?;
        }
        let mut writer = BufWriter::new(&file);
        fill(&mut writer)?;
        writer.flush().map_err(|e| self.io("write a new", e))?;
        drop(writer);
        durable::sync_file(&file, temporary.path()).map_err(|e| self.io("write a new", e))?;
        temporary
            .replace(&self.path)
            .map_err(|e| self.io("replace", e))
    }

    /// Which of these names have a line. Reads the file once, whatever its size, and only if there
    /// is a name to look for.
    fn listed_among(&self, names: &HashSet<&str>) -> Result<HashSet<String>, CatalogError> {
        let mut listed = HashSet::new();
        if !names.is_empty() {
            self.visit_names(|name| listed.extend(names.get(name).map(|&name| name.to_owned())))?;
        }
        Ok(listed)
    }

    /// Passes the first word of every line to `visit`, in the order of the lines. No file has no
    /// lines. The lock is not taken: a line that is being written may be missing or torn.
    pub fn visit_names(&self, mut visit: impl FnMut(&str)) -> Result<(), CatalogError> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|e| self.io("read", e))?,
        };
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .map_err(|e| self.io("read", e))?
            > 0
        {
            let name = line
                .split(u8::is_ascii_whitespace)
                .next()
                .unwrap_or_default();
            if let Ok(name) = str::from_utf8(name) {
                visit(name);
            }
            line.clear();
        }
        Ok(())
    }

    fn io(&self, action: &'static str, source: io::Error) -> CatalogError {
        Self::io_at(action, &self.path, source)
    }

    fn io_at(action: &'static str, path: &Path, source: io::Error) -> CatalogError {
        CatalogError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}
