//! What PostgreSQL calls its WAL files and what stands in them: names, positions and page headers.
//! Pure computation, no I/O.

mod fault;
mod history;
mod lsn;
mod name;
mod page;

pub use fault::{WalFault, find_fault, find_fault_of_plain};
pub use history::read_history;
pub use lsn::{InvalidLsn, InvalidSegmentSize, Lsn, SegmentSize};
pub use name::{NotAWalName, WalKind, WalName};
pub use page::{LONG_HEADER_SIZE_BYTES, LongPageHeader, postgres_major_version};
