//! A connection whose waits end in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::conninfo::Conninfo;
use super::error::PostgresError;
use super::ffi::{RawConnection, RawResult};

/// How long a stop request can stay unnoticed.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// When waiting ends without an answer. The default is never.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// The instant at which a wait ends with [`PostgresError::TimedOut`].
    pub deadline: Option<Instant>,
    /// Becomes true when this process shall stop; a wait then ends with
    /// [`PostgresError::Interrupted`].
    pub stop: Option<Arc<AtomicBool>>,
}

impl Limits {
    /// The time until the next look at the limits, or which of them is reached.
    fn slice(&self) -> Result<Duration, PostgresError> {
        if self
            .stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Relaxed))
        {
            return Err(PostgresError::Interrupted);
        }
        match self
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()))
        {
            Some(Duration::ZERO) => Err(PostgresError::TimedOut),
            Some(left) => Ok(left.min(STOP_INTERVAL)),
            None => Ok(STOP_INTERVAL),
        }
    }
}

/// An open connection to a server. Dropping it closes it.
pub struct Connection {
    raw: RawConnection,
    limits: Limits,
}

impl Connection {
    /// Connects. All hosts of the connection string are tried, each for its `connect_timeout`, as
    /// libpq does it.
    ///
    /// The limits hold for this call and for every later one. An attempt that is given up goes on
    /// in a thread of its own until libpq ends it; nobody waits for it.
    pub fn open(conninfo: &Conninfo, limits: Limits) -> Result<Self, PostgresError> {
        let keywords = conninfo.keywords()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let connect = move || {
            // Nobody listens any more if we were too slow.
            let _ = sender.send(RawConnection::connect(&keywords));
        };
        thread::Builder::new()
            .name("connect".to_owned())
            .spawn(connect)
            .map_err(|error| {
                PostgresError::Connection(format!("cannot start a thread: {error}"))
            })?;
        loop {
            match receiver.recv_timeout(limits.slice()?) {
                Ok(raw) => return Ok(Connection { raw: raw?, limits }),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the attempt to connect ended without a word".to_owned();
                    return Err(PostgresError::Connection(reason));
                }
            }
        }
    }

    /// The server's version as a number: 150018 for 15.18.
    pub fn server_version(&self) -> i32 {
        self.raw.server_version()
    }

    /// Changes the limits of what follows.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Runs a statement and returns its rows; `$1` and so on stand for the parameters.
    ///
    /// Without parameters it goes by the simple protocol, so that replication commands work too;
    /// of several statements the last one's rows are returned. A statement that a limit ends is
    /// cancelled, and the connection must not be used any more.
    pub fn query(&self, sql: &str, parameters: &[&str]) -> Result<Rows, PostgresError> {
        self.raw.send(sql, parameters)?;
        let mut last = Err(PostgresError::Answer("no result".to_owned()));
        while let Some(result) = self.next_result().inspect_err(|_| self.raw.cancel())? {
            let result = result.check();
            // The first error is the cause of those that follow.
            if !matches!(last, Err(PostgresError::Statement { .. })) {
                last = result;
            }
        }
        last.map(Rows::new)
    }

    fn next_result(&self) -> Result<Option<RawResult>, PostgresError> {
        while self.raw.is_busy() {
            let slice = self.limits.slice()?;
            let mut wanted = [PollFd::new(self.raw.socket()?, PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(slice).unwrap_or(PollTimeout::ZERO);
            match poll(&mut wanted, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => self.raw.consume_input()?,
                Err(errno) => return Err(PostgresError::Connection(format!("poll: {errno}"))),
            }
        }
        Ok(self.raw.result())
    }
}

/// What a statement returned, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    fn new(result: RawResult) -> Self {
        let columns = 0..result.column_count();
        let row = |row| {
            columns
                .clone()
                .map(|column| result.value(row, column))
                .collect()
        };
        Rows {
            rows: (0..result.row_count()).map(row).collect(),
            columns: columns.map(|column| result.column_name(column)).collect(),
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A value by row, counted from 0, and column name. `None` is SQL's null, or no such value.
    pub fn get(&self, row: usize, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.get(row)?.get(at)?.as_deref()
    }

    /// The first column of the first row: what a query for one value returns.
    pub fn first(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}
