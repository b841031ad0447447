//! Streaming: WAL that a receiver (`pg_receivewal`) writes into `streaming`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::{Batch, CheckReport, CheckResult, ServerState, StatusReport, WalArchiver};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::ServerConfig;
use crate::postgres::{ReplicationSlot, WalSender, version_name};
use crate::receiver::LastExit;
use crate::storage::{SourceKeeper, WalFile};
use crate::units::pretty_size;
use crate::wal::WalKind;

/// Archives `streaming_wals_directory`.
#[derive(Debug)]
pub struct Streaming {
    queue: Queue,
    batch_size: Option<NonZeroUsize>,
    server_name: String,
}

impl Streaming {
    /// Touches nothing.
    pub fn new(server: &ServerConfig) -> Self {
        Streaming {
            // A receiver writes what the server sends, and that is never compressed.
            queue: Queue::new(&server.streaming_wals_directory, false, server),
            batch_size: server.streaming_archiver_batch_size,
            server_name: server.name.clone(),
        }
    }
}

impl WalArchiver for Streaming {
    fn name(&self) -> &'static str {
        "streaming"
    }

    fn keeper(&self) -> &dyn SourceKeeper {
        &self.queue
    }

    fn next_batch(&self) -> io::Result<Batch> {
        let listing = self.queue.list()?;
        let (partials, complete) = leave_the_place_marker(listing.files);
        if !partials.is_empty() {
            let names: Vec<&str> = partials.iter().map(|wal| wal.name.as_str()).collect();
            tracing::info!(
                "Archiving partial files for server {}: {}",
                self.server_name,
                names.join(", ")
            );
        }
        Ok(Batch {
            files: complete.into_iter().chain(partials).collect(),
            limit: self.batch_size,
            strangers: listing.strangers,
            listed: listing.listed,
        })
    }

    fn set_stranger_aside(&self, path: &Path) -> io::Result<PathBuf> {
        self.queue.move_to_errors(path, "unknown")
    }

    fn check(&self, state: &ServerState, report: &mut CheckReport) {
        let program = state.receiver_program.as_ref();
        report.verdict("pg_receivexlog", program.is_some());
        report.add(compatible(state));
        let running = CheckResult::new("receive-wal running", state.receiver_pid.is_some());
        report.add(match state.receiver_pid {
            Some(_) => running,
            None => running.hint(match &state.receiver.last_exit {
                Some(exit) => format!("{SEE_LOG}; {}", tell(exit)),
                None => SEE_LOG.to_owned(),
            }),
        });
    }

    fn status(&self, state: &ServerState, report: &mut StatusReport) {
        let receiver = &state.receiver;
        report.add("receive_wal", "receive-wal", running(state));
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
        if receiver.consecutive_failures > 0 {
            report.add(
                "receive_wal_failures",
                "Failures of receive-wal in a row",
                receiver.consecutive_failures,
            );
        }
        if let (None, Some(at)) = (state.receiver_pid, receiver.may_start_at(Timestamp::now())) {
            report.add(
                "receive_wal_next_start",
                "Next start of receive-wal",
                local(at),
            );
        }
        if let Some(slot) = &state.slot {
            report.add("replication_slot", "Replication slot", describe(slot));
        }
    }
}

/// Where Barman sends those who ask why nothing is received.
const SEE_LOG: &str = "See the Barman log file for more details";

fn compatible(state: &ServerState) -> CheckResult {
    let program = state.receiver_program.as_ref();
    let server_version = state.streaming_version;
    let fits = program
        .zip(server_version)
        .is_some_and(|(program, version)| program.is_compatible_with(version));
    let result = CheckResult::new("pg_receivexlog compatible", fits);
    if fits {
        return result;
    }
    let none = || "None".to_owned();
    result.hint(format!(
        "PostgreSQL version: {}, pg_receivexlog version: {}",
        server_version.map_or_else(none, version_name),
        program
            .and_then(|program| program.version.clone())
            .unwrap_or_else(none)
    ))
}

fn running(state: &ServerState) -> String {
    match (state.receiver_pid, state.receiver.streaming_since) {
        (Some(pid), Some(since)) => {
            format!("running (pid {pid}), streaming since {}", local(since))
        }
        (Some(pid), None) => format!("running (pid {pid})"),
        (None, _) => "not running".to_owned(),
    }
}

fn received(sender: &WalSender, state: &ServerState) -> String {
    let position = state.facts.as_ref().and_then(|facts| facts.position);
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
fn tell(exit: &LastExit) -> String {
    let reason: Vec<&str> = exit.reason.lines().map(str::trim).collect();
    format!("at {}: {}", local(exit.at), reason.join("; "))
}

/// A time as C's `ctime` writes it.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%a %b %e %H:%M:%S %Y")
        .to_string()
}

/// Splits a sorted queue into superseded partial segments and everything else, less the one file
/// that a receiver needs to find its place after a restart: the newest partial segment or, without
/// any, the newest complete one.
fn leave_the_place_marker(files: Vec<WalFile>) -> (Vec<WalFile>, Vec<WalFile>) {
    let is = |kind| move |wal: &WalFile| wal.name.kind() == kind;
    let (mut partials, mut complete): (Vec<_>, Vec<_>) =
        files.into_iter().partition(is(WalKind::Partial));
    if partials.pop().is_none()
        && let Some(newest) = complete.iter().rposition(is(WalKind::Segment))
    {
        complete.remove(newest);
    }
    (partials, complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::WalName;

    fn left(names: &[&str]) -> Vec<String> {
        let file = |name: &&str| WalFile {
            name: WalName::parse(name).unwrap(),
            path: name.into(),
        };
        let (partials, complete) = leave_the_place_marker(names.iter().map(file).collect());
        complete
            .into_iter()
            .chain(partials)
            .map(|wal| wal.name.to_string())
            .collect()
    }

    const ONE: &str = "000000010000000000000001";
    const TWO: &str = "000000010000000000000002";
    const TWO_PARTIAL: &str = "000000010000000000000002.partial";
    const THREE_PARTIAL: &str = "000000010000000000000003.partial";
    const HISTORY: &str = "00000002.history";

    #[test]
    fn the_newest_partial_segment_stays() {
        assert_eq!(left(&[ONE, TWO_PARTIAL, THREE_PARTIAL]), [ONE, TWO_PARTIAL]);
    }

    #[test]
    fn without_a_partial_segment_the_newest_complete_one_stays() {
        assert_eq!(left(&[ONE, TWO]), [ONE]);
        assert_eq!(left(&[ONE]), [] as [&str; 0]);
    }

    #[test]
    fn a_history_file_never_takes_the_place_of_a_segment() {
        assert_eq!(left(&[ONE, TWO, HISTORY]), [ONE, HISTORY]);
        assert_eq!(left(&[HISTORY]), [HISTORY]);
    }
}
