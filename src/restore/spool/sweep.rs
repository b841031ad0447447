//! Removing the spools of recoveries that are over.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{LOCK, POSITION, SESSION, Spool, check_private};
use crate::durable;
use crate::wal::WalName;

/// The directories of recoveries that have been quiet for so long are removed.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Removes the spools of recoveries that are over. What cannot be removed stays.
pub(super) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let directory = entry.path();
        let is_spool = check_private(&directory).is_ok() && is_spool(&directory);
        let changed = fs::symlink_metadata(&directory).and_then(|metadata| metadata.modified());
        let is_forgotten = changed
            .ok()
            .and_then(|changed| SystemTime::now().duration_since(changed).ok())
            .is_some_and(|age| age > FORGOTTEN);
        if !is_spool || !is_forgotten {
            continue;
        }
        let spool = Spool {
            directory: directory.clone(),
            system_identifier: None,
        };
        // Where somebody still works, it is not forgotten.
        let Ok(Some(_lock)) = spool.lock() else {
            continue;
        };
        if spool.clear().is_ok() {
            let _ = durable::remove(&spool.path(LOCK));
            let _ = durable::remove_directory(&directory);
        }
    }
}

/// Whether a directory was made here, and holds nothing else: whatever lies beside our spools is not ours to remove.
fn is_spool(directory: &Path) -> bool {
    let hash = |name: &str| {
        let (_, hash) = name.rsplit_once('-')?;
        let is_hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (hash.len() == 16 && hash.bytes().all(is_hexadecimal)).then_some(())
    };
    let name = directory.file_name().and_then(|name| hash(name.to_str()?));
    let session = fs::read_to_string(directory.join(SESSION)).unwrap_or_default();
    let Ok(mut entries) = fs::read_dir(directory) else {
        return false;
    };
    let is_own = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_own_name))
    };
    name.is_some() && is_session(&session) && entries.all(is_own)
}

/// Whether this is what [`Spool::open`] writes: whose spool it is, the cluster, the start of the system.
fn is_session(text: &str) -> bool {
    let mut lines = text.trim_end().rsplit('\n');
    let boot = lines.next().unwrap_or_default();
    let cluster = lines.next().unwrap_or_default();
    let number = cluster
        .strip_prefix("Some(")
        .and_then(|rest| rest.strip_suffix(')'));
    let is_cluster =
        cluster == "None" || number.is_some_and(|number| number.parse::<u64>().is_ok());
    let is_boot = boot.len() == 36
        && boot
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_boot && is_cluster && lines.next().is_some_and(|identity| !identity.is_empty())
}

/// Whether a file of a spool can have this name.
fn is_own_name(name: &str) -> bool {
    let unfinished = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"));
    let name = unfinished.unwrap_or(name);
    [LOCK, POSITION, SESSION].contains(&name) || WalName::parse(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_from_other_files_of_that_name() {
        const BOOT: &str = "0f2b34c4-5d3f-4c0b-9f43-7f6a3c1d2e4b\n";
        assert!(is_session(&format!("local main\nNone\n{BOOT}")));
        assert!(is_session(&format!("a\nb\nSome(7123)\n{BOOT}")));
        for other in [
            String::new(),
            BOOT.to_owned(),
            format!("None\n{BOOT}"),
            format!("local main\nSome(x)\n{BOOT}"),
            "local main\nNone\ntomorrow\n".to_owned(),
        ] {
            assert!(!is_session(&other), "{other:?}");
        }
    }

    #[test]
    fn a_spool_holds_certain_files_only() {
        for own in [
            ".lock",
            ".position",
            ".session",
            "..session.tmp",
            "000000010000000000000002",
            ".000000010000000000000002.tmp",
            "00000002.history",
        ] {
            assert!(is_own_name(own), "{own}");
        }
        for other in ["letter", ".letter.tmp", "session", ""] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
