//! The boundary to libpq: the only unsafe code that deals with a server.
//!
//! Each type owns one object of libpq and frees it once. Nothing here waits; see `connection`.
//! The rules relied on are those of the PostgreSQL manual, chapter "libpq - C Library".

#![allow(unsafe_code, reason = "libpq is a C library")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::{self, NonNull};

use pq_sys as pq;

use super::error::PostgresError;

mod copy;

pub(super) use copy::{CopyData, CopyStep};

/// Text as libpq gives it: nothing where the pointer is null, invalid UTF-8 replaced.
///
/// # Safety
///
/// `text` is null or points to a string that ends with a zero byte and outlives this call.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null; the rest is the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// A text without the newline that libpq ends its messages with.
fn message(text: String) -> String {
    text.trim_end().to_owned()
}

fn c_string(text: &str) -> Result<CString, PostgresError> {
    CString::new(text)
        .map_err(|_| PostgresError::InvalidConninfo("it contains a zero byte".to_owned()))
}

/// Splits a connection string or URI into the keywords it sets.
pub(super) fn parse(conninfo: &str) -> Result<BTreeMap<String, String>, PostgresError> {
    let conninfo = c_string(conninfo)?;
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: both pointers are valid for the call.
    let options = unsafe { pq::PQconninfoParse(conninfo.as_ptr(), &raw mut error) };
    if options.is_null() {
        // SAFETY: null or a string of libpq's, which we own and free once.
        let reason = unsafe {
            let reason = text(error);
            pq::PQfreemem(error.cast::<c_void>());
            reason
        };
        return Err(PostgresError::InvalidConninfo(without_quotations(
            &message(reason),
        )));
    }
    // SAFETY: `options` is libpq's list, ours from now on.
    Ok(unsafe { take_options(options) })
}

/// libpq's words without what it quotes: an unquoted password with a blank in it is cut into pieces,
/// and one of those may be what libpq could not read.
fn without_quotations(message: &str) -> String {
    let parts = message.split('"').enumerate();
    let shown = parts.map(|(number, part)| match number % 2 {
        // "=" is what libpq misses.
        1 if part != "=" => "...",
        _ => part,
    });
    shown.collect::<Vec<_>>().join("\"")
}

/// The keywords of a list that have a value; frees the list.
///
/// # Safety
///
/// `options` is a list that libpq gave to the caller, and is not used afterwards.
unsafe fn take_options(options: *mut pq::PQconninfoOption) -> BTreeMap<String, String> {
    let mut set = BTreeMap::new();
    let mut option = options;
    // SAFETY: the list ends with an entry whose keyword is null.
    unsafe {
        while !(*option).keyword.is_null() {
            if !(*option).val.is_null() {
                set.insert(text((*option).keyword), text((*option).val));
            }
            option = option.add(1);
        }
        pq::PQconninfoFree(options);
    }
    set
}

/// A connection of libpq.
pub(super) struct RawConnection(NonNull<pq::PGconn>);

// SAFETY: libpq allows a connection to be used by any thread, by one at a time ("Behavior in
// Threaded Programs"); there is no `Sync`.
unsafe impl Send for RawConnection {}

impl RawConnection {
    /// Connects, and waits for as long as libpq does (`connect_timeout`).
    pub(super) fn connect(keywords: &BTreeMap<String, String>) -> Result<Self, PostgresError> {
        let connection = Self::start(keywords, |names, values| {
            // SAFETY: both arrays end with null and live until the call returns.
            unsafe { pq::PQconnectdbParams(names, values, 0) }
        })?;
        // SAFETY: the connection is ours and valid.
        if unsafe { pq::PQstatus(connection.0.as_ptr()) } != pq::ConnStatusType::CONNECTION_OK {
            return Err(PostgresError::Connection(connection.error()));
        }
        // SAFETY: as above; the processor has the type libpq asks for and uses no argument.
        unsafe {
            pq::PQsetNoticeProcessor(connection.0.as_ptr(), Some(log_notice), ptr::null_mut())
        };
        Ok(connection)
    }

    /// Which keywords libpq would use, after service files, environment and defaults.
    pub(super) fn resolve(
        keywords: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, PostgresError> {
        let mut keywords = keywords.clone();
        // Nothing may be connected to: no host has an address of this kind.
        keywords.insert("hostaddr".to_owned(), "none".to_owned());
        let connection = Self::start(&keywords, |names, values| {
            // SAFETY: as in `connect`.
            unsafe { pq::PQconnectStartParams(names, values, 0) }
        })?;
        // SAFETY: the connection is ours; the list is handed to us.
        unsafe {
            let options = pq::PQconninfo(connection.0.as_ptr());
            Ok(match options.is_null() {
                true => BTreeMap::new(),
                false => take_options(options),
            })
        }
    }

    fn start(
        keywords: &BTreeMap<String, String>,
        call: impl FnOnce(*const *const c_char, *const *const c_char) -> *mut pq::PGconn,
    ) -> Result<Self, PostgresError> {
        let mut owned = Vec::with_capacity(keywords.len());
        for (name, value) in keywords {
            owned.push((c_string(name)?, c_string(value)?));
        }
        let end = [ptr::null()];
        let names: Vec<_> = owned
            .iter()
            .map(|(name, _)| name.as_ptr())
            .chain(end)
            .collect();
        let values: Vec<_> = owned
            .iter()
            .map(|(_, value)| value.as_ptr())
            .chain(end)
            .collect();
        NonNull::new(call(names.as_ptr(), values.as_ptr()))
            .map(RawConnection)
            .ok_or_else(|| PostgresError::Connection("libpq is out of memory".to_owned()))
    }

    /// libpq's last words about this connection.
    pub(super) fn error(&self) -> String {
        // SAFETY: the connection is valid, and the text is copied at once.
        message(unsafe { text(pq::PQerrorMessage(self.0.as_ptr())) })
    }

    /// As `SHOW server_version_num`: 150018 for 15.18.
    pub(super) fn server_version(&self) -> i32 {
        // SAFETY: the connection is valid.
        unsafe { pq::PQserverVersion(self.0.as_ptr()) }
    }

    /// What to wait on.
    pub(super) fn socket(&self) -> Result<BorrowedFd<'_>, PostgresError> {
        // SAFETY: the connection is valid.
        let socket: RawFd = unsafe { pq::PQsocket(self.0.as_ptr()) };
        if socket < 0 {
            return Err(PostgresError::Connection(self.error()));
        }
        // SAFETY: libpq keeps the descriptor open as long as the connection lives, which the
        // borrow outlives not.
        Ok(unsafe { BorrowedFd::borrow_raw(socket) })
    }

    /// Sends a statement. Without parameters by the simple protocol, which is all that a
    /// replication connection understands.
    pub(super) fn send(&self, sql: &str, parameters: &[&str]) -> Result<(), PostgresError> {
        let sql = c_string(sql)?;
        let owned = parameters
            .iter()
            .map(|value| c_string(value))
            .collect::<Result<Vec<_>, _>>()?;
        let values: Vec<_> = owned.iter().map(|value| value.as_ptr()).collect();
        let connection = self.0.as_ptr();
        let sent = match c_int::try_from(values.len()) {
            // SAFETY: the connection and the statement are valid for the call.
            Ok(0) => unsafe { pq::PQsendQuery(connection, sql.as_ptr()) },
            // SAFETY: `count` values follow; types, lengths and formats may be null: the server
            // infers the types, and all values are text.
            Ok(count) => unsafe {
                pq::PQsendQueryParams(
                    connection,
                    sql.as_ptr(),
                    count,
                    ptr::null(),
                    values.as_ptr(),
                    ptr::null(),
                    ptr::null(),
                    0,
                )
            },
            Err(_) => 0,
        };
        match sent {
            1 => Ok(()),
            _ => Err(PostgresError::Connection(self.error())),
        }
    }

    /// Takes in what has arrived, without waiting.
    pub(super) fn consume_input(&self) -> Result<(), PostgresError> {
        // SAFETY: the connection is valid.
        match unsafe { pq::PQconsumeInput(self.0.as_ptr()) } {
            1 => Ok(()),
            _ => Err(PostgresError::Connection(self.error())),
        }
    }

    /// Whether [`RawConnection::result`] would have to wait.
    pub(super) fn is_busy(&self) -> bool {
        // SAFETY: the connection is valid.
        unsafe { pq::PQisBusy(self.0.as_ptr()) == 1 }
    }

    /// The next result of the statement that was sent; `None` after the last.
    pub(super) fn result(&self) -> Option<RawResult> {
        // SAFETY: the connection is valid; the result is ours.
        NonNull::new(unsafe { pq::PQgetResult(self.0.as_ptr()) }).map(RawResult)
    }

    /// Asks the server to abandon the statement that runs. It may have ended already.
    pub(super) fn cancel(&self) {
        // SAFETY: the connection is valid; the cancel object is ours and freed once; a null one is
        // accepted by both calls; the buffer has the length that is said.
        unsafe {
            let cancel = pq::PQgetCancel(self.0.as_ptr());
            let mut reason = [0; 256];
            pq::PQcancel(cancel, reason.as_mut_ptr(), reason.len() as c_int);
            pq::PQfreeCancel(cancel);
        }
    }
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        // SAFETY: the connection is ours, and this is the last use of it.
        unsafe { pq::PQfinish(self.0.as_ptr()) };
    }
}

/// Notices of the server belong into the log: libpq would print them.
///
/// # Safety
///
/// Called by libpq with a string that ends with a zero byte.
unsafe extern "C" fn log_notice(_: *mut c_void, notice: *const c_char) {
    // SAFETY: the caller's promise.
    tracing::info!("PostgreSQL: {}", message(unsafe { text(notice) }));
}

/// Which way WAL may flow after a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Both sides may send.
    CopyBoth,
    /// The server has ended its side, and we have not ended ours.
    CopyIn,
    /// The other way round.
    CopyOut,
    /// No way: rows, success or an error; see [`RawResult::check`].
    Complete,
}

/// A result of libpq.
pub(super) struct RawResult(NonNull<pq::PGresult>);

// SAFETY: a result belongs to no connection once it is made, and nothing here changes it ("Behavior
// in Threaded Programs": it may be passed around freely).
unsafe impl Send for RawResult {}

impl RawResult {
    /// Turns a refused statement into an error.
    pub(super) fn check(self) -> Result<Self, PostgresError> {
        // SAFETY: the result is valid, here and below.
        let status = unsafe { pq::PQresultStatus(self.0.as_ptr()) };
        match status {
            pq::ExecStatusType::PGRES_TUPLES_OK | pq::ExecStatusType::PGRES_COMMAND_OK => Ok(self),
            pq::ExecStatusType::PGRES_FATAL_ERROR | pq::ExecStatusType::PGRES_BAD_RESPONSE => {
                let (sqlstate, message) = unsafe {
                    let field = pq::PG_DIAG_SQLSTATE as c_int;
                    (
                        text(pq::PQresultErrorField(self.0.as_ptr(), field)),
                        message(text(pq::PQresultErrorMessage(self.0.as_ptr()))),
                    )
                };
                Err(match sqlstate.as_str() {
                    // Made by libpq, not by the server: the connection is gone.
                    "" => PostgresError::Connection(message),
                    _ => PostgresError::Statement { sqlstate, message },
                })
            }
            other => Err(PostgresError::Answer(format!("result status {other:?}"))),
        }
    }

    pub(super) fn row_count(&self) -> usize {
        // SAFETY: the result is valid.
        usize::try_from(unsafe { pq::PQntuples(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(super) fn column_count(&self) -> usize {
        // SAFETY: the result is valid.
        usize::try_from(unsafe { pq::PQnfields(self.0.as_ptr()) }).unwrap_or(0)
    }

    pub(super) fn column_name(&self, column: usize) -> String {
        let column = c_int::try_from(column).unwrap_or(-1);
        // SAFETY: the result is valid; libpq answers null for a column that is out of range.
        unsafe { text(pq::PQfname(self.0.as_ptr(), column)) }
    }

    /// What a value is made of; `None` is SQL's null. Row and column are counted from 0 and must
    /// exist.
    pub(super) fn value(&self, row: usize, column: usize) -> Option<Vec<u8>> {
        let (row, column) = (c_int::try_from(row).ok()?, c_int::try_from(column).ok()?);
        // SAFETY: the result is valid; libpq answers "null" for what is out of range, and for
        // everything else a pointer to so many bytes, which are copied at once.
        unsafe {
            if pq::PQgetisnull(self.0.as_ptr(), row, column) != 0 {
                return None;
            }
            let start = pq::PQgetvalue(self.0.as_ptr(), row, column).cast::<u8>();
            let size_bytes = usize::try_from(pq::PQgetlength(self.0.as_ptr(), row, column)).ok()?;
            Some(std::slice::from_raw_parts(start, size_bytes).to_vec())
        }
    }

    /// What became of a statement.
    pub(super) fn outcome(&self) -> Outcome {
        // SAFETY: the result is valid.
        match unsafe { pq::PQresultStatus(self.0.as_ptr()) } {
            pq::ExecStatusType::PGRES_COPY_BOTH => Outcome::CopyBoth,
            pq::ExecStatusType::PGRES_COPY_IN => Outcome::CopyIn,
            pq::ExecStatusType::PGRES_COPY_OUT => Outcome::CopyOut,
            _ => Outcome::Complete,
        }
    }
}

impl Drop for RawResult {
    fn drop(&mut self) {
        // SAFETY: the result is ours, and this is the last use of it.
        unsafe { pq::PQclear(self.0.as_ptr()) };
    }
}
