//! What makes a group of sealed files part of the archive.
//!
//! The order is the whole point:
//!
//! 1. publish each file under its final name, never replacing one;
//! 2. make those names durable, one synchronisation for the group;
//! 3. list the files in xlogdb, durably;
//! 4. only then remove the sources.
//!
//! Cut off anywhere, a file is whole in its source or whole in the archive. The next run finds
//! what was published but not listed by its content, and takes it up at step 2.

use std::io;
use std::path::PathBuf;

use super::prepare::{Likeness, Prepared};
use super::{Archive, SaveError, SetAside, SourceKeeper, WalFile};
use crate::catalog::{Entry, WalFileInfo};
use crate::durable::Publication;
use crate::storage::{Contents, SealedWal, Source, StorageError, StoredWal};

/// What came of a file.
pub(super) enum FileResult {
    /// It is durable in the archive and listed, and its source has been retired.
    Saved {
        info: WalFileInfo,
        source_size_bytes: u64,
    },
    /// The archive has something else of that name; the source was moved there.
    SetAside { path: PathBuf, reason: String },
    /// It was not archived.
    Failed(SaveError),
    /// It was gone before it could be read.
    Vanished,
}

/// What a group has published so far.
#[derive(Default)]
struct Published<'f> {
    stored: Vec<StoredWal>,
    entries: Vec<Entry>,
    retired: Vec<&'f WalFile>,
}

impl<'f> Published<'f> {
    /// A file that was found may have been listed by the run that published it.
    fn add(&mut self, stored: StoredWal, may_be_listed: bool) {
        self.entries.push(Entry {
            info: stored.info.clone(),
            may_be_listed,
        });
        self.stored.push(stored);
    }
}

impl Archive<'_> {
    /// Commits a group in its order and tells what came of each file.
    ///
    /// The results end with the first failure that stops the run; the files after it stay as they
    /// are, sources untouched.
    pub(super) fn commit<'f>(
        &self,
        group: Vec<(&'f WalFile, Result<Prepared, SaveError>)>,
        keeper: &dyn SourceKeeper,
    ) -> Vec<(&'f WalFile, FileResult)> {
        let mut published = Published::default();
        let mut results = Vec::with_capacity(group.len());
        for (wal, prepared) in group {
            let result = prepared
                .and_then(|prepared| self.publish(wal, prepared, keeper, &mut published))
                .unwrap_or_else(FileResult::Failed);
            let ends = matches!(&result, FileResult::Failed(error) if error.stops_the_run());
            results.push((wal, result));
            if ends {
                break;
            }
        }
        if let Err(error) = self.make_durable(published, keeper) {
            // Every file that this group has published shares the fate; one report is enough.
            let mut error = Some(error);
            results.retain_mut(|(_, result)| match result {
                FileResult::Saved { .. } => match error.take() {
                    Some(error) => {
                        *result = FileResult::Failed(error);
                        true
                    }
                    None => false,
                },
                _ => true,
            });
            // Only files that were found different have been published.
            if let (Some(error), Some((_, result))) = (error, results.last_mut()) {
                *result = FileResult::Failed(error);
            }
        }
        results
    }

    /// Step 1 for one file, and what must happen to one that is not published.
    fn publish<'f>(
        &self,
        wal: &'f WalFile,
        prepared: Prepared,
        keeper: &dyn SourceKeeper,
        published: &mut Published<'f>,
    ) -> Result<FileResult, SaveError> {
        match prepared {
            Prepared::Sealed { sealed, source } => {
                self.publish_sealed(wal, sealed, source, keeper, published)
            }
            Prepared::Found {
                stored,
                likeness,
                source,
            } => self.settle(wal, stored, likeness, &source, keeper, published),
            Prepared::Invalid(fault) => {
                let moved_to = set_aside(wal, SetAside::Invalid, keeper)?;
                Err(SaveError::Invalid {
                    name: wal.name.clone(),
                    fault,
                    moved_to,
                })
            }
            Prepared::Vanished => Ok(FileResult::Vanished),
        }
    }

    fn publish_sealed<'f>(
        &self,
        wal: &'f WalFile,
        sealed: Box<dyn SealedWal>,
        source: Source,
        keeper: &dyn SourceKeeper,
        published: &mut Published<'f>,
    ) -> Result<FileResult, SaveError> {
        let info = sealed.info().clone();
        match sealed.publish()? {
            Publication::Created => {
                let location = self.storage.location(&wal.name);
                let stored = StoredWal {
                    info: info.clone(),
                    location,
                    is_durable: true,
                };
                published.add(stored, false);
                published.retired.push(wal);
                Ok(FileResult::Saved {
                    info,
                    source_size_bytes: source.metadata.len(),
                })
            }
            // Somebody was faster than us since we looked.
            Publication::AlreadyExists => match self.storage.find(&wal.name)? {
                Some(stored) => {
                    let likeness = self.compare(&source, &stored)?;
                    self.settle(wal, stored, likeness, &source, keeper, published)
                }
                None => Err(StorageError {
                    action: "publish",
                    location: self.storage.location(&wal.name),
                    source: io::Error::other("the name was taken, and now it is free again"),
                }
                .into()),
            },
        }
    }

    /// Decides over a source whose name is in the archive already.
    fn settle<'f>(
        &self,
        wal: &'f WalFile,
        stored: StoredWal,
        likeness: Likeness,
        source: &Source,
        keeper: &dyn SourceKeeper,
        published: &mut Published<'f>,
    ) -> Result<FileResult, SaveError> {
        let (info, location) = (stored.info.clone(), stored.location.clone());
        // Whatever it is, it is in the archive, so xlogdb must list it.
        published.add(stored, true);
        if likeness == Likeness::Same {
            published.retired.push(wal);
            return Ok(FileResult::Saved {
                info,
                source_size_bytes: source.metadata.len(),
            });
        }
        let error = SaveError::Different {
            name: wal.name.clone(),
            location,
        };
        match set_aside(wal, SetAside::Duplicate, keeper)? {
            Some(path) => Ok(FileResult::SetAside {
                path,
                reason: error.to_string(),
            }),
            None => Err(error),
        }
    }

    /// Steps 2 to 4.
    fn make_durable(
        &self,
        published: Published<'_>,
        keeper: &dyn SourceKeeper,
    ) -> Result<(), SaveError> {
        let Published {
            stored,
            entries,
            retired,
        } = published;
        if stored.is_empty() {
            return Ok(());
        }
        self.storage.sync(&stored)?;
        self.catalog.append(entries, &Contents(self.storage))?;
        keeper.retire(&retired).map_err(|source| {
            let path = retired
                .first()
                .map(|wal| wal.path.clone())
                .unwrap_or_default();
            SaveError::Retire { path, source }
        })
    }
}

fn set_aside(
    wal: &WalFile,
    reason: SetAside,
    keeper: &dyn SourceKeeper,
) -> Result<Option<PathBuf>, SaveError> {
    keeper
        .set_aside(wal, reason)
        .map_err(|source| SaveError::SetAside {
            path: wal.path.clone(),
            source,
        })
}

impl FileResult {
    /// Whether the file counts towards a batch: it has left the queue.
    pub(super) fn counts(&self) -> bool {
        matches!(self, FileResult::Saved { .. } | FileResult::SetAside { .. })
    }
}
