//! `receive-wal --reset`: lets the receiver begin anew.

use std::fs::File;
use std::io::Read;

use super::Notice;
use super::error::{ArchiverFailure, ReceiverError};
use super::gap::{Position, Received, create_marker, gap_before, marker_path, received};
use super::lock::{begin_anew, lock};
use super::preflight::{Source, preflight};
use super::slots;
use super::start::create_streaming_directory;
use super::task::receiver;
use crate::archiver::{self, OutcastKind};
use crate::config::ServerConfig;
use crate::durable;
use crate::wal::{LONG_HEADER_SIZE_BYTES, LongPageHeader};

/// Puts the marker that tells the receiver where to go on to the slot's `restart_lsn` or, without
/// that, to the server's position.
pub fn reset(server: &ServerConfig, notify: &dyn Fn(&Notice<'_>)) -> Result<(), ReceiverError> {
    if !server.streaming_archiver {
        return Err(ReceiverError::SwitchedOff);
    }
    let source = preflight(server, None, notify)?;
    let Some(_lock) = lock(server)? else {
        return Err(ReceiverError::ResetWhileRunning(server.name.clone()));
    };
    create_streaming_directory(server)?;
    receiver(server, &source)?;
    let slot = slots::prepare(server, &source, None)?;
    let current = Position::of(
        source.identity.timeline,
        source.status.position.unwrap_or(source.identity.position),
        source.status.segment_size,
    );
    let start = source
        .restart_position(slot.as_ref())
        .map_err(ArchiverFailure::from)?
        .unwrap_or_else(|| current.clone());
    move_marker(server, &source, &current, &start, notify)?;
    report_gap(server, &source, &start, notify);
    begin_anew(server);
    Ok(())
}

fn move_marker(
    server: &ServerConfig,
    source: &Source,
    current: &Position,
    start: &Position,
    notify: &dyn Fn(&Notice<'_>),
) -> Result<(), ReceiverError> {
    let directory = &server.streaming_wals_directory;
    let io = |action, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| ReceiverError::Io {
            action,
            path,
            source,
        }
    };
    let mut files =
        received(directory, source.status.segment_size).map_err(io("read", directory))?;
    let newest = match files.pop() {
        Some(newest) if newest.position != *start => newest,
        _ => {
            notify(&Notice::NothingToReset);
            return Ok(());
        }
    };
    let order = |position: &Position| (position.segment.timeline(), position.start);
    if order(&newest.position) > order(current) {
        return Err(ReceiverError::Ahead {
            newest: newest.name.to_string(),
            current: current.segment.to_string(),
        });
    }
    notify(&Notice::Resetting);
    // The new marker first: cut off in between, the newer one of the two counts, and that is either
    // where the receiver was or where it shall go.
    let marker = marker_path(directory, start);
    let fate = newest.is_partial().then(|| fate_of(&newest, start));
    let old = newest.path.as_path();
    match fate {
        Some(Fate::Stays) => notify(&Notice::KeepingPartial(old)),
        Some(Fate::Goes) => notify(&Notice::RemovingMarker(old)),
        Some(Fate::SetAside) | None => {}
    }
    notify(&Notice::CreatingMarker(&marker));
    create_marker(directory, start).map_err(io("create", &marker))?;
    match fate {
        Some(Fate::Goes) => {
            durable::remove(old).map_err(io("remove", old))?;
            durable::sync_directory(directory).map_err(io("synchronise", directory))?;
        }
        Some(Fate::SetAside) => {
            let aside = archiver::move_to_errors(
                old,
                &server.errors_directory,
                OutcastKind::Superseded.suffix(),
            )
            .map_err(io("set aside", old))?;
            notify(&Notice::SettingPartialAside {
                path: old,
                aside: &aside,
            });
        }
        Some(Fate::Stays) | None => {}
    }
    Ok(())
}

/// What becomes of the partial segment that was the marker.
#[derive(Clone, Copy)]
enum Fate {
    /// It holds nothing, or nothing that will not be received again.
    Goes,
    /// It is the only copy of some WAL, and lies before the new start: archive-wal takes it like
    /// every one that was superseded.
    Stays,
    /// It is the only copy of some WAL of a timeline that was left behind, and its position would
    /// draw the receiver back there.
    SetAside,
}

fn fate_of(partial: &Received, start: &Position) -> Fate {
    let mut page = Vec::new();
    let read = File::open(&partial.path).and_then(|file| {
        file.take(LONG_HEADER_SIZE_BYTES as u64)
            .read_to_end(&mut page)
    });
    let holds_wal = read.is_err() || LongPageHeader::parse(&page).is_some();
    let order = |position: &Position| (position.start, position.segment.timeline());
    let same_timeline = partial.position.segment.timeline() == start.segment.timeline();
    match holds_wal {
        false => Fate::Goes,
        true if order(&partial.position) < order(start) => Fate::Stays,
        true if same_timeline => Fate::Goes,
        true => Fate::SetAside,
    }
}

/// What Barman does not say: which segments nobody will ever have.
pub(super) fn report_gap(
    server: &ServerConfig,
    source: &Source,
    start: &Position,
    notify: &dyn Fn(&Notice<'_>),
) {
    match gap_before(start, server, source.status.segment_size) {
        Ok(None) => {}
        Ok(Some(gap)) => notify(&Notice::Gap {
            server: &server.name,
            gap: &gap,
        }),
        Err(error) => notify(&Notice::GapUnknown(&error)),
    }
}
