//! The replication slot: created, dropped, made ready for a receiver.

use super::Notice;
use super::error::{ArchiverFailure, SlotError};
use super::lock::{forgive, lock};
use super::preflight::{Source, connect_streaming};
use crate::config::ServerConfig;
use crate::postgres::{self, Connection, Limits, PostgresError, ReplicationSlot};

/// A slot that can be created or dropped: its name is known, and the server is connected.
pub struct Slot<'s> {
    connection: Connection,
    name: &'s str,
    server: &'s ServerConfig,
}

impl<'s> Slot<'s> {
    /// Connects; `action` is `create` or `drop`, for the messages.
    pub fn connect(server: &'s ServerConfig, action: &'static str) -> Result<Self, SlotError> {
        let streams = server.streaming_archiver || server.uses_streaming_backup;
        if !server.active || server.passive || !streams {
            return Err(SlotError::NoStreaming { action });
        }
        let connection = connect_streaming(server, Limits::default()).map_err(|error| {
            SlotError::Connection {
                server: server.name.clone(),
                error,
            }
        })?;
        let name = server
            .slot_name
            .as_deref()
            .ok_or(SlotError::NoName { action })?;
        Ok(Slot {
            connection,
            name,
            server,
        })
    }

    /// `slot_name`
    pub fn name(&self) -> &'s str {
        self.name
    }

    /// Creates the slot. It keeps WAL from its first use on. A receiver that failed for want of it
    /// may be started at once.
    pub fn create(&self) -> Result<(), SlotError> {
        create(&self.connection, self.name, self.server)?;
        if let Ok(Some(_lock)) = lock(self.server) {
            forgive(self.server);
        }
        Ok(())
    }

    /// Drops the slot. The WAL that only it kept is lost.
    pub fn drop_it(&self) -> Result<(), SlotError> {
        let server = self.server.name.clone();
        let slot = self.name.to_owned();
        postgres::drop_slot(&self.connection, self.name).map_err(|error| match error.sqlstate() {
            Some(PostgresError::UNDEFINED_OBJECT) => SlotError::Missing(slot),
            Some(PostgresError::OBJECT_IN_USE) => SlotError::InUse { slot, server },
            _ => SlotError::Other {
                action: "drop",
                slot,
                server,
                error,
            },
        })
    }
}

/// Creates a slot over a replication connection.
pub(super) fn create(
    connection: &Connection,
    name: &str,
    server: &ServerConfig,
) -> Result<(), SlotError> {
    let server = server.name.clone();
    let slot = name.to_owned();
    postgres::create_slot(connection, name).map_err(|error| match error.sqlstate() {
        Some(PostgresError::DUPLICATE_OBJECT) => SlotError::Exists(slot),
        Some(PostgresError::CONFIGURATION_LIMIT_EXCEEDED) => SlotError::Full(server),
        _ => SlotError::Other {
            action: "create",
            slot,
            server,
            error,
        },
    })
}

/// The slot that a receiver may use. One that is missing and may be created is, if there is somebody to
/// tell; else that does not matter. `None` if none is configured, or none was there.
pub(super) fn prepare(
    server: &ServerConfig,
    source: &Source,
    notify: Option<&dyn Fn(&Notice<'_>)>,
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
    if let (None, Some(notify)) = (&found, notify) {
        notify(&Notice::CreatingMissingSlot(name));
        notify(&Notice::CreatingSlot {
            slot: name,
            server: &server.name,
        });
        create(&source.streaming, name, server)?;
        notify(&Notice::SlotCreated(name));
    }
    Ok(found)
}
