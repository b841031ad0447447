//! Where a run of the receiver begins, and whether the server can go on from there.

use std::fs::{self, File};
use std::io;

use super::Notice;
use super::error::{ArchiverFailure, ReceiverError};
use super::gap::{Position, received};
use super::preflight::{Source, connect_ordinary};
use crate::config::ServerConfig;
use crate::durable;
use crate::postgres::{Limits, ReplicationSlot, SystemIdentity, oldest_segment};
use crate::wal::{SegmentSize, WalName};

/// Where the receiver will begin.
pub(super) struct Next {
    pub(super) position: Position,
    /// Nothing in `streaming_wals_directory` says so.
    pub(super) needs_marker: bool,
}

/// Makes sure that the directory is there which WAL is received into.
pub(super) fn create_streaming_directory(server: &ServerConfig) -> Result<(), ReceiverError> {
    let path = &server.streaming_wals_directory;
    durable::create_directories(path).map_err(|source| ReceiverError::Io {
        action: "create",
        path: path.clone(),
        source,
    })
}

/// A partial segment that has neither no bytes nor all of them is none that `pg_receivewal`
/// would continue: it fills one up before it writes to it. What was in it is received again.
pub(super) fn truncate_partial(
    server: &ServerConfig,
    source: &Source,
    notify: &dyn Fn(&Notice<'_>),
) -> Result<(), ReceiverError> {
    let segment_size = source.status.segment_size;
    let received = received(&server.streaming_wals_directory, segment_size)
        .map_err(|error| unreadable(server, error))?;
    let Some(partial) = received.iter().rfind(|file| file.is_partial()) else {
        return Ok(());
    };
    let failed = |source| ReceiverError::Io {
        action: "truncate",
        path: partial.path.clone(),
        source,
    };
    let size_bytes = fs::metadata(&partial.path).map_err(failed)?.len();
    if size_bytes == 0 || size_bytes == segment_size.bytes() {
        return Ok(());
    }
    notify(&Notice::TruncatingPartial {
        path: &partial.path,
        size_bytes,
        expected_bytes: segment_size.bytes(),
    });
    let file = File::options()
        .write(true)
        .open(&partial.path)
        .map_err(failed)?;
    durable::truncate(&file, 0).map_err(failed)
}

/// Where the receiver will go on.
pub(super) fn next(
    server: &ServerConfig,
    source: &Source,
    slot: Option<&ReplicationSlot>,
) -> Result<Next, ReceiverError> {
    let segment_size = source.status.segment_size;
    let received = received(&server.streaming_wals_directory, segment_size)
        .map_err(|error| unreadable(server, error))?;
    if let Some(newest) = received.last() {
        return Ok(Next {
            position: newest.next(segment_size),
            needs_marker: false,
        });
    }
    let restart = source.restart_position(slot);
    let restart = restart.map_err(ArchiverFailure::from)?;
    Ok(Next {
        needs_marker: restart.is_some(),
        position: restart.unwrap_or_else(|| {
            let SystemIdentity {
                timeline, position, ..
            } = source.identity;
            Position::of(timeline, position, segment_size)
        }),
    })
}

pub(super) fn unreadable(server: &ServerConfig, source: io::Error) -> ReceiverError {
    ReceiverError::Io {
        action: "use",
        path: server.streaming_wals_directory.clone(),
        source,
    }
}

/// The server said that it has removed what comes next: from where on does it have WAL?
pub(super) fn removed(
    server: &ServerConfig,
    wanted: Position,
    segment_size: SegmentSize,
    limits: Limits,
) -> ArchiverFailure {
    let oldest =
        connect_ordinary(server, limits).and_then(|connection| oldest_segment(&connection));
    ArchiverFailure::Removed {
        server: server.name.clone(),
        wanted,
        oldest: position_of(oldest.ok().flatten(), segment_size),
    }
}

fn position_of(name: Option<String>, segment_size: SegmentSize) -> Option<Position> {
    let name = WalName::parse(&name?).ok()?;
    Position::of_name(&name, segment_size)
}

/// Refuses to begin what the server cannot deliver: `pg_receivewal` would fail once a minute, and
/// nobody would be told what is missing.
pub(super) fn check_available(
    server: &ServerConfig,
    source: &Source,
    slot: Option<&ReplicationSlot>,
    next: &Position,
) -> Result<(), ArchiverFailure> {
    let lost = slot.filter(|slot| slot.wal_status.as_deref() == Some("lost"));
    let kept = slot.and_then(|slot| slot.restart_lsn);
    if lost.is_none() && kept.is_some_and(|kept| kept <= next.start) {
        return Ok(());
    }
    let oldest = oldest_segment(&source.ordinary)?;
    let oldest = position_of(oldest, source.status.segment_size);
    let server = server.name.clone();
    let wanted = next.clone();
    match (lost, &oldest) {
        (Some(slot), _) => Err(ArchiverFailure::SlotLost {
            server,
            slot: slot.name.clone(),
            wanted,
            oldest,
        }),
        (None, Some(there)) if there.start > next.start => Err(ArchiverFailure::Removed {
            server,
            wanted,
            oldest,
        }),
        _ => Ok(()),
    }
}
