//! What `check` and `status` say of the receiver that fills `streaming`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{CheckReport, CheckResult, ReceiverFacts, ServerState, StatusReport};
use crate::postgres::{ReplicationSlot, WalSender, version_name};
use crate::units::pretty_size;

/// Where Barman sends those who ask why nothing is received.
const SEE_LOG: &str = "See the Barman log file for more details";

pub(super) fn check(state: &ServerState, report: &mut CheckReport) {
    let receiver = &state.receiver;
    report.verdict("pg_receivexlog", receiver.is_installed);
    report.add(compatible(receiver));
    let running = CheckResult::new("receive-wal running", receiver.pid.is_some());
    report.add(match (receiver.pid, &receiver.last_exit) {
        (Some(_), _) if !receiver.holes.is_empty() => running.hint(lost(&receiver.holes)),
        (Some(_), _) => running,
        (None, Some(exit)) => running.hint(format!("{SEE_LOG}; {}", tell(exit))),
        (None, None) => running.hint(SEE_LOG),
    });
}

pub(super) fn status(state: &ServerState, report: &mut StatusReport) {
    let receiver = &state.receiver;
    report.add("receive_wal", "receive-wal", running(receiver));
    if let Some(sender) = &state.wal_sender {
        report.add(
            "receive_wal_position",
            "WAL received up to",
            received(sender, state),
        );
    }
    if let Some(exit) = &receiver.last_exit {
        report.add(
            "receive_wal_last_exit",
            "Last exit of receive-wal",
            tell(exit),
        );
    }
    let streams = receiver.pid.is_some() && receiver.streaming_since.is_some();
    // One that streams has got over them.
    if receiver.failures > 0 && !streams {
        report.add(
            "receive_wal_failures",
            "Failures of receive-wal in a row",
            receiver.failures,
        );
    }
    if let (None, Some(at)) = (receiver.pid, receiver.next_start_at) {
        report.add(
            "receive_wal_next_start",
            "Next start of receive-wal",
            local(at),
        );
    }
    if !receiver.holes.is_empty() {
        let holes = lost(&receiver.holes);
        report.add("receive_wal_holes", "Holes in what was received", holes);
    }
    if let Some(slot) = &state.slot {
        report.add("replication_slot", "Replication slot", describe(slot));
    }
}

/// What recoveries will not get past.
fn lost(holes: &[String]) -> String {
    format!("the server had removed {}", holes.join("; "))
}

fn compatible(receiver: &ReceiverFacts) -> CheckResult {
    let result = CheckResult::new("pg_receivexlog compatible", receiver.is_compatible);
    if receiver.is_compatible {
        return result;
    }
    let none = || "None".to_owned();
    result.hint(format!(
        "PostgreSQL version: {}, pg_receivexlog version: {}",
        receiver.server_version.map_or_else(none, version_name),
        receiver.version.clone().unwrap_or_else(none)
    ))
}

fn running(receiver: &ReceiverFacts) -> String {
    match (receiver.pid, receiver.streaming_since) {
        (Some(pid), Some(since)) => {
            format!("running (pid {pid}), streaming since {}", local(since))
        }
        (Some(pid), None) => format!("running (pid {pid})"),
        (None, _) => "not running".to_owned(),
    }
}

fn received(sender: &WalSender, state: &ServerState) -> String {
    let position = state.facts.as_ref().and_then(|facts| facts.status.position);
    let mut text = match sender.written {
        Some(written) => written.to_string(),
        None => "unknown".to_owned(),
    };
    let mut remarks = Vec::new();
    if let (Some(written), Some(position)) = (sender.written, position) {
        let behind_bytes = position.0.saturating_sub(written.0);
        remarks.push(format!("{} behind the server", pretty_size(behind_bytes)));
    }
    remarks.extend(sender.state.clone());
    remarks.extend(sender.sync_state.clone());
    if !remarks.is_empty() {
        text.push_str(&format!(" ({})", remarks.join(", ")));
    }
    text
}

fn describe(slot: &ReplicationSlot) -> String {
    let mut parts = vec![match slot.active {
        true => "active".to_owned(),
        false => "not active".to_owned(),
    }];
    parts.extend(slot.restart_lsn.map(|lsn| format!("restart_lsn {lsn}")));
    parts.extend(
        slot.wal_status
            .as_ref()
            .map(|status| format!("wal_status {status}")),
    );
    if let Some(size_bytes) = slot.safe_wal_size_bytes {
        let size_bytes = u64::try_from(size_bytes).unwrap_or(0);
        parts.push(format!("lost after {} more WAL", pretty_size(size_bytes)));
    }
    format!("{} ({})", slot.name, parts.join(", "))
}

/// How a run ended, on one line.
fn tell((at, reason): &(Timestamp, String)) -> String {
    let lines: Vec<&str> = reason.lines().map(str::trim).collect();
    format!("at {}: {}", local(*at), lines.join("; "))
}

/// A time as C's `ctime` writes it.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%a %b %e %H:%M:%S %Y")
        .to_string()
}
