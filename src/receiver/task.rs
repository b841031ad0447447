//! What a run is to do, and with what.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::commits::commits_wait;
use super::error::ArchiverFailure;
use super::gap::Position;
use super::preflight::{Source, within_time};
use super::{Builtin, Meter, PgReceivewal, Receiver, Task};
use crate::config::{ReceiverKind, ServerConfig, Synchronous};
use crate::postgres::Conninfo;

/// What receives from this server, as configured.
pub(super) fn receiver(
    server: &ServerConfig,
    source: &Source,
) -> Result<Box<dyn Receiver>, ArchiverFailure> {
    Ok(match server.own.receiver {
        ReceiverKind::Builtin => Box::new(Builtin),
        ReceiverKind::PgReceivewal => Box::new(PgReceivewal::for_server(
            server.path_prefix.as_deref(),
            source.status.version,
        )?),
    })
}

/// What the receiver is to do.
pub(super) fn task<'a>(
    server: &'a ServerConfig,
    source: &Source,
    start: Position,
    meter: &'a Meter,
) -> Result<Task<'a>, ArchiverFailure> {
    let conninfo = server.streaming_conninfo.as_deref().unwrap_or_default();
    let mut conninfo = within_time(Conninfo::parse(conninfo)?, server).for_replication();
    if let Some(name) = &server.streaming_archiver_name {
        conninfo = conninfo.with_default("application_name", name);
    }
    let synchronous = match server.own.receive_wal_synchronous {
        Synchronous::On => true,
        Synchronous::Off => false,
        Synchronous::Auto => commits_wait(&source.status, &conninfo),
    };
    Ok(Task {
        conninfo,
        slot_name: server.slot_name.as_deref(),
        directory: &server.streaming_wals_directory,
        synchronous: Arc::new(AtomicBool::new(synchronous)),
        start,
        segment_size: source.status.segment_size,
        system_identifier: source.identity.system_identifier,
        meter,
    })
}
