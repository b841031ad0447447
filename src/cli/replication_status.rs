//! `replication-status`

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::output::Output;
use super::servers::{select, select_wal_hosts};
use crate::config::{Config, ServerConfig};
use crate::postgres::{
    Connection, Conninfo, Limits, PostgresError, StreamingClient, current_position,
    streaming_clients, user_without_statistics,
};
use crate::units::pretty_size;
use crate::wal::Lsn;

#[derive(Debug, clap::Args)]
pub(super) struct ReplicationStatusArgs {
    /// The servers, or 'all'
    #[arg(value_name = "SERVER", required = true)]
    server_names: Vec<String>,
    /// Machine readable output
    #[arg(long)]
    minimal: bool,
    /// Which clients to show
    #[arg(long, value_enum, default_value_t)]
    target: ReplicationTarget,
    /// Which connection to ask over
    #[arg(long, value_enum, default_value_t)]
    source: ReplicationSource,
}

/// Clients of streaming replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReplicationTarget {
    /// All of them
    #[default]
    All,
    /// Standbys
    HotStandby,
    /// Clients that receive WAL only, such as pg_receivewal
    WalStreamer,
}

/// The connection that is asked for streaming clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ReplicationSource {
    /// conninfo
    #[default]
    BackupHost,
    /// wal_conninfo, or wal_streaming_conninfo
    WalHost,
}

/// Shows who streams from the servers.
pub(super) fn run(config: Config, args: &ReplicationStatusArgs, output: &Output) {
    let mut servers = match args.source {
        ReplicationSource::BackupHost => select(config, &args.server_names, output),
        ReplicationSource::WalHost => select_wal_hosts(config, &args.server_names, output),
    };
    servers.retain(|server| {
        if server.passive {
            output.info(&format!("Skipping passive server '{}'", server.name));
        }
        !server.passive
    });
    for server in &servers {
        if output.is_json() {
            output.value(&server.name, json!({}));
        }
        match Report::new(server, args.target) {
            Ok(report) if output.is_json() => {
                output.value(&server.name, report.json(args.minimal));
            }
            Ok(report) if args.minimal => report.print_minimal(output),
            Ok(report) => report.print(output),
            Err(message) => output.error(&message),
        }
    }
}

/// What one server says.
struct Report<'a> {
    server: &'a str,
    title: &'static str,
    position: Option<Lsn>,
    clients: Vec<StreamingClient>,
}

impl<'a> Report<'a> {
    fn new(server: &'a ServerConfig, target: ReplicationTarget) -> Result<Self, String> {
        let failed =
            |error: PostgresError| format!("Unable to connect to server {}\n{error}", server.name);
        // A server without conninfo is disabled.
        let conninfo = server.conninfo.as_deref().unwrap_or_default();
        let conninfo = Conninfo::parse(conninfo).map_err(failed)?.for_queries();
        let connection = Connection::open(&conninfo, Limits::default()).map_err(failed)?;
        if let Some(user) = user_without_statistics(&connection).map_err(failed)? {
            return Err(format!(
                "Postgres user '{user}' is missing required privileges (see \"Pre-requisites\" \
                 section in the Barman documentation)\nHINT: as a superuser: GRANT pg_monitor TO \
                 {user}"
            ));
        }
        let mut clients = streaming_clients(&connection).map_err(failed)?;
        clients.retain(|client| match target {
            ReplicationTarget::All => true,
            ReplicationTarget::HotStandby => client.replayed.is_some(),
            ReplicationTarget::WalStreamer => client.replayed.is_none(),
        });
        Ok(Report {
            server: &server.name,
            title: match target {
                ReplicationTarget::All => "streaming clients",
                ReplicationTarget::HotStandby => "hot standby servers",
                ReplicationTarget::WalStreamer => "WAL streamers",
            },
            position: current_position(&connection).map_err(failed)?,
            clients,
        })
    }

    fn print_minimal(&self, output: &Output) {
        let (title, server) = (capitalized(self.title), self.server);
        output.info(&match self.position {
            Some(position) => format!("{title} for master '{server}' (LSN @ {position}):"),
            None => format!("{title} for slave '{server}':"),
        });
        self.print_absence(output);
        for (number, client) in (1..).zip(&self.clients) {
            let address = client.address.as_deref().unwrap_or("socket");
            let user = &client.user_name;
            let sent = or_none(client.sent);
            let positions = match client.replayed {
                None => format!("W) {user}@{address} S:{sent} W:{}", or_none(client.written)),
                Some(replayed) => format!(
                    "{}) {user}@{address} S:{sent} F:{} R:{replayed}",
                    initial(&client.sync_state),
                    or_none(client.flushed)
                ),
            };
            output.info(&format!(
                "  {number}. {positions} P:{} AN:{}",
                client.sync_priority, client.application_name
            ));
        }
    }

    fn print(&self, output: &Output) {
        let title = self.title;
        output.info(&format!("Status of {title} for server '{}':", self.server));
        if let Some(position) = self.position {
            output.info(&format!("  Current LSN on master: {position}"));
        }
        self.print_absence(output);
        if !self.clients.is_empty() {
            output.info(&format!("  Number of {title}: {}", self.clients.len()));
        }
        for (number, client) in (1..).zip(&self.clients) {
            output.info("");
            output.info(&format!("  {number}. {}", name(client)));
            for (label, value) in lines(client) {
                output.info(&format!("     {label}: {value}"));
            }
        }
    }

    fn print_absence(&self, output: &Output) {
        if self.clients.is_empty() {
            output.info(&format!("  No {} attached", self.title));
        }
    }

    fn json(&self, minimal: bool) -> Value {
        let mut values = Map::new();
        let key = self.title.to_lowercase().replace(' ', "_");
        let form = if minimal { minimal_json } else { full_json };
        values.insert(key, self.clients.iter().map(form).collect());
        values.insert("server_lsn".to_owned(), lsn_json(self.position));
        if self.clients.is_empty() {
            let absence = format!("No {} attached", self.title);
            values.insert("standby_info".to_owned(), absence.into());
        }
        values.into()
    }
}

/// The lines about one client, below its name.
fn lines(client: &StreamingClient) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("Application name", client.application_name.clone()),
        ("Sync stage      ", sync_stage(client)),
    ];
    match &client.address {
        None => lines.push(("Communication   ", "Unix domain socket".to_owned())),
        Some(address) => {
            lines.push(("Communication   ", "TCP/IP".to_owned()));
            let host = client.host_name.as_deref().unwrap_or("-");
            let port = or_none(client.port);
            let all = format!("{address} / Port: {port} / Host: {host}");
            lines.push(("IP Address      ", all));
        }
    }
    lines.push(("User name       ", client.user_name.clone()));
    let state = format!("{} ({})", client.state, client.sync_state);
    lines.push(("Current state   ", state));
    let slot = client.slot_name.clone();
    lines.extend(slot.map(|slot| ("Replication slot", slot)));
    lines.push(("WAL sender PID  ", client.pid.to_string()));
    lines.push(("Started at      ", client.started_at.clone()));
    let xmin = client.xmin.clone();
    lines.extend(xmin.map(|xmin| ("Standby's xmin  ", xmin)));
    let labels = ["Sent LSN   ", "Write LSN  ", "Flush LSN  ", "Replay LSN "];
    for (label, (_, position)) in labels.into_iter().zip(positions(client)) {
        if let Some((lsn, difference)) = with_difference(position, client) {
            let size = pretty_difference(difference);
            lines.push((label, format!("{lsn} (diff: {size})")));
        }
    }
    lines
}

fn minimal_json(client: &StreamingClient) -> Value {
    let mut values = json!({
        "user_name": client.user_name,
        "client_addr": client.address.as_deref().unwrap_or("socket"),
        "sent_lsn": lsn_json(client.sent),
        "sync_priority": client.sync_priority,
        "application_name": client.application_name,
    });
    let more = match client.replayed {
        None => json!({ "write_lsn": lsn_json(client.written) }),
        Some(_) => json!({
            "sync_state": initial(&client.sync_state),
            "flush_lsn": lsn_json(client.flushed),
            "replay_lsn": lsn_json(client.replayed),
        }),
    };
    merge(&mut values, more);
    values
}

fn full_json(client: &StreamingClient) -> Value {
    let mut values = json!({
        "name": name(client),
        "application_name": client.application_name,
        "sync_stage": sync_stage(client),
        "user_name": client.user_name,
        "current_state": client.state,
        "current_sync_state": client.sync_state,
        "wal_sender_pid": client.pid,
        "started_at": client.started_at,
    });
    merge(
        &mut values,
        match &client.address {
            None => json!({ "communication": "Unix domain socket" }),
            Some(address) => json!({
                "communication": "TCP/IP",
                "ip_address": address,
                "port": client.port,
                "host": client.host_name,
            }),
        },
    );
    if let Some(slot) = &client.slot_name {
        merge(&mut values, json!({ "replication_slot": slot }));
    }
    if let Some(xmin) = &client.xmin {
        merge(&mut values, json!({ "standbys_xmin": xmin }));
    }
    for (key, position) in positions(client) {
        if let Some((lsn, difference)) = with_difference(position, client) {
            let more = [
                (format!("{key}_lsn"), json!(lsn.to_string())),
                (
                    format!("{key}_lsn_diff"),
                    pretty_difference(difference).into(),
                ),
                (format!("{key}_lsn_diff_bytes"), difference.into()),
            ];
            merge(&mut values, Map::from_iter(more).into());
        }
    }
    values
}

fn merge(values: &mut Value, more: Value) {
    if let (Value::Object(values), Value::Object(more)) = (values, more) {
        values.extend(more);
    }
}

/// Where the client is, with Barman's key for each stage.
fn positions(client: &StreamingClient) -> [(&'static str, Option<Lsn>); 4] {
    [
        ("sent", client.sent),
        ("write", client.written),
        ("flush", client.flushed),
        ("replay", client.replayed),
    ]
}

/// A position, and how far that is ahead of the server, in bytes: negative when it is behind.
fn with_difference(position: Option<Lsn>, client: &StreamingClient) -> Option<(Lsn, i64)> {
    let (position, current) = (position?, client.current?);
    Some((position, position.0.checked_signed_diff(current.0)?))
}

/// What kind of client it is, such as `#1 Sync standby`.
fn name(client: &StreamingClient) -> String {
    let kind = match client.replayed {
        None => "WAL streamer",
        Some(_) => "standby",
    };
    let state = capitalized(&client.sync_state);
    match client.sync_priority {
        priority if priority > 0 => format!("#{priority} {state} {kind}"),
        _ => format!("{state} {kind}"),
    }
}

/// How much of what the server has written the client has, in Barman's words.
fn sync_stage(client: &StreamingClient) -> String {
    let is_there = |position| position == client.current && client.current.is_some();
    let levels = match client.replayed {
        Some(_) if is_there(client.replayed) => return "5/5 Hot standby (max)".to_owned(),
        Some(_) if is_there(client.flushed) => return "4/5 2-safe".to_owned(),
        Some(_) => 5,
        None => 3,
    };
    if is_there(client.written) {
        format!("3/{levels} Remote write")
    } else if is_there(client.sent) {
        format!("2/{levels} WAL Sent (min)")
    } else {
        format!("1/{levels} 1-safe")
    }
}

/// A difference in bytes, as Barman writes it: `-1.5 MiB`.
fn pretty_difference(difference: i64) -> String {
    let sign = if difference < 0 { "-" } else { "" };
    format!("{sign}{}", pretty_size(difference.unsigned_abs()))
}

/// As Python's `str.capitalize`.
fn capitalized(text: &str) -> String {
    let rest: String = text.chars().skip(1).collect();
    initial(text) + &rest.to_lowercase()
}

fn initial(text: &str) -> String {
    text.chars().take(1).flat_map(char::to_uppercase).collect()
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "None".to_owned(), |value| value.to_string())
}

fn lsn_json(lsn: Option<Lsn>) -> Value {
    lsn.map(|lsn| lsn.to_string()).into()
}
