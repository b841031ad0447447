//! receive-wal: WAL that comes by streaming replication.

mod state;

pub use state::{LastExit, ReceiverState, StateError};
