//! `switch-wal`

use std::path::Path;
use std::time::{Duration, Instant};

use super::archive_wal::{Parts, archive_until};
use super::output::Output;
use super::servers::select;
use crate::config::{Config, ServerConfig};
use crate::postgres::{Connection, Conninfo, Limits, PostgresError};
use crate::wal::WalName;

#[derive(Debug, clap::Args)]
pub(super) struct SwitchWalArgs {
    /// The servers, or 'all'
    #[arg(value_name = "SERVER", required = true)]
    server_names: Vec<String>,
    /// Make a checkpoint first, so that there is something to switch
    #[arg(long)]
    force: bool,
    /// Wait until one WAL file has been archived
    #[arg(long)]
    archive: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "TIMEOUT", default_value_t = 30)]
    archive_timeout: u64,
}

/// Lets the servers close their current segments, one after the other.
pub(super) fn run(config: Config, args: &SwitchWalArgs, output: &Output) {
    let configuration_path = config.path.clone();
    for server in select(config, &args.server_names, output) {
        if server.passive {
            output.info(&format!("Skipping passive server '{}'", server.name));
            continue;
        }
        if let Err(message) = run_for(&server, args, &configuration_path, output) {
            output.error(&message);
        }
    }
}

fn run_for(
    server: &ServerConfig,
    args: &SwitchWalArgs,
    configuration_path: &Path,
    output: &Output,
) -> Result<(), String> {
    // An archive that cannot be written to is found before anything is switched.
    let wait = args
        .archive
        .then(|| Wait::new(server, args.archive_timeout))
        .transpose()?;
    let closed = switch(server, args.force, output)?;
    wait.map_or(Ok(()), |wait| {
        wait.run(closed.as_ref(), configuration_path, output)
    })
}

/// Switches, and says what happened. Returns the segment that was closed; `None` if none was.
fn switch(server: &ServerConfig, force: bool, output: &Output) -> Result<Option<WalName>, String> {
    let name = &server.name;
    let failed = |error: PostgresError| explain(&error, server);
    let connection = connect(server, output).map_err(failed)?;
    if force {
        checkpoint(&connection)?;
    }
    if is_in_recovery(&connection).map_err(failed)? {
        output.info(&format!(
            "No switch performed because server '{name}' is a standby."
        ));
        return Ok(None);
    }
    let closed = close_segment(&connection).map_err(failed)?;
    match &closed {
        Some(closed) => output.info(&format!(
            "The WAL file {closed} has been closed on server '{name}'"
        )),
        None => output.info(&format!("No switch required for server '{name}'")),
    }
    Ok(closed)
}

fn explain(error: &PostgresError, server: &ServerConfig) -> String {
    let hint = match error.sqlstate() {
        Some(PostgresError::INSUFFICIENT_PRIVILEGE) => {
            "\nHINT: as a superuser: GRANT EXECUTE ON FUNCTION pg_switch_wal() TO the user in conninfo"
        }
        _ => "",
    };
    format!(
        "Unable to perform pg_switch_wal for server '{}'.\n{error}{hint}",
        server.name
    )
}

/// Connects to the server that writes WAL: the primary, if `conninfo` is a standby and
/// `primary_conninfo` says where that is.
fn connect(server: &ServerConfig, output: &Output) -> Result<Connection, PostgresError> {
    let open = |conninfo: &str| {
        Connection::open(&Conninfo::parse(conninfo)?.for_queries(), Limits::default())
    };
    // A server without conninfo is disabled.
    let conninfo = server.conninfo.as_deref().unwrap_or_default();
    let Some(primary_conninfo) = &server.primary_conninfo else {
        return open(conninfo);
    };
    // A standby that does not answer is no reason not to ask the primary.
    if let Ok(connection) = open(conninfo)
        && is_in_recovery(&connection) == Ok(false)
    {
        output.warning(
            "'primary_conninfo' is set but 'conninfo' does not point to a standby server. \
             Ignoring 'primary_conninfo'.",
        );
        return Ok(connection);
    }
    open(primary_conninfo)
}

fn is_in_recovery(connection: &Connection) -> Result<bool, PostgresError> {
    let rows = connection.query("SELECT pg_catalog.pg_is_in_recovery()", &[])?;
    Ok(rows.first() == Some("t"))
}

/// Writes a record, so that there is something to switch. Only a user who may not do that is an
/// error, as in Barman.
fn checkpoint(connection: &Connection) -> Result<(), String> {
    tracing::info!("Force a CHECKPOINT before pg_switch_wal()");
    match connection.query("CHECKPOINT", &[]) {
        Err(error) if error.sqlstate() == Some(PostgresError::INSUFFICIENT_PRIVILEGE) => Err(
            "Barman switch-wal --force requires superuser rights or the 'pg_checkpoint' role"
                .to_owned(),
        ),
        Err(error) => {
            tracing::warn!("cannot issue CHECKPOINT: {error}");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Switches to the next segment. Returns the one that was current before; `None` if that still is:
/// nothing had been written to it.
fn close_segment(connection: &Connection) -> Result<Option<WalName>, PostgresError> {
    let current = || {
        // The insert position is never on a segment's boundary, where versions name different files:
        // the header of its first page is passed over.
        let name = "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())";
        let rows = connection.query(name, &[])?;
        let name = rows.first().and_then(|name| WalName::parse(name).ok());
        name.ok_or_else(|| PostgresError::Answer("no WAL file name".to_owned()))
    };
    let before = current()?;
    connection.query("SELECT pg_catalog.pg_switch_wal()", &[])?;
    Ok((before < current()?).then_some(before))
}

/// Waiting until a file is in the archive, and archiving meanwhile.
struct Wait<'a> {
    server: &'a ServerConfig,
    parts: Parts,
    timeout_s: u64,
}

impl<'a> Wait<'a> {
    /// Refuses a server whose archive walarch cannot write to.
    fn new(server: &'a ServerConfig, timeout_s: u64) -> Result<Self, String> {
        Ok(Wait {
            server,
            parts: Parts::new(server)?,
            timeout_s,
        })
    }

    /// Waits for this segment, or for any file.
    fn run(
        &self,
        wanted: Option<&WalName>,
        configuration_path: &Path,
        output: &Output,
    ) -> Result<(), String> {
        let (name, timeout_s) = (&self.server.name, self.timeout_s);
        let limit = match timeout_s {
            0 => String::new(),
            limit => format!(" (max: {limit} seconds)"),
        };
        output.info(&match wanted {
            Some(wanted) => {
                format!("Waiting for the WAL file {wanted} from server '{name}'{limit}")
            }
            None => {
                format!("Waiting for a WAL file from server '{name}' to be archived{limit}")
            }
        });
        let before = self.parts.catalog_state();
        // An end too far away to be told is none.
        let deadline = Instant::now()
            .checked_add(Duration::from_secs(timeout_s))
            .filter(|_| timeout_s > 0);
        let mut arrived = Ok(false);
        let mut expired = false;
        archive_until(self.server, configuration_path, &self.parts, output, || {
            arrived = match wanted {
                Some(wanted) => self.parts.holds(wanted),
                None => Ok(self.parts.catalog_state() != before),
            };
            expired = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            expired || arrived != Ok(false)
        })?;
        if arrived? || !expired {
            return Ok(());
        }
        match wanted {
            Some(wanted) => Err(format!(
                "The WAL file {wanted} has not been received in {timeout_s} seconds"
            )),
            None => {
                output.info(&format!(
                    "A WAL file has not been received in {timeout_s} seconds"
                ));
                Ok(())
            }
        }
    }
}
