//! walarch archives PostgreSQL's write-ahead log (WAL). It does the WAL half of a Barman server, in
//! the same home, with the same configuration, and it cannot lose WAL.
//!
//! # The way of a file
//!
//! ```text
//! receiver     receive-wal: what a server streams becomes a file in a queue
//! shipping     put-wal: a tar stream over ssh becomes a file in a queue; wal-archive, its other end
//!    |
//! archiver     one look into a queue: what is there, in which order, what must stay
//!    |
//! storage      Archive::save, the one pipeline
//!    |            worker threads            committer, in WAL order
//!    |            ---------------------     -----------------------------------------
//!    |            open, validate,           publish without overwriting -> directory
//!    |            compare or encode,   ->   durable -> xlogdb line durable -> source
//!    |            seal (bytes durable)      removed, durable
//!    |
//! codec, hooks, catalog                     what a file is wrapped in, who is told, who lists it
//!    |
//! durable, wal, config                      how a change survives a crash; names; options
//! ```
//!
//! Imports point down this picture only. [`cli`] stands on top: it turns arguments into calls and
//! what happens into lines, the log and an exit code. The rest never prints and never exits; it
//! returns errors, and tells an [`observe::Observer`] what happens meanwhile.
//!
//! [`restore`] goes the other way: it finds a file, decodes and checks it, and delivers it whole or
//! not at all. [`postgres`] is the connection to a server, for the receiver and for `check`, `status`
//! and the small commands.
//!
//! # The two traits
//!
//! [`archiver::WalArchiver`] is a place where WAL comes from, [`storage::WalStorageStrategy`] one
//! where it goes. Both can be implemented outside this crate.
//!
//! # What a crash can do
//!
//! Nothing: see `storage::save::commit`. Cut off anywhere, every WAL file is whole in its source or
//! whole in the archive, and the next run goes on from there.

pub mod archiver;
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod config;
pub mod durable;
pub mod hooks;
pub mod observe;
pub mod postgres;
mod printable;
pub mod receiver;
pub mod restore;
pub mod shipping;
pub mod storage;
pub mod units;
pub mod wal;
