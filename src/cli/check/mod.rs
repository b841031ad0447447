//! `check`: whether WAL arrives and can be archived. Reads, asks, and changes nothing.

mod archive;
mod cloud;
mod files;
mod present;
mod server;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::inquiry::{Answers, Inquiry, Pending, TimedOut, deadline};
use super::output::Output;
use super::processes;
use super::servers::select_with_inactive;
use crate::archiver::{self, CheckReport, CheckResult, ReceiverFacts, ServerState};
use crate::codec::{CodecError, CodecOptions, Rehearsal, rehearse_encryption};
use crate::config::{Config, ReceiverKind, ServerConfig};
use crate::receiver::{Builtin, ReceiverState};
pub(super) use archive::{Archive, name_gaps};

pub(super) fn run(
    config: Config,
    server_names: &[String],
    nagios: bool,
    check_timeout: Option<u64>,
    output: &Output,
) {
    if nagios {
        output.begin_nagios();
    }
    let servers = select_with_inactive(config, server_names, output);
    let mut reports = Vec::new();
    for server in servers {
        let time_limit = match check_timeout {
            Some(seconds) => Some(Duration::from_secs(seconds)).filter(|limit| !limit.is_zero()),
            None => server.check_timeout,
        };
        let report = check(&server, deadline(time_limit));
        present::log(&server, &report);
        if server.active && report.results.iter().any(|result| !result.passed) {
            output.fail();
        }
        present::show(&server, &report, output);
        reports.push((server.name, report));
    }
    if nagios {
        output.verdict(&present::for_nagios(&reports, output.has_failed()));
    }
}

fn check(server: &ServerConfig, deadline: Option<Instant>) -> CheckReport {
    let mut report = CheckReport::default();
    if let Err(TimedOut) = fill(server, deadline, &mut report) {
        report.add(CheckResult::new("check timeout", false).hint("barman check command timed out"));
    }
    report
}

/// Does all checks, in Barman's order, up to the time limit.
fn fill(
    server: &ServerConfig,
    deadline: Option<Instant>,
    report: &mut CheckReport,
) -> Result<(), TimedOut> {
    let has_postgres = server.active && !server.passive;
    let inquiry = has_postgres.then(|| Inquiry::start(server, deadline));
    let rehearsal = begin_rehearsal(server);
    let probe = cloud::begin_probe(server);
    let archive = Archive::survey(server);

    archive.check_wal_archive(report);
    archive.check_queues(report);
    let answers = inquiry.map(Inquiry::wait).transpose()?;
    if let Some(answers) = &answers {
        server::check_postgres(server, answers, report);
        server::check_wal_source(server, answers, report);
    }
    if !server.disabled {
        report.add(files::check_directories(server));
    }
    if let Some(rehearsal) = rehearsal {
        report.add(files::judge_rehearsal(rehearsal.wait(deadline)?));
    }
    if let Some(probe) = probe {
        report.add(cloud::judge(probe.wait(deadline)?));
    }
    archive.check_age_and_size(report);
    report.add(files::check_compression(server));
    if !server.messages.is_empty() {
        report.verdict("configuration", false);
        report.messages.clone_from(&server.messages);
    }
    report.add(server::check_identity(server, answers.as_ref()));
    check_archivers(server, answers.as_ref(), report);
    report.add(files::check_errors(server));
    archive.check_lag(answers.as_ref(), report);
    archive.check_gaps(answers.as_ref(), report);
    Ok(())
}

fn begin_rehearsal(server: &ServerConfig) -> Option<Pending<Result<Rehearsal, CodecError>>> {
    server.encryption?;
    let options = CodecOptions::from(server);
    Some(Pending::start(move || rehearse_encryption(&options)))
}

fn check_archivers(server: &ServerConfig, answers: Option<&Answers>, report: &mut CheckReport) {
    if !server.active {
        return;
    }
    let state = server_state(server, answers);
    for archiver in archiver::archivers(server) {
        archiver.check(&state, report);
    }
}

/// What the archivers of a server are told.
pub(super) fn server_state(server: &ServerConfig, answers: Option<&Answers>) -> ServerState {
    let source = answers.and_then(Answers::wal_source);
    ServerState {
        facts: answers.and_then(Answers::facts).cloned(),
        receiver: receiver_facts(server, answers),
        wal_sender: source.and_then(|source| source.wal_sender.clone()),
        slot: source.and_then(|source| source.slot.clone()),
    }
}

fn receiver_facts(server: &ServerConfig, answers: Option<&Answers>) -> ReceiverFacts {
    let state = ReceiverState::load(server).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        ReceiverState::default()
    });
    let program = answers.and_then(|answers| answers.program.as_ref());
    let server_version = answers.and_then(Answers::streaming_version);
    let is_builtin = server.own.receiver == ReceiverKind::Builtin;
    let is_compatible = |version| match is_builtin {
        true => Builtin::is_compatible_with(version),
        false => program.is_some_and(|program| program.is_compatible_with(version)),
    };
    ReceiverFacts {
        is_installed: is_builtin || program.is_some(),
        version: match is_builtin {
            true => Some("built-in".to_owned()),
            false => program.and_then(|program| program.version.clone()),
        },
        is_compatible: server_version.is_some_and(is_compatible),
        server_version,
        pid: processes::find(server, "receive-wal").map(|process| process.pid),
        streaming_since: state.streaming_since,
        next_start_at: state.may_start_at(Timestamp::now()),
        failures: state.consecutive_failures,
        holes: state.holes.iter().map(ToString::to_string).collect(),
        last_exit: state.last_exit.map(|exit| (exit.at, exit.reason)),
    }
}
