//! `errors`

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::archive_wal::{Parts, validation};
use super::locks::wait_for_task;
use super::output::Output;
use super::servers::{select_one_active, select_one_to_read};
use crate::archiver::{self, Judged, Outcast, OutcastKind, Verdict};
use crate::codec::Decoder;
use crate::config::{Config, ServerConfig};
use crate::printable::printable;
use crate::storage::{Comparison, Recognition, SaveError};
use crate::units::pretty_size;
use crate::wal::{LongPageHeader, WalFault};

#[derive(Debug, clap::Args)]
pub(super) struct ErrorsArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    /// Names in the errors directory [default: all]
    #[arg(value_name = "FILE")]
    files: Vec<String>,
    /// Tell all that is known of each file, and what to do about it
    #[arg(long)]
    explain: bool,
    /// Remove the files whose WAL the archive holds, byte for byte, under the same name
    #[arg(long)]
    resolve: bool,
}

/// Tells what lies in the errors directory of one server and how it compares with the archive.
pub(super) fn run(config: Config, args: &ErrorsArgs, output: &Output) {
    let server = match args.resolve {
        true => select_one_active(config, &args.server_name, output),
        false => select_one_to_read(config, &args.server_name, output),
    };
    if let Some(server) = server
        && let Err(message) = errors(&server, args, output)
    {
        output.error(&message);
    }
}

fn errors(server: &ServerConfig, args: &ErrorsArgs, output: &Output) -> Result<(), String> {
    let parts = Parts::new(server)?;
    // Nobody may archive or delete between a comparison and what follows from it.
    let lock = match args.resolve {
        true => wait_for_task(server, "archive-wal", "no file was removed", output)?,
        false => None,
    };
    let found = find(server, &parts, args)?;
    // Whoever reads what is printed may be slow.
    drop(lock);
    let directory = &server.errors_directory;
    for absent in found.absent {
        let path = directory.join(absent);
        output.error(&format!("{} is not there", path.display()));
    }
    let report = Report {
        output,
        server,
        explain: args.explain,
        resolve: args.resolve,
        removed: found.removed?,
    };
    report.print(&found.judged);
    Ok(())
}

/// What was looked at, and what came of it.
struct Found<'a> {
    judged: Vec<(Outcast, Judged)>,
    /// What was removed, or why that failed.
    removed: Result<HashSet<PathBuf>, String>,
    /// What was asked for and is not there.
    absent: Vec<&'a str>,
}

fn find<'a>(
    server: &ServerConfig,
    parts: &Parts,
    args: &'a ErrorsArgs,
) -> Result<Found<'a>, String> {
    let (decoder, recognition) = (Decoder::new(server), Recognition::new(server));
    let comparison = Comparison {
        storage: &*parts.storage,
        decoder: &decoder,
        recognition: &recognition,
        validation: validation(server),
    };
    let directory = &server.errors_directory;
    let (outcasts, absent) = select(directory, &args.files)?;
    let judged: Vec<(Outcast, Judged)> = outcasts
        .into_iter()
        .map(|outcast| {
            let judged = outcast.judge(&comparison);
            (outcast, judged)
        })
        .collect();
    let removed = match args.resolve {
        true => archiver::resolve(&judged, &comparison, &parts.catalog, directory),
        false => Ok(Vec::new()),
    };
    Ok(Found {
        judged,
        removed: removed
            .map(HashSet::from_iter)
            .map_err(|error| error.to_string()),
        absent,
    })
}

/// What is there of what was asked for, and what is not. Whoever names no file asks for all.
fn select<'a>(
    directory: &Path,
    files: &'a [String],
) -> Result<(Vec<Outcast>, Vec<&'a str>), String> {
    let mut outcasts = archiver::outcasts(directory)
        .map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
    if files.is_empty() {
        return Ok((outcasts, Vec::new()));
    }
    let wanted: HashSet<&str> = files.iter().map(String::as_str).collect();
    outcasts.retain(|outcast| wanted.contains(&*outcast.file_name()));
    let there: HashSet<String> = outcasts.iter().map(Outcast::file_name).collect();
    let absent = files.iter().map(String::as_str);
    let absent = absent.filter(|file| !there.contains(*file)).collect();
    Ok((outcasts, absent))
}

struct Report<'a> {
    output: &'a Output,
    server: &'a ServerConfig,
    explain: bool,
    resolve: bool,
    /// There may be very many, and each one is looked up.
    removed: HashSet<PathBuf>,
}

impl Report<'_> {
    fn print(&self, judged: &[(Outcast, Judged)]) {
        if self.output.is_json() {
            let list: Vec<Value> = judged
                .iter()
                .map(|(outcast, judged)| {
                    as_json(outcast, judged, self.removed.contains(&outcast.path))
                })
                .collect();
            self.output.value(&self.server.name, list.into());
            return;
        }
        self.output
            .line(&format!("Errors of server {}:", self.server.name));
        for (outcast, judged) in judged {
            let removed = self.removed.contains(&outcast.path);
            let message = message(judged);
            let name = printable(&outcast.file_name());
            self.output.line(&match removed {
                true => format!("\t{name}: {message}: removed"),
                false => format!("\t{name}: {message}"),
            });
            if self.explain {
                self.explain(outcast, judged, removed);
            }
        }
        self.conclude(judged, self.removed.len());
    }

    fn explain(&self, outcast: &Outcast, judged: &Judged, removed: bool) {
        let mut lines = Vec::new();
        lines.push(format!("why: {}", why(outcast.kind)));
        lines.extend(
            outcast
                .stamp
                .as_ref()
                .map(|stamp| format!("since: {stamp}")),
        );
        let size = judged.size_bytes().map(pretty_size);
        lines.extend(size.map(|size| format!("size: {size}")));
        if let Verdict::Different {
            location,
            difference,
        } = &judged.verdict
        {
            lines.push(format!("in the archive: {location}"));
            if let Some(difference) = difference {
                lines.push(format!(
                    "first difference: at byte {}",
                    difference.offset_bytes
                ));
                let header = |header: Option<LongPageHeader>| {
                    header.map_or("no page of a segment".to_owned(), describe)
                };
                lines.push(format!("begins with: {}", header(difference.source)));
                lines.push(format!("the archived: {}", header(difference.archived)));
            }
        }
        let hint = hint(outcast.kind, judged, self.server);
        lines.extend(
            hint.filter(|_| !removed)
                .map(|hint| format!("HINT: {hint}")),
        );
        for line in lines {
            self.output.line(&format!("\t\t{line}"));
        }
    }

    fn conclude(&self, judged: &[(Outcast, Judged)], removed: usize) {
        let name = &self.server.name;
        let removable = judged.iter().filter(|(_, j)| is_archived(j)).count();
        let total = judged.len();
        self.output.info(&match (total, self.resolve) {
            (0, _) => "\tno file found".to_owned(),
            (_, true) => format!(
                "{removed} of {total} removed, because the archive holds the same; {} left",
                total - removed
            ),
            (_, false) if removable > 0 => format!(
                "{total} in all, {removable} of them safe in the archive: \
                 'walarch errors {name} --resolve' removes these"
            ),
            (_, false) => format!("{total} in all, none of them known to be safe in the archive"),
        });
    }
}

fn is_archived(judged: &Judged) -> bool {
    matches!(judged.verdict, Verdict::Archived(_))
}

fn why(kind: OutcastKind) -> &'static str {
    match kind {
        OutcastKind::Duplicate => "the archive had other content under its name",
        OutcastKind::Unknown => "it was no WAL file",
        OutcastKind::Invalid => "it was not what its name said",
        OutcastKind::Superseded => {
            "receive-wal --reset left its timeline, of which it is the last WAL that was received"
        }
        OutcastKind::Other => "somebody else put it here",
    }
}

/// What is known now, in a sentence.
fn message(judged: &Judged) -> String {
    let comparison = match &judged.verdict {
        Verdict::Archived(_) => "the archive holds the same WAL".to_owned(),
        Verdict::Different { .. } => "the archive holds other WAL under this name".to_owned(),
        Verdict::Incomparable { .. } => {
            "the archived file of this name is encrypted and cannot be compared".to_owned()
        }
        Verdict::NotArchived => "the archive has no file of this name".to_owned(),
        Verdict::Failed(SaveError::ArchivedCopy {
            location, source, ..
        }) => format!("the archived file of this name, {location}, cannot be used: {source}"),
        Verdict::Failed(error) => printable(&error.to_string()),
        Verdict::NoWal => "it is no WAL file".to_owned(),
    };
    match &judged.fault {
        Some(fault) => format!("{fault}; {comparison}"),
        None => comparison,
    }
}

fn hint(kind: OutcastKind, judged: &Judged, server: &ServerConfig) -> Option<String> {
    let incoming = server.incoming_wals_directory.display();
    Some(match &judged.verdict {
        Verdict::Archived(_) => format!(
            "it can be removed: 'walarch errors {} --resolve'",
            server.name
        ),
        Verdict::NotArchived if matches!(judged.fault, Some(WalFault::FirstPage(_))) => format!(
            "if its cluster encrypts its WAL, or is of a fork with page headers of its own, set validate_wal = \"off\" \
             in walarch.toml, and move it to {incoming} under its own name; else nothing can be recovered from it: find \
             out who sent it"
        ),
        _ if judged.fault.is_some() => {
            "nothing can be recovered from it under this name; find out who sent it".to_owned()
        }
        _ if kind == OutcastKind::Superseded => {
            "it may be the only copy of that WAL, without which no older base backup can be recovered to the \
             end of its timeline; keep it until a newer base backup is complete"
                .to_owned()
        }
        Verdict::Different { .. } => {
            "two clusters may archive to this server, or one that was restored went on without a new \
             timeline; keep it until you know which of the two is right"
                .to_owned()
        }
        Verdict::Incomparable { .. } => {
            "set encryption_passphrase_command, so that they can be compared".to_owned()
        }
        Verdict::NotArchived => {
            format!("move it to {incoming} under its own name, and it is archived")
        }
        Verdict::Failed(SaveError::ArchivedCopy { .. }) => format!(
            "this may be the only good copy: move the archived file away, and this one to {incoming} \
             under its own name"
        ),
        Verdict::Failed(error) => return error.hint().map(str::to_owned),
        Verdict::NoWal => "remove it by hand once nobody needs it".to_owned(),
    })
}

fn describe(header: LongPageHeader) -> String {
    format!(
        "system {}, timeline {}, position {}, PostgreSQL {}",
        header.system_identifier,
        header.timeline,
        header.page_address,
        header.postgres_major_version
    )
}

fn as_json(outcast: &Outcast, judged: &Judged, removed: bool) -> Value {
    let verdict = match &judged.verdict {
        Verdict::Archived(_) => "archived",
        Verdict::Different { .. } => "different",
        Verdict::Incomparable { .. } => "incomparable",
        Verdict::NotArchived => "not_archived",
        Verdict::Failed(_) => "failed",
        Verdict::NoWal => "no_wal",
    };
    let first_difference = match &judged.verdict {
        Verdict::Different { difference, .. } => difference.map(|found| found.offset_bytes),
        _ => None,
    };
    json!({
        "file": outcast.file_name(),
        "kind": outcast.kind.suffix(),
        "wal_name": outcast.wal_name.as_ref().map(|name| name.as_str()),
        "since": outcast.stamp,
        "size_bytes": judged.size_bytes(),
        "verdict": verdict,
        "fault": judged.fault.as_ref().map(ToString::to_string),
        "first_difference_bytes": first_difference,
        "message": message(judged),
        "removable": is_archived(judged),
        "removed": removed,
    })
}
