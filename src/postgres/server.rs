//! What a server says of itself.

use super::connection::{Connection, Rows};
use super::error::PostgresError;
use crate::wal::{InvalidHistory, Lsn, SegmentSize};

/// The state of a server, over an ordinary connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// As a number: 150018 for 15.18.
    pub version: i32,
    /// `pg_is_in_recovery()`: it is a standby.
    pub in_recovery: bool,
    /// `wal_level`
    pub wal_level: String,
    /// `synchronous_standby_names`
    pub synchronous_standby_names: String,
    /// `wal_segment_size`
    pub segment_size: SegmentSize,
    /// How far WAL is written or, on a standby, replayed. `None` on one that has replayed nothing.
    pub position: Option<Lsn>,
    /// Whether this user may see what `pg_monitor` may see.
    pub may_monitor: bool,
    /// `pg_control_system()`; `None` if this user may not call it.
    pub system_identifier: Option<u64>,
}

const STATUS: &str = "
    SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
           pg_catalog.current_setting('wal_level') AS wal_level,
           pg_catalog.current_setting('synchronous_standby_names') AS synchronous_standby_names,
           pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')) AS segment_size,
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END AS position,
           (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER)
           OR pg_catalog.pg_has_role(CURRENT_USER, 'pg_monitor', 'USAGE')
           OR (pg_catalog.pg_has_role(CURRENT_USER, 'pg_read_all_settings', 'USAGE')
               AND pg_catalog.pg_has_role(CURRENT_USER, 'pg_read_all_stats', 'USAGE')) AS may_monitor";

/// Asks for the state.
pub fn server_status(connection: &Connection) -> Result<ServerStatus, PostgresError> {
    let rows = connection.query(STATUS, &[])?;
    let identifier = connection.query(
        "SELECT system_identifier FROM pg_catalog.pg_control_system()",
        &[],
    );
    let system_identifier = match identifier {
        Ok(rows) => rows.first().and_then(|text| text.parse().ok()),
        Err(PostgresError::Statement { .. }) => None,
        Err(lost) => return Err(lost),
    };
    Ok(ServerStatus {
        version: connection.server_version(),
        in_recovery: text(&rows, "in_recovery")? == "t",
        wal_level: text(&rows, "wal_level")?.to_owned(),
        synchronous_standby_names: text(&rows, "synchronous_standby_names")?.to_owned(),
        segment_size: text(&rows, "segment_size")?
            .parse()
            .ok()
            .and_then(|size_bytes| SegmentSize::new(size_bytes).ok())
            .ok_or_else(|| PostgresError::Answer("wal_segment_size".to_owned()))?,
        position: rows
            .get(0, "position")
            .and_then(|position| position.parse().ok()),
        may_monitor: rows.get(0, "may_monitor") == Some("t"),
        system_identifier,
    })
}

/// The name of the oldest segment in the server's `pg_wal`, whatever its timeline; `None` if this
/// user may not look.
pub fn oldest_segment(connection: &Connection) -> Result<Option<String>, PostgresError> {
    let rows = connection.query(
        "SELECT name FROM pg_catalog.pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'
         ORDER BY pg_catalog.substr(name, 9) LIMIT 1",
        &[],
    );
    match rows {
        Ok(rows) => Ok(rows.first().map(str::to_owned)),
        Err(PostgresError::Statement { .. }) => Ok(None),
        Err(lost) => Err(lost),
    }
}

/// Where timelines end, over a replication connection: each timeline before `timeline`, oldest
/// first, with the position at which the next one branched off (`TIMELINE_HISTORY`).
pub fn timeline_history(
    connection: &Connection,
    timeline: u32,
) -> Result<Vec<(u32, Lsn)>, PostgresError> {
    if timeline == 1 {
        return Ok(Vec::new());
    }
    let rows = connection.query(&format!("TIMELINE_HISTORY {timeline}"), &[])?;
    Ok(crate::wal::read_history(text(&rows, "content")?))
}

/// The history file of a timeline, byte for byte, over a replication connection
/// (`TIMELINE_HISTORY`). It is one that PostgreSQL would read, and of this timeline.
pub fn history_file(connection: &Connection, timeline: u32) -> Result<Vec<u8>, PostgresError> {
    let rows = connection.query(&format!("TIMELINE_HISTORY {timeline}"), &[])?;
    let expected = format!("{timeline:08X}.history");
    let name = text(&rows, "filename")?;
    if name != expected {
        let answer = format!("asked for {expected}, got {name:?}");
        return Err(PostgresError::Answer(answer));
    }
    let content = rows.bytes(0, "content").unwrap_or_default();
    match crate::wal::TimelineHistory::parse(timeline, content) {
        Ok(_) | Err(InvalidHistory::NotText) => Ok(content.to_vec()),
        Err(error) => Err(PostgresError::Answer(format!("{expected}: {error}"))),
    }
}

fn text<'r>(rows: &'r Rows, column: &str) -> Result<&'r str, PostgresError> {
    rows.get(0, column)
        .ok_or_else(|| PostgresError::Answer(format!("no {column}")))
}
