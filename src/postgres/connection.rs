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
use super::ffi::{Outcome, RawConnection, RawResult};

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
    pub(super) raw: RawConnection,
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
            if result.outcome() != Outcome::Complete {
                // There would be no end of such results.
                return Err(PostgresError::Answer("rows by COPY".to_owned()));
            }
            let result = result.check();
            // The first error is the cause of those that follow.
            if !matches!(last, Err(PostgresError::Statement { .. })) {
                last = result;
            }
        }
        last.map(Rows::new)
    }

    /// The next result of what was sent; `None` after the last.
    pub(super) fn next_result(&self) -> Result<Option<RawResult>, PostgresError> {
        // Asked for first: whoever answers without end shall not keep us.
        let mut slice = self.limits.slice()?;
        while self.raw.is_busy() {
            self.wait(slice, PollFlags::POLLIN)?;
            slice = self.limits.slice()?;
        }
        Ok(self.raw.result())
    }

    /// Waits until something can be read, or written if that is wanted, and takes in what can be
    /// read. Returns whether something could be, or the other side is gone.
    pub(super) fn wait(&self, timeout: Duration, wanted: PollFlags) -> Result<bool, PostgresError> {
        let mut poll_fds = [PollFd::new(self.raw.socket()?, wanted)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut poll_fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(PostgresError::Connection(format!("poll: {errno}"))),
        }
        let readable = poll_fds
            .iter()
            .filter_map(PollFd::revents)
            .any(|events| events != PollFlags::POLLOUT);
        if readable {
            self.raw.consume_input()?;
        }
        Ok(readable)
    }
}

/// What a statement returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<Value>>>,
}

/// A value as text, and as the bytes that it came as.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    text: String,
    bytes: Vec<u8>,
}

impl Value {
    fn new(bytes: Vec<u8>) -> Self {
        Value {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }
}

impl Rows {
    pub(super) fn new(result: RawResult) -> Self {
        let columns = 0..result.column_count();
        let row = |row| {
            columns
                .clone()
                .map(|column| result.value(row, column).map(Value::new))
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
        self.value(row, column).map(|value| value.text.as_str())
    }

    /// The same as it came from the server, in whatever encoding.
    pub fn bytes(&self, row: usize, column: &str) -> Option<&[u8]> {
        self.value(row, column).map(|value| value.bytes.as_slice())
    }

    /// The first column of the first row: what a query for one value returns.
    pub fn first(&self) -> Option<&str> {
        let first = self.rows.first()?.first()?.as_ref();
        first.map(|value| value.text.as_str())
    }

    fn value(&self, row: usize, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.get(row)?.get(at)?.as_ref()
    }
}
