//! The connection to PostgreSQL, through libpq: what its manual says about connection strings,
//! service files, password files, certificates and several hosts holds here word for word.
//!
//! Its module `ffi` is the one place where raw pointers live; everything above it owns what it holds. A
//! [`Connection`] waits without ever being deaf: each wait ends when its [`Limits`] say so.

mod connection;
mod conninfo;
mod environment;
mod error;
mod facts;
mod ffi;
mod identity;
mod replication;
mod server;
mod slot;
mod streaming_client;
mod wal_stream;

pub use connection::{Connection, Limits, Rows};
pub use conninfo::Conninfo;
pub use environment::use_debian_paths;
pub use error::PostgresError;
pub use facts::{ArchiverFacts, ServerFacts, WalSender, find_wal_sender, version_name};
pub use identity::{SystemIdentity, identify_system};
pub use replication::{MalformedMessage, ReplicationMessage, ServerClock, StatusUpdate};
pub use server::{ServerStatus, history_file, oldest_segment, server_status, timeline_history};
pub use slot::{ReplicationSlot, create_slot, drop_slot, find_slot};
pub use streaming_client::{
    StreamingClient, current_position, streaming_clients, user_without_statistics,
};
pub use wal_stream::{Arrival, Message, NextTimeline, Replication, WalStream, start_replication};
