//! `status`

use std::io;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::unistd::Pid;
use serde_json::{Map, Value, json};

use super::check::{Archive, name_gaps, server_state};
use super::inquiry::{Answers, Inquiry, deadline};
use super::live;
use super::output::Output;
use super::servers::select_with_inactive;
use crate::archiver::{self, Backlog, StatusReport};
use crate::config::{Config, ServerConfig};
use crate::receiver::{Measurements, Trouble};
use crate::units::{pretty_interval, pretty_size};

pub(super) fn run(config: Config, server_names: &[String], output: &Output) {
    for server in select_with_inactive(config, server_names, output) {
        let mut report = StatusReport::default();
        let measurements = fill(&server, &mut report);
        show(&server, &report, measurements, output);
    }
}

fn show(
    server: &ServerConfig,
    report: &StatusReport,
    measurements: Option<Measurements>,
    output: &Output,
) {
    if !output.is_json() {
        output.line(&format!("Server {}:", server.name));
        for line in &report.lines {
            output.line(&format!("\t{}: {}", line.description, line.message));
        }
        return;
    }
    let mut lines: Map<String, Value> = report
        .lines
        .iter()
        .map(|line| {
            let value = json!({"description": line.description, "message": line.message});
            (line.key.to_owned(), value)
        })
        .collect();
    if let Some(measurements) = measurements {
        let value = json!({
            "description": "What receive-wal measures",
            "message": live::sentence(&measurements, None),
            "measurements": measurements,
        });
        lines.insert("receive_wal_measurements".to_owned(), value);
    }
    output.value(&server.name, lines.into());
}

/// Returns what the receiver measures, if there is one that runs.
fn fill(server: &ServerConfig, report: &mut StatusReport) -> Option<Measurements> {
    let mut measurements = None;
    let has_postgres = server.active && !server.passive;
    // Barman has no time limit here, and waits for a host that does not answer.
    let inquiry = has_postgres.then(|| Inquiry::start(server, deadline(server.check_timeout)));
    let archive = Archive::survey(server);
    let answers = inquiry.and_then(|inquiry| inquiry.wait().ok());

    add_configuration(server, report);
    if has_postgres {
        add_postgres(answers.as_ref(), report);
        let state = server_state(server, answers.as_ref());
        for archiver in archiver::archivers(server) {
            archiver.status(&state, report);
        }
        measurements = measured(server, state.receiver.pid);
        if let Some(measurements) = &measurements {
            add_measurements(measurements, report);
        }
    }
    report.add("passive_node", "Passive node", boolean(server.passive));
    if let Some(command) = &server.primary_ssh_command {
        report.add(
            "primary_ssh_command",
            "SSH command to primary server",
            command,
        );
    }
    add_archive(&archive, answers.as_ref(), report);
    add_errors(server, report);
    measurements
}

/// What the receiver with this number measured a moment ago.
fn measured(server: &ServerConfig, pid: Option<Pid>) -> Option<Measurements> {
    let pid = u32::try_from(pid?.as_raw()).ok()?;
    let measurements = Measurements::load(server).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    measurements.filter(|measurements| measurements.pid == pid)
}

fn add_measurements(it: &Measurements, report: &mut StatusReport) {
    let state = format!("{}, {}", it.receiver, it.phase);
    report.add("receive_wal_state", "Receiver", state);
    if let Some(position) = live::position(it) {
        report.add("receive_wal_written", "WAL written up to", position);
        report.add("receive_wal_reconnects", "Connection of receive-wal", {
            live::reconnects(it)
        });
    }
    if let Some(lag) = live::lag(it) {
        report.add("receive_wal_lag", "Lag of receive-wal", lag);
    }
    if let Some(error) = &it.last_error {
        let error = tell(error);
        report.add("receive_wal_error", "Last error of receive-wal", error);
    }
    if let Some(files) = it.files_archived {
        let mut text = match files {
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        };
        text.extend(live::waiting(it).map(|waiting| format!(", {waiting}")));
        text.extend(
            it.archive_error
                .iter()
                .map(|error| format!("; {}", tell(error))),
        );
        report.add("receive_wal_archived", "Archived by receive-wal", text);
    }
}

/// A failure, on one line.
fn tell(trouble: &Trouble) -> String {
    let lines: Vec<&str> = trouble.reason.lines().map(str::trim).collect();
    format!("{} (at {})", lines.join("; "), local(trouble.at))
}

fn add_configuration(server: &ServerConfig, report: &mut StatusReport) {
    if let Some(description) = server.description.as_ref().filter(|text| !text.is_empty()) {
        report.add("description", "Description", description);
    }
    report.add("active", "Active", boolean(server.active));
    report.add("disabled", "Disabled", boolean(server.disabled));
    report.add(
        "active_model",
        "Active configuration model",
        server.active_model.as_deref().unwrap_or("None"),
    );
}

/// As Python prints it.
fn boolean(value: bool) -> &'static str {
    match value {
        true => "True",
        false => "False",
    }
}

fn add_postgres(answers: Option<&Answers>, report: &mut StatusReport) {
    let Some(facts) = answers.and_then(Answers::facts) else {
        let failed = "FAILED trying to get PostgreSQL version";
        return report.add("pg_version", "PostgreSQL version", failed);
    };
    report.add("pg_version", "PostgreSQL version", &facts.version_text);
    let state = match facts.status.in_recovery {
        true => "in archive recovery",
        false => "in production",
    };
    report.add("is_in_recovery", "Cluster state", state);
    if let Some(directory) = &facts.data_directory {
        report.add("data_directory", "PostgreSQL Data directory", directory);
    }
    if let Some(segment) = &facts.current_segment {
        report.add("current_xlog", "Current WAL segment", segment);
    }
}

fn add_archive(archive: &Archive<'_>, answers: Option<&Answers>, report: &mut StatusReport) {
    let newest = archive.newest().map(|(name, modified_s)| {
        let modified = Timestamp::from_millisecond((modified_s * 1000.0) as i64).ok();
        match modified {
            Some(at) => format!("{name}, at {}", local(at)),
            None => name.to_string(),
        }
    });
    let newest = newest.unwrap_or_else(|| "none".to_owned());
    report.add("archive_newest_wal", "Newest WAL in the archive", newest);
    if let Some(lag) = answers.and_then(|answers| archive.lag(answers)) {
        report.add("archive_lag", "WAL not archived yet", lag);
    }
    let segment_size = answers
        .and_then(Answers::facts)
        .map(|facts| facts.status.segment_size);
    let gaps = match archive.gaps(segment_size) {
        Err(error) => error.to_string(),
        Ok(gaps) if gaps.is_empty() => "none".to_owned(),
        Ok(gaps) => name_gaps(&gaps.iter().collect::<Vec<_>>()),
    };
    report.add("archive_gaps", "Gaps in the archive", gaps);
    report.add(
        "incoming_queue",
        "WAL waiting in incoming",
        waiting(archive.incoming()),
    );
    report.add(
        "streaming_queue",
        "WAL waiting in streaming",
        waiting(archive.streaming()),
    );
}

fn waiting(backlog: &io::Result<Backlog>) -> String {
    let backlog = match backlog {
        Ok(backlog) => backlog,
        Err(error) => return format!("cannot be read: {error}"),
    };
    let (size_bytes, oldest) = backlog.measure();
    let mut text = match backlog.names.len() {
        0 => return "none".to_owned(),
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    text.push_str(&format!(", {}", pretty_size(size_bytes)));
    let age = oldest.and_then(|oldest| SystemTime::now().duration_since(oldest).ok());
    if let Some(age) = age {
        text.push_str(&format!(
            ", the oldest written {} ago",
            pretty_interval(age)
        ));
    }
    text
}

fn add_errors(server: &ServerConfig, report: &mut StatusReport) {
    let errors = match archiver::summarise_errors(&server.errors_directory) {
        Ok(summary) => summary.unwrap_or_else(|| "none".to_owned()),
        Err(error) => format!("cannot be read: {error}"),
    };
    report.add("archiver_errors", "Files in the errors directory", errors);
}

/// A time as C's `ctime` writes it.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%a %b %e %H:%M:%S %Y")
        .to_string()
}
