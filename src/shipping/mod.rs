//! WAL that travels between a database host and a backup host, over ssh.
//!
//! ```text
//! database host                                   backup host
//! wal-archive  --- tar, checksums at its end -->  put-wal      stores into incoming
//! wal-restore  <-- the bytes of one file -------  get-wal
//! ```
//!
//! Either end may be Barman's.

mod checksum;
mod existing;
mod fetch;
mod members;
mod patience;
mod receive;
mod receive_error;
mod request;
mod send;
mod ssh;
mod sweep;

pub use checksum::Algorithm;
pub use fetch::{FetchError, RemoteOutput, answer};
pub use patience::PatientReader;
pub use receive::{Inbox, Notice};
pub use receive_error::ReceiveError;
pub use request::{Refusal, Request};
pub use send::{SendError, Sending};
pub use ssh::BackupHost;
