//! The lock that keeps receivers of one server apart, and what only its holder may do.

use super::error::ReceiverError;
use super::state::ReceiverState;
use crate::config::ServerConfig;
use crate::durable::{LockFile, Wait};

/// Takes the lock of receive-wal; `None` if somebody else has it.
pub(super) fn lock(server: &ServerConfig) -> Result<Option<LockFile>, ReceiverError> {
    let path = server
        .lock_directory
        .join(format!(".{}-receive-wal.lock", server.name));
    LockFile::acquire(&path, Wait::Never).map_err(|source| ReceiverError::Io {
        action: "lock",
        path,
        source,
    })
}

/// The receiver may be started at once, whatever made it fail before. Only with the lock held.
pub(super) fn forgive(server: &ServerConfig) {
    change_state(server, ReceiverState::forgive);
}

/// The same, and whatever timeline it was on before. Only with the lock held.
pub(super) fn begin_anew(server: &ServerConfig) {
    change_state(server, |state| {
        state.forgive();
        state.timeline = None;
    });
}

fn change_state(server: &ServerConfig, change: impl Fn(&mut ReceiverState)) {
    let before = ReceiverState::load(server).unwrap_or_default();
    let mut state = before.clone();
    change(&mut state);
    if state != before
        && let Err(error) = state.store(server)
    {
        tracing::warn!("cannot write the state of the receiver: {error}");
    }
}
