//! A directory of this host, laid out as Barman lays it out.

mod misplaced;
mod staged;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{
    AroundDelete, Recognition, SealedWal, Source, StagedWal, StorageError, StoredWal,
    WalStorageStrategy,
};
use crate::catalog::{WalFileInfo, modification_time_s};
use crate::codec::{self, HEAD_SIZE_BYTES};
use crate::config::{Encryption, ServerConfig};
use crate::durable::{self, DirectWriter, Identity, Rooms, Temporary};
use crate::wal::WalName;
use staged::{STAGED_MODE, Sealed, Staged, copy};

/// `wals_directory`: segments in one directory per 4 GiB of WAL, history files beside those.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    xlogdb_name: String,
    recognition: Recognition,
    /// Directories that this run has made sure of.
    prepared: Mutex<HashSet<PathBuf>>,
    /// Directories whose own names this run has made durable.
    anchored: Mutex<HashSet<PathBuf>>,
    /// For the files that are being staged.
    rooms: Arc<Rooms>,
}

impl Local {
    /// `root` is the server's `wals_directory`. Touches nothing.
    pub fn new(root: &Path, server: &ServerConfig) -> Self {
        Local {
            root: root.to_owned(),
            xlogdb_name: format!("{}-xlog.db", server.name),
            recognition: Recognition::new(server),
            prepared: Mutex::default(),
            anchored: Mutex::default(),
            rooms: Arc::default(),
        }
    }

    fn directory(&self, name: &WalName) -> PathBuf {
        match name.hash_directory() {
            Some(directory) => self.root.join(directory),
            None => self.root.clone(),
        }
    }

    fn path(&self, name: &WalName) -> PathBuf {
        self.directory(name).join(name.as_str())
    }

    /// Hidden, and with the ending that Barman's `rebuild-xlogdb` passes over. One name per WAL
    /// file: the archive lock keeps a second process away, and a leftover is found without looking.
    fn temporary_path(&self, name: &WalName) -> PathBuf {
        self.directory(name).join(format!(".{name}.tmp"))
    }

    fn error<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> StorageError + 'a {
        move |source| StorageError {
            action,
            location: path.display().to_string(),
            source,
        }
    }

    /// Makes sure that the directory of a file exists and will outlive a crash.
    fn prepare_directory(&self, name: &WalName) -> Result<(), StorageError> {
        let directory = self.directory(name);
        // A second worker must not go on before the first one has made the name durable.
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !prepared.contains(&directory) {
            durable::create_directories(&directory).map_err(Self::error("create", &directory))?;
            prepared.insert(directory);
        }
        Ok(())
    }

    /// Passes a file to `visit`; what went away while we were looking, or is no file, is passed over.
    fn visit_file(
        &self,
        name: WalName,
        path: &Path,
        visit: &mut dyn FnMut(StoredWal) -> io::Result<()>,
    ) -> io::Result<()> {
        match self.stored(name, path) {
            Ok(stored) => visit(stored),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_file(path) => {
                tracing::warn!("{} is gone, or not a file", path.display());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn stored(&self, name: WalName, path: &Path) -> io::Result<StoredWal> {
        let mut file = open_file(path)?;
        let metadata = file.metadata()?;
        let mut head = Vec::with_capacity(HEAD_SIZE_BYTES);
        (&mut file)
            .take(HEAD_SIZE_BYTES as u64)
            .read_to_end(&mut head)?;
        let encryption = codec::is_encrypted(&head).then_some(Encryption::Gpg);
        let compression = match encryption {
            // What is inside cannot be seen.
            Some(_) => None,
            None => self.recognition.of_stored(&head),
        };
        Ok(StoredWal {
            info: WalFileInfo {
                name,
                size_bytes: metadata.size(),
                modified_s: modification_time_s(&metadata),
                compression: compression.map(|codec| codec.name().to_owned()),
                encryption: encryption.map(|encryption| encryption.name().to_owned()),
            },
            location: path.display().to_string(),
            is_durable: false,
        })
    }

    /// Passes name and path of every WAL file to `visit`, in the order of [`Self::list`]. Before the first file is
    /// archived there need be no directory.
    fn walk(
        &self,
        visit: &mut dyn FnMut(WalName, &Path) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let entries = match sorted_names(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Self::error("read", &self.root))?,
        };
        for entry in entries {
            let path = self.root.join(&entry);
            let text = entry.to_string_lossy();
            let walked = if path.is_dir() {
                Self::walk_directory(&path, visit)
            } else if text.starts_with(&self.xlogdb_name) {
                Ok(())
            } else {
                match WalName::parse(&text) {
                    Ok(name) if name.hash_directory().is_none() => visit(name, &path),
                    _ => {
                        tracing::warn!("unexpected file in the WAL archive: {}", path.display());
                        Ok(())
                    }
                }
            };
            walked.map_err(Self::error("read", &path))?;
        }
        Ok(())
    }

    /// Passes the WAL files among the entries of a hash directory to `visit`.
    fn walk_directory(
        directory: &Path,
        visit: &mut dyn FnMut(WalName, &Path) -> io::Result<()>,
    ) -> io::Result<()> {
        for entry in sorted_names(directory)? {
            let path = directory.join(&entry);
            let name = entry.to_str().and_then(|name| WalName::parse(name).ok());
            match name.filter(|name| name.hash_directory().is_some()) {
                _ if path.is_dir() => {
                    tracing::warn!(
                        "unexpected directory in the WAL archive: {}",
                        path.display()
                    );
                }
                Some(name) => visit(name, &path)?,
                None => tracing::warn!("unexpected file in the WAL archive: {}", path.display()),
            }
        }
        Ok(())
    }

    /// Deletes files of one directory; true for `whole` means that nothing else is in it.
    fn delete_in(
        &self,
        wals: &[&WalFileInfo],
        whole: bool,
        around: &mut dyn AroundDelete,
    ) -> Result<Vec<WalName>, Box<dyn Error + Send + Sync>> {
        let mut deleted = Vec::new();
        let steps: Vec<&[&WalFileInfo]> = if whole {
            vec![wals]
        } else {
            wals.chunks(1).collect()
        };
        for step in steps {
            for wal in step {
                around.before(wal, &self.location(&wal.name))?;
            }
            for wal in step {
                let path = self.path(&wal.name);
                let removed = durable::remove(&path).map_err(Self::error("delete", &path));
                around.after(wal, &self.location(&wal.name), removed.as_ref().err());
                deleted.extend(removed.is_ok().then(|| wal.name.clone()));
            }
        }
        Ok(deleted)
    }
}

impl WalStorageStrategy for Local {
    fn location(&self, name: &WalName) -> String {
        self.path(name).display().to_string()
    }

    fn find(&self, name: &WalName) -> Result<Option<StoredWal>, StorageError> {
        let path = self.path(name);
        match self.stored(name.clone(), &path) {
            Ok(stored) => Ok(Some(stored)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Self::error("read", &path)(error)),
        }
    }

    fn open(&self, stored: &StoredWal) -> Result<Box<dyn Read + Send>, StorageError> {
        let path = self.path(&stored.info.name);
        match open_file(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Self::error("open", &path)(error)),
        }
    }

    fn stage(&self, source: &Source) -> Result<Box<dyn StagedWal>, StorageError> {
        self.prepare_directory(&source.name)?;
        let path = self.temporary_path(&source.name);
        let (temporary, file) =
            Temporary::create(path.clone(), STAGED_MODE).map_err(Self::error("create", &path))?;
        Ok(Box::new(Staged {
            sealed: Sealed {
                temporary,
                goal: self.path(&source.name),
                info: source.info(),
                is_shared: false,
            },
            writer: DirectWriter::new(file, &self.rooms),
            path,
            source: source.metadata.clone(),
        }))
    }

    fn adopt(&self, source: &Source) -> Result<Option<Box<dyn SealedWal>>, StorageError> {
        // A symbolic link is not the file; a file with another name may be changed through that.
        let named = fs::symlink_metadata(&source.path).ok();
        let is_alone = named.is_some_and(|named| named.is_file() && named.nlink() == 1);
        if !source.is_ours || !is_alone {
            return Ok(None);
        }
        self.prepare_directory(&source.name)?;
        let path = self.temporary_path(&source.name);
        match Temporary::link(&source.path, Identity::of(&source.metadata), path) {
            Ok(temporary) => {
                durable::sync_file(&source.file, &source.path)
                    .map_err(Self::error("synchronise", &source.path))?;
                let goal = self.path(&source.name);
                Ok(Some(Box::new(Sealed {
                    temporary,
                    goal,
                    info: source.info(),
                    is_shared: true,
                })))
            }
            // Another file system, or one without hard links: a copy will do, and if the trouble
            // is a different one, the copy will meet it and report it.
            Err(_) => Ok(None),
        }
    }

    fn detach(&self, source: &Source) -> Result<bool, StorageError> {
        let goal = self.path(&source.name);
        if !Identity::of(&source.metadata).same_file(&goal) {
            return Ok(false);
        }
        let path = self.temporary_path(&source.name);
        copy(source, &path)
            .and_then(|temporary| temporary.replace(&goal))
            .map_err(Self::error("make a copy of", &source.path))?;
        Ok(true)
    }

    /// A directory all of whose files are deleted goes with them.
    fn begin(&self) {
        for sure in [&self.prepared, &self.anchored] {
            let mut sure = sure.lock().unwrap_or_else(PoisonError::into_inner);
            sure.clear();
        }
    }

    fn sync(&self, published: &[StoredWal]) -> Result<(), StorageError> {
        let mut directories: Vec<PathBuf> = Vec::new();
        for stored in published {
            let path = self.path(&stored.info.name);
            if !stored.is_durable {
                File::open(&path)
                    .and_then(|file| durable::sync_file(&file, &path))
                    .map_err(Self::error("synchronise", &path))?;
            }
            let directory = self.directory(&stored.info.name);
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        let mut anchored = self.anchored.lock().unwrap_or_else(PoisonError::into_inner);
        // A directory may be there because a run created it that was cut off before it could make
        // the name durable. So the root is synchronised once for each directory that is new to us.
        if directories
            .iter()
            .any(|directory| !anchored.contains(directory))
        {
            directories.push(self.root.clone());
        }
        for directory in directories {
            durable::sync_directory(&directory).map_err(Self::error("synchronise", &directory))?;
            anchored.insert(directory);
        }
        Ok(())
    }

    fn list(
        &self,
        visit: &mut dyn FnMut(StoredWal) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.walk(&mut |name, path| self.visit_file(name, path, visit))
    }

    fn list_names(
        &self,
        visit: &mut dyn FnMut(WalName) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.walk(&mut |name, path| {
            if path == self.path(&name) {
                return visit(name);
            }
            tracing::warn!("{} is in the wrong directory", path.display());
            Ok(())
        })
    }

    fn list_misplaced(
        &self,
        visit: &mut dyn FnMut(WalName, String),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.find_misplaced(visit)
    }

    fn delete(
        &self,
        wals: &[WalFileInfo],
        around: &mut dyn AroundDelete,
    ) -> Result<Vec<WalName>, Box<dyn Error + Send + Sync>> {
        let mut by_directory: BTreeMap<PathBuf, Vec<&WalFileInfo>> = BTreeMap::new();
        for wal in wals {
            by_directory
                .entry(self.directory(&wal.name))
                .or_default()
                .push(wal);
        }
        let mut deleted = Vec::new();
        for (directory, group) in by_directory {
            let going: HashSet<&str> = group.iter().map(|wal| wal.name.as_str()).collect();
            let whole = directory != self.root
                && sorted_names(&directory).is_ok_and(|names| {
                    names
                        .iter()
                        .all(|name| name.to_str().is_some_and(|name| going.contains(name)))
                });
            deleted.extend(self.delete_in(&group, whole, around)?);
            let emptied = directory != self.root
                && durable::remove_directory(&directory)
                    .map_err(Self::error("delete", &directory))?;
            if !emptied && directory.is_dir() {
                durable::sync_directory(&directory)
                    .map_err(Self::error("synchronise", &directory))?;
            }
        }
        Ok(deleted)
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    // A pipe under a WAL file's name must not block us.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is not a regular file",
    ))
}

/// Whether there certainly is no file: a pipe, say, or a link to itself. One that merely cannot be
/// read is there.
fn is_no_file(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(metadata) => !metadata.is_file(),
        Err(error) => error.raw_os_error() == Some(Errno::ELOOP as i32),
    }
}

fn sorted_names(directory: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
