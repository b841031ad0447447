//! One test crate that drives the real binary, beside the real Barman wherever the two must agree.
//!
//! | module | asks |
//! |---|---|
//! | `config` | does the configuration mean what it means to Barman? |
//! | `codec` | do the standard tools and Barman read what we write, and we what they write? |
//! | `harness` | can the tools of this crate fail? (they find Barman's known violations) |
//! | `archive` | what does `archive-wal SERVER` do with each kind of file? |
//! | `collisions` | what if the archive has something under the file's name already? |
//! | `errors_directory` | does everything that is set aside arrive, and nothing else? |
//! | `validation` | which segments are refused, and which cannot be judged? |
//! | `command_mode` | does `archive-wal SERVER PATH` keep its promise to `archive_command`? |
//! | `get_wal` | what does `get-wal` deliver, from where, in which form, and what does it refuse? |
//! | `wal_restore` | does the client on the database host deliver the right file, now and ahead of time? |
//! | `side_by_side` | does walarch leave a home as Barman does, and can each go on after the other? |
//! | `hooks` | order, environment, retry, exit codes of hook scripts |
//! | `xlogdb` | lines old and new, torn, missing, migrated, rebuilt, locked |
//! | `readme` | do the README, the help and the examples say what the code does? |
//! | `process` | whose rights it runs with, and what if nobody reads what it prints? |
//! | `cloud` | archives in object stores: every store, every fault, Barman, recovery |
//! | `faults` | what if it is killed, or a call fails, at any point? |
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected must stop with a backtrace"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests make the messes that durable never would"
)]

mod archive;
mod cloud;
mod codec;
mod collisions;
mod command_mode;
mod config;
mod errors_directory;
mod faults;
mod get_wal;
mod harness;
mod hooks;
mod process;
mod readme;
mod side_by_side;
mod support;
mod validation;
mod wal_restore;
mod xlogdb;
