//! `rebuild-xlogdb`

use super::archive_wal::Parts;
use super::output::Output;
use super::servers::select;
use crate::config::Config;

/// Rebuilds the xlogdb of each server; a failure of one does not keep the others from theirs.
pub(super) fn run(config: Config, names: &[String], output: &Output) {
    for server in select(config, names, output) {
        output.info(&format!("Rebuilding xlogdb for server {}", server.name));
        let counts = Parts::new(&server).and_then(|parts| parts.rebuild_catalog(&server));
        match counts {
            Ok(counts) => output.info(&format!(
                "Done rebuilding xlogdb for server {} (history: {}, backup_labels: {}, wal_file: {})",
                server.name, counts.history, counts.backup_labels, counts.wal_files
            )),
            Err(error) => output.error(&error),
        }
    }
}
