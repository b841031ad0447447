//! Configuration: the same as Python's `configparser` reads, and as the real Barman makes of it.
//!
//! Barman's Python is `$WALARCH_BARMAN_PYTHON`, else that of the virtual environment
//! `$WALARCH_BARMAN_VENV`, else `target/barman-venv/bin/python`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod barman;
mod compare;
mod loading;
mod python;
