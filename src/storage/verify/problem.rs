//! What can be wrong with an archive.

use std::fmt;

use crate::codec::CodecError;
use crate::wal::{Gap, InvalidHistory, PageFault, WalFault, WalName};

/// Something that is wrong with an archive.
#[derive(Debug)]
pub enum Problem {
    /// A file cannot be decoded to its end.
    Undecodable {
        /// The file.
        name: WalName,
        /// What went wrong.
        source: CodecError,
    },
    /// A file is not what its name says.
    Fault {
        /// The file.
        name: WalName,
        /// The evidence.
        fault: WalFault,
    },
    /// A complete segment begins with a page, but not with the first page of the segment of its name and size.
    NoFirstPage {
        /// The segment.
        name: WalName,
    },
    /// A segment does not have the size that segments of its cluster have.
    SegmentSize {
        /// The segment.
        name: WalName,
        /// Its size, decoded.
        wal_size_bytes: u64,
        /// What it should be.
        segment_size_bytes: u64,
    },
    /// A page of a segment is not what belongs there.
    Page {
        /// The segment.
        name: WalName,
        /// The evidence.
        fault: PageFault,
    },
    /// PostgreSQL would not understand a history file.
    History {
        /// The file.
        name: WalName,
        /// Why.
        fault: InvalidHistory,
    },
    /// xlogdb says another size.
    ListedSize {
        /// The file.
        name: WalName,
        /// What xlogdb says, in bytes.
        listed_size_bytes: u64,
        /// What the archive holds, in bytes.
        stored_size_bytes: u64,
    },
    /// xlogdb lists a file that the archive does not have.
    NotThere {
        /// The file.
        name: WalName,
    },
    /// The same of many more files.
    MoreNotThere {
        /// How many.
        files: u64,
    },
    /// xlogdb lists a file more than once: whoever adds up its lines counts it as often.
    ListedTwice {
        /// The file.
        name: WalName,
    },
    /// The same of many more files.
    MoreListedTwice {
        /// How many.
        files: u64,
    },
    /// xlogdb has lines that are none.
    UnreadableLines {
        /// How many.
        lines: u64,
    },
    /// A file lies where nobody looks for it.
    Misplaced {
        /// The file.
        name: WalName,
        /// Where it is.
        location: String,
    },
    /// The archive has a file that xlogdb does not list.
    NotListed {
        /// The file.
        name: WalName,
    },
    /// There are segments of a timeline, but not its history.
    NoHistory {
        /// The timeline.
        timeline: u32,
    },
    /// Segments are missing.
    Gap(Gap),
    /// The segment with which the range begins or ends is not there.
    NoEnd {
        /// The segment.
        name: WalName,
    },
}

impl Problem {
    /// The file that it is about, if it is about one.
    pub fn name(&self) -> Option<&WalName> {
        match self {
            Problem::Undecodable { name, .. }
            | Problem::Fault { name, .. }
            | Problem::NoFirstPage { name }
            | Problem::SegmentSize { name, .. }
            | Problem::Page { name, .. }
            | Problem::History { name, .. }
            | Problem::ListedSize { name, .. }
            | Problem::NotThere { name }
            | Problem::ListedTwice { name }
            | Problem::Misplaced { name, .. }
            | Problem::NotListed { name }
            | Problem::NoEnd { name } => Some(name),
            Problem::MoreNotThere { .. }
            | Problem::MoreListedTwice { .. }
            | Problem::UnreadableLines { .. }
            | Problem::NoHistory { .. }
            | Problem::Gap(_) => None,
        }
    }

    /// How many problems it stands for.
    pub fn count(&self) -> u64 {
        match self {
            Problem::MoreNotThere { files } | Problem::MoreListedTwice { files } => *files,
            _ => 1,
        }
    }

    /// One word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Problem::Undecodable { .. } => "undecodable",
            Problem::Fault { .. } | Problem::NoFirstPage { .. } | Problem::SegmentSize { .. } => {
                "invalid"
            }
            Problem::Page { .. } => "page",
            Problem::History { .. } => "history",
            Problem::ListedSize { .. } => "listed_size",
            Problem::NotThere { .. } | Problem::MoreNotThere { .. } => "not_there",
            Problem::ListedTwice { .. } | Problem::MoreListedTwice { .. } => "listed_twice",
            Problem::UnreadableLines { .. } => "unreadable_lines",
            Problem::Misplaced { .. } => "misplaced",
            Problem::NotListed { .. } => "not_listed",
            Problem::NoHistory { .. } => "no_history",
            Problem::Gap(_) => "gap",
            Problem::NoEnd { .. } => "no_end",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Undecodable { name, source } => write!(f, "{name}: {source}"),
            Problem::Fault { name, fault } => write!(f, "{name}: {fault}"),
            Problem::NoFirstPage { name } => write!(
                f,
                "{name}: it does not begin with the header of the first page of a segment of its name"
            ),
            Problem::SegmentSize {
                name,
                wal_size_bytes,
                segment_size_bytes,
            } => write!(
                f,
                "{name}: it has {wal_size_bytes} bytes, the segments of this cluster have \
                 {segment_size_bytes}"
            ),
            Problem::Page { name, fault } => write!(f, "{name}: {fault}"),
            Problem::History { name, fault } => {
                write!(f, "{name}: PostgreSQL would not understand it: {fault}")
            }
            Problem::ListedSize {
                name,
                listed_size_bytes,
                stored_size_bytes,
            } => write!(
                f,
                "{name}: it has {stored_size_bytes} bytes, xlogdb says {listed_size_bytes}"
            ),
            Problem::NotThere { name } => {
                write!(f, "{name}: xlogdb lists it, but it is not in the archive")
            }
            Problem::MoreNotThere { files } => write!(
                f,
                "xlogdb lists {files} more that are not in the archive; their names are not shown"
            ),
            Problem::ListedTwice { name } => write!(
                f,
                "{name}: xlogdb lists it more than once; rebuild-xlogdb writes it anew"
            ),
            Problem::MoreListedTwice { files } => write!(
                f,
                "xlogdb lists {files} more files more than once; their names are not shown"
            ),
            Problem::UnreadableLines { lines } => write!(
                f,
                "xlogdb has {lines} lines that cannot be read; rebuild-xlogdb writes it anew"
            ),
            Problem::Misplaced { name, location } => write!(
                f,
                "{name}: {location} is not the place of that name: nobody finds it there"
            ),
            Problem::NotListed { name } => {
                write!(
                    f,
                    "{name}: it is in the archive, but xlogdb does not list it"
                )
            }
            Problem::NoHistory { timeline } => write!(
                f,
                "{timeline:08X}.history: it is not in the archive, but segments of its timeline are"
            ),
            Problem::Gap(gap) => gap.fmt(f),
            Problem::NoEnd { name } => write!(f, "{name}: it is not in the archive"),
        }
    }
}
