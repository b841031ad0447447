//! What PostgreSQL calls its WAL files and what stands in them: names, positions and page headers.
//! Pure computation, no I/O.

mod continuity;
mod fault;
mod history;
mod lsn;
mod name;
mod page;
mod pages;
mod range;

pub use continuity::{Coverage, Gap};
pub use fault::{WalFault, find_fault, find_fault_of_plain, judged_bytes};
pub use history::{Ancestor, InvalidHistory, TimelineHistory};
pub use lsn::{InvalidLsn, InvalidSegmentSize, Lsn, SegmentSize};
pub use name::{NotAWalName, WalKind, WalName};
pub use page::{
    FirstPageFault, LONG_HEADER_SIZE_BYTES, LongPageHeader, judge_first_page,
    postgres_major_version,
};
pub use pages::{PAGE_SIZE_MAX_BYTES, PageCheck, PageFault};
pub use range::WalRange;
