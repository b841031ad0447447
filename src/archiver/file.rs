//! Log shipping: WAL that PostgreSQL's `archive_command` puts into `incoming`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::{Batch, CheckReport, CheckResult, ServerState, StatusReport, WalArchiver};
use crate::config::ServerConfig;
use crate::postgres::ArchiverFacts;
use crate::storage::SourceKeeper;

/// Archives `incoming_wals_directory`.
#[derive(Debug)]
pub struct File {
    queue: Queue,
    batch_size: Option<NonZeroUsize>,
}

impl File {
    /// Touches nothing.
    pub fn new(server: &ServerConfig) -> Self {
        File {
            // A sender may have compressed it.
            queue: Queue::new(&server.incoming_wals_directory, true, server),
            batch_size: server.archiver_batch_size,
        }
    }
}

impl WalArchiver for File {
    fn name(&self) -> &'static str {
        "file archival"
    }

    fn keeper(&self) -> &dyn SourceKeeper {
        &self.queue
    }

    fn next_batch(&self) -> io::Result<Batch> {
        let listing = self.queue.list()?;
        Ok(Batch {
            files: listing.files,
            limit: self.batch_size,
            strangers: listing.strangers,
            listed: listing.listed,
        })
    }

    fn set_stranger_aside(&self, path: &Path) -> io::Result<PathBuf> {
        self.queue.move_to_errors(path, "unknown")
    }

    fn check(&self, state: &ServerState, report: &mut CheckReport) {
        let Some(facts) = &state.facts else {
            return;
        };
        let mode = facts.archive_mode.as_deref();
        report.add(match mode {
            Some("on" | "always") => CheckResult::new("archive_mode", true),
            _ => CheckResult::new("archive_mode", false).hint("please set it to 'on' or 'always'"),
        });
        let command = facts.archive_command.as_deref();
        if command.is_none_or(|command| matches!(command, "" | "(disabled)")) {
            report.add(
                CheckResult::new("archive_command", false)
                    .hint("please set it accordingly to documentation"),
            );
            return;
        }
        report.verdict("archive_command", true);
        let archiver = facts.archiver.as_ref();
        if let Some(is_archiving) = archiver.and_then(|archiver| archiver.is_archiving) {
            report.verdict("continuous archiving", is_archiving);
        }
    }

    fn status(&self, state: &ServerState, report: &mut StatusReport) {
        let Some(facts) = &state.facts else {
            return;
        };
        let command = facts.archive_command.as_deref();
        report.add(
            "archive_command",
            "PostgreSQL 'archive_command' setting",
            command
                .filter(|command| !command.is_empty())
                .unwrap_or("FAILED (please set it accordingly to documentation)"),
        );
        let archiver = facts.archiver.clone().unwrap_or_default();
        report.add(
            "last_archived_wal",
            "Last archived WAL",
            last_archived(&archiver),
        );
        if let Some(count) = archiver.failed_count {
            report.add(
                "failed_count",
                "Failures of WAL archiver",
                failures(count, &archiver),
            );
        }
        if let Some(rate) = archiver.archived_per_hour {
            report.add(
                "server_archived_wals_per_hour",
                "Server WAL archiving rate",
                format!("{rate}/hour"),
            );
        }
    }
}

fn last_archived(archiver: &ArchiverFacts) -> String {
    match (&archiver.last_archived_wal, &archiver.last_archived_at) {
        (Some(name), Some(at)) => format!("{name}, at {at}"),
        (Some(name), None) => name.clone(),
        (None, _) => "No WAL segment shipped yet".to_owned(),
    }
}

fn failures(count: u64, archiver: &ArchiverFacts) -> String {
    match (&archiver.last_failed_wal, &archiver.last_failed_at) {
        (Some(name), Some(at)) if count > 0 => format!("{count} ({name} at {at})"),
        _ => count.to_string(),
    }
}
