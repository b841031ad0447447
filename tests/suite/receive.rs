//! `receive-wal` and what belongs to it, against real servers; beside the real Barman where the two must
//! agree.

mod bad_days;
mod hostile;
mod promises;
mod reset;
mod running;
mod slots;
mod support;
mod survival;
