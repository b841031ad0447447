//! Streaming: WAL that a receiver (`pg_receivewal`) writes into `streaming`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::{Batch, WalArchiver};
use crate::config::ServerConfig;
use crate::storage::{SourceKeeper, WalFile};
use crate::wal::WalKind;

/// Archives `streaming_wals_directory`.
#[derive(Debug)]
pub struct Streaming {
    queue: Queue,
    batch_size: Option<NonZeroUsize>,
    server_name: String,
}

impl Streaming {
    /// Touches nothing.
    pub fn new(server: &ServerConfig) -> Self {
        Streaming {
            // A receiver writes what the server sends, and that is never compressed.
            queue: Queue::new(&server.streaming_wals_directory, false, server),
            batch_size: server.streaming_archiver_batch_size,
            server_name: server.name.clone(),
        }
    }
}

impl WalArchiver for Streaming {
    fn name(&self) -> &'static str {
        "streaming"
    }

    fn keeper(&self) -> &dyn SourceKeeper {
        &self.queue
    }

    fn next_batch(&self) -> io::Result<Batch> {
        let listing = self.queue.list()?;
        let (partials, complete) = leave_the_place_marker(listing.files);
        if !partials.is_empty() {
            let names: Vec<&str> = partials.iter().map(|wal| wal.name.as_str()).collect();
            tracing::info!(
                "Archiving partial files for server {}: {}",
                self.server_name,
                names.join(", ")
            );
        }
        Ok(Batch {
            files: complete.into_iter().chain(partials).collect(),
            limit: self.batch_size,
            strangers: listing.strangers,
            listed: listing.listed,
        })
    }

    fn set_stranger_aside(&self, path: &Path) -> io::Result<PathBuf> {
        self.queue.move_to_errors(path, "unknown")
    }
}

/// Splits a sorted queue into superseded partial segments and everything else, less the one file
/// that a receiver needs to find its place after a restart: the newest partial segment or, without
/// any, the newest complete one.
fn leave_the_place_marker(files: Vec<WalFile>) -> (Vec<WalFile>, Vec<WalFile>) {
    let is = |kind| move |wal: &WalFile| wal.name.kind() == kind;
    let (mut partials, mut complete): (Vec<_>, Vec<_>) =
        files.into_iter().partition(is(WalKind::Partial));
    if partials.pop().is_none()
        && let Some(newest) = complete.iter().rposition(is(WalKind::Segment))
    {
        complete.remove(newest);
    }
    (partials, complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::WalName;

    fn left(names: &[&str]) -> Vec<String> {
        let file = |name: &&str| WalFile {
            name: WalName::parse(name).unwrap(),
            path: name.into(),
        };
        let (partials, complete) = leave_the_place_marker(names.iter().map(file).collect());
        complete
            .into_iter()
            .chain(partials)
            .map(|wal| wal.name.to_string())
            .collect()
    }

    const ONE: &str = "000000010000000000000001";
    const TWO: &str = "000000010000000000000002";
    const TWO_PARTIAL: &str = "000000010000000000000002.partial";
    const THREE_PARTIAL: &str = "000000010000000000000003.partial";
    const HISTORY: &str = "00000002.history";

    #[test]
    fn the_newest_partial_segment_stays() {
        assert_eq!(left(&[ONE, TWO_PARTIAL, THREE_PARTIAL]), [ONE, TWO_PARTIAL]);
    }

    #[test]
    fn without_a_partial_segment_the_newest_complete_one_stays() {
        assert_eq!(left(&[ONE, TWO]), [ONE]);
        assert_eq!(left(&[ONE]), [] as [&str; 0]);
    }

    #[test]
    fn a_history_file_never_takes_the_place_of_a_segment() {
        assert_eq!(left(&[ONE, TWO, HISTORY]), [ONE, HISTORY]);
        assert_eq!(left(&[HISTORY]), [HISTORY]);
    }
}
