//! `verify-wals`

use std::cell::Cell;
use std::ops::ControlFlow;

use serde_json::{Map, Value, json};

use super::archive_wal::{Parts, jobs, own_cluster, stop_on_signals};
use super::list_wals::RangeArgs;
use super::output::Output;
use super::progress;
use super::servers::select_one_to_read;
use crate::codec::Decoder;
use crate::config::{Config, ServerConfig};
use crate::storage::verify::{Problem, Progress, Verification, VerifySummary};
use crate::storage::{PlainWal, visit_listed};
use crate::units::pretty_size;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyWalsArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    #[command(flatten)]
    range: RangeArgs,
}

/// Reads the archive of one server and reports what is wrong with it.
pub(super) fn run(config: Config, args: &VerifyWalsArgs, output: &Output) {
    if let Some(server) = select_one_to_read(config, &args.server_name, output)
        && let Err(message) = verify(&server, args, output)
    {
        output.error(&message);
    }
}

fn verify(server: &ServerConfig, args: &VerifyWalsArgs, output: &Output) -> Result<(), String> {
    let parts = Parts::new(server)?;
    parts.check_mounted(server)?;
    let decoder = Decoder::new(server);
    let stop = stop_on_signals()?;
    let verification = Verification {
        plain: PlainWal {
            storage: &*parts.storage,
            decoder: &decoder,
        },
        catalog: &parts.catalog,
        system_identifier: own_cluster(server).system_identifier,
        validates: server.own.validate_wal,
        range: args.range.range(),
        jobs: jobs(server),
        stop: &stop,
    };
    let reporter = Reporter {
        output,
        is_first: Cell::new(true),
    };
    if output.is_json() {
        output.begin_list(&server.name, "problems");
    }
    let summary = {
        let bar = progress::Progress::begin(output, listed_files(&parts, args)?);
        verification.run(&mut |progress| match progress {
            Progress::File { stored_size_bytes } => {
                if let Some(bar) = &bar {
                    bar.advance(*stored_size_bytes);
                }
            }
            Progress::Found(problem) => reporter.problem(problem),
        })
    };
    // An object that was begun is ended, whatever happened.
    reporter.finish(server, summary.as_ref().ok());
    summary.map(drop).map_err(|error| error.to_string())
}

fn listed_files(parts: &Parts, args: &VerifyWalsArgs) -> Result<usize, String> {
    let range = args.range.range();
    let mut files = 0;
    visit_listed(&parts.catalog, &*parts.storage, &mut |line| {
        files += usize::from(line.is_ok_and(|info| range.contains(&info.name)));
        ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())?;
    Ok(files)
}

struct Reporter<'a> {
    output: &'a Output,
    is_first: Cell<bool>,
}

impl Reporter<'_> {
    fn problem(&self, problem: &Problem) {
        if !self.output.is_json() {
            return self.output.error(&problem.to_string());
        }
        tracing::error!("{problem}");
        self.output.fail();
        let value = json!({
            "kind": problem.kind(),
            "name": problem.name().map(|name| name.as_str()),
            "message": problem.to_string(),
        });
        self.output.element(self.is_first.replace(false), &value);
    }

    fn finish(&self, server: &ServerConfig, summary: Option<&VerifySummary>) {
        if self.output.is_json() {
            let rest = summary.map_or_else(Map::new, as_json);
            self.output.end_list(rest);
        }
        let Some(summary) = summary else { return };
        if !self.output.is_json() {
            let problems = match summary.problems {
                0 => "no problems".to_owned(),
                1 => "1 problem".to_owned(),
                count => format!("{count} problems"),
            };
            self.output.info(&format!(
                "Verified {} WAL files of server {}, {} of WAL in {}: {problems}",
                summary.files,
                server.name,
                pretty_size(summary.wal_size_bytes),
                pretty_size(summary.stored_size_bytes),
            ));
        }
        if summary.unjudged > 0 {
            self.output.warning(&format!(
                "{} segments were only decoded: their pages are not those of PostgreSQL 10 to 18 \
                 on a little-endian machine",
                summary.unjudged
            ));
        }
        if summary.stopped {
            self.output
                .error("Process interrupted by user (KeyboardInterrupt)");
        }
    }
}

fn as_json(summary: &VerifySummary) -> Map<String, Value> {
    let mut rest = Map::new();
    let mut put = |key: &str, value: Value| rest.insert(key.to_owned(), value);
    put("files", json!(summary.files));
    put("stored_size_bytes", json!(summary.stored_size_bytes));
    put("unjudged", json!(summary.unjudged));
    put("wal_size_bytes", json!(summary.wal_size_bytes));
    rest
}
