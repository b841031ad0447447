//! Handing out the files of an archive, each with what xlogdb says of it.

use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, PoisonError};

use super::listed::{self, Differences, Listed};
use super::{Verification, VerifyError};
use crate::catalog::CatalogError;
use crate::wal::WalName;

/// How many files may be under way between the producer and the collector.
const AHEAD_MAX: usize = 256;

/// A file on its way to a worker.
pub(super) struct Job {
    pub(super) number: usize,
    pub(super) name: WalName,
    /// The size that xlogdb says it has; `None` if it is not listed.
    pub(super) listed_size_bytes: Option<u64>,
}

/// Keeps the producer from running away from the collector.
#[derive(Default)]
pub(super) struct Gate {
    collected: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    fn wait_for(&self, number: usize) {
        let collected = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let too_far = |collected: &mut usize| number >= collected.saturating_add(AHEAD_MAX);
        drop(self.changed.wait_while(collected, too_far));
    }

    pub(super) fn open_to(&self, number: usize) {
        *self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = number;
        self.changed.notify_all();
    }
}

struct Producer<'a> {
    verification: &'a Verification<'a>,
    jobs: &'a SyncSender<Job>,
    gate: &'a Gate,
    listed: Listed<'a>,
    differences: Differences,
    /// Names of one directory that were not handed out yet.
    directory: Vec<WalName>,
    number: usize,
}

/// Why no more files are handed out.
enum Halt {
    /// The stop flag was raised, or nobody takes any more.
    Stopped,
    Catalog(CatalogError),
}

/// Hands out all files of the range. Returns how archive and xlogdb differ.
pub(super) fn run(
    verification: &Verification<'_>,
    jobs: &SyncSender<Job>,
    gate: &Gate,
) -> Result<Differences, VerifyError> {
    let mut producer = Producer {
        verification,
        jobs,
        gate,
        listed: Listed::new(verification),
        differences: Differences::default(),
        directory: Vec::new(),
        number: 0,
    };
    let mut halt = None;
    let walked = verification.plain.storage.list_names(&mut |name| {
        producer.take(name).map_err(|why| {
            halt = Some(why);
            io::ErrorKind::Interrupted.into()
        })
    });
    if halt.is_none() && walked.is_ok() {
        halt = producer.finish().err();
    }
    match halt {
        Some(Halt::Stopped) => Ok(Differences::default()),
        Some(Halt::Catalog(error)) => Err(error.into()),
        None => walked
            .map(|()| producer.differences)
            .map_err(VerifyError::Storage),
    }
}

impl Producer<'_> {
    /// Collects the names of one directory, and hands out the one before.
    fn take(&mut self, name: WalName) -> Result<(), Halt> {
        let goes_on = self
            .directory
            .last()
            .is_some_and(|last| last.hash_directory() == name.hash_directory());
        if !goes_on {
            self.flush()?;
        }
        if self.verification.range.contains(&name) {
            self.directory.push(name);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Halt> {
        // Digits may be of either case, and then directories are not in our order.
        self.directory.sort_by_cached_key(listed::key);
        for name in mem::take(&mut self.directory) {
            let listed = self.listed.look_up(&name, &mut self.differences);
            self.gate.wait_for(self.number);
            let job = Job {
                number: self.number,
                name,
                listed_size_bytes: listed.map_err(Halt::Catalog)?,
            };
            self.number += 1;
            if self.verification.stop.load(Ordering::Relaxed) || self.jobs.send(job).is_err() {
                return Err(Halt::Stopped);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Halt> {
        self.flush()?;
        self.listed
            .finish(&mut self.differences)
            .map_err(Halt::Catalog)
    }
}
