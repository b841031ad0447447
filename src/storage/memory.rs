//! A storage without a disk, for tests: it forgets what was not synchronised when it "crashes", and
//! fails where it is told to.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{
    AroundDelete, InFlight, SealedWal, Source, StagedWal, StorageError, StoredWal,
    WalStorageStrategy,
};
use crate::catalog::WalFileInfo;
use crate::codec::{Encoding, Output};
use crate::durable::Publication;
use crate::wal::WalName;

/// Where a failure can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Stage,
    Seal,
    Publish,
    Sync,
}

#[derive(Clone, Debug)]
struct Object {
    info: WalFileInfo,
    bytes: Arc<Vec<u8>>,
    is_durable: bool,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<WalName, Object>,
    staged: usize,
    staged_bytes: u64,
    /// The most files, and the most bytes of sources, that were staged at a time.
    most: (usize, u64),
    in_flight: Option<InFlight>,
    syncs: usize,
    failure: Option<(Step, WalName)>,
}

/// Objects by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From now on, this step fails for this file.
    pub(crate) fn fail_at(&self, step: Step, name: &str) {
        self.lock().failure = Some((step, WalName::parse(name).unwrap()));
    }

    /// Forgets what a power cut would take.
    pub(crate) fn cut_power(&self) {
        self.lock().objects.retain(|_, object| object.is_durable);
    }

    /// Names of what is published, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().objects.keys().map(WalName::to_string).collect()
    }

    /// How many files are staged or sealed at this moment.
    pub(crate) fn staged(&self) -> usize {
        self.lock().staged
    }

    /// From now on, no more than this may be staged.
    pub(crate) fn limit(&self, in_flight: InFlight) {
        self.lock().in_flight = Some(in_flight);
    }

    /// The most files, and the most bytes of sources, that were staged at a time.
    pub(crate) fn most_staged(&self) -> (usize, u64) {
        self.lock().most
    }

    /// How often `sync` was called.
    pub(crate) fn syncs(&self) -> usize {
        self.lock().syncs
    }

    fn check(&self, step: Step, name: &WalName) -> Result<(), StorageError> {
        match &self.lock().failure {
            Some((at, failing)) if (*at, failing) == (step, name) => Err(StorageError {
                action: "pass",
                location: format!("{step:?} of {name}"),
                source: io::ErrorKind::StorageFull.into(),
            }),
            _ => Ok(()),
        }
    }
}

struct Staged {
    memory: Memory,
    info: WalFileInfo,
    source_bytes: u64,
    bytes: Vec<u8>,
}

impl Staged {
    fn new(memory: &Memory, source: &Source) -> Self {
        let info = source.info();
        let mut state = memory.lock();
        state.staged += 1;
        state.staged_bytes += info.size_bytes;
        state.most.0 = state.most.0.max(state.staged);
        state.most.1 = state.most.1.max(state.staged_bytes);
        Staged {
            memory: memory.clone(),
            source_bytes: info.size_bytes,
            info,
            bytes: Vec::new(),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        state.staged -= 1;
        state.staged_bytes -= self.source_bytes;
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Staged {}

impl StagedWal for Staged {
    fn seal(mut self: Box<Self>, encoding: &Encoding) -> Result<Box<dyn SealedWal>, StorageError> {
        self.memory.check(Step::Seal, &self.info.name)?;
        self.info.size_bytes = self.bytes.len() as u64;
        self.info.compression = encoding.compression.map(|codec| codec.name().to_owned());
        self.info.encryption = encoding.encryption.map(|name| name.name().to_owned());
        Ok(self)
    }
}

impl SealedWal for Staged {
    fn info(&self) -> &WalFileInfo {
        &self.info
    }

    fn publish(self: Box<Self>) -> Result<Publication, StorageError> {
        self.memory.check(Step::Publish, &self.info.name)?;
        let mut state = self.memory.lock();
        if state.objects.contains_key(&self.info.name) {
            return Ok(Publication::AlreadyExists);
        }
        let object = Object {
            info: self.info.clone(),
            bytes: Arc::new(self.bytes.clone()),
            is_durable: false,
        };
        state.objects.insert(self.info.name.clone(), object);
        Ok(Publication::Created)
    }
}

struct Bytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl WalStorageStrategy for Memory {
    fn location(&self, name: &WalName) -> String {
        format!("memory:{name}")
    }

    fn in_flight(&self) -> Option<InFlight> {
        self.lock().in_flight
    }

    fn find(&self, name: &WalName) -> Result<Option<StoredWal>, StorageError> {
        Ok(self.lock().objects.get(name).map(|object| StoredWal {
            info: object.info.clone(),
            location: self.location(name),
            is_durable: object.is_durable,
        }))
    }

    fn open(&self, stored: &StoredWal) -> Result<Box<dyn Read + Send>, StorageError> {
        match self.lock().objects.get(&stored.info.name) {
            Some(object) => Ok(Box::new(Cursor::new(Bytes(Arc::clone(&object.bytes))))),
            None => Err(StorageError {
                action: "open",
                location: stored.location.clone(),
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }

    fn stage(&self, source: &Source) -> Result<Box<dyn StagedWal>, StorageError> {
        self.check(Step::Stage, &source.name)?;
        Ok(Box::new(Staged::new(self, source)))
    }

    fn adopt(&self, _source: &Source) -> Result<Option<Box<dyn SealedWal>>, StorageError> {
        Ok(None)
    }

    fn detach(&self, _source: &Source) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn sync(&self, published: &[StoredWal]) -> Result<(), StorageError> {
        for stored in published {
            self.check(Step::Sync, &stored.info.name)?;
        }
        let mut state = self.lock();
        state.syncs += 1;
        for stored in published {
            if let Some(object) = state.objects.get_mut(&stored.info.name) {
                object.is_durable = true;
            }
        }
        Ok(())
    }

    fn list(
        &self,
        visit: &mut dyn FnMut(StoredWal) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.list_names(&mut |name| match self.find(&name) {
            Ok(Some(stored)) => visit(stored),
            Ok(None) => Ok(()),
            Err(error) => Err(error.source),
        })
    }

    fn list_names(
        &self,
        visit: &mut dyn FnMut(WalName) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        // As directories list them: history files by name between the directories of segments.
        let mut names: Vec<WalName> = self.lock().objects.keys().cloned().collect();
        names.sort_by_key(|name| {
            (
                name.hash_directory().unwrap_or(name.to_string()),
                name.clone(),
            )
        });
        for name in names {
            visit(name)?;
        }
        Ok(())
    }

    fn delete(
        &self,
        wals: &[WalFileInfo],
        around: &mut dyn AroundDelete,
    ) -> Result<Vec<WalName>, Box<dyn Error + Send + Sync>> {
        let mut deleted = Vec::new();
        for wal in wals {
            around.before(wal, &self.location(&wal.name))?;
            self.lock().objects.remove(&wal.name);
            around.after(wal, &self.location(&wal.name), None);
            deleted.push(wal.name.clone());
        }
        Ok(deleted)
    }
}
