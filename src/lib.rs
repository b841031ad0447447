//! walarch archives PostgreSQL's write-ahead log.

pub mod archiver;
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod config;
pub mod durable;
pub mod hooks;
pub mod observe;
pub mod storage;
pub mod wal;
