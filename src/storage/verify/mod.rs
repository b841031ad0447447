//! Reading a whole archive to see whether it could be restored.
//!
//! ```text
//! producer      names from the storage, in order, each with what xlogdb says of it
//! workers       find, decode to the end, check pages and size; all cores
//! collector     results in order -> problems as they are found, segments into a coverage -> gaps;
//!               what only a history can explain waits for the histories
//! ```
//!
//! No lock is held: archiving and deleting go on. What looks wrong because of them is looked at
//! again at the end.

mod ends;
mod file;
mod listed;
mod problem;
mod produce;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

pub use problem::Problem;

use super::{Contents, PlainWal, first_header, segment_size};
use crate::catalog::{Catalog, CatalogError};
use crate::wal::{Coverage, WalName, WalRange};
use ends::TimelineEnds;
use file::{Cluster, Verified};
use listed::Differences;
use produce::{Gate, Job};

/// How many files that xlogdb and the archive do not agree on are looked at again. Others that are in the archive are
/// reported as they are; others that are not, by their number.
const DOUBTS_MAX: usize = 10_000;

/// An archive that can be verified.
pub struct Verification<'a> {
    /// How to read it.
    pub plain: PlainWal<'a>,
    /// What lists it.
    pub catalog: &'a Catalog,
    /// The cluster that the WAL comes from, if it is known. Otherwise the first segment tells.
    pub system_identifier: Option<u64>,
    /// Whether a segment must begin as PostgreSQL begins one. Otherwise one that does not is only decoded.
    pub validates: bool,
    /// Which part to read.
    pub range: WalRange,
    /// How many files are read at a time.
    pub jobs: NonZeroUsize,
    /// When this becomes true, no further files are read.
    pub stop: &'a AtomicBool,
}

/// What a verification tells while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A file was read.
    File {
        /// Its size as it is stored.
        stored_size_bytes: u64,
    },
    /// Something is wrong.
    Found(&'a Problem),
}

/// What was verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifySummary {
    /// Files that were read.
    pub files: u64,
    /// Their size as they are stored.
    pub stored_size_bytes: u64,
    /// The size of the WAL in them.
    pub wal_size_bytes: u64,
    /// Complete segments that may be good, but do not begin as PostgreSQL 10 to 18 on a little-endian machine
    /// writes them: their pages say nothing to us.
    pub unjudged: u64,
    /// Problems that were reported.
    pub problems: u64,
    /// The stop flag was raised before the end.
    pub stopped: bool,
}

/// Why an archive could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// xlogdb could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive could not be listed.
    #[error("cannot list the archive: {0}")]
    Storage(Box<dyn Error + Send + Sync>),
}

/// Lets the producer go on, and so end, when the collector ends for any reason.
struct OpenOnDrop<'a>(&'a Gate);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.open_to(usize::MAX);
    }
}

/// What is known at the end.
struct Collected {
    summary: VerifySummary,
    coverage: Coverage,
    doubts: BTreeSet<WalName>,
    ends: TimelineEnds,
}

impl Verification<'_> {
    /// Reads everything in the range and tells `notice` what is wrong, in the order of the files,
    /// then what is missing.
    pub fn run(&self, notice: &mut dyn FnMut(&Progress<'_>)) -> Result<VerifySummary, VerifyError> {
        let header = first_header(&self.plain, self.catalog)?;
        let said = header.map(|header| header.system_identifier);
        let cluster = Cluster {
            system_identifier: self.system_identifier.or(said),
            segment_size_bytes: header.map(|header| header.segment_size_bytes.into()),
            has_pages_of_its_own: !self.validates,
        };
        let coverage = Coverage::new(segment_size(&self.plain, self.catalog)?);
        let gate = Gate::default();
        let (mut collected, listing) = thread::scope(|scope| {
            let (jobs, waiting) = mpsc::sync_channel::<Job>(self.jobs.get());
            let (results, verified) = mpsc::channel();
            let waiting = Arc::new(Mutex::new(waiting));
            let gate = &gate;
            for _ in 0..self.jobs.get() {
                let (waiting, results) = (Arc::clone(&waiting), results.clone());
                scope.spawn(move || self.work(&waiting, cluster, &results));
            }
            // Without workers nobody may wait for them.
            drop((waiting, results));
            let producer = scope.spawn(move || produce::run(self, &jobs, gate));
            let _open = OpenOnDrop(gate);
            let collected = self.collect(coverage, &verified, gate, notice);
            let listing = producer.join();
            (collected, listing)
        });
        self.settle_ends(&mut collected, notice);
        let differences = match listing {
            Ok(listing) => listing?,
            Err(_) => {
                let panicked = io::Error::other("the thread that lists it has failed");
                return Err(VerifyError::Storage(panicked.into()));
            }
        };
        if !collected.summary.stopped {
            self.settle(&mut collected, differences, notice)?;
            self.find_misplaced(&mut collected, notice)?;
            self.find_gaps(&mut collected, notice);
        }
        Ok(collected.summary)
    }

    fn work(
        &self,
        waiting: &Mutex<Receiver<Job>>,
        cluster: Cluster,
        results: &Sender<(usize, Option<Verified>)>,
    ) {
        let mut buffer = file::buffer();
        loop {
            let job = waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv();
            let Ok(job) = job else { return };
            let number = job.number;
            let verified = file::verify(&self.plain, &job, cluster, &mut buffer);
            if results.send((number, verified)).is_err() {
                return;
            }
        }
    }

    fn collect(
        &self,
        coverage: Coverage,
        verified: &Receiver<(usize, Option<Verified>)>,
        gate: &Gate,
        notice: &mut dyn FnMut(&Progress<'_>),
    ) -> Collected {
        let mut collected = Collected {
            summary: VerifySummary::default(),
            coverage,
            doubts: BTreeSet::new(),
            ends: TimelineEnds::default(),
        };
        let mut early: BTreeMap<usize, Option<Verified>> = BTreeMap::new();
        let mut next = 0;
        for (number, result) in verified {
            early.insert(number, result);
            while let Some(result) = early.remove(&next) {
                next += 1;
                if let Some(verified) = result {
                    collected.add(verified, notice);
                }
            }
            gate.open_to(next);
        }
        collected.summary.stopped = self.stop.load(Ordering::Relaxed);
        collected
    }

    /// Asks archive and xlogdb once more about what was odd: what was archived or deleted meanwhile is in order, and
    /// so is a line that was just being written.
    fn settle(
        &self,
        collected: &mut Collected,
        differences: Differences,
        notice: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<(), VerifyError> {
        let Differences {
            missing, repeated, ..
        } = differences;
        collected.doubts.extend(missing.names);
        if !collected.doubts.is_empty() || differences.unreadable_lines > 0 {
            self.settle_doubts(collected, notice)?;
        }
        for name in repeated.names {
            collected.report(&Problem::ListedTwice { name }, notice);
        }
        for problem in [
            Problem::MoreNotThere {
                files: missing.more,
            },
            Problem::MoreListedTwice {
                files: repeated.more,
            },
        ] {
            if problem.count() > 0 {
                collected.report(&problem, notice);
            }
        }
        Ok(())
    }

    fn settle_doubts(
        &self,
        collected: &mut Collected,
        notice: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<(), VerifyError> {
        let mut listed = BTreeSet::new();
        let mut unreadable_lines = 0;
        let contents = Contents(self.plain.storage);
        self.catalog.visit(&contents, &mut |line| {
            unreadable_lines += u64::from(line.is_err());
            let name = line.ok().map(|info| info.name);
            listed.extend(name.filter(|name| collected.doubts.contains(name)));
            ControlFlow::Continue(())
        })?;
        if unreadable_lines > 0 {
            let lines = unreadable_lines;
            collected.report(&Problem::UnreadableLines { lines }, notice);
        }
        for name in std::mem::take(&mut collected.doubts) {
            let is_there = !matches!(self.plain.storage.find(&name), Ok(None));
            match (listed.contains(&name), is_there) {
                (true, false) => collected.report(&Problem::NotThere { name }, notice),
                (false, true) => collected.report(&Problem::NotListed { name }, notice),
                _ => {}
            }
        }
        Ok(())
    }

    fn find_misplaced(
        &self,
        collected: &mut Collected,
        notice: &mut dyn FnMut(&Progress<'_>),
    ) -> Result<(), VerifyError> {
        let found = &mut |name: WalName, location: String| {
            if self.range.contains(&name) {
                collected.report(&Problem::Misplaced { name, location }, notice);
            }
        };
        let storage = self.plain.storage;
        storage.list_misplaced(found).map_err(VerifyError::Storage)
    }

    fn find_gaps(&self, collected: &mut Collected, notice: &mut dyn FnMut(&Progress<'_>)) {
        let coverage = collected.coverage.clone();
        for timeline in coverage.without_history() {
            let name = format!("{timeline:08X}.history");
            let known = WalName::parse(&name)
                .ok()
                .map(|name| self.plain.history_of(&name));
            // A history may lie outside of the range.
            if matches!(known, Some(None)) {
                collected.report(&Problem::NoHistory { timeline }, notice);
            }
        }
        for gap in coverage.gaps() {
            collected.report(&Problem::Gap(gap), notice);
        }
        for end in [&self.range.from, &self.range.to].into_iter().flatten() {
            if !coverage.contains(end) {
                let name = end.clone();
                collected.report(&Problem::NoEnd { name }, notice);
            }
        }
    }
}

impl Collected {
    fn add(&mut self, verified: Verified, notice: &mut dyn FnMut(&Progress<'_>)) {
        self.summary.files += 1;
        self.summary.stored_size_bytes += verified.stored_size_bytes;
        self.summary.wal_size_bytes += verified.wal_size_bytes;
        self.summary.unjudged += u64::from(!verified.is_judged);
        self.coverage.add(&verified.name);
        let timeline = verified.name.timeline();
        if let Some(problem) = self.ends.release(timeline, &self.coverage) {
            self.report(&problem, notice);
        }
        if let Some(history) = verified.history {
            self.ends.add_history(&history);
            self.coverage.add_history(history);
        }
        for problem in verified.problems {
            match problem {
                Problem::NotListed { name } if self.doubts.len() < DOUBTS_MAX => {
                    self.doubts.insert(name);
                }
                problem => {
                    if let Some(problem) = self.ends.hold_back(problem, &self.coverage) {
                        self.report(&problem, notice);
                    }
                }
            }
        }
        notice(&Progress::File {
            stored_size_bytes: verified.stored_size_bytes,
        });
    }

    fn report(&mut self, problem: &Problem, notice: &mut dyn FnMut(&Progress<'_>)) {
        self.summary.problems += problem.count();
        notice(&Progress::Found(problem));
    }
}
