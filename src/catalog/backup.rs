//! What Barman wrote down of base backups, as far as WAL is concerned.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ServerConfig;
use crate::wal::{WalKind, WalName};

/// The name of a backup's file in `basebackups_directory/BACKUP_ID`, up to Barman 3.13.1.
const OLD_NAME: &str = "backup.info";

/// The end of its name in `BACKUP_DIRECTORY/meta`, since then.
const NEW_SUFFIX: &str = "-backup.info";

/// The WAL of a base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupWal {
    /// The backup's name, which is when it began.
    pub backup_id: String,
    /// The first segment that it needs.
    pub begin_wal: WalName,
    /// The last one: with all of them, the backup is consistent.
    pub end_wal: WalName,
    /// Its last segment has not been archived yet.
    pub waits_for_wal: bool,
}

/// The last base backup of a server whose files are complete. A home without any, or one whose backups
/// cannot be read, has none.
pub fn last_backup(server: &ServerConfig) -> Option<BackupWal> {
    let meta = server.backup_directory.join("meta");
    let mut files = BTreeMap::new();
    for name in names(&server.basebackups_directory) {
        let path = server.basebackups_directory.join(&name).join(OLD_NAME);
        files.insert(name, path);
    }
    for name in names(&meta) {
        if let Some(id) = name.strip_suffix(NEW_SUFFIX) {
            files.insert(id.to_owned(), meta.join(&name));
        }
    }
    files
        .into_iter()
        .rev()
        .find_map(|(id, path)| read(id, &path))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("cannot read {}: {error}", directory.display());
            }
            return Vec::new();
        }
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn read(backup_id: String, path: &PathBuf) -> Option<BackupWal> {
    let text = fs::read_to_string(path).ok()?;
    let value = |wanted: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find_map(|(key, value)| (key.trim() == wanted).then(|| value.trim()))
    };
    let segment = |key| {
        WalName::parse(value(key)?)
            .ok()
            .filter(|name| name.kind() == WalKind::Segment)
    };
    let waits_for_wal = match value("status")? {
        "DONE" => false,
        "WAITING_FOR_WALS" => true,
        _ => return None,
    };
    Some(BackupWal {
        backup_id,
        begin_wal: segment("begin_wal")?,
        end_wal: segment("end_wal")?,
        waits_for_wal,
    })
}
