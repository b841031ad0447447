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
use std::thread::{self, ScopedJoinHandle};

use super::compare::Likeness;
use super::prepare::{Attempt, Prepared};
use super::{Archive, SaveError, SetAside, SourceKeeper, WalFile, source_error};
use crate::catalog::{CatalogState, Entry, WalFileInfo};
use crate::durable::{Identity, Publication, Revision};
use crate::storage::{Contents, Source, StorageError, StoredWal};

/// What came of a file.
pub(super) enum FileResult {
    /// It is durable in the archive and listed, and its source is gone.
    Saved {
        info: WalFileInfo,
        source_size_bytes: u64,
    },
    /// The archive has something else of that name; the source was moved there.
    SetAside { path: PathBuf, reason: String },
    /// It was not archived, or its source could not be removed.
    Failed(SaveError),
    /// It was gone, or another file had its name, before it could be taken out of the queue.
    Vanished,
}

impl FileResult {
    /// Whether the file counts towards a batch: it has left the queue.
    pub(super) fn counts(&self) -> bool {
        matches!(self, FileResult::Saved { .. } | FileResult::SetAside { .. })
    }
}

/// A file, as far as a worker could take it.
type Candidate<'f> = (&'f WalFile, Result<Prepared, SaveError>);

/// A candidate whose publication may be under way.
enum Begun<'s> {
    Attempt(io::Result<ScopedJoinHandle<'s, Attempt>>, Source),
    Other(Result<Prepared, SaveError>),
}

/// A source whose content is in the archive.
struct Done<'f> {
    wal: &'f WalFile,
    source: Source,
    info: WalFileInfo,
    /// The revision at which the archive took over the source's very bytes, if it did.
    adopted_at: Option<Revision>,
}

/// What became of a file in step 1.
enum Published<'f> {
    /// It is in the archive, and steps 2 to 4 wait for it.
    Done(Box<Done<'f>>),
    /// Nothing more is to be done for it.
    Decided(FileResult),
}

/// A group between step 1 and step 2.
struct Group {
    /// What xlogdb was before the first file was published.
    catalog: CatalogState,
    stored: Vec<StoredWal>,
    entries: Vec<Entry>,
}

impl Group {
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
    /// After a failure that stops the run, the files behind it stay as they are, sources untouched,
    /// and have no result; what was committed before it has.
    pub(super) fn commit<'f>(
        &self,
        files: Vec<Candidate<'f>>,
        keeper: &dyn SourceKeeper,
    ) -> Vec<(&'f WalFile, FileResult)> {
        let mut group = Group {
            catalog: self.catalog.state(),
            stored: Vec::new(),
            entries: Vec::new(),
        };
        let mut published = Vec::with_capacity(files.len());
        for (wal, prepared) in self.publish_together(files) {
            let outcome = prepared
                .and_then(|prepared| self.publish(wal, prepared, keeper, &mut group))
                .unwrap_or_else(|error| Published::Decided(FileResult::Failed(error)));
            let ends = matches!(
                &outcome,
                Published::Decided(FileResult::Failed(error)) if error.stops_the_run()
            );
            published.push((wal, outcome));
            if ends {
                break;
            }
        }
        match self.make_durable(group) {
            Ok(()) => self.retire(published, keeper),
            Err(error) => undo(published, error),
        }
    }

    /// Publishes what is sealed at the same time, where the storage wants that. A file behind one that fails
    /// may then be in the archive without being listed, as after a crash: the next run takes it up.
    fn publish_together<'f>(&self, files: Vec<Candidate<'f>>) -> Vec<Candidate<'f>> {
        if self.storage.in_flight().is_none() || files.len() < 2 {
            return files;
        }
        thread::scope(|scope| {
            let begun: Vec<_> = files
                .into_iter()
                .map(|(wal, prepared)| match prepared {
                    Ok(Prepared::Sealed { sealed, source }) => {
                        let publish = move || Attempt::make(sealed);
                        let attempt = thread::Builder::new().spawn_scoped(scope, publish);
                        (wal, Begun::Attempt(attempt, source))
                    }
                    other => (wal, Begun::Other(other)),
                })
                .collect();
            begun
                .into_iter()
                .map(|(wal, begun)| match begun {
                    Begun::Other(prepared) => (wal, prepared),
                    Begun::Attempt(thread, source) => {
                        let attempt = thread.and_then(|thread| {
                            let panicked = |_| io::Error::other("it panicked");
                            thread.join().map_err(panicked)
                        });
                        let attempted = attempt
                            .map(|attempt| Prepared::Attempted { attempt, source })
                            .map_err(|error| self.unpublished(wal, error));
                        (wal, attempted)
                    }
                })
                .collect()
        })
    }

    fn unpublished(&self, wal: &WalFile, source: io::Error) -> SaveError {
        let location = self.storage.location(&wal.name);
        SaveError::from(StorageError {
            action: "publish",
            location,
            source,
        })
    }

    /// Step 1 for one file, and what must happen to one that is not published.
    fn publish<'f>(
        &self,
        wal: &'f WalFile,
        prepared: Prepared,
        keeper: &dyn SourceKeeper,
        group: &mut Group,
    ) -> Result<Published<'f>, SaveError> {
        match prepared {
            Prepared::Sealed { sealed, source } => {
                self.take_up(wal, Attempt::make(sealed), source, keeper, group)
            }
            Prepared::Attempted { attempt, source } => {
                self.take_up(wal, attempt, source, keeper, group)
            }
            Prepared::Found {
                stored,
                likeness,
                source,
            } => self.settle(wal, stored, likeness, source, keeper, group),
            Prepared::Invalid { fault, source } => {
                match set_aside(wal, &source, SetAside::Invalid, keeper)? {
                    Aside::Changed => Ok(Published::Decided(FileResult::Vanished)),
                    Aside::Stays => Err(SaveError::Invalid {
                        name: wal.name.clone(),
                        fault,
                        moved_to: None,
                    }),
                    Aside::Moved(path) => {
                        let moved_to = Some(path);
                        Err(SaveError::Invalid {
                            name: wal.name.clone(),
                            fault,
                            moved_to,
                        })
                    }
                }
            }
            Prepared::Vanished => Ok(Published::Decided(FileResult::Vanished)),
        }
    }

    /// What follows from an attempt to publish.
    fn take_up<'f>(
        &self,
        wal: &'f WalFile,
        attempt: Attempt,
        source: Source,
        keeper: &dyn SourceKeeper,
        group: &mut Group,
    ) -> Result<Published<'f>, SaveError> {
        let Attempt {
            publication,
            info,
            is_shared,
        } = attempt;
        let location = self.storage.location(&wal.name);
        if publication? == Publication::Created {
            let stored = StoredWal {
                info: info.clone(),
                location,
                is_durable: true,
            };
            group.add(stored, false);
            let adopted_at = match is_shared {
                true => Some(Revision::of(&source.file).map_err(source_error(&source.path))?),
                false => None,
            };
            return Ok(Published::Done(Box::new(Done {
                wal,
                source,
                info,
                adopted_at,
            })));
        }
        // Somebody was faster than us since we looked, or it is something that cannot be read.
        match self.storage.find(&wal.name) {
            Ok(Some(stored)) => {
                let likeness = self.comparison().compare(&source, &stored)?;
                self.settle(wal, stored, likeness, source, keeper, group)
            }
            Ok(None) => {
                let error = io::Error::other("the name is taken, but there is no file");
                Err(SaveError::archived_copy(&wal.name, location, error))
            }
            Err(error) => Err(SaveError::archived_copy(&wal.name, location, error.source)),
        }
    }

    /// Decides over a source whose name is in the archive already.
    fn settle<'f>(
        &self,
        wal: &'f WalFile,
        stored: StoredWal,
        likeness: Likeness,
        source: Source,
        keeper: &dyn SourceKeeper,
        group: &mut Group,
    ) -> Result<Published<'f>, SaveError> {
        let (info, location) = (stored.info.clone(), stored.location.clone());
        // Whatever it is, it is in the archive, so xlogdb must list it.
        group.add(stored, true);
        let name = wal.name.clone();
        let error = match likeness {
            Likeness::Same => {
                return Ok(Published::Done(Box::new(Done {
                    wal,
                    source,
                    info,
                    adopted_at: None,
                })));
            }
            Likeness::Different => SaveError::Different { name, location },
            Likeness::Unknown => SaveError::Incomparable { name, location },
        };
        match set_aside(wal, &source, SetAside::Duplicate, keeper)? {
            Aside::Moved(path) => {
                let reason = error.to_string();
                Ok(Published::Decided(FileResult::SetAside { path, reason }))
            }
            Aside::Changed => Ok(Published::Decided(FileResult::Vanished)),
            Aside::Stays => Err(error),
        }
    }

    /// Steps 2 and 3.
    fn make_durable(&self, group: Group) -> Result<(), SaveError> {
        if group.stored.is_empty() {
            return Ok(());
        }
        self.storage.sync(&group.stored)?;
        Ok(self
            .catalog
            .append(group.entries, group.catalog, &Contents(self.storage))?)
    }
}

impl Archive<'_> {
    /// Step 4: takes the sources away, each by itself, so that one that cannot go does not keep others.
    fn retire<'f>(
        &self,
        published: Vec<(&'f WalFile, Published<'f>)>,
        keeper: &dyn SourceKeeper,
    ) -> Vec<(&'f WalFile, FileResult)> {
        let mut removed = false;
        let mut results: Vec<(&WalFile, FileResult)> = published
            .into_iter()
            .map(|(wal, outcome)| {
                let result = match outcome {
                    Published::Decided(result) => result,
                    Published::Done(done) => self.retire_one(*done, keeper, &mut removed),
                };
                (wal, result)
            })
            .collect();
        if removed
            && let Err(source) = keeper.sync()
            && let Some((wal, _)) = results.last()
        {
            let (wal, path) = (*wal, wal.path.clone());
            results.push((wal, FileResult::Failed(SaveError::Retire { path, source })));
        }
        results
    }

    fn retire_one(
        &self,
        done: Done<'_>,
        keeper: &dyn SourceKeeper,
        removed: &mut bool,
    ) -> FileResult {
        let path = done.wal.path.clone();
        if done.adopted_at.is_some_and(|at| is_rewritten(&done, at)) {
            return FileResult::Failed(SaveError::Rewritten { path });
        }
        match remove(done.wal, &done.source, keeper) {
            Ok(()) => {
                *removed = true;
                FileResult::Saved {
                    info: done.info,
                    source_size_bytes: done.source.metadata.len(),
                }
            }
            Err(source) => {
                // It stays for who knows how long: nothing that is written to it may reach the archive.
                match self.storage.detach(&done.source) {
                    Ok(_) => FileResult::Failed(SaveError::Retire { path, source }),
                    Err(error) => FileResult::Failed(error.into()),
                }
            }
        }
    }
}

/// Whether somebody wrote to an adopted source, and so to the archive. A file that has lost its name to another one
/// shows a new revision for that alone.
fn is_rewritten(done: &Done<'_>, adopted_at: Revision) -> bool {
    let adopted = Identity::of(&done.source.metadata);
    let revision = Revision::of(&done.source.file).ok();
    let metadata = done.source.file.metadata().ok();
    let is_as_it_was = metadata.is_some_and(|now| Identity::of(&now) == adopted);
    let has_lost_its_name = !adopted.same_file(&done.wal.path);
    !is_as_it_was || (revision != Some(adopted_at) && !has_lost_its_name)
}

/// Removes a source, unless its name stands for something else by now: a sender that tries again
/// may have replaced it, and the next run will see to that file.
fn remove(wal: &WalFile, source: &Source, keeper: &dyn SourceKeeper) -> io::Result<()> {
    if !keeper.is_ours() || Identity::of(&source.metadata).is_at(&wal.path) {
        return keeper.remove(wal);
    }
    tracing::info!(
        "{} has been replaced since it was archived: it stays",
        wal.path.display()
    );
    Ok(())
}

/// After steps 2 or 3 have failed: every file that waited for them shares the fate, and one report
/// is enough.
fn undo<'f>(
    published: Vec<(&'f WalFile, Published<'f>)>,
    error: SaveError,
) -> Vec<(&'f WalFile, FileResult)> {
    let last = published.last().map(|(wal, _)| *wal);
    let mut error = Some(error);
    let mut results: Vec<(&WalFile, FileResult)> = Vec::new();
    for (wal, outcome) in published {
        match outcome {
            Published::Decided(result) => results.push((wal, result)),
            Published::Done(_) => {
                results.extend(error.take().map(|error| (wal, FileResult::Failed(error))));
            }
        }
    }
    // Or only files that were set aside have a copy in the archive.
    results.extend(
        error
            .zip(last)
            .map(|(error, wal)| (wal, FileResult::Failed(error))),
    );
    results
}

/// What came of an attempt to take a file out of the queue.
enum Aside {
    Moved(PathBuf),
    Stays,
    Changed,
}

fn set_aside(
    wal: &WalFile,
    source: &Source,
    reason: SetAside,
    keeper: &dyn SourceKeeper,
) -> Result<Aside, SaveError> {
    if keeper.is_ours() && !Identity::of(&source.metadata).is_at(&wal.path) {
        return Ok(Aside::Changed);
    }
    match keeper.set_aside(wal, reason) {
        Ok(Some(path)) => Ok(Aside::Moved(path)),
        Ok(None) => Ok(Aside::Stays),
        Err(source) => Err(SaveError::SetAside {
            path: wal.path.clone(),
            source,
        }),
    }
}
