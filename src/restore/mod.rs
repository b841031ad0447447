//! Giving WAL back.
//!
//! ```text
//! places      archive, incoming, streaming, partial segments, the archive again
//!    |
//! retrieve    stored form -> decoded -> checked -> the form that was asked for, in one pass
//!    |
//! outlet      a file that gets its name when all is good, or a stream that is held back till then
//! ```
//!
//! Segments of the usual size that zstd has compressed are decoded in memory instead, on two threads if they were stored in
//! two parts, where the outlet takes bytes in any order (`in_memory`).
//!
//! A file that is damaged in one place may be good in the next. What is delivered has been decoded to its end and found
//! to be what its name says; a damaged file never becomes visible as a whole one.

mod checked;
mod delivery;
mod error;
mod in_memory;
mod outlet;
mod peek;
mod places;
mod plain;
mod plan;
mod prefetch;
mod recovery;
mod remote;
mod retrieve;
mod source;
mod spool;

pub use checked::Validation;
pub use error::{Origin, RestoreError, Trouble};
pub use outlet::{FileOutlet, Outlet, Place, StreamOutlet};
pub use prefetch::prefetch;
pub use recovery::{
    Ahead, cluster_identifier, data_directory, outlet_for, restore, works_for_pg_rewind,
};
pub use remote::Remote;
pub use retrieve::{Form, Notice, Request, Retriever};
pub use source::WalSource;
pub use spool::Spool;
