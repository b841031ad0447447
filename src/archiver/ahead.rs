//! What PostgreSQL will ask `archive_command` for next.

use std::fs;
use std::io;

use crate::storage::WalFile;
use crate::wal::{WalKind, WalName};

/// Segments that are ready to be archived and come after `requested`, in their order, at most `limit`.
///
/// PostgreSQL keeps a file `archive_status/NAME.ready` beside the segments for each file that waits (manual,
/// "Continuous Archiving and Point-in-Time Recovery"); a segment of which it has one is complete and does not change
/// until its command has succeeded. Only a segment is followed: history files and backup labels
/// come alone.
pub fn ready_after(requested: &WalFile, limit: usize) -> io::Result<Vec<WalFile>> {
    let Some(directory) = requested.path.parent() else {
        return Ok(Vec::new());
    };
    if limit == 0 || requested.name.kind() != WalKind::Segment {
        return Ok(Vec::new());
    }
    let mut names: Vec<WalName> = Vec::new();
    for entry in fs::read_dir(directory.join("archive_status"))? {
        let file_name = entry?.file_name();
        let name = file_name
            .to_str()
            .and_then(|name| name.strip_suffix(".ready"));
        names.extend(
            name.and_then(|name| WalName::parse(name).ok())
                .filter(|name| name.kind() == WalKind::Segment && *name > requested.name),
        );
    }
    names.sort_unstable();
    names.truncate(limit);
    let beside = |name: WalName| WalFile {
        path: directory.join(name.as_str()),
        name,
    };
    Ok(names.into_iter().map(beside).collect())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn ready(names: &[&str], requested: &str, limit: usize) -> Vec<String> {
        let directory = TempDir::new().unwrap();
        let status = directory.path().join("archive_status");
        fs::create_dir(&status).unwrap();
        for name in names {
            fs::write(status.join(name), "").unwrap();
        }
        let requested = WalFile {
            name: WalName::parse(requested).unwrap(),
            path: directory.path().join(requested),
        };
        let found = ready_after(&requested, limit).unwrap();
        assert!(
            found
                .iter()
                .all(|wal| wal.path == directory.path().join(wal.name.as_str()))
        );
        found.iter().map(|wal| wal.name.to_string()).collect()
    }

    const ONE: &str = "000000010000000000000001";

    #[test]
    fn what_is_ready_follows_in_order_across_gaps() {
        let names = [
            "000000010000000000000005.ready",
            "000000010000000000000003.ready",
            "000000010000000000000002.done",
            "000000010000000000000001.ready",
            "000000010000000000000003.00000028.backup.ready",
            "00000002.history.ready",
            "strange.ready",
        ];
        assert_eq!(
            ready(&names, ONE, 9),
            ["000000010000000000000003", "000000010000000000000005"]
        );
        assert_eq!(ready(&names, ONE, 1), ["000000010000000000000003"]);
    }

    #[test]
    fn a_history_file_comes_alone() {
        assert_eq!(
            ready(&["000000010000000000000003.ready"], "00000001.history", 3),
            [] as [&str; 0]
        );
    }
}
