//! Turns what happens while archiving into Barman's lines, the log and a progress bar.

use std::cell::{Cell, RefCell};

use super::output::Output;
use super::progress::Progress;
use crate::observe::{Event, Observer};

/// Reports a run over a queue.
pub(super) struct Reporter<'a> {
    output: &'a Output,
    server: &'a str,
    /// A queue without files is not worth a line.
    only_files: bool,
    archiver: RefCell<String>,
    chosen: Cell<usize>,
    bar: RefCell<Option<Progress<'a>>>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(output: &'a Output, server: &'a str) -> Self {
        Reporter {
            output,
            server,
            only_files: false,
            archiver: RefCell::default(),
            chosen: Cell::new(0),
            bar: RefCell::default(),
        }
    }

    /// The same for a run that is repeated until a file comes.
    pub(super) fn only_files(mut self) -> Self {
        self.only_files = true;
        self
    }

    fn begin_batch(&self, archiver: &str, listed: usize, chosen: usize) {
        let server = self.server;
        self.archiver.replace(archiver.to_owned());
        self.chosen.set(chosen);
        if chosen == 0 && self.only_files {
            return;
        }
        let mut header = format!("Processing xlog segments from {archiver} for {server}");
        if chosen == 0 {
            tracing::info!("No xlog segments found from {archiver} for {server}.");
        } else if listed > chosen {
            tracing::info!(
                "Found {listed} xlog segments from {archiver} for {server}. \
                 Archive a batch of {chosen} segments in this run."
            );
            header.push_str(&format!(" (batch size: {chosen})"));
        } else {
            tracing::info!(
                "Found {listed} xlog segments from {archiver} for {server}. \
                 Archive all segments in one run."
            );
        }
        self.output.line(&header);
        self.bar.replace(Progress::begin(self.output, chosen));
    }
}

impl Observer for Reporter<'_> {
    fn notice(&self, event: &Event<'_>) {
        let (output, server) = (self.output, self.server);
        match event {
            Event::BatchChosen {
                archiver,
                listed,
                chosen,
            } => {
                self.bar.take();
                self.begin_batch(archiver, *listed, *chosen);
            }
            Event::Archiving { number, name } => {
                let (chosen, archiver) = (self.chosen.get(), self.archiver.borrow());
                tracing::info!(
                    "Archiving segment {number} of {chosen} from {archiver}: {server}/{name}"
                );
                output.line(&format!("\t{name}"));
            }
            Event::Archived {
                source_size_bytes, ..
            } => {
                if let Some(bar) = &*self.bar.borrow() {
                    bar.advance(*source_size_bytes);
                }
            }
            Event::DuplicateSetAside { name, path } => {
                tracing::warn!("{server}/{name} moved to {}", path.display());
                output.info(&format!(
                    "\tError: {name} is already present in server {server}. \
                     File moved to errors directory."
                ));
            }
            Event::Failed { error, .. } => output.error_with_hint(error, error.hint()),
            Event::AbortedByHook { name, reason } => {
                tracing::warn!(
                    "Archiving of {server}/{name} aborted by pre_archive_retry_script. \
                     Reason: {reason}"
                );
            }
            Event::NothingFound if self.only_files => {}
            Event::NothingFound => output.line("\tno file found"),
            Event::StrangersFound { names } => self.strangers(names),
            Event::StrangerStays { path, error } => output.error(&format!(
                "cannot move {} to the errors directory: {error}",
                path.display()
            )),
            // No archiver deletes from the archive.
            Event::Deleted { .. } | Event::NotDeleted { .. } => {}
        }
    }
}

impl Reporter<'_> {
    fn strangers(&self, names: &[String]) {
        let (server, archiver) = (self.server, self.archiver.borrow());
        self.output.line(&format!(
            "Some unknown objects have been found while processing xlog segments for {server}. \
             Objects moved to errors directory:"
        ));
        tracing::warn!(
            "Archiver is about to move {} unexpected file(s) to errors directory for {server} \
             from {archiver}",
            names.len()
        );
        for name in names {
            self.output.line(&format!("\t{name}"));
            tracing::warn!("Moving unexpected file for {server} from {archiver}: {name}");
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
