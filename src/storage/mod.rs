//! Where WAL goes, and the one pipeline that takes it there.
//!
//! A [`WalStorageStrategy`] knows how to keep files; [`Archive::save`] knows the order in which a
//! file must be staged, published, listed and removed from its source so that no crash can lose it.

#[cfg(feature = "cloud")]
mod cloud;
#[cfg(test)]
mod conformance;
mod local;
#[cfg(test)]
mod memory;
mod plain;
mod recognition;
pub mod retention;
mod save;
pub mod verify;

use std::error::Error;
use std::fmt::Debug;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

#[cfg(feature = "cloud")]
pub use cloud::{Cloud, CloudError};
pub use local::Local;
pub use plain::{HistoryError, PlainWal, first_header, segment_size};
pub use recognition::Recognition;
pub use save::{
    Archive, Comparison, Difference, Likeness, SaveError, SaveReport, SetAside, SourceKeeper,
    Validation, WalFile,
};

use crate::catalog::{
    ArchiveContents, Catalog, CatalogError, Entry, InvalidLine, RebuildCounts, WalFileInfo,
    modification_time_s,
};
use crate::codec::{Encoding, Output};
use crate::config::{Compression, ServerConfig, WalsDirectory};
use crate::durable::Publication;
use crate::wal::WalName;

/// Why a storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {location}: {source}")]
#[non_exhaustive]
pub struct StorageError {
    /// A verb phrase.
    pub action: &'static str,
    /// The file or object concerned.
    pub location: String,
    /// The answer of the system below.
    #[source]
    pub source: io::Error,
}

/// A WAL file that was opened to be archived.
#[derive(Debug)]
pub struct Source {
    /// The file's name.
    pub name: WalName,
    /// Where it is.
    pub path: PathBuf,
    /// Open for reading, at its beginning.
    pub file: File,
    /// Size, modification time, mode and owner, which the archived file keeps.
    pub metadata: Metadata,
    /// The codec that its bytes carry already, because the sender compressed it.
    pub carried: Option<Compression>,
    /// Whether the file is ours to give away. One that PostgreSQL will use again must be copied.
    pub is_ours: bool,
}

impl Source {
    /// What xlogdb would say if the file were stored as it is.
    pub fn info(&self) -> WalFileInfo {
        WalFileInfo {
            name: self.name.clone(),
            size_bytes: self.metadata.size(),
            modified_s: modification_time_s(&self.metadata),
            compression: self.carried.map(|codec| codec.name().to_owned()),
            encryption: None,
        }
    }
}

/// A file under its final name in the archive.
#[derive(Clone, Debug)]
pub struct StoredWal {
    /// What xlogdb says of it, or should say.
    pub info: WalFileInfo,
    /// Where it is, as a person or a hook script would name it.
    pub location: String,
    /// Whether its bytes are known to be durable. A file that was found rather than written may
    /// have been left by a run that was cut off.
    pub is_durable: bool,
}

/// A file in the archive, and its stored form.
pub type Fetched = (StoredWal, Box<dyn Read + Send>);

/// Where WAL goes.
///
/// # Contract
///
/// A file passes through [`stage`](Self::stage), [`StagedWal::seal`] and [`SealedWal::publish`]; it
/// is safe once [`sync`](Self::sync) has returned. Until `publish` nobody sees it. `publish` never
/// replaces a file. What was staged or sealed but not published leaves nothing behind when it is
/// dropped, and a leftover of a killed process under the same name does not disturb.
///
/// # Threads
///
/// `find`, `open`, `stage`, `adopt`, `detach` and `seal` run on worker threads, for different files at a time;
/// `publish` and `sync` on one, unless the storage wants to publish several at a time.
pub trait WalStorageStrategy: Debug + Send + Sync {
    /// Where a file of this name is, or would be.
    fn location(&self, name: &WalName) -> String;

    /// Whether [`location`](Self::location) is a path that programs on this host can open.
    fn is_on_this_host(&self) -> bool {
        true
    }

    /// A run begins: what an earlier one made sure of, others may have undone since.
    fn begin(&self) {}

    /// What may be on its way at a time, where publishing is what takes long and what is sealed lies in
    /// memory. `None` where publishing is a matter of an instant, and what is sealed lies on disk.
    fn in_flight(&self) -> Option<InFlight> {
        None
    }

    /// Whether a file must be looked for before it is staged. Not where that is dear and publishing
    /// alone tells whether it is there.
    fn must_be_looked_for(&self, _name: &WalName) -> bool {
        true
    }

    /// Looks for a file under its final name. Absence is no error.
    fn find(&self, name: &WalName) -> Result<Option<StoredWal>, StorageError>;

    /// Opens a file for reading its stored form: compressed and encrypted as it is.
    fn open(&self, stored: &StoredWal) -> Result<Box<dyn Read + Send>, StorageError>;

    /// [`find`](Self::find) and [`open`](Self::open) in one step. Absence is no error, also if the
    /// file goes away in between.
    fn fetch(&self, name: &WalName) -> Result<Option<Fetched>, StorageError> {
        let Some(stored) = self.find(name)? else {
            return Ok(None);
        };
        match self.open(&stored) {
            Ok(stream) => Ok(Some((stored, stream))),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A private place for the stored form of `source`.
    fn stage(&self, source: &Source) -> Result<Box<dyn StagedWal>, StorageError>;

    /// Takes over the bytes of `source` as they are without copying them, if this storage can;
    /// they are durable then. `None` means that the caller must write a copy.
    fn adopt(&self, source: &Source) -> Result<Option<Box<dyn SealedWal>>, StorageError>;

    /// Gives an archived file bytes of its own, durably, if it still shares them with `source`: an
    /// adopted file does until its source is removed, and whoever writes to the source then writes to the
    /// archive. Returns whether it did.
    fn detach(&self, source: &Source) -> Result<bool, StorageError>;

    /// Makes files durable under their final names: one step for all of them.
    fn sync(&self, published: &[StoredWal]) -> Result<(), StorageError>;

    /// Passes every archived file to `visit`, sorted by directory and name as Barman lists them,
    /// and stops at the first error.
    fn list(
        &self,
        visit: &mut dyn FnMut(StoredWal) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Passes the name of every file that [`find`](Self::find) would find to `visit`, in the order
    /// of [`list`](Self::list), without a look at the files themselves.
    fn list_names(
        &self,
        visit: &mut dyn FnMut(WalName) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Passes name and location of every file that has the name of a WAL file, but is not where
    /// [`find`](Self::find) looks for it, to `visit`. Where there is only one place for each name, there is none.
    fn list_misplaced(
        &self,
        _visit: &mut dyn FnMut(WalName, String),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Deletes files and returns the names of those that are gone, durably.
    ///
    /// `around` is told of every file before and after. Where all files of a directory go, they go
    /// in one step: first everything is announced, then deleted, then reported. A file that cannot
    /// be deleted is reported and does not stop the others; a refusal of `around` stops everything
    /// not yet announced.
    fn delete(
        &self,
        wals: &[WalFileInfo],
        around: &mut dyn AroundDelete,
    ) -> Result<Vec<WalName>, Box<dyn Error + Send + Sync>>;
}

/// How much a storage lets be on its way at a time, from the beginning of staging to the end of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// So many files; they are published at the same time.
    pub files: NonZeroUsize,
    /// Not more than this together, as large as their sources are. A file that is larger goes alone.
    pub size_bytes: u64,
}

/// Is told of each file that a storage deletes.
pub trait AroundDelete {
    /// Before the file goes. An error keeps it.
    fn before(
        &mut self,
        wal: &WalFileInfo,
        location: &str,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// After the attempt; `error` says why the file is still there.
    fn after(&mut self, wal: &WalFileInfo, location: &str, error: Option<&StorageError>);
}

/// Invisible, not durable. Dropping it undoes it.
pub trait StagedWal: Output {
    /// Makes the bytes written so far durable, with the source's modification time, mode and, as
    /// root, owner.
    fn seal(self: Box<Self>, encoding: &Encoding) -> Result<Box<dyn SealedWal>, StorageError>;
}

/// Durable bytes, still invisible. Dropping it undoes it.
pub trait SealedWal: Send {
    /// What xlogdb will say of the file.
    fn info(&self) -> &WalFileInfo;

    /// Whether these are the very bytes of the source, not a copy.
    fn is_shared(&self) -> bool {
        false
    }

    /// Gives the file its final name, unless that is taken.
    fn publish(self: Box<Self>) -> Result<Publication, StorageError>;
}

/// What tells the archive of a server from every other one: what was sent to another store is not in this one.
pub fn archive_location(server: &ServerConfig) -> String {
    let url = match &server.wals_directory {
        WalsDirectory::Local(root) => return root.display().to_string(),
        WalsDirectory::Cloud(url) => url.trim_end_matches('/'),
    };
    let variable = |name| std::env::var(name).ok();
    let endpoint = server.own.cloud.endpoint_url.clone();
    let endpoint = endpoint
        .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
        .or_else(|| variable("AWS_ENDPOINT_URL"));
    let name = &server.name;
    match endpoint {
        Some(endpoint) => format!("{url}/{name} at {endpoint}"),
        None => format!("{url}/{name}"),
    }
}

/// A storage, as xlogdb asks it.
struct Contents<'a>(&'a dyn WalStorageStrategy);

impl ArchiveContents for Contents<'_> {
    fn look_up(&self, name: &WalName) -> Result<Option<WalFileInfo>, Box<dyn Error + Send + Sync>> {
        Ok(self.0.find(name)?.map(|stored| stored.info))
    }

    fn visit_all(
        &self,
        visit: &mut dyn FnMut(WalFileInfo) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.list(&mut |stored| visit(stored.info))
    }
}

/// Writes xlogdb anew from what a storage holds.
pub fn rebuild(
    catalog: &Catalog,
    storage: &dyn WalStorageStrategy,
) -> Result<RebuildCounts, CatalogError> {
    catalog.rebuild(&Contents(storage))
}

/// Passes what is listed to `visit`, see [`Catalog::visit`].
pub fn visit_listed(
    catalog: &Catalog,
    storage: &dyn WalStorageStrategy,
    visit: &mut dyn FnMut(Result<WalFileInfo, InvalidLine>) -> ControlFlow<()>,
) -> Result<(), CatalogError> {
    catalog.visit(&Contents(storage), visit)
}

/// Lists files that are durable in a storage, unless they are listed already.
pub fn add_listed(
    catalog: &Catalog,
    storage: &dyn WalStorageStrategy,
    entries: Vec<Entry>,
) -> Result<(), CatalogError> {
    catalog.append(entries, catalog.state(), &Contents(storage))
}
