//! Configuration: the same as Python's `configparser` reads, and as the real Barman makes of it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod barman;
mod compare;
mod loading;
mod python;
