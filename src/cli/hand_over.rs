//! What `receive-wal` archives while it receives.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::archive_wal::{Parts, Tools, lock, run_archivers};
use super::report::LogReporter;
use crate::config::ServerConfig;
use crate::durable::Wait;
use crate::receiver::{Archivist, Round};

/// Archives the queues of one server, round by round.
pub(super) struct QueueArchivist {
    server: ServerConfig,
    configuration_path: PathBuf,
    /// Kept from round to round: connections to an object store, buffers of codecs.
    opened: Option<(Parts, Tools)>,
}

impl QueueArchivist {
    /// Touches nothing before the first round.
    pub(super) fn new(server: &ServerConfig, configuration_path: &Path) -> Self {
        QueueArchivist {
            server: server.clone(),
            configuration_path: configuration_path.to_owned(),
            opened: None,
        }
    }

    fn round(&mut self, stop: &AtomicBool) -> Result<Round, String> {
        let (parts, tools) = match self.opened.take() {
            Some(opened) => opened,
            None => {
                let parts = Parts::new(&self.server)?;
                let tools = Tools::new(&self.server, &parts)?;
                (parts, tools)
            }
        };
        let (parts, tools) = self.opened.insert((parts, tools));
        // Its file system may come and go while we run.
        parts.check_mounted(&self.server)?;
        let Some(_lock) = lock(&self.server, Wait::Never)? else {
            return Ok(Round::Busy);
        };
        let reporter = LogReporter::new(&self.server.name);
        let path = &self.configuration_path;
        tools.with_archive(&self.server, path, parts, stop, |archive| {
            run_archivers(&self.server, archive, &reporter, &|error| {
                reporter.fail(error);
            });
        });
        let (archived, failures) = reporter.into_outcome();
        Ok(Round::Done { archived, failures })
    }
}

impl Archivist for QueueArchivist {
    fn archive(&mut self, stop: &AtomicBool) -> Round {
        self.round(stop).unwrap_or_else(|failure| Round::Done {
            archived: 0,
            failures: vec![failure],
        })
    }
}
