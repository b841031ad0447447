//! The save pipeline: from a queue of files to durable, listed archive entries.
//!
//! Worker threads stage files in any order; one committer publishes them strictly in the order of
//! the queue. The steps of a commit, and why they come in this order, are in `commit`.

mod commit;
mod compare;
mod error;
mod pool;
mod prepare;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Recognition, WalStorageStrategy};
use crate::catalog::Catalog;
use crate::codec::{Decoder, Encoder};
use crate::hooks::{Hooks, Refusal, Subject, Work};
use crate::observe::{Event, Observer};
use crate::wal::WalName;
use commit::FileResult;
pub use compare::{Comparison, Difference, Likeness};
pub use error::SaveError;
use error::source_error;
use pool::Permits;

/// A command that fails this often in a row fails for a reason that is not in the file.
const FAILED_COMMANDS_MAX: usize = 3;

/// A file that waits to be archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalFile {
    /// Its name.
    pub name: WalName,
    /// Where it is.
    pub path: PathBuf,
}

/// Why a file is taken out of the queue without being archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// The archive holds different content under its name, or content that cannot be compared.
    Duplicate,
    /// It cannot be the segment that its name promises.
    Invalid,
}

impl SetAside {
    /// The last part of the name in the errors directory.
    pub fn suffix(self) -> &'static str {
        match self {
            SetAside::Duplicate => "duplicate",
            SetAside::Invalid => "invalid",
        }
    }
}

/// Knows what becomes of sources.
///
/// # Threads
///
/// Called on the committing thread, but for the two questions, which workers ask.
pub trait SourceKeeper: Debug + Sync {
    /// Whether the sources are ours to give away; if not, they are only ever read.
    fn is_ours(&self) -> bool;

    /// Whether a sender may have compressed the files.
    fn may_be_compressed(&self) -> bool;

    /// Removes a source that is durable in the archive. The caller has made sure that the name
    /// still stands for what was archived.
    fn remove(&self, wal: &WalFile) -> io::Result<()>;

    /// Makes the removals durable, one step for all of them.
    fn sync(&self) -> io::Result<()>;

    /// Takes a file out of the queue, durably and never overwriting anything, and returns where it
    /// is now; `None` if it stays where it was.
    fn set_aside(&self, wal: &WalFile, reason: SetAside) -> io::Result<Option<PathBuf>>;
}

/// What a call of [`Archive::save`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveReport {
    /// Files that are now durable, listed and gone from their source.
    pub archived: usize,
    /// Files, or what came after them, that failed; each was reported to the observer.
    pub failed: usize,
    /// A pre hook asked to stop, or the stop flag was raised: files may be left in the queue.
    pub stopped: bool,
}

/// An archive, ready to take files in.
pub struct Archive<'a> {
    /// Where WAL goes.
    pub storage: &'a dyn WalStorageStrategy,
    /// What lists it.
    pub catalog: &'a Catalog,
    /// What it is wrapped in.
    pub encoder: &'a Encoder,
    /// Undoes wrappings, to compare.
    pub decoder: &'a Decoder,
    /// Scripts around each file.
    pub hooks: &'a Hooks<'a>,
    /// Whether raw segments are checked first, and against which system identifier.
    pub validation: Option<Validation>,
    /// Tells which codec a file carries.
    pub recognition: &'a Recognition,
    /// How many files are encoded at a time, and how many threads one that goes alone may use.
    pub jobs: NonZeroUsize,
    /// When this becomes true, files that are not staged yet stay in the queue.
    pub stop: &'a AtomicBool,
}

/// What raw segments are checked against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validation {
    /// The cluster that the server belongs to, if the home knows it.
    pub system_identifier: Option<u64>,
}

impl Archive<'_> {
    fn comparison(&self) -> Comparison<'_> {
        Comparison {
            storage: self.storage,
            decoder: self.decoder,
            recognition: self.recognition,
            validation: self.validation,
        }
    }

    /// Archives `files` in their order, at most `limit` of them; a file that fails does not count.
    ///
    /// Every failure goes to the observer. A failure that concerns one file alone leaves that file
    /// and goes on; any other one ends the call, with everything before it committed.
    pub fn save(
        &self,
        files: &[WalFile],
        limit: Option<NonZeroUsize>,
        keeper: &dyn SourceKeeper,
        observer: &dyn Observer,
    ) -> SaveReport {
        self.storage.begin();
        let report = SaveReport::default();
        let mut run = Run {
            keeper,
            observer,
            number: 0,
            failed_commands: 0,
            report,
        };
        let in_parallel = files.len() > 1
            && !self.hooks.any(Work::Archive)
            && self.save_in_parallel(files, limit, &mut run);
        if !in_parallel {
            self.save_one_by_one(files, limit, &mut run);
        }
        run.report
    }

    /// One file at a time: pre hooks, then the file is read, committed, then post hooks, as far as
    /// there are any.
    fn save_one_by_one(&self, files: &[WalFile], limit: Option<NonZeroUsize>, run: &mut Run<'_>) {
        for wal in files {
            let reached = limit.is_some_and(|limit| run.number - run.report.failed >= limit.get());
            if reached || self.stop.load(Ordering::Relaxed) {
                run.report.stopped |= !reached;
                return;
            }
            // What the hook is told must come from before it runs; what is archived, from after.
            let before = match prepare::open(wal, run.keeper, self.recognition) {
                Ok(Some(opened)) => opened.source.info(),
                Ok(None) => continue,
                Err(error) => {
                    run.result(wal, FileResult::Failed(error));
                    continue;
                }
            };
            run.begin(wal);
            let location = wal.path.display().to_string();
            let mut subject = Subject {
                info: before,
                location,
                error: String::new(),
            };
            let refusal = self.hooks.before(Work::Archive, &subject).err();
            if self.storage.is_on_this_host() {
                subject.location = self.storage.location(&wal.name);
            }
            if let Some(refusal) = refusal {
                subject.error = refusal.to_string();
                self.hooks.after(Work::Archive, &subject);
                run.report.stopped = true;
                if matches!(refusal, Refusal::Aborted { .. }) {
                    let reason = subject.error.as_str();
                    run.observer.notice(&Event::AbortedByHook {
                        name: &wal.name,
                        reason,
                    });
                }
                return;
            }
            let result = self.save_one(wal, run);
            match &result {
                FileResult::Saved { info, .. } => subject.info = info.clone(),
                FileResult::SetAside { reason, .. } => subject.error.clone_from(reason),
                FileResult::Failed(error) => subject.error = error.to_string(),
                FileResult::Vanished => subject.error = "the file vanished".to_owned(),
            }
            self.hooks.after(Work::Archive, &subject);
            if run.finish(wal, result) {
                return;
            }
        }
    }

    fn save_one(&self, wal: &WalFile, run: &Run<'_>) -> FileResult {
        match self.prepare(wal, &Permits::for_one(self.jobs), run.keeper) {
            Ok(prepared) => self
                .commit(vec![(wal, Ok(prepared))], run.keeper)
                .pop()
                .map_or(FileResult::Vanished, |(_, result)| result),
            Err(error) => FileResult::Failed(error),
        }
    }
}

/// The state of one call of [`Archive::save`], on the committing thread.
struct Run<'a> {
    keeper: &'a dyn SourceKeeper,
    observer: &'a dyn Observer,
    /// How many files have been begun.
    number: usize,
    /// How many files in a row an external command could not encode.
    failed_commands: usize,
    report: SaveReport,
}

impl Run<'_> {
    fn begin(&mut self, wal: &WalFile) {
        self.number += 1;
        self.observer.notice(&Event::Archiving {
            number: self.number,
            name: &wal.name,
        });
    }

    /// Begins and finishes a file; true if the run must end.
    fn result(&mut self, wal: &WalFile, result: FileResult) -> bool {
        if !matches!(result, FileResult::Vanished) {
            self.begin(wal);
        }
        self.finish(wal, result)
    }

    /// Counts and reports what came of a file that was begun; true if the run must end.
    fn finish(&mut self, wal: &WalFile, result: FileResult) -> bool {
        let name = &wal.name;
        match result {
            FileResult::Saved {
                source_size_bytes, ..
            } => {
                self.failed_commands = 0;
                self.report.archived += 1;
                self.observer.notice(&Event::Archived {
                    name,
                    source_size_bytes,
                });
                false
            }
            FileResult::SetAside { path, .. } => {
                self.observer
                    .notice(&Event::DuplicateSetAside { name, path: &path });
                false
            }
            FileResult::Vanished => {
                tracing::debug!("{} is not there to be archived", wal.path.display());
                false
            }
            FileResult::Failed(error) => {
                self.report.failed += 1;
                self.failed_commands += usize::from(matches!(error, SaveError::Codec { .. }));
                self.observer.notice(&Event::Failed {
                    name,
                    error: &error,
                });
                error.stops_the_run() || self.failed_commands >= FAILED_COMMANDS_MAX
            }
        }
    }
}
