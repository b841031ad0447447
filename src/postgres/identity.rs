//! Which cluster it is that we talk to, and how far it is.

use super::connection::{Connection, Rows};
use super::error::PostgresError;
use crate::wal::Lsn;

/// The answer to `IDENTIFY_SYSTEM` (PostgreSQL manual, "Streaming Replication Protocol").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The number that `initdb` gave the cluster, as in every first WAL page.
    pub system_identifier: u64,
    /// The timeline it is on.
    pub timeline: u32,
    /// How far its WAL is flushed, or how far it has been replayed on a standby.
    pub position: Lsn,
}

/// Asks a replication connection.
///
/// Returns [`PostgresError::Statement`] if it is an ordinary connection.
pub fn identify_system(connection: &Connection) -> Result<SystemIdentity, PostgresError> {
    let rows = connection.query("IDENTIFY_SYSTEM", &[])?;
    Ok(SystemIdentity {
        system_identifier: value(&rows, "systemid")?,
        timeline: value(&rows, "timeline")?,
        position: value(&rows, "xlogpos")?,
    })
}

fn value<T: std::str::FromStr>(rows: &Rows, column: &str) -> Result<T, PostgresError> {
    rows.get(0, column)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| PostgresError::Answer(format!("IDENTIFY_SYSTEM returned no {column}")))
}
