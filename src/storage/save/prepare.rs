//! What a worker thread does with a file: open, judge, look for a duplicate, encode, seal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::compare::Likeness;
use super::pool::Permits;
use super::{Archive, SaveError, SourceKeeper, WalFile, source_error};
use crate::catalog::WalFileInfo;
use crate::codec::{CodecError, HEAD_SIZE_BYTES};
use crate::durable::{Identity, Publication};
use crate::storage::{Recognition, SealedWal, Source, StorageError, StoredWal};
use crate::wal::{WalFault, WalName, judged_bytes};

/// A file that was changed longer ago than this is not being written any more.
const FRESH_MAX: Duration = Duration::from_secs(10);

/// How long a fresh file that looks wrong is watched for changes, and how often.
const WATCH: Duration = Duration::from_millis(1000);
const WATCH_PAUSE: Duration = Duration::from_millis(50);

/// What came of publishing a sealed file.
pub(super) struct Attempt {
    pub(super) publication: Result<Publication, StorageError>,
    pub(super) info: WalFileInfo,
    /// As [`SealedWal::is_shared`].
    pub(super) is_shared: bool,
}

impl Attempt {
    /// Publishes it now.
    pub(super) fn make(sealed: Box<dyn SealedWal>) -> Self {
        let (info, is_shared) = (sealed.info().clone(), sealed.is_shared());
        Attempt {
            publication: sealed.publish(),
            info,
            is_shared,
        }
    }
}

/// What a worker hands to the committer.
pub(super) enum Prepared {
    /// Durable and invisible, ready to be published.
    Sealed {
        sealed: Box<dyn SealedWal>,
        source: Source,
    },
    /// An attempt to publish it has been made.
    Attempted { attempt: Attempt, source: Source },
    /// The archive has a file of that name already.
    Found {
        stored: StoredWal,
        likeness: Likeness,
        source: Source,
    },
    /// The file cannot be what its name says.
    Invalid { fault: WalFault, source: Source },
    /// The file went away after the queue was read.
    Vanished,
}

/// A source, and its first bytes.
pub(super) struct Opened {
    pub(super) source: Source,
    pub(super) head: Vec<u8>,
}

/// Opens a source and reads how it begins. `None` if it is gone and nobody asked for it by name.
pub(super) fn open(
    wal: &WalFile,
    keeper: &dyn SourceKeeper,
    recognition: &Recognition,
) -> Result<Option<Opened>, SaveError> {
    let recognition = keeper.may_be_compressed().then_some(recognition);
    open_as(wal, keeper.is_ours(), recognition)
}

/// The same; without `recognition` a sender cannot have compressed it.
pub(super) fn open_as(
    wal: &WalFile,
    is_ours: bool,
    recognition: Option<&Recognition>,
) -> Result<Option<Opened>, SaveError> {
    // A pipe under a WAL file's name must not block us.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(&wal.path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_ours => {
            return Ok(None);
        }
        Err(error) => return Err(source_error(&wal.path)(error)),
    };
    let metadata = file.metadata().map_err(source_error(&wal.path))?;
    if !metadata.is_file() {
        let not_a_file = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(source_error(&wal.path)(not_a_file));
    }
    let mut source = Source {
        name: wal.name.clone(),
        path: wal.path.clone(),
        file,
        metadata,
        carried: None,
        is_ours,
    };
    let head = head(&mut source.file, &wal.name).map_err(source_error(&wal.path))?;
    source.carried = recognition.and_then(|recognition| recognition.of_source(&head));
    Ok(Some(Opened { source, head }))
}

/// The first bytes of a file, as many as recognition and validation want to see.
fn head(file: &mut File, name: &WalName) -> io::Result<Vec<u8>> {
    let wanted = HEAD_SIZE_BYTES.max(judged_bytes(name));
    let mut head = Vec::with_capacity(HEAD_SIZE_BYTES);
    file.take(wanted as u64).read_to_end(&mut head)?;
    file.rewind()?;
    Ok(head)
}

impl Archive<'_> {
    /// Takes a file as far as it can go without becoming visible.
    pub(super) fn prepare(
        &self,
        wal: &WalFile,
        permits: &Permits,
        keeper: &dyn SourceKeeper,
    ) -> Result<Prepared, SaveError> {
        let Some(Opened { mut source, head }) = open(wal, keeper, self.recognition)? else {
            return Ok(Prepared::Vanished);
        };
        if let Some(fault) = self.comparison().fault_of(&source, &head) {
            if keeper.is_ours() && is_being_written(&source) {
                tracing::info!("{} is still being written: it stays", wal.path.display());
                return Ok(Prepared::Vanished);
            }
            return Ok(Prepared::Invalid { fault, source });
        }
        let found = match self.storage.must_be_looked_for(&wal.name) {
            true => self.storage.find(&wal.name),
            false => Ok(None),
        };
        match found {
            Ok(None) => {}
            Ok(Some(stored)) => {
                // A run that adopted the file was cut off, and the sender may write to it again.
                self.storage.detach(&source).map_err(|error| {
                    SaveError::archived_copy(&wal.name, error.location, error.source)
                })?;
                let likeness = self.comparison().compare(&source, &stored)?;
                return Ok(Prepared::Found {
                    stored,
                    likeness,
                    source,
                });
            }
            Err(error) => {
                return Err(SaveError::archived_copy(
                    &wal.name,
                    error.location,
                    error.source,
                ));
            }
        }
        let sealed = self.seal(&mut source, permits)?;
        Ok(Prepared::Sealed { sealed, source })
    }

    fn seal(
        &self,
        source: &mut Source,
        permits: &Permits,
    ) -> Result<Box<dyn SealedWal>, SaveError> {
        let carried = source.carried;
        if self.encoder.is_identity(carried)
            && let Some(sealed) = self.storage.adopt(source)?
        {
            return Ok(sealed);
        }
        let mut staged = self.storage.stage(source)?;
        let size_bytes = source.metadata.len();
        let permit = permits.take();
        let encoding = self
            .encoder
            .encode_on_threads(
                permit.threads(),
                &mut source.file,
                size_bytes,
                carried,
                &mut *staged,
            )
            .map_err(|error| match error {
                CodecError::ReadSource(error) => source_error(&source.path)(error),
                CodecError::SourceSize { .. } => {
                    source_error(&source.path)(io::Error::other(error))
                }
                error => SaveError::Codec {
                    path: source.path.clone(),
                    source: error,
                },
            })?;
        drop(permit);
        let now = source.file.metadata().map_err(source_error(&source.path))?;
        if Identity::of(&now) != Identity::of(&source.metadata) {
            let changed = io::Error::other("it changed while it was read");
            return Err(source_error(&source.path)(changed));
        }
        Ok(staged.seal(&encoding)?)
    }
}

/// Whether somebody writes to a file that looks wrong: then it may yet become what it should be.
///
/// Only a file that was changed moments ago is watched, for a moment.
fn is_being_written(source: &Source) -> bool {
    let found = Identity::of(&source.metadata);
    let age = source
        .metadata
        .modified()
        .ok()
        .and_then(|modified| modified.elapsed().ok());
    if age.is_none_or(|age| age > FRESH_MAX) {
        return false;
    }
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        thread::sleep(WATCH_PAUSE);
        if source
            .file
            .metadata()
            .map_or(true, |metadata| Identity::of(&metadata) != found)
        {
            return true;
        }
    }
    false
}
