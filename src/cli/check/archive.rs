//! The checks that xlogdb and the queues answer: whether WAL arrives, how old and how complete it is.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::inquiry::Answers;
use crate::archiver::{self, Backlog, CheckReport, CheckResult};
use crate::catalog::{BackupWal, Catalog, CatalogError, Survey, last_backup};
use crate::config::ServerConfig;
use crate::units::{pretty_interval, pretty_size};
use crate::wal::{Gap, SegmentSize};

/// How many gaps a hint names.
const GAPS_NAMED: usize = 3;

/// What is archived, and what waits to be.
pub(in crate::cli) struct Archive<'a> {
    server: &'a ServerConfig,
    backup: Option<BackupWal>,
    incoming: io::Result<Backlog>,
    streaming: io::Result<Backlog>,
    archived: Result<Survey, CatalogError>,
}

/// How far the archive is behind the server.
pub(in crate::cli) struct Lag {
    pub(in crate::cli) size_bytes: u64,
    /// Since the newest archived segment was written.
    pub(in crate::cli) age: Duration,
    /// Whether segments are missing that the server has completed.
    pub(in crate::cli) is_behind: bool,
}

impl<'a> Archive<'a> {
    /// Looks at the queues, then at xlogdb: what is archived meanwhile is found in both.
    pub(in crate::cli) fn survey(server: &'a ServerConfig) -> Self {
        let backup = last_backup(server);
        Archive {
            incoming: archiver::incoming_backlog(server),
            streaming: archiver::streaming_backlog(server),
            archived: Catalog::of(server).survey(backup.as_ref()),
            server,
            backup,
        }
    }

    /// `WAL archive`, which is shown only if it failed: something has been archived.
    pub(super) fn check_wal_archive(&self, report: &mut CheckReport) {
        let failed = CheckResult::new("WAL archive", false);
        let server = &self.server.name;
        let is_empty = match &self.archived {
            Err(error) => return report.add(failed.hint(error.to_string())),
            Ok(archived) => !archived.lists_something(),
        };
        let backup_waits = self
            .backup
            .as_ref()
            .is_some_and(|backup| backup.waits_for_wal);
        if !is_empty || backup_waits {
            return;
        }
        // Barman would archive what waits and, if there is nothing, switch to the next segment.
        let waiting = self.waiting().map(|backlog| backlog.count).sum::<usize>();
        report.add(failed.hint(match waiting {
            0 => format!(
                "please make sure WAL shipping is setup. \
                 'walarch switch-wal --force --archive {server}' shows whether it is"
            ),
            _ => format!(
                "{waiting} files wait to be archived, none has been so far. \
                 Please execute 'walarch archive-wal {server}'"
            ),
        }));
    }

    /// The queues, which are shown only if one has too much in it, or anything without being in use.
    pub(super) fn check_queues(&self, report: &mut CheckReport) {
        let server = self.server;
        let queues = [
            (
                ["empty incoming directory", "incoming WALs directory"],
                "archiver",
                server.archiver,
                &server.incoming_wals_directory,
                &self.incoming,
            ),
            (
                ["empty streaming directory", "streaming WALs directory"],
                "streaming_archiver",
                server.streaming_archiver,
                &server.streaming_wals_directory,
                &self.streaming,
            ),
        ];
        for ([empty, full], option, is_enabled, directory, backlog) in queues {
            let count = match backlog {
                Ok(backlog) => backlog.count,
                Err(error) => {
                    let hint = format!("cannot read {}: {error}", directory.display());
                    report.add(CheckResult::new(full, false).hint(hint));
                    continue;
                }
            };
            let count_max = server.max_incoming_wals_queue;
            let too_many = |max: i64| i64::try_from(count).is_ok_and(|count| count > max);
            if !is_enabled && count > 0 {
                report.add(CheckResult::new(empty, false).hint(format!(
                    "'{}' must be empty when {option}=off",
                    directory.display()
                )));
            } else if let Some(max) = count_max.filter(|&max| is_enabled && too_many(max)) {
                report.add(CheckResult::new(full, false).hint(format!(
                    "there are too many WALs in queue: {count}, max {max}"
                )));
            }
        }
    }

    /// `wal maximum age` and `wal size`. Barman has both for the WAL since the last base backup; without
    /// a base backup, all WAL counts.
    pub(super) fn check_age_and_size(&self, report: &mut CheckReport) {
        let result = |passed| CheckResult::new("wal maximum age", passed);
        report.add(
            match (self.server.last_wal_maximum_age, self.newest_age()) {
                (None, _) => result(true).hint("no last_wal_maximum_age provided"),
                (Some(_), None) => result(false).hint("No WAL files archived for last backup"),
                (Some(age_max), Some(age)) => {
                    let (is_older, age_text) = match age {
                        Ok(age) => (age > age_max, pretty_interval(age)),
                        Err(ahead) => (false, format!("{} ago", pretty_interval(ahead))),
                    };
                    result(!is_older).hint(format!(
                        "interval provided: {}, latest wal age: {age_text}",
                        pretty_interval(age_max)
                    ))
                }
            },
        );
        let size_bytes = match &self.archived {
            Ok(archived) => archived.size_since_backup_bytes(),
            Err(_) => 0,
        };
        report.add(
            CheckResult::new("wal size", true)
                .hint(pretty_size(size_bytes))
                .fact("size_bytes", size_bytes),
        );
    }

    /// How far behind the server the archive is: shown to people as soon as a complete segment is missing.
    pub(super) fn check_lag(&self, answers: Option<&Answers>, report: &mut CheckReport) {
        if let Some(lag) = answers.and_then(|answers| self.lag(answers)) {
            report.add(
                CheckResult::new("WAL archive lag", true)
                    .hint(lag.to_string())
                    .fact("size_bytes", lag.size_bytes)
                    .fact("age_s", lag.age.as_secs())
                    .silent_unless(lag.is_behind),
            );
        }
    }

    /// Missing segments: a failure where the last base backup needs them, a warning where only older ones
    /// do. Shown to people only if there are any.
    pub(super) fn check_gaps(&self, answers: Option<&Answers>, report: &mut CheckReport) {
        let segment_size = answers
            .and_then(Answers::facts)
            .map(|facts| facts.status.segment_size);
        let Ok(gaps) = self.gaps(segment_size) else {
            return;
        };
        let recent: Vec<&Gap> = gaps.iter().filter(|gap| self.is_needed(gap)).collect();
        let list: Vec<Value> = gaps.iter().map(as_json).collect();
        let result = CheckResult::new("WAL archive gaps", recent.is_empty())
            .fact("gaps", list)
            .silent_unless(!gaps.is_empty());
        report.add(match (gaps.is_empty(), recent.is_empty()) {
            (true, _) => result,
            (false, true) => result.hint(format!(
                "WARNING: {}, before the last base backup",
                name_gaps(&gaps.iter().collect::<Vec<_>>())
            )),
            (false, false) => result.hint(format!(
                "{}. No recovery gets past that: please take a new base backup",
                name_gaps(&recent)
            )),
        });
    }

    /// What is not archived yet of the server's WAL. `None` if nothing is known of that.
    pub(in crate::cli) fn lag(&self, answers: &Answers) -> Option<Lag> {
        let facts = answers.facts()?;
        let (position, segment_size) = (facts.status.position?, facts.status.segment_size);
        let archived = self.archived.as_ref().ok()?;
        let end = archived.end_on(answers.timeline().unwrap_or(u32::MAX), segment_size)?;
        let size_bytes = position.0.saturating_sub(end.0);
        let age = self.newest_age()?.unwrap_or_default();
        Some(Lag {
            size_bytes,
            age: if size_bytes == 0 { Duration::ZERO } else { age },
            is_behind: size_bytes >= segment_size.bytes(),
        })
    }

    /// Segments that are neither archived nor on their way, although later ones are.
    pub(in crate::cli) fn gaps(
        &self,
        segment_size: Option<SegmentSize>,
    ) -> Result<Vec<Gap>, &CatalogError> {
        let mut survey = self.archived.as_ref()?.clone();
        for name in self.waiting().flat_map(|backlog| &backlog.names) {
            survey.add_waiting(name);
        }
        Ok(survey.gaps(segment_size))
    }

    /// The newest archived segment and when it was written, in seconds since 1970.
    pub(in crate::cli) fn newest(&self) -> Option<(&crate::wal::WalName, f64)> {
        self.archived.as_ref().ok()?.newest()
    }

    pub(in crate::cli) fn incoming(&self) -> &io::Result<Backlog> {
        &self.incoming
    }

    pub(in crate::cli) fn streaming(&self) -> &io::Result<Backlog> {
        &self.streaming
    }

    fn waiting(&self) -> impl Iterator<Item = &Backlog> {
        [&self.streaming, &self.incoming]
            .into_iter()
            .filter_map(|backlog| backlog.as_ref().ok())
    }

    /// The age of the newest archived segment; an error holds how far in the future it is.
    fn newest_age(&self) -> Option<Result<Duration, Duration>> {
        let (_, modified_s) = self.newest()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let age_s = now.as_secs_f64() - modified_s;
        let length = Duration::try_from_secs_f64(age_s.abs()).ok()?;
        Some(if age_s < 0.0 { Err(length) } else { Ok(length) })
    }

    fn is_needed(&self, gap: &Gap) -> bool {
        // The names of all timelines compare by position behind their first eight digits.
        let position = |name: &str| name.get(8..).unwrap_or_default().to_ascii_uppercase();
        self.backup.as_ref().is_none_or(|backup| {
            position(gap.before.as_str()) > position(backup.begin_wal.as_str())
        })
    }
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.size_bytes {
            0 => f.write_str("nothing behind the server"),
            size_bytes => write!(
                f,
                "{} behind the server, last WAL written {} ago",
                pretty_size(size_bytes),
                pretty_interval(self.age)
            ),
        }
    }
}

fn as_json(gap: &Gap) -> Value {
    json!({
        "after": gap.after.as_str(),
        "before": gap.before.as_str(),
        "segments": gap.segments,
    })
}

/// The first gaps in words.
pub(in crate::cli) fn name_gaps(gaps: &[&Gap]) -> String {
    let mut words: Vec<String> = gaps
        .iter()
        .take(GAPS_NAMED)
        .map(ToString::to_string)
        .collect();
    if let Some(more @ 1..) = gaps.len().checked_sub(GAPS_NAMED) {
        words.push(format!("{more} more gaps"));
    }
    words.join(", ")
}
