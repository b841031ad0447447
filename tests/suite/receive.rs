//! `receive-wal` and what belongs to it, against real servers; beside the real Barman where the two must
//! agree.

mod bad_days;
mod bad_line;
mod builtin;
mod faults;
pub mod handover;
mod hostile;
mod measures;
mod promises;
mod reset;
mod running;
mod scripts;
mod service;
mod slots;
mod stopping;
pub mod support;
mod survival;
mod synchronous;
mod takeover;
