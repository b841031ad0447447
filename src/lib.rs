//! walarch archives PostgreSQL's write-ahead log.

pub mod codec;
pub mod config;
pub mod durable;
pub mod wal;
