//! The copy-both mode, in which WAL is streamed.

use std::ffi::{c_char, c_int, c_void};
use std::ops::Deref;
use std::ptr::{self, NonNull};

use pq_sys as pq;

use super::RawConnection;
use crate::postgres::error::PostgresError;

/// The content of a `CopyData` message, in memory of libpq's.
pub(in crate::postgres) struct CopyData {
    start: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for CopyData {}

impl Deref for CopyData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: libpq allocated and filled so many bytes for us.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.size_bytes) }
    }
}

impl Drop for CopyData {
    fn drop(&mut self) {
        // SAFETY: allocated by libpq, ours, and freed once.
        unsafe { pq::PQfreemem(self.start.as_ptr().cast::<c_void>()) };
    }
}

/// What has arrived from the server.
pub(in crate::postgres) enum CopyStep {
    /// A whole message.
    Message(CopyData),
    /// Nothing, or not all of a message.
    Nothing,
    /// The server sends no more messages; a result says why.
    End,
}

impl RawConnection {
    /// Whether sending may leave something to [`RawConnection::flush`] instead of waiting.
    pub(in crate::postgres) fn set_nonblocking(&self, on: bool) -> Result<(), PostgresError> {
        // SAFETY: the connection is valid, here and below.
        match unsafe { pq::PQsetnonblocking(self.0.as_ptr(), c_int::from(on)) } {
            0 => Ok(()),
            _ => Err(self.lost()),
        }
    }

    /// The next message, without waiting.
    pub(in crate::postgres) fn copy_data(&self) -> Result<CopyStep, PostgresError> {
        let mut start: *mut c_char = ptr::null_mut();
        // SAFETY: `start` is valid for the call.
        let size_bytes = unsafe { pq::PQgetCopyData(self.0.as_ptr(), &raw mut start, 1) };
        match (usize::try_from(size_bytes), NonNull::new(start)) {
            (Ok(size_bytes), Some(start)) => Ok(CopyStep::Message(CopyData {
                start: start.cast(),
                size_bytes,
            })),
            (Ok(_), None) => Ok(CopyStep::Nothing),
            _ if size_bytes == -1 => Ok(CopyStep::End),
            _ => Err(self.lost()),
        }
    }

    /// Queues a message; false if there is no room for it because the server reads nothing.
    pub(in crate::postgres) fn put_copy_data(&self, message: &[u8]) -> Result<bool, PostgresError> {
        let size_bytes = c_int::try_from(message.len()).unwrap_or(c_int::MAX);
        // SAFETY: the message has at least so many bytes.
        let put = unsafe {
            pq::PQputCopyData(
                self.0.as_ptr(),
                message.as_ptr().cast::<c_char>(),
                size_bytes,
            )
        };
        match put {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(self.lost()),
        }
    }

    /// Queues that no more messages come from us.
    pub(in crate::postgres) fn put_copy_end(&self) -> Result<(), PostgresError> {
        // SAFETY: null is no error message.
        match unsafe { pq::PQputCopyEnd(self.0.as_ptr(), ptr::null()) } {
            1 => Ok(()),
            _ => Err(self.lost()),
        }
    }

    /// Sends what is queued, as far as that goes without waiting. True if all is sent.
    pub(in crate::postgres) fn flush(&self) -> Result<bool, PostgresError> {
        match unsafe { pq::PQflush(self.0.as_ptr()) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(self.lost()),
        }
    }

    fn lost(&self) -> PostgresError {
        PostgresError::Connection(self.error())
    }
}
