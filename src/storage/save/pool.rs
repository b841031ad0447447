//! Worker threads that stage, and the committer that takes their results in order.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::iter;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::prepare::Prepared;
use super::{Archive, Run, SaveError, SourceKeeper, WalFile};
use crate::storage::InFlight;

/// The most files that are committed in one step. Removing sources takes time as well, which larger
/// groups would leave to the end of a run.
const GROUP_MAX: usize = 8;

/// How long a group that is not full waits for more. Slow codecs make small groups, so that what is
/// sealed does not stay uncommitted for long.
const GROUP_WAIT: Duration = Duration::from_millis(100);

/// How many files may be staged beyond the last committed one where they lie on disk, not in memory.
const AHEAD_MAX: usize = 8 * GROUP_MAX;

type Outcome = (usize, Result<Prepared, SaveError>);

/// So many files that may be encoded at a time share one thread more: it encodes while one of them waits for its disk.
const JOBS_PER_SPARE_THREAD: usize = 2;

/// Lets as many threads encode at a time as there are jobs. Codecs need memory and a core each,
/// waiting for the disk needs neither.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
    threads_each: NonZeroUsize,
}

/// The right to encode, until it is dropped.
pub(super) struct Permit<'a>(&'a Permits);

impl Permits {
    /// For many files: one thread for each.
    pub(super) fn for_each(jobs: NonZeroUsize) -> Self {
        Permits {
            free: Mutex::new(jobs.get()),
            returned: Condvar::new(),
            threads_each: NonZeroUsize::MIN,
        }
    }

    /// For files that go one after the other: all threads for one.
    pub(super) fn for_one(jobs: NonZeroUsize) -> Self {
        Permits {
            free: Mutex::new(1),
            returned: Condvar::new(),
            threads_each: jobs,
        }
    }

    pub(super) fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .returned
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

impl Permit<'_> {
    /// How many threads the encoder may use.
    pub(super) fn threads(&self) -> NonZeroUsize {
        self.0.threads_each
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}

/// Hands out the files of a queue.
struct Dispenser<'a> {
    state: Mutex<State>,
    changed: Condvar,
    files: &'a [WalFile],
    in_flight: Option<InFlight>,
    limit: Option<NonZeroUsize>,
}

#[derive(Default)]
struct State {
    /// The next file to hand out.
    next: usize,
    /// Everything before this file has been decided.
    decided: usize,
    /// The sizes of those in between, where they count.
    sizes_bytes: VecDeque<u64>,
    /// How many of those did not count towards the limit.
    uncounted: usize,
    closed: bool,
}

impl Dispenser<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next file to stage; waits while too much is ahead of the committer, and ends when the
    /// queue, the limit or the run has ended.
    fn take(&self) -> Option<(usize, &WalFile)> {
        let mut state = self.lock();
        loop {
            let at_limit = self
                .limit
                .is_some_and(|max| state.next - state.uncounted >= max.get());
            let all_decided = state.decided == state.next;
            let next = self.files.get(state.next)?;
            if state.closed || (at_limit && all_decided) {
                return None;
            }
            if !at_limit && self.has_room(&mut state, next) {
                state.next += 1;
                return Some((state.next - 1, next));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether one more file may be handed out; makes room for it then.
    fn has_room(&self, state: &mut State, next: &WalFile) -> bool {
        let ahead = state.next - state.decided;
        let Some(max) = self.in_flight else {
            return ahead < AHEAD_MAX;
        };
        // One that cannot be looked at takes up no room: nothing is read of it.
        let size_bytes = fs::metadata(&next.path).map_or(0, |metadata| metadata.len());
        let together_bytes = state.sizes_bytes.iter().sum::<u64>() + size_bytes;
        let has_room = ahead < max.files.get() && (ahead == 0 || together_bytes <= max.size_bytes);
        if has_room {
            state.sizes_bytes.push_back(size_bytes);
        }
        has_room
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Whether nothing is being staged and not yet received.
    fn is_drained(&self, received: usize) -> bool {
        self.lock().next == received
    }
}

/// Ends the handing out when its owner ends, even by a panic: nobody may wait for it then.
struct CloseOnDrop<'a>(&'a Dispenser<'a>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.update(|state| state.closed = true);
    }
}

impl Archive<'_> {
    /// Stages on threads, `jobs` of which encode at a time, and commits on this one.
    ///
    /// Returns false, with nothing done, if not one thread can be started.
    pub(super) fn save_in_parallel(
        &self,
        files: &[WalFile],
        limit: Option<NonZeroUsize>,
        run: &mut Run<'_>,
    ) -> bool {
        let dispenser = Dispenser {
            state: Mutex::default(),
            changed: Condvar::new(),
            files,
            in_flight: self.storage.in_flight(),
            limit,
        };
        let permits = &Permits::for_each(self.jobs);
        let keeper = run.keeper;
        thread::scope(|scope| {
            let _close = CloseOnDrop(&dispenser);
            let (sender, outcomes) = mpsc::channel();
            let dispenser = &dispenser;
            let jobs = self.jobs.get();
            let threads = jobs.saturating_add(jobs.div_ceil(JOBS_PER_SPARE_THREAD));
            let threads = threads.min(files.len());
            let started = (0..threads)
                .map_while(|_| {
                    let sender = sender.clone();
                    let work = move || self.stage_files(dispenser, permits, keeper, sender);
                    thread::Builder::new().spawn_scoped(scope, work).ok()
                })
                .count();
            drop(sender);
            if started > 0 {
                self.commit_in_order(files, dispenser, &outcomes, run);
            }
            started > 0
        })
    }

    fn stage_files(
        &self,
        dispenser: &Dispenser<'_>,
        permits: &Permits,
        keeper: &dyn SourceKeeper,
        sender: Sender<Outcome>,
    ) {
        let close = CloseOnDrop(dispenser);
        while !self.stop.load(Ordering::Relaxed)
            && let Some((index, wal)) = dispenser.take()
        {
            // The committer is gone when the run has ended: what was staged is undone by dropping.
            if sender
                .send((index, self.prepare(wal, permits, keeper)))
                .is_err()
            {
                break;
            }
        }
        // Others may still have files to stage: only a panic closes for all.
        mem::forget(close);
    }

    fn commit_in_order(
        &self,
        files: &[WalFile],
        dispenser: &Dispenser<'_>,
        outcomes: &Receiver<Outcome>,
        run: &mut Run<'_>,
    ) {
        let mut waiting: BTreeMap<usize, Result<Prepared, SaveError>> = BTreeMap::new();
        let (mut next, mut received) = (0, 0);
        let in_flight = self.storage.in_flight();
        let group_max = in_flight.map_or(GROUP_MAX, |max| max.files.get());
        loop {
            let (waited_enough, ended) = match outcomes.recv_timeout(GROUP_WAIT) {
                Ok(outcome) => {
                    for (index, prepared) in iter::once(outcome).chain(outcomes.try_iter()) {
                        waiting.insert(index, prepared);
                        received += 1;
                    }
                    (false, false)
                }
                Err(RecvTimeoutError::Timeout) => (true, false),
                Err(RecvTimeoutError::Disconnected) => (true, true),
            };
            let ready = waiting
                .keys()
                .zip(next..)
                .take_while(|(index, at)| *index == at)
                .count();
            if ready == 0 && ended {
                break;
            }
            // Fewer, larger groups cost fewer synchronisations; but nobody waits for a full one
            // when no more is coming.
            let due = waited_enough || ready >= group_max || dispenser.is_drained(received);
            if ready == 0 || !due {
                continue;
            }
            let group: Vec<_> = (next..next + ready)
                .filter_map(|index| Some((files.get(index)?, waiting.remove(&index)?)))
                .collect();
            next += ready;
            let mut uncounted = ready;
            let mut ends = false;
            for (wal, result) in self.commit(group, run.keeper) {
                uncounted = uncounted.saturating_sub(usize::from(result.counts()));
                ends |= run.result(wal, result);
            }
            if ends {
                return;
            }
            dispenser.update(|state| {
                state.decided = next;
                let decided = ready.min(state.sizes_bytes.len());
                state.sizes_bytes.drain(..decided);
                state.uncounted += uncounted;
            });
        }
        run.report.stopped |= self.stop.load(Ordering::Relaxed);
    }
}
