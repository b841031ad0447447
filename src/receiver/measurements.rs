//! What a receiver tells of itself while it runs, as values: for `status`, for the metrics file and
//! for the line on a terminal.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::wal::Lsn;

/// Upper bounds in seconds of the classes into which the times of flushes fall; one more class takes
/// what is slower.
pub const FLUSH_BOUNDS_S: [f64; 12] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// What a receiver is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It makes sure that this is the server, and connects.
    #[default]
    Connecting,
    /// WAL arrives, or would if there were any.
    Streaming,
    /// It lost the connection, or never got it, and tries again soon.
    Waiting,
    /// It is connected and does not receive, because there is no room for a segment.
    DiskFull,
    /// It was asked to stop.
    Stopping,
    /// It has ended.
    Stopped,
}

impl Phase {
    /// All of them, in the order in which a receiver usually comes through them.
    pub const ALL: [Phase; 6] = [
        Phase::Connecting,
        Phase::Streaming,
        Phase::Waiting,
        Phase::DiskFull,
        Phase::Stopping,
        Phase::Stopped,
    ];

    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connecting => "connecting",
            Phase::Streaming => "streaming",
            Phase::Waiting => "waiting",
            Phase::DiskFull => "disk_full",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Connecting => "connecting",
            Phase::Streaming => "streaming",
            Phase::Waiting => "waiting to reconnect",
            Phase::DiskFull => "waiting for room on the disk",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
        })
    }
}

/// WAL that neither this receiver nor the server has: from the end of what was received to where
/// receiving went on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// When it was found.
    pub at: Timestamp,
    /// The timeline on which receiving went on.
    pub timeline: u32,
    /// The first byte that is missing.
    #[serde(with = "lsn")]
    pub from: Lsn,
    /// The first byte after it that was received.
    #[serde(with = "lsn")]
    pub to: Lsn,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} to {} on timeline {}",
            self.from, self.to, self.timeline
        )
    }
}

/// A failure that something went on after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When.
    pub at: Timestamp,
    /// In words, without passwords; may have several lines, the last of them a `HINT:`.
    pub reason: String,
}

/// How long the flushes took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlushTimes {
    /// How many took up to the bound of the same place in [`FLUSH_BOUNDS_S`] and longer than the
    /// bound before; the last number is of those that took longer than any bound.
    pub counts: [u64; FLUSH_BOUNDS_S.len() + 1],
    /// All their times together.
    pub sum_s: f64,
}

impl FlushTimes {
    /// How many flushes there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Everything that a [`Meter`](super::Meter) knew at one instant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measurements {
    /// Which receiver: `builtin` or `pg_receivewal`.
    pub receiver: String,
    /// The process.
    pub pid: u32,
    /// When this was read.
    pub at: Timestamp,
    /// When the receiver was started.
    pub started_at: Timestamp,
    /// What it is at.
    pub phase: Phase,
    /// The timeline of what it receives.
    pub timeline: Option<u32>,
    /// All WAL before this has been written to files. `None` for a receiver that does not say.
    #[serde(with = "lsn_or_none")]
    pub write_lsn: Option<Lsn>,
    /// All WAL before this is durable here.
    #[serde(with = "lsn_or_none")]
    pub flush_lsn: Option<Lsn>,
    /// The server has WAL up to here, as far as is known.
    #[serde(with = "lsn_or_none")]
    pub server_lsn: Option<Lsn>,
    /// How much WAL the server is known to have that is not written here yet.
    pub lag_bytes: Option<u64>,
    /// How long ago all WAL was written here that the server was known to have; 0 if it is, and the
    /// connection stands.
    pub lag_s: Option<f64>,
    /// When the server was last heard of.
    pub last_message_at: Option<Timestamp>,
    /// WAL received since the start.
    pub received_bytes: u64,
    /// How often the connection was made again since the start.
    pub reconnects: u64,
    /// What the flushes took.
    pub flushes: FlushTimes,
    /// Segments that were completed since the start.
    pub segments_completed: u64,
    /// Files that were archived from here since the start; `None` if the receiver does not hand over.
    pub files_archived: Option<u64>,
    /// Files that wait to be archived.
    pub archive_queue: Option<u64>,
    /// What was not received and never will be, as far as that is remembered.
    pub holes: Vec<Hole>,
    /// The last failure of receiving.
    pub last_error: Option<Trouble>,
    /// The failure for which files wait now.
    pub archive_error: Option<Trouble>,
}

/// An LSN in JSON, as PostgreSQL prints it.
mod lsn {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::wal::Lsn;

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lsn, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// The same for one that may be unknown.
mod lsn_or_none {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::wal::Lsn;

    pub(super) fn serialize<S: Serializer>(
        lsn: &Option<Lsn>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match lsn {
            Some(lsn) => super::lsn::serialize(lsn, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Lsn>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
