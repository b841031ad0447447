//! Clients who commit rows, and write down what they were promised.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::postgres::Postgres;
use super::tool::wait_for;
use super::wire::{Client, position};

/// What has been promised so far.
#[derive(Clone, Debug, Default)]
pub struct Promised {
    /// The numbers of the rows whose COMMIT returned without a warning.
    pub numbers: BTreeSet<u64>,
    /// WAL up to here was written before one of these COMMITs began.
    pub position: u64,
}

/// Clients that commit until they are dropped, and connect again when the server was away.
pub struct Writers {
    stop: Arc<AtomicBool>,
    promised: Arc<Mutex<Promised>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Makes the table that `start` writes to.
    pub fn prepare(postgres: &Postgres) {
        postgres.sql("CREATE TABLE numbers (number bigint)");
    }

    /// Each commit has some kilobytes of WAL, so that segments end often.
    pub fn start(postgres: &Postgres, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let promised = Arc::new(Mutex::new(Promised::default()));
        let next = Arc::new(AtomicU64::new(1));
        let spawn = |_| {
            let folder = postgres.socket().to_owned();
            let (stop, promised, next) = (stop.clone(), promised.clone(), next.clone());
            thread::spawn(move || write(&folder, &stop, &promised, &next))
        };
        Self {
            threads: (0..clients).map(spawn).collect(),
            stop,
            promised,
        }
    }

    /// What has been promised by now.
    pub fn promised(&self) -> Promised {
        self.promised.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.promised.lock().unwrap().numbers.len()
    }

    /// Waits for so many more commits.
    #[track_caller]
    pub fn wait_for(&self, commits: usize) {
        let goal = self.count() + commits;
        wait_for("commits", || (self.count() >= goal).then_some(()));
    }

    /// Lets nobody begin another transaction. Returns all that was promised; waits for commits that can still
    /// return, so that somebody must receive, or the server be gone.
    pub fn end(mut self) -> Promised {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.promised()
    }
}

impl Drop for Writers {
    /// A test that failed half-way does not wait for commits that nobody receives.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(folder: &str, stop: &AtomicBool, promised: &Mutex<Promised>, next: &AtomicU64) {
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut client else {
            thread::sleep(Duration::from_millis(10));
            client = Client::connect(folder).ok();
            continue;
        };
        let number = next.fetch_add(1, Ordering::Relaxed);
        let filler = 500 + number * 7919 % 9000;
        let sql = format!(
            "BEGIN; INSERT INTO numbers VALUES ({number}); \
             SELECT 'x' FROM pg_logical_emit_message(true, 'filler', repeat('walarch', {filler} / 7)); \
             SELECT pg_current_wal_insert_lsn(); COMMIT"
        );
        match open.query(&sql) {
            Ok(rows) => {
                let mut promised = promised.lock().unwrap();
                promised.numbers.insert(number);
                promised.position = promised.position.max(position(rows.last().unwrap()));
            }
            // Whether this one was committed nobody knows, and nobody was promised anything.
            Err(_) => client = None,
        }
    }
}
