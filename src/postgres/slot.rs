//! Physical replication slots.

use super::connection::Connection;
use super::error::PostgresError;
use crate::wal::Lsn;

/// A row of `pg_replication_slots` (PostgreSQL manual, "System Views").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSlot {
    /// `slot_name`
    pub name: String,
    /// `slot_type`: `physical` or `logical`.
    pub kind: String,
    /// `active`: somebody streams from it.
    pub active: bool,
    /// `active_pid`: the server process that does.
    pub active_pid: Option<i32>,
    /// `restart_lsn`: the oldest WAL it keeps; `None` until it was first used.
    pub restart_lsn: Option<Lsn>,
    /// `wal_status`: `reserved`, `extended`, `unreserved` or `lost`; `None` before PostgreSQL 13 and
    /// for a slot without position.
    pub wal_status: Option<String>,
    /// `safe_wal_size`: how much WAL can still be written before the slot may be lost, in bytes;
    /// `None` before PostgreSQL 13, and where there is no limit.
    pub safe_wal_size_bytes: Option<i64>,
}

/// Looks for a slot, over an ordinary connection.
pub fn find_slot(
    connection: &Connection,
    name: &str,
) -> Result<Option<ReplicationSlot>, PostgresError> {
    let since_13 = match connection.server_version() >= 130_000 {
        true => ", wal_status, safe_wal_size",
        false => "",
    };
    let sql = format!(
        "SELECT slot_name, slot_type, active, active_pid, restart_lsn{since_13} \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = $1"
    );
    let rows = connection.query(&sql, &[name])?;
    let text = |column| rows.get(0, column).map(str::to_owned);
    Ok((!rows.is_empty()).then(|| ReplicationSlot {
        name: name.to_owned(),
        kind: text("slot_type").unwrap_or_default(),
        active: rows.get(0, "active") == Some("t"),
        active_pid: rows.get(0, "active_pid").and_then(|pid| pid.parse().ok()),
        restart_lsn: rows.get(0, "restart_lsn").and_then(|lsn| lsn.parse().ok()),
        wal_status: text("wal_status"),
        safe_wal_size_bytes: rows
            .get(0, "safe_wal_size")
            .and_then(|size| size.parse().ok()),
    }))
}

/// Creates a physical slot, over a replication connection. It keeps WAL from its first use on.
///
/// Errors have the codes [`PostgresError::DUPLICATE_OBJECT`],
/// [`PostgresError::CONFIGURATION_LIMIT_EXCEEDED`] (`max_replication_slots`) and others.
pub fn create_slot(connection: &Connection, name: &str) -> Result<(), PostgresError> {
    let sql = format!("CREATE_REPLICATION_SLOT {} PHYSICAL", identifier(name));
    connection.query(&sql, &[]).map(drop)
}

/// Drops a slot, over a replication connection. The WAL that only it kept is lost.
///
/// Errors have the codes [`PostgresError::UNDEFINED_OBJECT`], [`PostgresError::OBJECT_IN_USE`] and
/// others.
pub fn drop_slot(connection: &Connection, name: &str) -> Result<(), PostgresError> {
    let sql = format!("DROP_REPLICATION_SLOT {}", identifier(name));
    connection.query(&sql, &[]).map(drop)
}

/// An identifier in quotes, so that its letters keep their case and nothing else is read into it.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
