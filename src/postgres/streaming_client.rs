//! Who streams WAL from a server.

use super::connection::{Connection, Rows};
use super::error::PostgresError;
use crate::wal::Lsn;

/// A row of `pg_stat_replication` (PostgreSQL manual, "The Cumulative Statistics System"), with the
/// slot it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamingClient {
    /// `pid`: the server process that sends.
    pub pid: i64,
    /// `usename`
    pub user_name: String,
    /// `application_name`
    pub application_name: String,
    /// `client_addr`; `None` for one that came by the socket.
    pub address: Option<String>,
    /// `client_hostname`
    pub host_name: Option<String>,
    /// `client_port`; -1 for one that came by the socket.
    pub port: Option<i64>,
    /// `backend_start`: `YYYY-MM-DD HH:MM:SS.ffffff+HH:MM` in the session's time zone, without the
    /// fraction where that is zero.
    pub started_at: String,
    /// `backend_xmin`
    pub xmin: Option<String>,
    /// `state`
    pub state: String,
    /// `sent_lsn`
    pub sent: Option<Lsn>,
    /// `write_lsn`
    pub written: Option<Lsn>,
    /// `flush_lsn`
    pub flushed: Option<Lsn>,
    /// `replay_lsn`; `None` for a client that receives only.
    pub replayed: Option<Lsn>,
    /// `sync_priority`; 0 is asynchronous.
    pub sync_priority: i64,
    /// `sync_state`
    pub sync_state: String,
    /// `slot_name`
    pub slot_name: Option<String>,
    /// How far the server itself was at that moment: what it has written, or received on a standby.
    pub current: Option<Lsn>,
}

/// Lists the clients, over an ordinary connection, synchronous ones first.
pub fn streaming_clients(connection: &Connection) -> Result<Vec<StreamingClient>, PostgresError> {
    let sql = "SELECT r.pid, r.usename, r.application_name, r.client_addr, r.client_hostname, \
         r.client_port, r.backend_xmin, r.state, r.sent_lsn, r.write_lsn, r.flush_lsn, \
         r.replay_lsn, r.sync_priority, r.sync_state, s.slot_name, \
         to_char(r.backend_start, 'YYYY-MM-DD HH24:MI:SS.US') AS started_at, \
         extract(timezone FROM r.backend_start)::integer AS utc_offset_s, \
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() \
              ELSE pg_current_wal_lsn() END AS current_lsn \
         FROM pg_catalog.pg_stat_replication r \
         LEFT JOIN pg_catalog.pg_replication_slots s ON r.pid = s.active_pid \
         WHERE s.slot_type IS NULL OR s.slot_type = 'physical' \
         ORDER BY r.sync_state DESC, r.sync_priority";
    let rows = connection.query(sql, &[])?;
    Ok((0..rows.len()).map(|row| client(&rows, row)).collect())
}

fn client(rows: &Rows, row: usize) -> StreamingClient {
    let text = |column| rows.get(row, column).map(str::to_owned);
    let number = |column| rows.get(row, column).and_then(|number| number.parse().ok());
    let lsn = |column| rows.get(row, column).and_then(|lsn| lsn.parse().ok());
    StreamingClient {
        pid: number("pid").unwrap_or_default(),
        user_name: text("usename").unwrap_or_default(),
        application_name: text("application_name").unwrap_or_default(),
        address: text("client_addr"),
        host_name: text("client_hostname"),
        port: number("client_port"),
        started_at: time(
            rows.get(row, "started_at").unwrap_or_default(),
            number("utc_offset_s").unwrap_or_default(),
        ),
        xmin: text("backend_xmin"),
        state: text("state").unwrap_or_default(),
        sent: lsn("sent_lsn"),
        written: lsn("write_lsn"),
        flushed: lsn("flush_lsn"),
        replayed: lsn("replay_lsn"),
        sync_priority: number("sync_priority").unwrap_or_default(),
        sync_state: text("sync_state").unwrap_or_default(),
        slot_name: text("slot_name"),
        current: lsn("current_lsn"),
    }
}

/// A time with microseconds, as Python prints it.
fn time(text: &str, utc_offset_s: i64) -> String {
    let text = text.strip_suffix(".000000").unwrap_or(text);
    let sign = if utc_offset_s < 0 { '-' } else { '+' };
    let (minutes, seconds) = (
        utc_offset_s.unsigned_abs() / 60,
        utc_offset_s.unsigned_abs() % 60,
    );
    let mut text = format!("{text}{sign}{:02}:{:02}", minutes / 60, minutes % 60);
    if seconds != 0 {
        text.push_str(&format!(":{seconds:02}"));
    }
    text
}

/// How far the server is: what it has written, or replayed on a standby. `None` for a standby that
/// has not replayed anything.
pub fn current_position(connection: &Connection) -> Result<Option<Lsn>, PostgresError> {
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
               ELSE pg_current_wal_lsn() END";
    let rows = connection.query(sql, &[])?;
    Ok(rows.first().and_then(|lsn| lsn.parse().ok()))
}

/// The connection's user, if statistics of other users are kept from it.
pub fn user_without_statistics(connection: &Connection) -> Result<Option<String>, PostgresError> {
    let sql = "SELECT current_user WHERE NOT ( \
         (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) \
         OR pg_has_role(current_user, 'pg_monitor', 'USAGE') \
         OR pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') \
            AND pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'))";
    Ok(connection.query(sql, &[])?.first().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_printed_as_python_does() {
        let text = "2026-11-21 12:00:00.120000";
        assert_eq!(time(text, 0), "2026-11-21 12:00:00.120000+00:00");
        assert_eq!(time(text, -12_600), "2026-11-21 12:00:00.120000-03:30");
        let whole = "2026-11-21 12:00:00.000000";
        assert_eq!(time(whole, 19_800), "2026-11-21 12:00:00+05:30");
        assert_eq!(time(whole, 1_172), "2026-11-21 12:00:00+00:19:32");
    }
}
