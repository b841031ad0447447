//! How verdicts are shown: lines, JSON, the output of a Nagios plugin, the log.

use serde_json::{Map, Value, json};

use super::super::output::Output;
use crate::archiver::{CheckReport, CheckResult};
use crate::config::ServerConfig;

pub(super) fn show(server: &ServerConfig, report: &CheckReport, output: &Output) {
    if !output.is_json() {
        return show_lines(server, report, output);
    }
    let checks: Map<String, Value> = report.results.iter().map(as_json).collect();
    output.value(&server.name, checks.into());
    show_messages(report, output);
}

fn show_lines(server: &ServerConfig, report: &CheckReport, output: &Output) {
    let state = match (server.active, server.disabled) {
        (false, _) => " (inactive)",
        (true, true) => " (WARNING: disabled)",
        (true, false) => "",
    };
    output.line(&format!("Server {}{state}:", server.name));
    for result in report.results.iter().filter(|result| !result.is_silent) {
        let word = output.status_word(result.passed);
        output.line(&match hint(result) {
            Some(hint) => format!("\t{}: {word} ({hint})", result.name),
            None => format!("\t{}: {word}", result.name),
        });
        if result.name == "configuration" {
            show_messages(report, output);
        }
    }
}

fn show_messages(report: &CheckReport, output: &Output) {
    for message in &report.messages {
        output.info(&format!("\t\t{message}"));
    }
}

fn hint(result: &CheckResult) -> Option<&str> {
    result.hint.as_deref().filter(|hint| !hint.is_empty())
}

fn as_json(result: &CheckResult) -> (String, Value) {
    let mut value = json!({
        "status": if result.passed { "OK" } else { "FAILED" },
        "hint": result.hint.clone().unwrap_or_default(),
    });
    if let Value::Object(map) = &mut value {
        for (name, fact) in &result.facts {
            map.insert((*name).to_owned(), fact.clone());
        }
    }
    let key = result.name.to_lowercase().replace([' ', '-'], "_");
    (key.replace('.', ""), value)
}

pub(super) fn log(server: &ServerConfig, report: &CheckReport) {
    for result in &report.results {
        let (name, server) = (&result.name, &server.name);
        tracing::debug!("Starting check: '{name}'");
        match result.passed {
            true => tracing::debug!("Check '{name}' succeeded for server '{server}'"),
            false => tracing::error!("Check '{name}' failed for server '{server}'"),
        }
    }
}

/// The text for Nagios: one line for `$SERVICEOUTPUT$` with performance data, then one for each failed
/// check (Nagios Plugins Development Guidelines, "Plugin Output").
pub(super) fn for_nagios(reports: &[(String, CheckReport)], has_failed: bool) -> String {
    let failures = |report: &CheckReport| -> Vec<CheckResult> {
        let failed = report.results.iter().filter(|result| !result.passed);
        failed.cloned().collect()
    };
    let (bad, good): (Vec<_>, Vec<_>) = reports
        .iter()
        .map(|(name, report)| (name.as_str(), failures(report)))
        .partition(|(_, failed)| !failed.is_empty());
    let performance = performance_data(reports);
    match (has_failed, bad.as_slice()) {
        (true, []) => "BARMAN CRITICAL - Global configuration errors".to_owned(),
        (true, bad) => {
            let subject = match reports {
                [(name, _)] => format!("server {name} has issues"),
                _ => format!("{} server out of {} have issues", bad.len(), reports.len()),
            };
            critical(&subject, bad, &performance)
        }
        (false, ignored) => {
            let good: Vec<&str> = good.into_iter().map(|(name, _)| name).collect();
            let ignored: Vec<&str> = ignored.iter().map(|(name, _)| *name).collect();
            all_is_well(&good, &ignored, &performance)
        }
    }
}

fn critical(subject: &str, bad: &[(&str, Vec<CheckResult>)], performance: &str) -> String {
    let summary: Vec<String> = bad
        .iter()
        .map(|(server, failed)| {
            let names: Vec<&str> = failed.iter().map(|result| &*result.name).collect();
            format!("{server} FAILED: {}", names.join(", "))
        })
        .collect();
    let mut text = format!(
        "BARMAN CRITICAL - {subject} * {}{performance}",
        summary.join(" * ")
    );
    for (server, failed) in bad {
        for result in failed {
            text.push_str(&format!("\n{server}.{}: FAILED", result.name));
            if let Some(hint) = hint(result) {
                text.push_str(&format!(" ({hint})"));
            }
        }
    }
    text
}

fn all_is_well(good: &[&str], ignored: &[&str], performance: &str) -> String {
    let ignored: String = ignored
        .iter()
        .map(|server| format!(" * IGNORING: {server}"))
        .collect();
    match good {
        [] => format!("BARMAN OK - No server configured{ignored}"),
        [server] => format!(
            "BARMAN OK - Ready to serve the Espresso backup for {server}{ignored}{performance}"
        ),
        servers => format!(
            "BARMAN OK - Ready to serve the Espresso backup for {} servers * {}{ignored}{performance}",
            servers.len(),
            servers.join(" * ")
        ),
    }
}

/// Sizes in bytes: Barman's of the archived WAL, and how far the archive is behind.
fn performance_data(reports: &[(String, CheckReport)]) -> String {
    let mut data = Vec::new();
    for (server, report) in reports {
        for result in &report.results {
            let label = match &*result.name {
                "wal size" => "wals",
                "WAL archive lag" => "lag",
                _ => continue,
            };
            let size = result.facts.iter().find(|(name, _)| *name == "size_bytes");
            if let Some((_, size_bytes)) = size {
                data.push(format!("{server}_{label}={size_bytes}B"));
            }
        }
    }
    match data.as_slice() {
        [] => String::new(),
        data => format!("|{}", data.join(" ")),
    }
}
