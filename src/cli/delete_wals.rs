//! `delete-wals`

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ArgGroup;
use serde_json::{Map, Value, json};

use super::archive_wal::{Parts, lock_task, stop_on_signals};
use super::list_wals::segment;
use super::locks::wait_for_task;
use super::output::Output;
use super::servers::select_one_active;
use crate::catalog::{self, Backup, BackupsError, WalFileInfo};
use crate::config::{Config, ServerConfig, parse_age};
use crate::durable::{LockFile, Wait};
use crate::hooks::{Hooks, Refusal};
use crate::observe::{Event, Observer};
use crate::storage::retention::{Deletion, DeletionReport, Plan, Retention};
use crate::storage::visit_listed;
use crate::units::{parse_size, pretty_size};
use crate::wal::{WalKind, WalName};

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("retention").required(true).args(["before", "older_than", "keep_size"]))]
pub(super) struct DeleteWalsArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    /// Delete what comes before this segment, on its timeline and on older ones
    #[arg(long, value_name = "WAL", value_parser = segment)]
    before: Option<WalName>,
    /// Delete what is older, up to the first file that is not: '7 DAYS', '4 WEEKS', '12 MONTHS'
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Delete the oldest, so that what stays takes up no more than this: '10 GiB', '500MB'
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    keep_size: Option<u64>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// Deletes WAL of one server.
pub(super) fn run(config: Config, args: &DeleteWalsArgs, output: &Output) {
    let configuration_path = config.path.clone();
    if let Some(server) = select_one_active(config, &args.server_name, output)
        && let Err(message) = delete(&server, &configuration_path, args, output)
    {
        output.error(&message);
    }
}

fn delete(
    server: &ServerConfig,
    configuration_path: &Path,
    args: &DeleteWalsArgs,
    output: &Output,
) -> Result<(), String> {
    let retention = retention(args);
    let parts = Parts::new(server)?;
    parts.check_mounted(server)?;
    let _locks = match args.dry_run {
        true => Vec::new(),
        false => locks(server, output)?,
    };
    let backups = backups(server, &parts)?;
    let plan = Plan::new(&retention, &*parts.storage, &parts.catalog, &backups)
        .map_err(|error| error.to_string())?;
    let reporter = Reporter::begin(output, server, args.dry_run);
    reporter.say_limits(&plan);
    if args.dry_run {
        reporter.preview(&parts, &plan)?;
        reporter.finish(&plan, plan.files, plan.size_bytes);
        return Ok(());
    }
    let stop = stop_on_signals()?;
    let hooks = Hooks::new(server, configuration_path, &stop);
    let deletion = Deletion {
        storage: &*parts.storage,
        catalog: &parts.catalog,
        hooks: &hooks,
        stop: &stop,
        observer: &reporter,
    };
    let report = deletion.run(&plan);
    // Counted as it went, so that it is right after a failure, too.
    reporter.finish(&plan, reporter.files.get(), reporter.size_bytes.get());
    report
        .map(|report| reporter.say_what_is_left(&report))
        .map_err(|error| error.to_string())
}

/// What is known of the base backups. Where that may not be all, no WAL may go.
fn backups(server: &ServerConfig, parts: &Parts) -> Result<Vec<Backup>, String> {
    let refused = |error: &BackupsError| {
        let hint = match error {
            BackupsError::Absent { .. } => {
                "is its file system mounted? If there are no base backups, create that directory"
            }
            BackupsError::NoInfo { .. } => {
                "bring one of them back, or remove that directory if nobody needs the backup"
            }
            _ => "repair that file, or delete that backup",
        };
        format!("no WAL was deleted: {error}\nHINT: {hint}")
    };
    let backups = catalog::backups(server).map_err(|error| refused(&error))?;
    if catalog::has_backups_directory(server) {
        return Ok(backups);
    }
    // A home that only has WAL needs no such directory; where a backup was taken, there was one.
    let mut has_label = false;
    let listed = visit_listed(&parts.catalog, &*parts.storage, &mut |line| {
        has_label = line.is_ok_and(|info| info.name.kind() == WalKind::BackupLabel);
        match has_label {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    listed.map_err(|error| error.to_string())?;
    match has_label {
        true => Err(refused(&BackupsError::Absent {
            path: server.basebackups_directory.clone(),
        })),
        false => Ok(backups),
    }
}

fn retention(args: &DeleteWalsArgs) -> Retention {
    // The command line has one of the three.
    match (&args.before, args.older_than) {
        (Some(name), _) => Retention::Before(name.clone()),
        (None, Some(age)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now_s = now.unwrap_or_default().as_secs_f64();
            Retention::Since(now_s - age.as_secs_f64())
        }
        (None, None) => Retention::KeepSize(args.keep_size.unwrap_or(u64::MAX)),
    }
}

/// The lock of whoever adds WAL, which is waited for, and the one that Barman's `delete` takes, so that no base backup
/// begins meanwhile: last, so that none is kept from beginning while we wait.
fn locks(server: &ServerConfig, output: &Output) -> Result<Vec<LockFile>, String> {
    let adder = match server.passive {
        true => "sync-wal",
        false => "archive-wal",
    };
    let adder = wait_for_task(server, adder, "no WAL was deleted", output)?;
    let backup = lock_task(server, "backup", Wait::Never)?.ok_or_else(|| {
        format!(
            "Another process in running on server {}. Impossible to delete WAL files.",
            server.name
        )
    })?;
    Ok([adder, Some(backup)].into_iter().flatten().collect())
}

/// Prints what goes, and how much that was.
struct Reporter<'a> {
    output: &'a Output,
    server: &'a str,
    dry_run: bool,
    files: Cell<u64>,
    size_bytes: Cell<u64>,
}

impl<'a> Reporter<'a> {
    fn begin(output: &'a Output, server: &'a ServerConfig, dry_run: bool) -> Self {
        if output.is_json() {
            output.begin_list(&server.name, "wals");
        } else if dry_run {
            output.line(&format!(
                "WAL files of server {} that would be deleted:",
                server.name
            ));
        } else {
            output.line(&format!("Deleting WAL files of server {}:", server.name));
        }
        Reporter {
            output,
            server: &server.name,
            dry_run,
            files: Cell::new(0),
            size_bytes: Cell::new(0),
        }
    }

    fn say_limits(&self, plan: &Plan) {
        if let Some(backup) = &plan.limited_by
            && let Some(first_wal) = &backup.first_wal
        {
            self.output.info(&format!(
                "Backup {} needs WAL from {first_wal} on: that stays",
                backup.id
            ));
        }
        if plan.unreadable_lines > 0 {
            self.output.warning(&format!(
                "xlogdb has {} lines that cannot be read; they stay as they are\n\
                 HINT: 'walarch rebuild-xlogdb {}' writes it anew",
                plan.unreadable_lines, self.server
            ));
        }
    }

    fn preview(&self, parts: &Parts, plan: &Plan) -> Result<(), String> {
        plan.visit(&*parts.storage, &parts.catalog, &mut |info| self.note(info))
            .map_err(|error| error.to_string())
    }

    fn note(&self, info: &WalFileInfo) {
        if self.output.is_json() {
            let (name, size_bytes) = (info.name.as_str(), info.size_bytes);
            let value = json!({ "name": name, "size_bytes": size_bytes });
            self.output.element(self.files.get() == 0, &value);
        } else {
            self.output.line(&format!("\t{}", info.name));
        }
        self.files.set(self.files.get() + 1);
        self.size_bytes.set(self.size_bytes.get() + info.size_bytes);
    }

    fn finish(&self, plan: &Plan, files: u64, size_bytes: u64) {
        let oldest = plan.oldest_kept.as_ref().map(WalName::as_str);
        if self.output.is_json() {
            let mut rest = Map::new();
            rest.insert("dry_run".to_owned(), json!(self.dry_run));
            rest.insert("files".to_owned(), json!(files));
            rest.insert("oldest_kept".to_owned(), json!(oldest));
            rest.insert("size_bytes".to_owned(), Value::from(size_bytes));
            self.output.end_list(rest);
            return;
        }
        let done = match self.dry_run {
            true => "would be deleted from",
            false => "deleted from",
        };
        let oldest = oldest.map_or(String::new(), |oldest| {
            format!("; the oldest left is {oldest}")
        });
        self.output.info(&format!(
            "{files} WAL files ({}) {done} server {}{oldest}",
            pretty_size(size_bytes),
            self.server
        ));
    }

    fn say_what_is_left(&self, report: &DeletionReport) {
        match &report.refusal {
            Some(Refusal::Stopped) => self
                .output
                .error("Process interrupted by user (KeyboardInterrupt)"),
            Some(aborted) => self.output.error(&format!(
                "{aborted}: the rest of the WAL of server {} stays",
                self.server
            )),
            None => {}
        }
    }
}

impl Observer for Reporter<'_> {
    fn notice(&self, event: &Event<'_>) {
        match event {
            Event::Deleted { info } => {
                tracing::info!("Deleted {}/{}", self.server, info.name);
                self.note(info);
            }
            Event::NotDeleted { error, .. } => {
                let hint = "it stays, and is listed";
                self.output.error_with_hint(error, Some(hint));
            }
            _ => {}
        }
    }
}
