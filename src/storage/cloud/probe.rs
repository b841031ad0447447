//! Whether a bucket can be used, found out without leaving anything in it.

use std::io;

use object_store::{Error, PutOptions, PutPayload};

use super::error::{io_error, unconfirmed};
use super::{Cloud, StorageError};

/// A name that no WAL file has. Nothing is ever stored under it.
const PROBE: &str = ".walarch-check";

impl Cloud {
    /// Asks for one page of the listing, and for a change of an object that does not exist: with the permission
    /// to write, the answer is that it does not exist. A store that makes the object instead has it deleted again.
    ///
    /// # Errors
    ///
    /// When the store cannot be reached, refuses, or ignores the condition that keeps objects from being overwritten.
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
            // It does not know that condition. The one that counts can be tried now.
            Ok(()) => {
                let again = shared
                    .remote
                    .create(&key, PutPayload::new(), PutOptions::default());
                let deleted = shared.remote.delete(vec![key]).pop();
                match again {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    Err(error) => Err(error),
                    Ok(()) => Err(io::Error::new(
                        io::ErrorKind::Unsupported,
                        "the store ignores If-None-Match, so that it would overwrite objects",
                    )),
                }
                .and(deleted.unwrap_or(Ok(())))
                .map_err(shared.error("write to", &root))
            }
        }
    }

    /// Fails unless what answers for the bucket can list it.
    pub(super) fn must_be_a_store(&self) -> Result<(), StorageError> {
        let root = self.shared.keys.root();
        let listed = self.shared.remote.holds_any(&root);
        listed
            .map(drop)
            .map_err(|source| self.shared.error("list", &root)(unconfirmed(source)))
    }
}
