//! The only code that renames, links, unlinks, truncates or synchronises files, and the lock files.
//!
//! Everything that keeps WAL safe across a crash goes through here, so that it can be read, and
//! made to fail in tests, in one place. The build refuses these calls elsewhere (`.clippy.toml`).

#![allow(
    clippy::disallowed_methods,
    reason = "this is the module they are reserved for"
)]

mod aside;
mod direct;
mod directory;
mod file;
mod lock;

pub use aside::move_aside;
pub use direct::{DirectWriter, Rooms};
pub use directory::{create_directories, remove_directory, sync_directory};
pub use file::{
    Identity, Publication, Revision, Temporary, allocate, append, create_file, keep_attributes,
    move_file, publish_file, refresh_file, remove, replace_file, sync_data, sync_file, truncate,
};
pub use lock::{LockFile, SharedLock, Wait, lock_holder, remove_idle_lock, share_lock};
