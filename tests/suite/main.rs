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
//! | `put_wal` | is what arrives by tar stored safely, and everything else refused? |
//! | `put_wal_faults` | what if put-wal is killed, or a call fails, at any point? |
//! | `wal_archive` | over a real sshd: our client and Barman's, to our put-wal and Barman's |
//! | `forced_command` | can the holder of a key do what it is for, and nothing else? |
//! | `recovery` | does PostgreSQL recover, to any target, from what walarch stored? |
//! | `restore_faults` | what if get-wal or wal-restore is killed, or a call fails, at any point? |
//! | `side_by_side` | does walarch leave a home as Barman does, and can each go on after the other? |
//! | `check` | does `check` judge as Barman does, more truthfully where it must, and without a trace? |
//! | `status` | does `status` show what Barman shows of the WAL side, and the receiver and the queues? |
//! | `hooks` | order, environment, retry, exit codes of hook scripts |
//! | `xlogdb` | lines old and new, torn, missing, migrated, rebuilt, locked |
//! | `receive` | receive-wal, slots, reset and every bad day of a receiver, against real servers |
//! | `readme` | do the README, the help and the examples say what the code does? |
//! | `process` | whose rights it runs with, and what if nobody reads what it prints? |
//! | `cron` | what does it start, for whom, and what does it leave alone? |
//! | `unattended` | does a crontab line alone keep WAL flowing, whatever is killed? |
//! | `processes` | what do `list-processes` and `terminate-process` find and end? |
//! | `switch_wal`, `replication_status` | do they do and print what Barman's do? |
//! | `retention` | what does `delete-wals` take, what does it leave, and what if it is killed? |
//! | `inspection` | do `list-wals`, `verify-wals` and `check-wal-archive` see what is there, damaged, missing? |
//! | `false_alarms` | does `verify-wals` let pass what PostgreSQL does, and nothing beside it? |
//! | `outcasts` | does `errors` tell what is safe to remove, and remove nothing else? |
//! | `cloud` | archives in object stores: every store, every fault, Barman, recovery |
//! | `faults` | what if it is killed, or a call fails, at any point? |
//! | `fuzz` | do the decoders of what a replication peer sends hold against whatever it sends? |
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
    clippy::print_stdout,
    reason = "what a test printed is shown when it fails: seeds above all"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests make the messes that durable never would"
)]

mod archive;
mod check;
mod cloud;
mod codec;
mod collisions;
mod command_mode;
mod config;
mod cron;
mod errors_directory;
mod false_alarms;
mod faults;
mod forced_command;
mod fuzz;
mod get_wal;
mod harness;
mod hooks;
mod inspection;
mod outcasts;
mod process;
mod processes;
mod put_wal;
mod put_wal_faults;
mod readme;
mod receive;
mod recovery;
mod replication_status;
mod restore_faults;
mod retention;
mod side_by_side;
mod status;
mod support;
mod switch_wal;
mod unattended;
mod validation;
mod wal_archive;
mod wal_restore;
mod xlogdb;
