//! Turns what happens while archiving into Barman's lines, the log and a progress bar.

use std::cell::{Cell, RefCell};

use super::output::Output;
use super::progress::Progress;
use crate::observe::{Event, Observer};
use crate::printable::printable;

/// What the log says of a run over a queue.
struct Log<'a> {
    server: &'a str,
    /// A queue without files is not worth a line.
    only_files: bool,
    archiver: RefCell<String>,
    chosen: Cell<usize>,
}

impl<'a> Log<'a> {
    fn new(server: &'a str) -> Self {
        Log {
            server,
            only_files: false,
            archiver: RefCell::default(),
            chosen: Cell::new(0),
        }
    }

    fn write(&self, event: &Event<'_>) {
        let server = self.server;
        match event {
            Event::BatchChosen {
                archiver,
                listed,
                chosen,
            } => {
                self.archiver.replace((*archiver).to_owned());
                self.chosen.set(*chosen);
                self.begin_batch(archiver, *listed, *chosen);
            }
            Event::Archiving { number, name } => {
                let (chosen, archiver) = (self.chosen.get(), self.archiver.borrow());
                tracing::info!(
                    "Archiving segment {number} of {chosen} from {archiver}: {server}/{name}"
                );
            }
            Event::DuplicateSetAside { name, path } => {
                tracing::warn!("{server}/{name} moved to {}", path.display());
            }
            Event::AbortedByHook { name, reason } => {
                tracing::warn!(
                    "Archiving of {server}/{name} aborted by pre_archive_retry_script. \
                     Reason: {reason}"
                );
            }
            Event::StrangersFound { names } => {
                let archiver = self.archiver.borrow();
                tracing::warn!(
                    "Archiver is about to move {} unexpected file(s) to errors directory for \
                     {server} from {archiver}",
                    names.len()
                );
                for name in *names {
                    let name = printable(name);
                    tracing::warn!("Moving unexpected file for {server} from {archiver}: {name}");
                }
            }
            _ => {}
        }
    }

    fn begin_batch(&self, archiver: &str, listed: usize, chosen: usize) {
        let server = self.server;
        match chosen {
            0 if self.only_files => {}
            0 => tracing::info!("No xlog segments found from {archiver} for {server}."),
            _ if listed > chosen => tracing::info!(
                "Found {listed} xlog segments from {archiver} for {server}. \
                 Archive a batch of {chosen} segments in this run."
            ),
            _ => tracing::info!(
                "Found {listed} xlog segments from {archiver} for {server}. \
                 Archive all segments in one run."
            ),
        }
    }
}

/// Reports a run over a queue.
pub(super) struct Reporter<'a> {
    output: &'a Output,
    log: Log<'a>,
    bar: RefCell<Option<Progress<'a>>>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(output: &'a Output, server: &'a str) -> Self {
        Reporter {
            output,
            log: Log::new(server),
            bar: RefCell::default(),
        }
    }

    /// The same for a run that is repeated until a file comes.
    pub(super) fn only_files(mut self) -> Self {
        self.log.only_files = true;
        self
    }

    fn begin_batch(&self, archiver: &str, listed: usize, chosen: usize) {
        if chosen == 0 && self.log.only_files {
            return;
        }
        let server = self.log.server;
        let mut header = format!("Processing xlog segments from {archiver} for {server}");
        if chosen > 0 && listed > chosen {
            header.push_str(&format!(" (batch size: {chosen})"));
        }
        self.output.line(&header);
        self.bar.replace(Progress::begin(self.output, chosen));
    }
}

impl Observer for Reporter<'_> {
    fn notice(&self, event: &Event<'_>) {
        let (output, server) = (self.output, self.log.server);
        self.log.write(event);
        match event {
            Event::BatchChosen {
                archiver,
                listed,
                chosen,
            } => {
                self.bar.take();
                self.begin_batch(archiver, *listed, *chosen);
            }
            Event::Archiving { name, .. } => output.line(&format!("\t{name}")),
            Event::Archived {
                source_size_bytes, ..
            } => {
                if let Some(bar) = &*self.bar.borrow() {
                    bar.advance(*source_size_bytes);
                }
            }
            Event::DuplicateSetAside { name, .. } => output.info(&format!(
                "\tError: {name} is already present in server {server}. \
                 File moved to errors directory."
            )),
            Event::Failed { error, .. } => output.error_with_hint(error, error.hint()),
            Event::NothingFound if !self.log.only_files => output.line("\tno file found"),
            Event::StrangersFound { names } => {
                output.line(&format!(
                    "Some unknown objects have been found while processing xlog segments for \
                     {server}. Objects moved to errors directory:"
                ));
                for name in *names {
                    output.line(&format!("\t{}", printable(name)));
                }
            }
            Event::StrangerStays { path, error } => output.error(&format!(
                "cannot move {} to the errors directory: {error}",
                printable(&path.display().to_string())
            )),
            // No archiver deletes from the archive.
            _ => {}
        }
    }
}

/// Reports a run over a queue that nobody watches: to the log, but for failures, which are collected.
pub(super) struct LogReporter<'a> {
    log: Log<'a>,
    archived: Cell<u64>,
    failures: RefCell<Vec<String>>,
}

impl<'a> LogReporter<'a> {
    pub(super) fn new(server: &'a str) -> Self {
        let mut log = Log::new(server);
        log.only_files = true;
        LogReporter {
            log,
            archived: Cell::new(0),
            failures: RefCell::default(),
        }
    }

    /// Notes a failure that no event tells of.
    pub(super) fn fail(&self, failure: &str) {
        self.failures.borrow_mut().push(failure.to_owned());
    }

    /// How many files were archived, and what failed.
    pub(super) fn into_outcome(self) -> (u64, Vec<String>) {
        (self.archived.get(), self.failures.into_inner())
    }
}

impl Observer for LogReporter<'_> {
    fn notice(&self, event: &Event<'_>) {
        self.log.write(event);
        match event {
            Event::Archived { .. } => self.archived.set(self.archived.get() + 1),
            Event::Failed { error, .. } => match error.hint() {
                Some(hint) => self.fail(&format!("{error}\nHINT: {hint}")),
                None => self.fail(&error.to_string()),
            },
            Event::AbortedByHook { reason, .. } => self.fail(reason),
            Event::StrangerStays { path, error } => self.fail(&format!(
                "cannot move {} to the errors directory: {error}",
                printable(&path.display().to_string())
            )),
            _ => {}
        }
    }
}

/// Reports the archiving of one file for `archive_command`: PostgreSQL's log wants errors only.
pub(super) struct DirectReporter<'a> {
    output: &'a Output,
    server: &'a str,
    has_said_why: Cell<bool>,
}

impl<'a> DirectReporter<'a> {
    pub(super) fn new(output: &'a Output, server: &'a str) -> Self {
        DirectReporter {
            output,
            server,
            has_said_why: Cell::new(false),
        }
    }

    /// Whether the reason why the file was not archived has been printed.
    pub(super) fn has_said_why(&self) -> bool {
        self.has_said_why.get()
    }
}

impl Observer for DirectReporter<'_> {
    fn notice(&self, event: &Event<'_>) {
        let server = self.server;
        match event {
            Event::Archived { name, .. } => tracing::info!("Archived {server}/{name}"),
            Event::Failed { error, .. } => {
                self.output.error_with_hint(error, error.hint());
                self.has_said_why.set(true);
            }
            Event::AbortedByHook { name, reason } => {
                self.output
                    .error(&format!("{server}/{name} was not archived: {reason}"));
                self.has_said_why.set(true);
            }
            _ => {}
        }
    }
}
