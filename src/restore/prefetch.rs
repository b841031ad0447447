//! Fetching ahead, in a process of its own.
//!
//! It begins with one segment and doubles with each that arrives, up to the asked number at a time, so that a
//! standby at the end of the archive does not ask for many segments that are not there yet.

use std::collections::HashSet;
use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::outlet::{FileOutlet, Outlet};
use super::spool::{Position, Spool};
use super::{Trouble, WalSource};
use crate::wal::WalName;

/// How many segments lie ready or are on their way, for each that is fetched at a time.
const AHEAD_PER_JOB: usize = 2;

/// How often a change of the position is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// When PostgreSQL has asked for nothing for so long, a new process is as good.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a segment.
enum Outcome {
    Arrived,
    /// The end of the archive, for now.
    Absent,
    /// Whoever needs the segment will meet the trouble, and say so.
    Failed,
}

/// Fills the spool ahead of what PostgreSQL asks for, until the archive ends, something fails, or it asks no more.
/// Returns at once if another process does so already.
///
/// A far end or a filter may hang for ever, and nobody else could fetch ahead meanwhile: `give_up`, which must end the
/// process, is called when nothing at all has moved for `patience`.
pub fn prefetch(
    source: &dyn WalSource,
    spool: &Spool,
    jobs: NonZeroUsize,
    patience: Duration,
    give_up: &dyn Fn(),
) -> io::Result<()> {
    let Some(_lock) = spool.lock()? else {
        return Ok(());
    };
    spool.remove_leftovers()?;
    thread::scope(|scope| {
        let (report, reports) = mpsc::channel();
        let mut prefetcher = Prefetcher {
            source,
            spool,
            jobs: jobs.get(),
            at_a_time: 1,
            at_a_time_max: jobs.get(),
            on_their_way: HashSet::new(),
            started: HashSet::new(),
            is_over: false,
        };
        let mut position = None;
        let mut last_change = Instant::now();
        let mut standstill = Standstill::new(patience);
        loop {
            let now = spool.position();
            if now != position {
                position = now;
                last_change = Instant::now();
                prefetcher.started.clear();
            }
            let Some(position) = &position else {
                return Ok(());
            };
            prefetcher.start_what_is_due(position, scope, &report)?;
            let is_idle = prefetcher.on_their_way.is_empty();
            if is_idle && (prefetcher.is_over || last_change.elapsed() > PATIENCE) {
                return Ok(());
            }
            if !is_idle && standstill.is_reached(|| (position.clone(), spool.size_bytes())) {
                give_up();
            }
            match reports.recv_timeout(LOOK) {
                Ok((name, outcome)) => prefetcher.note(&name, &outcome),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    })
}

/// Tells that nothing has changed for a while, without looking often.
struct Standstill<T> {
    patience: Duration,
    since: Instant,
    seen: Option<T>,
}

impl<T: PartialEq> Standstill<T> {
    fn new(patience: Duration) -> Self {
        Standstill {
            patience,
            since: Instant::now(),
            seen: None,
        }
    }

    /// True once two looks, `patience` apart, have seen the same.
    fn is_reached(&mut self, look: impl FnOnce() -> T) -> bool {
        if self.since.elapsed() < self.patience {
            return false;
        }
        self.since = Instant::now();
        let seen = Some(look());
        let is_same = self.seen == seen;
        self.seen = seen;
        is_same
    }
}

struct Prefetcher<'a> {
    source: &'a dyn WalSource,
    spool: &'a Spool,
    jobs: usize,
    at_a_time: usize,
    /// Less than asked for where the system has no threads to give.
    at_a_time_max: usize,
    on_their_way: HashSet<WalName>,
    /// What was asked for since PostgreSQL got a file last. Nothing is asked for twice: whatever takes a segment away
    /// from the spool would take the next one as well, and the archive must not be read without end.
    started: HashSet<WalName>,
    is_over: bool,
}

type Report = mpsc::Sender<(WalName, Outcome)>;

impl<'a> Prefetcher<'a> {
    fn start_what_is_due<'scope>(
        &mut self,
        position: &Position,
        scope: &'scope Scope<'scope, 'a>,
        report: &Report,
    ) -> io::Result<()>
    where
        'a: 'scope,
    {
        let path = self.spool.timeline_path()?;
        let ahead = path.ahead(&position.name, position.segment_size);
        let due: Vec<WalName> = ahead.take(self.jobs * AHEAD_PER_JOB).collect();
        for name in self.spool.segments()? {
            if !due.contains(&name) {
                self.spool.remove(&name)?;
            }
        }
        for name in due {
            if self.is_over || self.on_their_way.len() >= self.at_a_time {
                break;
            }
            if !self.on_their_way.contains(&name)
                && !self.started.contains(&name)
                && !self.spool.holds(&name)
            {
                self.start(name, scope, report)?;
            }
        }
        Ok(())
    }

    fn start<'scope>(
        &mut self,
        name: WalName,
        scope: &'scope Scope<'scope, 'a>,
        report: &Report,
    ) -> io::Result<()>
    where
        'a: 'scope,
    {
        let (source, spool, report) = (self.source, self.spool, report.clone());
        let mut outlet = FileOutlet::among_others(&self.spool.segment(&name));
        // From now on it shows that the segment is on its way.
        outlet.begin()?;
        let started = name.clone();
        let spawned = thread::Builder::new().spawn_scoped(scope, move || {
            let outcome = match source.fetch(&name, false, &mut outlet) {
                // The spool asks for more than the source: it must know the segment's cluster, and its age.
                Ok(()) if spool.accepts(&name) => Outcome::Arrived,
                Ok(()) => Outcome::Failed,
                Err(error) if error.trouble() == Trouble::Absent => Outcome::Absent,
                Err(error) => {
                    tracing::warn!("{error}");
                    Outcome::Failed
                }
            };
            drop(outlet);
            // The receiver lives as long as the scope.
            let _ = report.send((name, outcome));
        });
        match spawned {
            Ok(_) => {
                self.on_their_way.insert(started.clone());
                self.started.insert(started);
            }
            Err(error) => self.do_with_less(&error),
        }
        Ok(())
    }

    /// There was no thread for one more: the others go on. Without any, whoever needs the segment fetches it.
    fn do_with_less(&mut self, error: &io::Error) {
        tracing::warn!("fewer segments are fetched ahead at a time: {error}");
        self.at_a_time_max = self.on_their_way.len();
        self.at_a_time = self.at_a_time_max;
        self.is_over |= self.on_their_way.is_empty();
    }

    fn note(&mut self, name: &WalName, outcome: &Outcome) {
        self.on_their_way.remove(name);
        match outcome {
            Outcome::Arrived => self.at_a_time = (self.at_a_time * 2).min(self.at_a_time_max),
            Outcome::Absent | Outcome::Failed => self.is_over = true,
        }
    }
}
