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
//! A file that is damaged in one place may be good in the next. What is delivered has been decoded to its end and found
//! to be what its name says; a damaged file never becomes visible as a whole one.

mod checked;
mod delivery;
mod error;
mod outlet;
mod peek;
mod places;
mod plain;
mod retrieve;

pub use checked::Validation;
pub use error::{RestoreError, Trouble};
pub use outlet::{FileOutlet, Outlet, StreamOutlet};
pub use retrieve::{Form, Notice, Request, Retriever};
