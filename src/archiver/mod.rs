//! Where WAL comes from.

mod ahead;
mod direct;
mod errors;
mod file;
mod identity;
mod outcast;
mod queue;
mod receiver_report;
mod report;
mod sent;
mod streaming;

use std::fmt::Debug;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

pub use ahead::ready_after;
pub use direct::Direct;
pub use errors::summarise_errors;
pub use file::File;
pub use identity::{IdentityError, identity_path, pin_identity, system_identifier};
pub use outcast::{Judged, Outcast, OutcastKind, ResolveError, Verdict, outcasts, resolve};
pub use queue::{Backlog, incoming_backlog, move_to_errors, streaming_backlog};
pub use report::{CheckReport, CheckResult, ReceiverFacts, ServerState, StatusLine, StatusReport};
pub use sent::{Fingerprint, Sent};
pub use streaming::Streaming;

use crate::config::ServerConfig;
use crate::observe::{Event, Observer};
use crate::storage::{Archive, SaveReport, SourceKeeper, WalFile};

/// What one run of an archiver may take.
#[derive(Debug, Default)]
pub struct Batch {
    /// Every file that can be archived, in the order in which it should be.
    pub files: Vec<WalFile>,
    /// How many of them this run takes at most.
    pub limit: Option<NonZeroUsize>,
    /// Objects that do not belong into the queue, in order.
    pub strangers: Vec<PathBuf>,
    /// How many objects lie in the queue, hidden ones aside.
    pub listed: usize,
}

impl Batch {
    /// How many files this run means to archive.
    pub fn chosen(&self) -> usize {
        self.limit
            .map_or(self.files.len(), |limit| self.files.len().min(limit.get()))
    }
}

/// A queue of WAL files.
///
/// # Contract
///
/// [`next_batch`](Self::next_batch) reads the queue's directory once and opens no file. It offers
/// only what is complete: never a file that is still being received, and never the one that a
/// receiver needs to find its place again.
pub trait WalArchiver: Debug {
    /// What Barman calls this way of archiving: "file archival" or "streaming".
    fn name(&self) -> &'static str;

    /// What becomes of the queue's files.
    fn keeper(&self) -> &dyn SourceKeeper;

    /// What is there to be archived. A directory that is not there is an empty one.
    fn next_batch(&self) -> io::Result<Batch>;

    /// Moves an object that does not belong into the queue to the errors directory.
    fn set_stranger_aside(&self, path: &Path) -> io::Result<PathBuf>;

    /// Judges what must be so for WAL to arrive this way. Changes nothing, asks nobody: what there is
    /// to know is in `state`.
    fn check(&self, state: &ServerState, report: &mut CheckReport);

    /// Tells how WAL arrives this way.
    fn status(&self, state: &ServerState, report: &mut StatusReport);
}

/// The archivers that a server has configured, in the order in which they run: streaming first, so
/// that what was received twice is a duplicate in `incoming`, where nobody resumes from it.
pub fn archivers(server: &ServerConfig) -> Vec<Box<dyn WalArchiver>> {
    let mut archivers: Vec<Box<dyn WalArchiver>> = Vec::new();
    if server.passive {
        return archivers;
    }
    if server.streaming_archiver {
        archivers.push(Box::new(Streaming::new(server)));
    }
    if server.archiver {
        archivers.push(Box::new(File::new(server)));
    }
    archivers
}

/// Archives one batch and clears the queue of strangers. Failures of single files go to the
/// observer; an error means that the queue cannot be read.
pub fn run(
    archiver: &dyn WalArchiver,
    archive: &Archive<'_>,
    observer: &dyn Observer,
) -> io::Result<SaveReport> {
    let batch = archiver.next_batch()?;
    let chosen = batch.chosen();
    observer.notice(&Event::BatchChosen {
        archiver: archiver.name(),
        listed: batch.listed,
        chosen,
    });
    let mut report = archive.save(&batch.files, batch.limit, archiver.keeper(), observer);
    if chosen == 0 {
        observer.notice(&Event::NothingFound);
    }
    if !batch.strangers.is_empty() && !report.stopped {
        report.failed += set_strangers_aside(archiver, &batch.strangers, observer);
    }
    Ok(report)
}

/// Returns how many could not be moved.
fn set_strangers_aside(
    archiver: &dyn WalArchiver,
    strangers: &[PathBuf],
    observer: &dyn Observer,
) -> usize {
    let names: Vec<String> = strangers
        .iter()
        .map(|path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    observer.notice(&Event::StrangersFound { names: &names });
    let mut failed = 0;
    for path in strangers {
        match archiver.set_stranger_aside(path) {
            // Somebody else took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                observer.notice(&Event::StrangerStays {
                    path,
                    error: &error,
                });
                failed += 1;
            }
            Ok(_) => {}
        }
    }
    failed
}
