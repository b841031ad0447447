//! What Barman wrote down of base backups, as far as WAL is concerned.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::ServerConfig;
use crate::wal::{WalKind, WalName};

/// The name of a backup's file in `basebackups_directory/BACKUP_ID`, up to Barman 3.13.1.
const OLD_NAME: &str = "backup.info";

/// `basebackups_directory` in `BACKUP_DIRECTORY` where nothing else is configured.
const DEFAULT_DIRECTORY: &str = "base";

/// What of a backup's directory holds the files of the cluster.
const DATA_DIRECTORY: &str = "data";

/// The end of its name in `BACKUP_DIRECTORY/meta`, since then.
const NEW_SUFFIX: &str = "-backup.info";

/// What an annotation that keeps a backup beyond its time is called: in `meta`, after the backup's
/// ID, or in the backup's own directory.
const KEEP_SUFFIX: &str = "-keep";
const OLD_KEEP_NAME: &str = "annotations/keep";

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

/// A base backup that Barman lists, in whatever state.
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
    /// The directory of the base backups is not there, although there must be one.
    #[error("{} is not there, so nobody knows which WAL the base backups need", path.display())]
    Absent {
        /// The directory.
        path: PathBuf,
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
    /// There are files of a base backup, and no `backup.info` for them.
    #[error(
        "nobody knows which WAL the base backup in {} needs: neither {OLD_NAME} in it nor {} is there",
        path.display(), info.display()
    )]
    NoInfo {
        /// The backup's directory.
        path: PathBuf,
        /// Where its `backup.info` may be besides.
        info: PathBuf,
    },
}

/// The last base backup of a server whose files are complete. A home without any, or one whose backups
/// cannot be read, has none.
pub fn last_backup(server: &ServerConfig) -> Option<BackupWal> {
    let files = files(server).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        BTreeMap::new()
    });
    files.into_iter().rev().find_map(|(backup_id, path)| {
        let text = read(&path).ok()??;
        let info = Info::parse(&text).ok()?;
        Some(BackupWal {
            backup_id,
            begin_wal: info.segment("begin_wal").ok()??,
            end_wal: info.segment("end_wal").ok()??,
            waits_for_wal: match info.value("status")? {
                "DONE" => false,
                "WAITING_FOR_WALS" => true,
                _ => return None,
            },
        })
    })
}

/// All base backups of a server, sorted by their IDs, which begin with the time they were taken.
///
/// A backup that failed, or of which nothing but its beginning is known, needs no WAL unless it is
/// kept by an annotation; every other one needs all from its `begin_wal` on, whatever its status is.
///
/// # Errors
///
/// [`BackupsError`] for whatever is there and cannot be understood.
pub fn backups(server: &ServerConfig) -> Result<Vec<Backup>, BackupsError> {
    if is_missed(server) {
        let path = server.basebackups_directory.clone();
        return Err(BackupsError::Absent { path });
    }
    let mut backups = Vec::new();
    for (id, path) in files(server)? {
        if let Some(text) = read(&path)? {
            let needed = Info::parse(&text).and_then(|info| info.first_wal(is_kept(server, &id)));
            let first_wal = needed.map_err(|reason| BackupsError::Unclear {
                path,
                id: id.clone(),
                reason,
            })?;
            backups.push(Backup { id, first_wal });
        } else if has_data(server, &id)? {
            return Err(BackupsError::NoInfo {
                path: server.basebackups_directory.join(&id),
                info: meta(server).join(format!("{id}{NEW_SUFFIX}")),
            });
        }
    }
    Ok(backups)
}

/// Whether there are files of a backup. Barman writes its `backup.info` before the first of them, and removes it last,
/// so without one somebody else has lost it, or brought the files back without it.
fn has_data(server: &ServerConfig, id: &str) -> Result<bool, BackupsError> {
    let path = server.basebackups_directory.join(id).join(DATA_DIRECTORY);
    match fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if is_absence(&error) => Ok(false),
        Err(source) => Err(BackupsError::Io { path, source }),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether there is a directory for the base backups of a server. A home that only has WAL may lack it.
pub fn has_backups_directory(server: &ServerConfig) -> bool {
    server.basebackups_directory.exists()
}

/// Whether a directory that somebody has configured, or linked, is not there: its file system may not be mounted.
fn is_missed(server: &ServerConfig) -> bool {
    let directory = &server.basebackups_directory;
    let is_default = *directory == server.backup_directory.join(DEFAULT_DIRECTORY);
    let is_link = fs::symlink_metadata(directory).is_ok();
    !has_backups_directory(server) && (is_link || !is_default)
}

/// Where what is known of each backup stands, if it stands anywhere: in `meta` or, before Barman
/// 3.13.2, beside the backup's data.
fn files(server: &ServerConfig) -> Result<BTreeMap<String, PathBuf>, BackupsError> {
    let mut files = BTreeMap::new();
    for name in names(&server.basebackups_directory)? {
        // As with Barman's pattern: hidden ones do not count.
        if !name.starts_with('.') {
            let path = server.basebackups_directory.join(&name).join(OLD_NAME);
            files.insert(name, path);
        }
    }
    let meta = meta(server);
    for name in names(&meta)? {
        if let Some(id) = name.strip_suffix(NEW_SUFFIX) {
            files.insert(id.to_owned(), meta.join(&name));
        }
    }
    Ok(files)
}

fn meta(server: &ServerConfig) -> PathBuf {
    server.backup_directory.join("meta")
}

fn is_kept(server: &ServerConfig, id: &str) -> bool {
    let beside = server.basebackups_directory.join(id).join(OLD_KEEP_NAME);
    meta(server).join(format!("{id}{KEEP_SUFFIX}")).exists() || beside.exists()
}

/// What is in a directory; one that is not there is empty.
fn names(directory: &Path) -> Result<Vec<String>, BackupsError> {
    let list = || -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        fs::read_dir(directory)?
            .filter_map(|entry| name(entry).transpose())
            .collect()
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        list => list.map_err(|source| BackupsError::Io {
            path: directory.to_owned(),
            source,
        }),
    }
}

/// `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, BackupsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(source) => Err(BackupsError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The lines `name=value` of a `backup.info`.
struct Info<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| format!("invalid line {line:?}"))?;
            values.insert(name.trim(), value.trim());
        }
        Ok(Info(values))
    }

    /// The word `None` stands for none.
    fn value(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied().filter(|value| *value != "None")
    }

    fn segment(&self, name: &str) -> Result<Option<WalName>, String> {
        let Some(text) = self.value(name) else {
            return Ok(None);
        };
        let segment = WalName::parse(text).ok();
        match segment.filter(|segment| segment.kind() == WalKind::Segment) {
            Some(segment) => Ok(Some(segment)),
            None => Err(format!("its {name} is {text:?}")),
        }
    }

    fn first_wal(&self, is_kept: bool) -> Result<Option<WalName>, String> {
        let status = self.value("status").unwrap_or("EMPTY");
        if status == "FAILED" && !is_kept {
            return Ok(None);
        }
        match (self.segment("begin_wal")?, status) {
            (None, "EMPTY" | "FAILED") => Ok(None),
            (None, _) => Err(format!("it has no begin_wal, and its status is {status}")),
            (first_wal, _) => Ok(first_wal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const BEGIN: &str = "000000010000000000000007";

    fn first_wal(text: &str, is_kept: bool) -> Result<Option<WalName>, String> {
        Info::parse(text)?.first_wal(is_kept)
    }

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
