//! What a server says of itself: the settings and the statistics that `check` and `status` judge.

use super::connection::{Connection, Rows};
use super::error::PostgresError;
use super::server::{ServerStatus, server_status};
use crate::wal::{Lsn, WalName};

/// What an ordinary connection tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// What `receive-wal` wants to know as well.
    pub status: ServerStatus,
    /// The version as `version()` has it: `15.18`.
    pub version_text: String,
    /// The segment in which the server writes; `None` in recovery.
    pub current_segment: Option<WalName>,
    /// `archive_mode`
    pub archive_mode: Option<String>,
    /// `archive_command`
    pub archive_command: Option<String>,
    /// `data_directory`; `None` without the right to see it.
    pub data_directory: Option<String>,
    /// Whether the user may do what base backups need.
    pub has_backup_privileges: bool,
    /// `pg_stat_archiver`
    pub archiver: Option<ArchiverFacts>,
}

/// A row of `pg_stat_archiver` (PostgreSQL manual, "The Cumulative Statistics System"). Times are text as
/// in C's `ctime`, in the time zone of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiverFacts {
    /// `last_archived_wal`
    pub last_archived_wal: Option<String>,
    /// `last_archived_time`
    pub last_archived_at: Option<String>,
    /// `failed_count`
    pub failed_count: Option<u64>,
    /// `last_failed_wal`
    pub last_failed_wal: Option<String>,
    /// `last_failed_time`
    pub last_failed_at: Option<String>,
    /// Whether archiving is on and its last attempt succeeded.
    pub is_archiving: Option<bool>,
    /// Files archived per hour since the statistics were reset, with two decimals; `None` if none was.
    pub archived_per_hour: Option<String>,
}

/// A row of `pg_stat_replication`: somebody to whom the server sends WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalSender {
    /// `state`: `streaming`, `catchup`, ...; `None` without the right to see it.
    pub state: Option<String>,
    /// `write_lsn`: up to where the client says that it has written the WAL.
    pub written: Option<Lsn>,
    /// `sync_state`: `async`, `sync`, `potential` or `quorum`.
    pub sync_state: Option<String>,
}

/// What the user may not see is absent, and no error.
const FACTS: &str = "\
    SELECT pg_catalog.version() AS version, \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
         ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END AS current_segment, \
    pg_catalog.current_setting('archive_mode') AS archive_mode, \
    pg_catalog.current_setting('archive_command') AS archive_command, \
    (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS data_directory";

/// Whether archiving works, by the rules of Barman: on, and nothing has failed since the last
/// success; a history file of an older timeline that fails does not count. Where nothing ever
/// succeeded, Barman has no verdict; here it is a failure.
const ARCHIVER: &str = "\
    SELECT last_archived_wal, last_failed_wal, failed_count, \
    pg_catalog.to_char(last_archived_time, 'Dy Mon ') \
      || pg_catalog.lpad(pg_catalog.to_char(last_archived_time, 'FMDD'), 2) \
      || pg_catalog.to_char(last_archived_time, ' HH24:MI:SS YYYY') AS last_archived_at, \
    pg_catalog.to_char(last_failed_time, 'Dy Mon ') \
      || pg_catalog.lpad(pg_catalog.to_char(last_failed_time, 'FMDD'), 2) \
      || pg_catalog.to_char(last_failed_time, ' HH24:MI:SS YYYY') AS last_failed_at, \
    pg_catalog.current_setting('archive_mode') IN ('on', 'always') AND COALESCE( \
      last_failed_wal IS NULL \
      OR last_failed_time <= last_archived_time \
      OR (last_failed_wal LIKE '%.history' AND pg_catalog.substr(last_failed_wal, 1, 8) \
                                            <= pg_catalog.substr(last_archived_wal, 1, 8)), \
      false) AS is_archiving, \
    CASE WHEN archived_count > 0 THEN pg_catalog.round(3600 * archived_count::numeric / NULLIF( \
      EXTRACT(EPOCH FROM pg_catalog.age(pg_catalog.now(), stats_reset))::numeric, 0), 2) END \
      AS archived_per_hour \
    FROM pg_catalog.pg_stat_archiver";

impl ServerFacts {
    /// Asks a server over an ordinary connection.
    pub fn ask(connection: &Connection) -> Result<Self, PostgresError> {
        let status = server_status(connection)?;
        let rows = connection.query(FACTS, &[])?;
        let text = |column| rows.get(0, column).map(str::to_owned);
        let has_backup_privileges = status.may_monitor && may_back_up(connection)?;
        Ok(ServerFacts {
            version_text: version_text(rows.get(0, "version").unwrap_or_default()),
            current_segment: current_segment(&rows, &status),
            archive_mode: text("archive_mode"),
            archive_command: text("archive_command"),
            data_directory: text("data_directory").filter(|_| has_backup_privileges),
            has_backup_privileges,
            archiver: optional(archiver(connection))?,
            status,
        })
    }
}

/// A server that gives its WAL to a client of this name, over an ordinary connection. `pid`, where it is
/// known, tells two clients of one name apart.
pub fn find_wal_sender(
    connection: &Connection,
    application_name: &str,
    pid: Option<i32>,
) -> Result<Option<WalSender>, PostgresError> {
    let sql = "SELECT state, write_lsn, sync_state \
               FROM pg_catalog.pg_stat_replication \
               WHERE application_name = $1 OR pid::text = $2 \
               ORDER BY pid::text = $2 DESC LIMIT 1";
    let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
    let rows = connection.query(sql, &[application_name, &pid])?;
    Ok((!rows.is_empty()).then(|| WalSender {
        state: rows.get(0, "state").map(str::to_owned),
        written: number(&rows, "write_lsn"),
        sync_state: rows.get(0, "sync_state").map(str::to_owned),
    }))
}

/// A version number as PostgreSQL writes it since version 10: 150018 is `15.18`.
pub fn version_name(version: i32) -> String {
    format!("{}.{}", version / 10_000, version % 100)
}

/// The second word of `PostgreSQL 15.18 on x86_64...`; EDB's server has four numbers up to version 10.
fn version_text(version: &str) -> String {
    let mut words = version.split_whitespace();
    let product = words.next().unwrap_or_default();
    let number = words.next().unwrap_or_default();
    match (product, number.rsplit_once('.')) {
        ("EnterpriseDB", Some((short, _))) => short.to_owned(),
        _ => number.to_owned(),
    }
}

/// The segment of the last byte that was written: exactly between two segments it is the first of them,
/// whose end it is, with every version.
fn current_segment(rows: &Rows, status: &ServerStatus) -> Option<WalName> {
    let name = WalName::parse(rows.get(0, "current_segment")?).ok()?;
    let last_byte = Lsn(status.position?.0.saturating_sub(1));
    Some(WalName::of_segment(
        name.timeline(),
        last_byte,
        status.segment_size,
    ))
}

/// Whether the user may run the functions of base backups: superusers may, others what they were granted.
fn may_back_up(connection: &Connection) -> Result<bool, PostgresError> {
    let backup_functions: &[&str] = match connection.server_version() {
        150_000.. => &["pg_backup_start(text,bool)", "pg_backup_stop(bool)"],
        _ => &[
            "pg_start_backup(text,bool,bool)",
            "pg_stop_backup(bool,bool)",
        ],
    };
    let executable: Vec<String> = backup_functions
        .iter()
        .chain(&["pg_switch_wal()", "pg_create_restore_point(text)"])
        .map(|function| {
            format!(
                "pg_catalog.has_function_privilege(CURRENT_USER, 'pg_catalog.{function}', 'EXECUTE')"
            )
        })
        .collect();
    let rows = connection.query(&format!("SELECT {}", executable.join(" AND ")), &[])?;
    Ok(rows.first() == Some("t"))
}

fn archiver(connection: &Connection) -> Result<ArchiverFacts, PostgresError> {
    let rows = connection.query(ARCHIVER, &[])?;
    let text = |column| rows.get(0, column).map(str::to_owned);
    Ok(ArchiverFacts {
        last_archived_wal: text("last_archived_wal"),
        last_archived_at: text("last_archived_at"),
        failed_count: number(&rows, "failed_count"),
        last_failed_wal: text("last_failed_wal"),
        last_failed_at: text("last_failed_at"),
        is_archiving: rows.get(0, "is_archiving").map(|value| value == "t"),
        archived_per_hour: text("archived_per_hour"),
    })
}

/// A refusal by the server makes a fact absent; a lost connection stays an error.
fn optional<T>(answer: Result<T, PostgresError>) -> Result<Option<T>, PostgresError> {
    match answer {
        Err(error) if !error.is_connection_lost() => {
            tracing::debug!("PostgreSQL does not tell: {error}");
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn number<T: std::str::FromStr>(rows: &Rows, column: &str) -> Option<T> {
    rows.get(0, column).and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word() {
        for (version, text) in [
            (
                "PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64",
                "15.18",
            ),
            ("PostgreSQL 18beta1 on x86_64", "18beta1"),
            ("EnterpriseDB 10.5.12 on x86_64", "10.5"),
            ("", ""),
        ] {
            assert_eq!(version_text(version), text);
        }
        assert_eq!(version_name(150_018), "15.18");
    }
}
