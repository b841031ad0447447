//! Is this the server, and can WAL be received from it? Asked before anything is written.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use super::Notice;
use super::error::{ArchiverFailure, FailedCheck, ReceiverError};
use super::gap::{Position, received};
use crate::archiver::{self, identity_path};
use crate::config::{ReceiverKind, ServerConfig};
use crate::postgres::{
    Connection, Conninfo, Limits, PostgresError, ReplicationSlot, ServerStatus, SystemIdentity,
    find_slot, identify_system, server_status, timeline_history,
};
use crate::wal::{LONG_HEADER_SIZE_BYTES, LongPageHeader, Lsn, SegmentSize};

/// How often, and after which pause, a slot is looked at again that is in use: the server needs a
/// moment to notice that a receiver was killed.
const SLOT_RETRIES: u32 = 10;
const SLOT_PAUSE: Duration = Duration::from_millis(100);

/// How long the built-in receiver tries to reach a host, in seconds,
const CONNECT_TIMEOUT_S: &str = "10";
/// and how long it waits until a server, the last of several perhaps, has answered everything.
const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(120);

const MONITORING: &str = "no access to monitoring functions";
const STREAMING: &str = "PostgreSQL streaming (WAL streaming)";
const WAL_LEVEL: &str = "wal_level (WAL streaming)";
const IDENTITY: &str = "systemid coherence (WAL streaming)";

/// A server that WAL can be received from.
pub(super) struct Source {
    pub(super) ordinary: Connection,
    pub(super) streaming: Connection,
    pub(super) status: ServerStatus,
    pub(super) identity: SystemIdentity,
}

/// [`examine`], with what is wrong in the log, as Barman has it.
pub(super) fn preflight(
    server: &ServerConfig,
    stop: Option<&Arc<AtomicBool>>,
    notify: &dyn Fn(&Notice<'_>),
) -> Result<Source, ReceiverError> {
    examine(server, stop, notify).inspect_err(|error| {
        if let ReceiverError::Preflight { checks, .. } = error {
            for FailedCheck { name, reason } in checks {
                let server = &server.name;
                tracing::error!("Check '{name}' failed for server '{server}': {reason}");
            }
        }
    })
}

/// Connects and runs Barman's checks, and one of our own: WAL in `streaming_wals_directory` must be
/// of the same cluster.
pub(super) fn examine(
    server: &ServerConfig,
    stop: Option<&Arc<AtomicBool>>,
    notify: &dyn Fn(&Notice<'_>),
) -> Result<Source, ReceiverError> {
    let limits = limits(server, stop);
    let ordinary = connect_ordinary(server, limits.clone())
        .and_then(|connection| Ok((server_status(&connection)?, connection)));
    let streaming = connect_streaming(server, limits)
        .and_then(|connection| Ok((identify_system(&connection)?, connection)));
    let (checks, is_unreachable) = match (ordinary, streaming) {
        (Err(PostgresError::Interrupted), _) | (_, Err(PostgresError::Interrupted)) => {
            return Err(ReceiverError::Interrupted);
        }
        (Ok((status, ordinary)), Ok((identity, streaming))) => {
            if server.primary_conninfo.is_some() && !status.in_recovery {
                notify(&Notice::NoStandby);
            }
            let source = Source {
                ordinary,
                streaming,
                status,
                identity,
            };
            match source.failed_checks(server) {
                checks if checks.is_empty() => return Ok(source),
                checks => (checks, false),
            }
        }
        (ordinary, streaming) => {
            let failed = |name, error: PostgresError| FailedCheck {
                name,
                reason: error.to_string(),
            };
            let ordinary = ordinary.err().map(|error| (MONITORING, error));
            let streaming = streaming.err().map(|error| (STREAMING, error));
            let errors: Vec<_> = ordinary.into_iter().chain(streaming).collect();
            let is_unreachable = errors.iter().all(|(_, error)| error.is_passing());
            let checks = errors.into_iter().map(|(name, error)| failed(name, error));
            (checks.collect(), is_unreachable)
        }
    };
    Err(ReceiverError::Preflight {
        server: server.name.clone(),
        checks,
        is_unreachable,
    })
}

/// Whoever tries again must not wait for an answer that never comes.
pub(super) fn limits(server: &ServerConfig, stop: Option<&Arc<AtomicBool>>) -> Limits {
    let stays_up = server.own.receiver == ReceiverKind::Builtin;
    Limits {
        deadline: stays_up.then(|| Instant::now() + PREFLIGHT_TIMEOUT),
        stop: stop.map(Arc::clone),
    }
}

/// A connection for queries.
pub(super) fn connect_ordinary(
    server: &ServerConfig,
    limits: Limits,
) -> Result<Connection, PostgresError> {
    let conninfo = Conninfo::parse(server.conninfo.as_deref().unwrap_or_default())?;
    Connection::open(&within_time(conninfo, server).for_queries(), limits)
}

/// A connection for replication commands.
pub(super) fn connect_streaming(
    server: &ServerConfig,
    limits: Limits,
) -> Result<Connection, PostgresError> {
    let conninfo = Conninfo::parse(server.streaming_conninfo.as_deref().unwrap_or_default())?;
    Connection::open(&within_time(conninfo, server).for_replication(), limits)
}

/// For a receiver that stays up, a host that does not answer must not keep it from the next one. A limit
/// that is set, here or in the environment, stays.
pub(super) fn within_time(conninfo: Conninfo, server: &ServerConfig) -> Conninfo {
    let stays_up = server.own.receiver == ReceiverKind::Builtin;
    match stays_up && env::var_os("PGCONNECT_TIMEOUT").is_none() {
        true => conninfo.with_default("connect_timeout", CONNECT_TIMEOUT_S),
        false => conninfo,
    }
}

impl Source {
    fn failed_checks(&self, server: &ServerConfig) -> Vec<FailedCheck> {
        let mut failed = Vec::new();
        let mut fail = |name, reason: String| failed.push(FailedCheck { name, reason });
        if !self.status.may_monitor {
            let reason = "privileges for PostgreSQL monitoring functions are required";
            fail(MONITORING, reason.to_owned());
        }
        if self.status.wal_level == "minimal" {
            let reason = "please set it to a higher level than 'minimal'";
            fail(WAL_LEVEL, reason.to_owned());
        }
        if let Err(reason) = self.check_identity(server) {
            fail(IDENTITY, reason);
        }
        failed
    }

    /// Another cluster behind the same address: after a mistake in DNS, a proxy or a new `initdb`.
    /// What it sends must not be mixed with what is here.
    fn check_identity(&self, server: &ServerConfig) -> Result<(), String> {
        let connected = self.identity.system_identifier;
        if let Some(ordinary) = self.status.system_identifier
            && ordinary != connected
        {
            return Err(format!(
                "is the streaming DSN targeting the same server of the PostgreSQL connection \
                 string? ({connected}, {ordinary})"
            ));
        }
        let path = identity_path(&server.backup_directory);
        let pinned = archiver::system_identifier(&server.backup_directory)
            .map_err(|error| error.to_string())?;
        if let Some(pinned) = pinned
            && pinned != connected
        {
            return Err(format!(
                "the system Id of the connected PostgreSQL server changed, stored in \"{}\" \
                 (stored: {pinned}, connected: {connected})\nHINT: is this the right server? For \
                 a new cluster configure a new server, with a directory of its own",
                path.display()
            ));
        }
        let directory = &server.streaming_wals_directory;
        match streamed_identifier(server, self.status.segment_size) {
            Ok(Some(streamed)) if streamed != connected => Err(format!(
                "the WAL in {} is of another cluster (there: {streamed}, connected: \
                 {connected})\nHINT: is this the right server? For a new cluster configure a new \
                 server, with a directory of its own",
                directory.display()
            )),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("cannot read {}: {error}", directory.display())),
        }
    }

    /// The slot to stream from, if there is one of this name. An error if it cannot be used.
    pub(super) fn usable_slot(
        &self,
        name: &str,
    ) -> Result<Option<ReplicationSlot>, ArchiverFailure> {
        for _ in 0..SLOT_RETRIES {
            match find_slot(&self.ordinary, name)? {
                Some(slot) if slot.active => thread::sleep(SLOT_PAUSE),
                Some(slot) if slot.kind != "physical" => {
                    return Err(ArchiverFailure::SlotIsLogical(slot.name));
                }
                slot => return Ok(slot),
            }
        }
        let active_pid = find_slot(&self.ordinary, name)?.and_then(|slot| slot.active_pid);
        Err(ArchiverFailure::SlotInUse {
            slot: name.to_owned(),
            active_pid,
        })
    }
}

impl Source {
    /// The segment of the slot's `restart_lsn`, on the timeline on which the server has that
    /// segment: a slot may be further behind than the last promotion.
    pub(super) fn restart_position(
        &self,
        slot: Option<&ReplicationSlot>,
    ) -> Result<Option<Position>, PostgresError> {
        let Some(restart_lsn) = slot.and_then(|slot| slot.restart_lsn) else {
            return Ok(None);
        };
        let segment_size = self.status.segment_size;
        let segment = |position: Lsn| position.0 / segment_size.bytes();
        let history = timeline_history(&self.streaming, self.identity.timeline)?;
        // The segment in which a timeline branches off exists on the new one as well.
        let older = history
            .iter()
            .find(|(_, end)| segment(restart_lsn) < segment(*end));
        let timeline = older.map_or(self.identity.timeline, |(timeline, _)| *timeline);
        Ok(Some(Position::of(timeline, restart_lsn, segment_size)))
    }
}

/// The cluster that wrote the newest segment in `streaming_wals_directory` that says so.
fn streamed_identifier(
    server: &ServerConfig,
    segment_size: SegmentSize,
) -> io::Result<Option<u64>> {
    let received = received(&server.streaming_wals_directory, segment_size)?;
    for file in received.iter().rev() {
        let mut page = Vec::new();
        match File::open(&file.path) {
            // Archived meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?
                .take(LONG_HEADER_SIZE_BYTES as u64)
                .read_to_end(&mut page)?,
        };
        if let Some(header) = LongPageHeader::parse(&page) {
            return Ok(Some(header.system_identifier));
        }
    }
    Ok(None)
}
