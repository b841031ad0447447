//! receive-wal: WAL that comes by streaming replication.

mod program;
mod state;
mod synchronous;

pub use program::ReceiverProgram;
pub use state::{LastExit, ReceiverState, StateError};
pub use synchronous::is_synchronous;
