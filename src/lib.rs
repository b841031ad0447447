//! walarch archives PostgreSQL's write-ahead log.

pub mod catalog;
pub mod codec;
pub mod config;
pub mod durable;
pub mod hooks;
pub mod wal;
