//! One run of `receive-wal`: everything before, around and after the receiver itself.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use jiff::Timestamp;

use super::error::{ArchiverFailure, ReceiverError};
use super::gap::{Position, create_marker, received};
use super::handover::HandOver;
use super::lock::lock;
use super::preflight::{Source, connect_ordinary, preflight};
use super::report::Reporter;
use super::state::ReceiverState;
use super::{
    Archivist, Meter, Notice, PgReceivewal, Progress, Receiver, Task, is_synchronous, slots,
};
use crate::archiver;
use crate::config::{ServerConfig, Synchronous};
use crate::durable;
use crate::postgres::{Conninfo, Limits, ReplicationSlot, SystemIdentity, oldest_segment};
use crate::wal::{SegmentSize, WalName};

/// Receives WAL until `stop` becomes true or it cannot go on. What happens is counted by `meter`. What is
/// complete goes to `archivist` at once, if there is one and the receiver can serve it.
///
/// Must be called from the thread that lives as long as the process: the receiver dies with it.
pub fn receive(
    server: &ServerConfig,
    stop: &Arc<AtomicBool>,
    meter: &Arc<Meter>,
    archivist: Option<Box<dyn Archivist>>,
    notify: &dyn Fn(&Notice<'_>),
) -> Result<(), ReceiverError> {
    if !server.streaming_archiver {
        return Err(ReceiverError::SwitchedOff);
    }
    let Some(_lock) = lock(server)? else {
        // As Barman: what is wrong with the server comes first.
        preflight(server, Some(stop), notify)?;
        notify(&Notice::Starting(&server.name));
        return Err(ReceiverError::Running(server.name.clone()));
    };
    let mut session = Session {
        server,
        stop,
        meter,
        archivist,
        notify,
        state: ReceiverState::load(server).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            ReceiverState::default()
        }),
    };
    session.run()
}

/// The slot that a receiver may use: created if it is missing and may be. `None` if no slot is
/// configured, or if it is missing and `create` says that this does not matter.
pub(super) fn prepare_slot(
    server: &ServerConfig,
    source: &Source,
    create: Option<&dyn Fn(&Notice<'_>)>,
) -> Result<Option<ReplicationSlot>, ArchiverFailure> {
    let Some(name) = server.slot_name.as_deref() else {
        return Ok(None);
    };
    let found = source.usable_slot(name)?;
    if found.is_none() && !server.create_slot {
        return Err(ArchiverFailure::SlotMissing {
            slot: name.to_owned(),
            server: server.name.clone(),
        });
    }
    if let (None, Some(notify)) = (&found, create) {
        notify(&Notice::CreatingMissingSlot(name));
        notify(&Notice::CreatingSlot {
            slot: name,
            server: &server.name,
        });
        slots::create(&source.streaming, name, server)?;
        notify(&Notice::SlotCreated(name));
    }
    Ok(found)
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

/// Where the receiver will begin.
struct Next {
    position: Position,
    /// Nothing in `streaming_wals_directory` says so.
    needs_marker: bool,
}

struct Session<'a> {
    server: &'a ServerConfig,
    stop: &'a Arc<AtomicBool>,
    meter: &'a Arc<Meter>,
    archivist: Option<Box<dyn Archivist>>,
    notify: &'a dyn Fn(&Notice<'_>),
    state: ReceiverState,
}

impl Session<'_> {
    fn run(&mut self) -> Result<(), ReceiverError> {
        let since = Instant::now();
        self.state.start(Timestamp::now());
        self.store();
        let reporter = Reporter::start(self.server, Arc::clone(self.meter));
        let reporter = reporter.inspect_err(|error| tracing::warn!("cannot report: {error}"));
        let received = self.prepare_and_receive();
        let stopped = self.stop.load(Ordering::Relaxed);
        let (reason, failed_after) = match &received {
            _ if stopped => ("it was asked to stop".to_owned(), None),
            Ok(()) => ("pg_receivewal ended by itself".to_owned(), None),
            Err(ReceiverError::Failure(failure)) => (failure.to_string(), Some(since.elapsed())),
            Err(error) => (error.to_string(), Some(since.elapsed())),
        };
        if failed_after.is_some() {
            self.meter.failed(&reason);
        }
        self.meter.stopped();
        drop(reporter);
        self.state.end(Timestamp::now(), reason, failed_after);
        self.store();
        if stopped { Ok(()) } else { received }
    }

    /// What is remembered serves `cron` and `status`; receiving goes on without.
    fn store(&self) {
        match self.state.store(self.server) {
            // No home yet: there is nothing to remember of one that never worked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("cannot write the state of the receiver: {error}"),
            Ok(()) => {}
        }
    }

    fn prepare_and_receive(&mut self) -> Result<(), ReceiverError> {
        let server = self.server;
        let source = preflight(server, Some(self.stop), self.notify)?;
        (self.notify)(&Notice::Starting(&server.name));
        create_streaming_directory(server)?;
        let receiver =
            PgReceivewal::for_server(server.path_prefix.as_deref(), source.status.version)?;
        let slot = prepare_slot(server, &source, Some(&|notice| (self.notify)(notice)))?;
        self.truncate_partial(&source)?;
        let next = self.next(&source, slot.as_ref())?;
        check_available(server, &source, slot.as_ref(), &next.position)?;
        if next.needs_marker {
            // A pg_receivewal of before version 15 would begin at the server's position instead.
            tracing::info!("Beginning at the position of the slot: {}", next.position);
            let directory = &server.streaming_wals_directory;
            create_marker(directory, &next.position).map_err(|error| self.unreadable(error))?;
        }
        let identifier = source.identity.system_identifier;
        let major_version = source.status.version / 10_000;
        if let Err(error) =
            archiver::pin_identity(&server.backup_directory, identifier, major_version)
        {
            tracing::warn!("cannot write down the system identifier: {error}");
        }
        let task = task(server, &source, self.meter)?;
        let segment_size = source.status.segment_size;
        // The server's resources are for others.
        drop(source);
        tracing::info!("Activating WAL archiving through streaming protocol");
        let _hand_over = self.hand_over(&receiver);
        let stop = Arc::clone(self.stop);
        let mut removed = false;
        let received = receiver.receive(&task, &stop, &mut |progress| {
            if let Progress::Line(line) = progress {
                removed |= line.contains("has already been removed");
            }
            self.take_progress(&progress);
        });
        match received {
            Err(_) if removed => Err(self.removed(next.position, segment_size).into()),
            other => Ok(other?),
        }
    }

    /// Receiving goes on without it: `cron` archives what waits.
    fn hand_over(&mut self, receiver: &dyn Receiver) -> Option<HandOver> {
        let archivist = self.archivist.take()?;
        if !receiver.tells_of_files() {
            return None;
        }
        HandOver::start(archivist, Arc::clone(self.meter))
            .inspect_err(|error| tracing::warn!("cannot archive while receiving: {error}"))
            .ok()
    }

    fn take_progress(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Line(line) => (self.notify)(&Notice::Line {
                server: &self.server.name,
                line,
            }),
            Progress::Streaming(position) => {
                self.state.stream(Timestamp::now());
                self.store();
                (self.notify)(&Notice::Streaming(position));
            }
        }
    }

    /// A partial segment that has neither no bytes nor all of them is none that `pg_receivewal`
    /// would continue: it fills one up before it writes to it. What was in it is received again.
    fn truncate_partial(&self, source: &Source) -> Result<(), ReceiverError> {
        let segment_size = source.status.segment_size;
        let received = received(&self.server.streaming_wals_directory, segment_size)
            .map_err(|error| self.unreadable(error))?;
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
        (self.notify)(&Notice::TruncatingPartial {
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
    fn next(&self, source: &Source, slot: Option<&ReplicationSlot>) -> Result<Next, ReceiverError> {
        let segment_size = source.status.segment_size;
        let received = received(&self.server.streaming_wals_directory, segment_size)
            .map_err(|error| self.unreadable(error))?;
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

    fn unreadable(&self, source: io::Error) -> ReceiverError {
        ReceiverError::Io {
            action: "use",
            path: self.server.streaming_wals_directory.clone(),
            source,
        }
    }

    /// The server said that it has removed what comes next: from where on does it have WAL?
    fn removed(&self, wanted: Position, segment_size: SegmentSize) -> ArchiverFailure {
        let oldest = connect_ordinary(self.server, Limits::default())
            .and_then(|connection| oldest_segment(&connection));
        ArchiverFailure::Removed {
            server: self.server.name.clone(),
            wanted,
            oldest: position_of(oldest.ok().flatten(), segment_size),
        }
    }
}

fn position_of(name: Option<String>, segment_size: SegmentSize) -> Option<Position> {
    let name = WalName::parse(&name?).ok()?;
    Position::of_name(&name, segment_size)
}

/// Refuses to begin what the server cannot deliver: `pg_receivewal` would fail once a minute, and
/// nobody would be told what is missing.
fn check_available(
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

/// What the receiver is to do.
fn task<'a>(
    server: &'a ServerConfig,
    source: &Source,
    meter: &'a Meter,
) -> Result<Task<'a>, ArchiverFailure> {
    let conninfo = server.streaming_conninfo.as_deref().unwrap_or_default();
    let mut conninfo = Conninfo::parse(conninfo)?.for_replication();
    if let Some(name) = &server.streaming_archiver_name {
        conninfo = conninfo.with_default("application_name", name);
    }
    let names = &source.status.synchronous_standby_names;
    let name = conninfo.get("application_name").unwrap_or_default();
    let synchronous = match server.own.receive_wal_synchronous {
        Synchronous::On => true,
        Synchronous::Off => false,
        Synchronous::Auto => is_synchronous(names, name),
    };
    tracing::debug!("Synchronous WAL streaming for {name}: {synchronous} ({names:?})");
    Ok(Task {
        conninfo,
        slot_name: server.slot_name.as_deref(),
        directory: &server.streaming_wals_directory,
        synchronous,
        meter,
    })
}
