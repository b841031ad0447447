//! Streaming: WAL that a receiver (`pg_receivewal`) writes into `streaming`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::queue::Queue;
use super::{Batch, CheckReport, ServerState, StatusReport, WalArchiver, receiver_report};
use crate::config::ServerConfig;
use crate::storage::{SourceKeeper, WalFile};
use crate::wal::{WalKind, WalName};

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

    fn check(&self, state: &ServerState, report: &mut CheckReport) {
        receiver_report::check(state, report);
    }

    fn status(&self, state: &ServerState, report: &mut StatusReport) {
        receiver_report::status(state, report);
    }
}

/// Splits a sorted queue into superseded partial segments and everything else, less what a receiver
/// needs: the newest segment of the newest timeline, complete or partial, by which it finds its place
/// after a restart; and the partial segment at the newest position, which it may be writing to.
fn leave_the_place_marker(mut files: Vec<WalFile>) -> (Vec<WalFile>, Vec<WalFile>) {
    let newest = |order: fn(&Place) -> (u32, &str, bool)| {
        let places = files.iter().enumerate();
        let places = places.filter_map(|(at, wal)| Some((Place::of(&wal.name)?, at)));
        places.max_by(|(a, _), (b, _)| order(a).cmp(&order(b)))
    };
    let marker = newest(|place| (place.timeline, &place.position, place.complete));
    // As pg_receivewal looks for its place (`FindStreamingStart`): position before timeline.
    let written = newest(|place| (0, &place.position, place.complete));
    let mut kept: Vec<usize> = marker
        .into_iter()
        .chain(written.filter(|(place, _)| !place.complete))
        .map(|(_, at)| at)
        .collect();
    kept.sort_unstable();
    kept.dedup();
    for at in kept.into_iter().rev() {
        files.remove(at);
    }
    let is_partial = |wal: &WalFile| wal.name.kind() == WalKind::Partial;
    files.into_iter().partition(is_partial)
}

/// Where in the WAL a segment is.
struct Place {
    position: String,
    timeline: u32,
    complete: bool,
}

impl Place {
    /// `None` for files that are no segments.
    fn of(name: &WalName) -> Option<Self> {
        let complete = match name.kind() {
            WalKind::Segment => true,
            WalKind::Partial => false,
            WalKind::BackupLabel | WalKind::History => return None,
        };
        Some(Place {
            position: name.as_str().get(8..24)?.to_ascii_uppercase(),
            timeline: name.timeline(),
            complete,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    const THREE: &str = "000000010000000000000003";
    const THREE_PARTIAL: &str = "000000010000000000000003.partial";
    const ON_TIMELINE_2: &str = "000000020000000000000002";
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
    fn a_partial_segment_of_before_the_newest_complete_one_is_no_marker() {
        // As after the end of a timeline: the receiver must not go back there.
        assert_eq!(left(&[ONE, TWO_PARTIAL, ON_TIMELINE_2]), [ONE, TWO_PARTIAL],);
        assert_eq!(left(&[TWO, TWO_PARTIAL]), [TWO_PARTIAL]);
    }

    #[test]
    fn a_timeline_that_was_left_behind_goes_but_for_what_may_be_written_to() {
        // After a failover to a standby that had less than the receiver.
        assert_eq!(left(&[ONE, THREE, ON_TIMELINE_2]), [ONE, THREE]);
        assert_eq!(
            left(&[THREE, THREE_PARTIAL, ON_TIMELINE_2]),
            [THREE, THREE_PARTIAL]
        );
        assert_eq!(left(&[ONE, THREE_PARTIAL, ON_TIMELINE_2]), [ONE]);
    }

    #[test]
    fn a_history_file_never_takes_the_place_of_a_segment() {
        assert_eq!(left(&[ONE, TWO, HISTORY]), [ONE, HISTORY]);
        assert_eq!(left(&[HISTORY]), [HISTORY]);
    }
}
