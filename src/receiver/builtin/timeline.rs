//! Timelines: what a server has of them, and their history files.

use std::path::Path;

use crate::durable;
use crate::postgres::{Connection, NextTimeline, SystemIdentity, history_file, timeline_history};
use crate::receiver::stream_error::{FileError, ProtocolError};
use crate::receiver::{ArchiverFailure, Meter};
use crate::wal::{Lsn, SegmentSize};

/// Permissions of a history file, less the umask, as `pg_receivewal` creates it.
const FILE_MODE: u32 = 0o600;

/// Where receiving goes on: at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) timeline: u32,
    pub(super) start: Lsn,
}

impl Place {
    /// Where it goes on after this place's timeline has ended, with everything received up to `end`:
    /// at the beginning of the segment in which the next timeline branches off, because that segment
    /// exists on it as well.
    pub(super) fn after(
        self,
        end: Lsn,
        next: NextTimeline,
        segment_size: SegmentSize,
    ) -> Result<Self, ProtocolError> {
        // The server may have sent more than it kept: the first part of a record whose rest it never
        // got before it was promoted. But it had what it was asked for.
        if next.timeline <= self.timeline || next.start < self.start || next.start > end {
            return Err(ProtocolError::NextTimeline {
                timeline: self.timeline,
                end,
                next: next.timeline,
                start: next.start,
            });
        }
        Ok(Place {
            timeline: next.timeline,
            start: Lsn(next.start.0 - next.start.0 % segment_size.bytes()),
        })
    }

    /// Whether the server can go on from here.
    pub(super) fn check(
        self,
        server: &SystemIdentity,
        connection: &Connection,
    ) -> Result<(), ArchiverFailure> {
        let is_behind = self.timeline > server.timeline
            || self.timeline == server.timeline && self.start > server.position;
        if is_behind {
            return Err(ArchiverFailure::Behind {
                wanted: self.start,
                timeline: self.timeline,
                position: server.position,
                server_timeline: server.timeline,
            });
        }
        if self.timeline == server.timeline {
            return Ok(());
        }
        let history = timeline_history(connection, server.timeline)?;
        match history
            .iter()
            .find(|(timeline, _)| *timeline == self.timeline)
        {
            Some((_, end)) if self.start <= *end => Ok(()),
            _ => Err(ArchiverFailure::Diverged {
                wanted: self.start,
                timeline: self.timeline,
            }),
        }
    }

    /// Fetches the history file of the timeline, if it has one that is not here yet: it is to be
    /// durable before the first WAL of the timeline.
    pub(super) fn fetch_history(
        self,
        directory: &Path,
        connection: &Connection,
        meter: &Meter,
    ) -> Result<(), ArchiverFailure> {
        // The first one has none.
        if self.timeline == 1 {
            return Ok(());
        }
        let path = directory.join(format!("{:08X}.history", self.timeline));
        if path.exists() {
            return Ok(());
        }
        let content = history_file(connection, self.timeline)?;
        durable::create_file(&path, &content, FILE_MODE).map_err(FileError::of("create", &path))?;
        meter.history_completed();
        Ok(())
    }
}
