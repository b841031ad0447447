//! Which WAL the base backups of a home need, from Barman's `backup.info` files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ServerConfig;
use crate::wal::{WalKind, WalName};

/// What a file `ID-backup.info` in `BACKUP_DIRECTORY/meta` is called behind the backup's ID.
const META_SUFFIX: &str = "-backup.info";

/// What an annotation that keeps a backup beyond its time is called, after the backup's ID.
const KEEP_SUFFIX: &str = "-keep";

/// A base backup that Barman lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Barman's name for it.
    pub id: String,
    /// The first segment that restoring it takes; `None` if it cannot be restored at all.
    pub first_wal: Option<WalName>,
}

/// Why it is not known which WAL the backups need.
#[derive(Debug, thiserror::Error)]
pub enum BackupsError {
    /// A directory or file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A `backup.info` says nothing that could be relied on.
    #[error("cannot tell from {} which WAL backup {id} needs: {reason}", path.display())]
    Unclear {
        /// The file.
        path: PathBuf,
        /// The backup.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The base backups of a server, sorted by their IDs, which begin with the time they were taken.
///
/// Barman keeps `backup.info` beside the data (before release 3.13.2) or in `meta`, which counts
/// where both are there. A backup that failed, or of which nothing but its beginning is known, needs
/// no WAL unless it is kept by an annotation; every other one needs all from its `begin_wal` on,
/// whatever its status is.
///
/// # Errors
///
/// [`BackupsError`] for whatever is there and cannot be understood.
pub fn backups(server: &ServerConfig) -> Result<Vec<Backup>, BackupsError> {
    let meta = server.backup_directory.join("meta");
    let base = server.basebackups_directory.as_deref();
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in base.map(entries).transpose()?.unwrap_or_default() {
        let id = name_of(&directory);
        // As with Barman's pattern: hidden ones do not count.
        if !id.starts_with('.') {
            files.insert(id, directory.join("backup.info"));
        }
    }
    for file in entries(&meta)? {
        if let Some(id) = name_of(&file).strip_suffix(META_SUFFIX) {
            files.insert(id.to_owned(), file);
        }
    }
    let mut backups = Vec::new();
    for (id, path) in files {
        let is_kept = meta.join(format!("{id}{KEEP_SUFFIX}")).exists()
            || base.is_some_and(|base| base.join(&id).join("annotations/keep").exists());
        if let Some(text) = read(&path)? {
            let first_wal = first_wal(&text, is_kept).map_err(|reason| BackupsError::Unclear {
                path,
                id: id.clone(),
                reason,
            })?;
            backups.push(Backup { id, first_wal });
        }
    }
    Ok(backups)
}

/// What is in a directory; one that is not there is empty.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, BackupsError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(BackupsError::Io {
            path: directory.to_owned(),
            source,
        }),
        Ok(entries) => Ok(entries),
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, BackupsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(BackupsError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn first_wal(text: &str, is_kept: bool) -> Result<Option<WalName>, String> {
    let mut values: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("invalid line {line:?}"))?;
        values.insert(name.trim(), value.trim());
    }
    let value = |name| values.get(name).copied().filter(|value| *value != "None");
    let status = value("status").unwrap_or("EMPTY");
    if status == "FAILED" && !is_kept {
        return Ok(None);
    }
    let Some(begin_wal) = value("begin_wal") else {
        return match status {
            "EMPTY" | "FAILED" => Ok(None),
            _ => Err(format!("it has no begin_wal, and its status is {status}")),
        };
    };
    let name = WalName::parse(begin_wal).ok();
    let segment = name.filter(|name| name.kind() == WalKind::Segment);
    segment
        .map(Some)
        .ok_or_else(|| format!("its begin_wal is {begin_wal:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const BEGIN: &str = "000000010000000000000007";

    fn info(status: &str, begin_wal: &str) -> String {
        format!("# by Barman\nbackup_label='START = x'\nbegin_wal={begin_wal}\nstatus={status}\n")
    }

    #[test]
    fn every_backup_that_may_be_restored_needs_its_wal() {
        for status in [
            "STARTED",
            "WAITING_FOR_WALS",
            "DONE",
            "SYNCING",
            "new in 4.0",
        ] {
            let first = first_wal(&info(status, BEGIN), false).unwrap().unwrap();
            assert_eq!(first.as_str(), BEGIN, "{status}");
            assert!(first_wal(&info(status, "None"), false).is_err(), "{status}");
        }
        assert_eq!(first_wal(&info("FAILED", BEGIN), false), Ok(None));
        assert!(first_wal(&info("FAILED", BEGIN), true).unwrap().is_some());
        assert_eq!(first_wal(&info("EMPTY", "None"), false), Ok(None));
        assert_eq!(first_wal("", false), Ok(None));
        for bad in [&info("DONE", "00000002.history"), "status DONE"] {
            assert!(first_wal(bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn backups_are_found_where_old_and_new_releases_keep_them() {
        let home = TempDir::new().unwrap();
        let server = ServerConfig::with_defaults("main", home.path());
        let (base, meta) = (home.path().join("main/base"), home.path().join("main/meta"));
        assert_eq!(backups(&server).unwrap(), []);
        for id in ["20260101T000000", "20260102T000000", ".hidden"] {
            fs::create_dir_all(base.join(id)).unwrap();
            fs::write(base.join(id).join("backup.info"), info("DONE", BEGIN)).unwrap();
        }
        fs::create_dir(base.join("20260103T000000")).unwrap();
        fs::write(base.join("a file"), "").unwrap();
        fs::create_dir(&meta).unwrap();
        let newer = "000000010000000000000009";
        fs::write(
            meta.join("20260102T000000-backup.info"),
            info("DONE", newer),
        )
        .unwrap();
        fs::write(
            meta.join("20260104T000000-backup.info"),
            info("FAILED", newer),
        )
        .unwrap();
        let found: Vec<(String, Option<String>)> = backups(&server)
            .unwrap()
            .into_iter()
            .map(|backup| (backup.id, backup.first_wal.map(|name| name.to_string())))
            .collect();
        let expected = [
            ("20260101T000000", Some(BEGIN)),
            ("20260102T000000", Some(newer)),
            ("20260104T000000", None),
        ];
        let expected =
            expected.map(|(id, first)| (id.to_owned(), first.map(|first| first.to_owned())));
        assert_eq!(found, expected);
        fs::write(meta.join("20260104T000000-keep"), "full").unwrap();
        assert!(backups(&server).unwrap()[2].first_wal.is_some());
        fs::write(meta.join("20260105T000000-backup.info"), [0xFF]).unwrap();
        assert!(backups(&server).is_err());
    }
}
