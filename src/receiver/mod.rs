//! receive-wal: WAL that comes by streaming replication.

mod program;
mod state;

pub use program::ReceiverProgram;
pub use state::{LastExit, ReceiverState, StateError};
