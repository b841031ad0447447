//! Whether a bucket can be used, found out without leaving anything in it.

use std::io;

use object_store::Error;

use super::error::io_error;
use super::{Cloud, StorageError};

/// A name that no WAL file has. Nothing is ever stored under it.
const PROBE: &str = ".walarch-check";

impl Cloud {
    /// Asks for one page of the listing, and for a change of an object that does not exist: with the permission
    /// to write, the answer is that it does not exist.
    pub fn probe(&self) -> Result<(), StorageError> {
        let shared = &self.shared;
        let root = shared.keys.root();
        shared
            .remote
            .holds_any(&root)
            .map_err(shared.error("list", &root))?;
        let key = root.clone().join(PROBE);
        match shared.remote.update_nothing(&key) {
            Err(
                Error::NotFound { .. } | Error::Precondition { .. } | Error::NotModified { .. },
            ) => Ok(()),
            Err(error) => Err(shared.error("write to", &root)(io_error(error))),
            Ok(()) => {
                shared.remote.delete(vec![key]);
                let text =
                    "the store ignores conditions of requests, so that it would overwrite objects";
                Err(shared.error("rely on", &root)(io::Error::new(
                    io::ErrorKind::Unsupported,
                    text,
                )))
            }
        }
    }
}
