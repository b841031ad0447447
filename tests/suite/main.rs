//! One test crate that drives the real binary. See `support` for homes, clusters and the real Barman.

mod config;
