//! WAL that travels between a database host and a backup host, over ssh.
//!
//! ```text
//! database host                                   backup host
//! wal-archive  --- tar, checksums at its end -->  put-wal      stores into incoming
//! wal-restore  <-- the bytes of one file -------  get-wal
//! ```
//!
//! Either end may be Barman's.

mod fetch;
mod patience;
mod ssh;

pub use fetch::{FetchError, RemoteOutput};
pub use ssh::BackupHost;
