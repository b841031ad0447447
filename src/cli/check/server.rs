//! The checks that PostgreSQL answers.

use super::super::inquiry::{Answers, Ordinary, Streaming, WalAnswers};
use crate::archiver::{self, CheckReport, CheckResult};
use crate::config::ServerConfig;
use crate::postgres::{PostgresError, ReplicationSlot, ServerFacts};
use crate::units::pretty_size;

/// The oldest version that is supported, as a number.
const VERSION_MIN: i32 = 100_000;

/// What Barman adds to the names of checks that concern `wal_conninfo`.
const WAL_SOURCE: &str = "WAL streaming";

/// `PostgreSQL`, and what depends on it: privileges, streaming, `wal_level`, standby.
pub(super) fn check_postgres(server: &ServerConfig, answers: &Answers, report: &mut CheckReport) {
    let result = CheckResult::new("PostgreSQL", false);
    let facts = match &answers.ordinary {
        None => return report.add(result),
        Some(Err(error)) => return report.add(result.hint(reason(error))),
        Some(Ok(ordinary)) => &ordinary.facts,
    };
    if facts.status.version < VERSION_MIN {
        return report.add(result.hint(format!(
            "unsupported version: PostgreSQL server is too old ({} < 10.0)",
            facts.version_text
        )));
    }
    report.verdict("PostgreSQL", true);
    report.add(match facts.has_backup_privileges {
        true => CheckResult::new("superuser or standard user with backup privileges", true),
        false => CheckResult::new("no access to backup functions", false)
            .hint("privileges for PostgreSQL backup functions are required (see documentation)"),
    });
    if let Some(streaming) = &answers.streaming {
        report.add(check_streaming(streaming, None));
    }
    report.add(check_wal_level(facts, None));
    if server.primary_conninfo.is_some() {
        check_standby(facts, answers.primary.as_ref(), report);
    }
}

/// The replication slot and, where WAL comes over a connection of its own, that connection.
pub(super) fn check_wal_source(server: &ServerConfig, answers: &Answers, report: &mut CheckReport) {
    let Some(wal) = &answers.wal else {
        let ordinary = answers.ordinary.as_ref();
        return check_slot(
            server,
            ordinary.and_then(|answer| answer.as_ref().ok()),
            None,
            report,
        );
    };
    let ordinary = wal.ordinary.as_ref().ok();
    let may_monitor = ordinary.is_some_and(|ordinary| ordinary.facts.status.may_monitor);
    report.add(match (may_monitor, &wal.ordinary) {
        (true, _) => CheckResult::new(named("has monitoring privileges", Some(WAL_SOURCE)), true),
        (false, Err(error)) => {
            CheckResult::new("no access to monitoring functions", false).hint(reason(error))
        }
        (false, Ok(_)) => CheckResult::new("no access to monitoring functions", false).hint(
            "privileges for PostgreSQL monitoring functions are required (see documentation)",
        ),
    });
    if let Some(streaming) = &wal.streaming {
        report.add(check_streaming(streaming, Some(WAL_SOURCE)));
    }
    if let Some(ordinary) = ordinary {
        report.add(check_wal_level(&ordinary.facts, Some(WAL_SOURCE)));
    }
    report.add(check_wal_identity(server, wal));
    check_slot(server, ordinary, Some(WAL_SOURCE), report);
}

/// `systemid coherence`: all connections lead to the cluster that the home belongs to.
pub(super) fn check_identity(server: &ServerConfig, answers: Option<&Answers>) -> CheckResult {
    let ordinary = answers.and_then(|answers| answers.ordinary.as_ref()?.as_ref().ok());
    let streaming = answers.and_then(|answers| answers.streaming.as_ref()?.as_ref().ok());
    judge_identity(server, ordinary, streaming, None)
}

fn check_wal_identity(server: &ServerConfig, wal: &WalAnswers) -> CheckResult {
    let streaming = wal
        .streaming
        .as_ref()
        .and_then(|answer| answer.as_ref().ok());
    judge_identity(
        server,
        wal.ordinary.as_ref().ok(),
        streaming,
        Some(WAL_SOURCE),
    )
}

fn judge_identity(
    server: &ServerConfig,
    ordinary: Option<&Ordinary>,
    streaming: Option<&Streaming>,
    suffix: Option<&str>,
) -> CheckResult {
    let result = |passed| CheckResult::new(named("systemid coherence", suffix), passed);
    let ordinary = ordinary.and_then(|ordinary| ordinary.facts.status.system_identifier);
    let streaming = streaming.and_then(|streaming| Some(streaming.identity?.system_identifier));
    let of_server = match (streaming, ordinary) {
        (Some(streaming), Some(ordinary)) if streaming != ordinary => {
            return result(false).hint(
                "is the streaming DSN targeting the same server of the PostgreSQL connection string?",
            );
        }
        (streaming, ordinary) => streaming.or(ordinary),
    };
    let Some(of_server) = of_server else {
        return result(true).hint("no system Id available");
    };
    match archiver::system_identifier(&server.backup_directory) {
        Err(error) => result(false).hint(error.to_string()),
        Ok(None) => result(true).hint("no system Id stored on disk"),
        Ok(Some(of_home)) if of_home == of_server => result(true),
        Ok(Some(_)) => result(false).hint(format!(
            "the system Id of the connected PostgreSQL server changed, stored in \"{}\"",
            archiver::identity_path(&server.backup_directory).display()
        )),
    }
}

fn named(name: &str, suffix: Option<&str>) -> String {
    match suffix {
        Some(suffix) => format!("{name} ({suffix})"),
        None => name.to_owned(),
    }
}

fn check_streaming(
    streaming: &Result<Streaming, PostgresError>,
    suffix: Option<&str>,
) -> CheckResult {
    let name = named("PostgreSQL streaming", suffix);
    match streaming {
        Ok(streaming) => CheckResult::new(name, streaming.identity.is_some()),
        Err(error) => CheckResult::new(name, false).hint(reason(error)),
    }
}

fn check_wal_level(facts: &ServerFacts, suffix: Option<&str>) -> CheckResult {
    let name = named("wal_level", suffix);
    match facts.status.wal_level.as_str() {
        "minimal" => {
            CheckResult::new(name, false).hint("please set it to a higher level than 'minimal'")
        }
        _ => CheckResult::new(name, true),
    }
}

/// An error on one line: what failed, with each of several hosts. What libpq asks the reader about it is
/// indented, and left out.
fn reason(error: &PostgresError) -> String {
    let text = error.to_string();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with(char::is_whitespace));
    lines.collect::<Vec<_>>().join("; ")
}

/// Barman's three checks of a standby and its primary.
fn check_standby(
    facts: &ServerFacts,
    primary: Option<&Result<Ordinary, PostgresError>>,
    report: &mut CheckReport,
) {
    let is_standby = CheckResult::new("PostgreSQL server is standby", facts.status.in_recovery);
    if !facts.status.in_recovery {
        return report.add(
            is_standby.hint("conninfo should point to a standby server if primary_conninfo is set"),
        );
    }
    report.add(is_standby);
    let of_primary = primary.and_then(|answer| Some(&answer.as_ref().ok()?.facts));
    report.add(match of_primary {
        Some(primary) if primary.status.in_recovery => {
            CheckResult::new("Primary server is not a standby", false)
                .hint("primary_conninfo should point to a primary server, not a standby")
        }
        _ => CheckResult::new("Primary server is not a standby", true),
    });
    let of_primary = of_primary.and_then(|primary| primary.status.system_identifier);
    let same = CheckResult::new(
        "Primary and standby have same system ID",
        facts.status.system_identifier == of_primary,
    );
    report.add(match (same.passed, primary) {
        (true, _) => same,
        (false, Some(Err(error))) => same.hint(reason(error)),
        (false, _) => same.hint(
            "primary_conninfo and conninfo should point to primary and standby servers which share \
             the same system identifier",
        ),
    });
}

/// `replication slot`: there, in use, and still in possession of the WAL.
fn check_slot(
    server: &ServerConfig,
    ordinary: Option<&Ordinary>,
    suffix: Option<&str>,
    report: &mut CheckReport,
) {
    let Some(slot_name) = &server.slot_name else {
        return;
    };
    let slot = ordinary.and_then(|ordinary| ordinary.slot.as_ref());
    let result = |passed| {
        let result = CheckResult::new(named("replication slot", suffix), passed);
        match slot {
            Some(slot) => result
                .fact("wal_status", slot.wal_status.clone())
                .fact("safe_wal_size_bytes", slot.safe_wal_size_bytes),
            None => result,
        }
    };
    if !server.streaming_archiver {
        if let Some(slot) = slot.filter(|slot| slot.restart_lsn.is_some()) {
            let state = if slot.active { "active" } else { "initialised" };
            report.add(result(true).hint(format!(
                "WARNING: slot '{slot_name}' is {state} but not required by the current config"
            )));
        }
        return;
    }
    let Some(slot) = slot else {
        let hint = match ordinary {
            None => "PostgreSQL cannot be asked".to_owned(),
            Some(_) => format!(
                "replication slot '{slot_name}' doesn't exist. \
                 Please execute 'barman receive-wal --create-slot {}'",
                server.name
            ),
        };
        return report.add(result(false).hint(hint));
    };
    report.add(match find_fault(slot, &server.name) {
        Some(fault) => result(false).hint(fault),
        None => match worth_knowing(slot) {
            Some(warning) => result(true).hint(warning),
            None => result(true),
        },
    });
}

fn find_fault(slot: &ReplicationSlot, server_name: &str) -> Option<String> {
    let name = &slot.name;
    if slot.kind != "physical" {
        return Some(format!(
            "slot '{name}' is a {} one: set slot_name to another name",
            slot.kind
        ));
    }
    match slot.wal_status.as_deref() {
        Some("lost") => {
            return Some(format!(
                "slot '{name}' is lost: WAL that was not received yet has been removed. \
                 Please execute 'walarch receive-wal --drop-slot {server_name}', \
                 '--create-slot' and '--reset', and take a new base backup"
            ));
        }
        Some("unreserved") => {
            return Some(format!(
                "slot '{name}' is about to be lost: WAL that was not received yet is removed at the \
                 next checkpoint"
            ));
        }
        _ => {}
    }
    let idle = match slot.restart_lsn {
        None => "initialised",
        Some(_) if !slot.active => "active",
        Some(_) => return None,
    };
    Some(format!(
        "slot '{name}' not {idle}: is 'receive-wal' running?"
    ))
}

/// The slot makes the server keep more WAL than it would for itself.
fn worth_knowing(slot: &ReplicationSlot) -> Option<String> {
    let name = &slot.name;
    (slot.wal_status.as_deref() == Some("extended")).then(|| match slot.safe_wal_size_bytes {
        Some(size_bytes) => format!(
            "WARNING: slot '{name}' keeps more WAL than max_wal_size and is lost after {} more",
            pretty_size(u64::try_from(size_bytes).unwrap_or(0))
        ),
        None => format!("WARNING: slot '{name}' keeps more WAL than max_wal_size"),
    })
}
