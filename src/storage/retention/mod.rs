//! Deleting old WAL from an archive.
//!
//! xlogdb goes first: in one durable step it lists nothing any more that is about to be deleted.
//! Cut off anywhere after that, nothing that is listed is missing, and the next run deletes what was
//! left. If the run itself has to stop (a hook refuses, a file cannot be deleted), what is still
//! there is listed again.

mod plan;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

pub use plan::{Plan, Retention};

use super::{AroundDelete, Contents, StorageError, WalStorageStrategy};
use crate::catalog::{Catalog, CatalogError, WalFileInfo};
use crate::hooks::{Hooks, Refusal, Subject, Work};
use crate::observe::{Event, Observer};

/// From this many files on, a batch ends where a directory does, so that whole directories go in
/// one step.
const BATCH_MIN: usize = 1024;

/// No batch is larger than this, to bound memory.
const BATCH_MAX: usize = 16 * BATCH_MIN;

/// An archive from which WAL can be deleted.
///
/// The caller holds the locks that keep archivers and base backups of the server away.
pub struct Deletion<'a> {
    /// Where WAL is.
    pub storage: &'a dyn WalStorageStrategy,
    /// What lists it.
    pub catalog: &'a Catalog,
    /// Scripts around each file.
    pub hooks: &'a Hooks<'a>,
    /// When this becomes true, files that are not deleted yet stay.
    pub stop: &'a AtomicBool,
    /// Is told of each file.
    pub observer: &'a dyn Observer,
}

/// What a deletion came to.
#[derive(Debug, Default)]
pub struct DeletionReport {
    /// Files that are gone, for good.
    pub files: u64,
    /// Their stored size together.
    pub size_bytes: u64,
    /// Files that could not be deleted; each was reported to the observer.
    pub failed: u64,
    /// Why files were left, if a hook or a request to stop made us.
    pub refusal: Option<Refusal>,
}

/// Why WAL could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeletionError {
    /// xlogdb could not be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The storage does not tell what it holds.
    #[error("no WAL was deleted: cannot list the archive: {0}")]
    List(Box<dyn Error + Send + Sync>),
    /// The storage failed.
    #[error("cannot delete from the archive: {0}")]
    Storage(Box<dyn Error + Send + Sync>),
}

impl Deletion<'_> {
    /// Deletes what the plan takes, and what an earlier run of such a plan left behind.
    pub fn run(&self, plan: &Plan) -> Result<DeletionReport, DeletionError> {
        let contents = Contents(self.storage);
        let takes = |info: &WalFileInfo| plan.takes(&info.name);
        let mut around = Around {
            deletion: self,
            has_hooks: self.hooks.any(Work::WalDelete),
            report: DeletionReport::default(),
        };
        if plan.files > 0 {
            let removed = self.catalog.remove(&contents, &takes)?;
            let deleted = around.delete_all(&mut |pass| {
                removed
                    .visit(&mut |info| match takes(&info) {
                        true => pass(info),
                        false => ControlFlow::Continue(()),
                    })
                    .map_err(Into::into)
            });
            if deleted.is_err() || !around.is_undisturbed() {
                // What cannot even be looked at is there.
                let is_there =
                    |info: &WalFileInfo| !matches!(self.storage.find(&info.name), Ok(None));
                self.catalog.put_back(&removed, &takes, &is_there)?;
            }
            deleted.map_err(DeletionError::Storage)?;
        }
        if around.is_undisturbed() {
            self.delete_unlisted(plan, &mut around)
                .map_err(DeletionError::Storage)?;
        }
        Ok(around.report)
    }

    /// xlogdb lists nothing any more that the plan takes: whatever is there was left by a run that
    /// was cut off.
    fn delete_unlisted(
        &self,
        plan: &Plan,
        around: &mut Around<'_>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        around.delete_all(&mut |pass| {
            self.storage.list_names(&mut |name| {
                if !plan.takes(&name) {
                    return Ok(());
                }
                let found = self.storage.find(&name).map_err(|error| error.source)?;
                match found.map(|stored| pass(stored.info)) {
                    Some(ControlFlow::Break(())) => Err(io::ErrorKind::Interrupted.into()),
                    _ => Ok(()),
                }
            })
        })
    }
}

/// Passes files to its argument until that breaks off.
type Files<'f> = dyn FnMut(
        &mut dyn FnMut(WalFileInfo) -> ControlFlow<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>>
    + 'f;

/// Runs the hooks around each file, and counts.
struct Around<'a> {
    deletion: &'a Deletion<'a>,
    has_hooks: bool,
    report: DeletionReport,
}

impl Around<'_> {
    fn is_undisturbed(&self) -> bool {
        self.report.failed == 0 && self.report.refusal.is_none()
    }

    /// Deletes all files in batches, until one of them is refused.
    fn delete_all(&mut self, files: &mut Files<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut batch: Vec<WalFileInfo> = Vec::new();
        let mut failure = None;
        let passed = files(&mut |info| {
            let directory = |info: &WalFileInfo| info.name.hash_directory();
            let goes_on = batch
                .last()
                .is_some_and(|last| directory(last) == directory(&info));
            if batch.len() >= BATCH_MAX || (batch.len() >= BATCH_MIN && !goes_on) {
                failure = self.delete_batch(&mem::take(&mut batch)).err();
            }
            batch.push(info);
            match failure.is_some() || self.report.refusal.is_some() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        if self.report.refusal.is_some() {
            return Ok(());
        }
        passed?;
        self.delete_batch(&batch)
    }

    fn delete_batch(&mut self, batch: &[WalFileInfo]) -> Result<(), Box<dyn Error + Send + Sync>> {
        let storage = self.deletion.storage;
        match storage.delete(batch, self) {
            // Said by ourselves.
            Err(_) if self.report.refusal.is_some() => Ok(()),
            other => other.map(drop),
        }
    }
}

impl AroundDelete for Around<'_> {
    fn before(
        &mut self,
        wal: &WalFileInfo,
        location: &str,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let refusal = if self.deletion.stop.load(Ordering::Relaxed) {
            Err(Refusal::Stopped)
        } else if self.has_hooks {
            let subject = subject(wal, location, String::new());
            self.deletion.hooks.before(Work::WalDelete, &subject)
        } else {
            Ok(())
        };
        refusal.map_err(|refusal| {
            let text = refusal.to_string();
            self.report.refusal = Some(refusal);
            text.into()
        })
    }

    fn after(&mut self, wal: &WalFileInfo, location: &str, error: Option<&StorageError>) {
        match error {
            None => {
                self.report.files += 1;
                self.report.size_bytes += wal.size_bytes;
            }
            Some(_) => self.report.failed += 1,
        }
        if self.has_hooks {
            let error = error.map_or(String::new(), ToString::to_string);
            let subject = subject(wal, location, error);
            self.deletion.hooks.after(Work::WalDelete, &subject);
        }
        let name = &wal.name;
        self.deletion.observer.notice(&match error {
            None => Event::Deleted { info: wal },
            Some(error) => Event::NotDeleted { name, error },
        });
    }
}

fn subject(wal: &WalFileInfo, location: &str, error: String) -> Subject {
    Subject {
        info: wal.clone(),
        location: location.to_owned(),
        error,
    }
}
