//! What was set aside: what it is, how it compares with the archive, and what can go.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::{Catalog, CatalogError, Entry};
use crate::durable::{self, Identity};
use crate::storage::{
    Comparison, Difference, Likeness, SaveError, Source, StorageError, StoredWal, WalFile,
    add_listed,
};
use crate::wal::{WalFault, WalName};

/// Why something was set aside, as its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcastKind {
    /// `.duplicate`: the archive had something else under its name.
    Duplicate,
    /// `.unknown`: it did not look like a WAL file.
    Unknown,
    /// `.invalid`: it was not what its name said.
    Invalid,
    /// `.superseded`: the partial segment of a timeline that the receiver has left; the archive may never get
    /// its WAL in another way.
    Superseded,
    /// Neither walarch nor Barman gives such names.
    Other,
}

impl OutcastKind {
    const ALL: [OutcastKind; 4] = [
        OutcastKind::Duplicate,
        OutcastKind::Unknown,
        OutcastKind::Invalid,
        OutcastKind::Superseded,
    ];

    /// The last part of the object's name; empty for [`OutcastKind::Other`].
    pub fn suffix(self) -> &'static str {
        match self {
            OutcastKind::Duplicate => "duplicate",
            OutcastKind::Unknown => "unknown",
            OutcastKind::Invalid => "invalid",
            OutcastKind::Superseded => "superseded",
            OutcastKind::Other => "",
        }
    }
}

/// Something in the errors directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcast {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is there.
    pub kind: OutcastKind,
    /// When it was set aside: `YYYYMMDDTHHMMSSZ`, if its name says so.
    pub stamp: Option<String>,
    /// The name under which it came, if that is one of a WAL file.
    pub wal_name: Option<WalName>,
}

/// What is found out about an outcast.
#[derive(Debug)]
pub enum Verdict {
    /// The archive holds the same WAL under its name: nothing is lost without this copy.
    Archived(StoredWal),
    /// The archive holds other WAL under its name.
    Different {
        /// The archived file.
        location: String,
        /// Where they differ, if both can be decoded.
        difference: Option<Difference>,
    },
    /// The archived file of its name is encrypted and cannot be compared.
    Incomparable {
        /// The archived file.
        location: String,
    },
    /// The archive has no file of its name.
    NotArchived,
    /// It cannot be read, or the archived file cannot.
    Failed(SaveError),
    /// It is not a WAL file.
    NoWal,
}

impl Outcast {
    /// Takes the name of an object in the errors directory apart: `NAME.STAMP.SUFFIX` or, for a second
    /// one within a second, `NAME.STAMP.NUMBER.SUFFIX`.
    fn parse(path: PathBuf) -> Self {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let kind_and_rest = OutcastKind::ALL.into_iter().find_map(|kind| {
            let rest = name.strip_suffix(kind.suffix())?.strip_suffix('.')?;
            Some((kind, rest))
        });
        let (kind, rest) = kind_and_rest.unwrap_or((OutcastKind::Other, name));
        let (stamp, original) = match split_stamp(rest) {
            Some((original, stamp)) => (Some(stamp.to_owned()), original),
            None => (None, rest),
        };
        Outcast {
            kind,
            stamp,
            wal_name: WalName::parse(original).ok(),
            path,
        }
    }

    /// Its own name, as a person would write it.
    pub fn file_name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Compares it with the archive and judges it anew. Changes nothing.
    pub fn judge(&self, comparison: &Comparison<'_>) -> Judged {
        let Some(wal) = self.as_wal() else {
            return Verdict::NoWal.into();
        };
        let (source, fault) = match comparison.open(&wal) {
            Ok(opened) => opened,
            Err(error) => return Verdict::Failed(error).into(),
        };
        let verdict = match comparison.storage.find(&wal.name) {
            Ok(None) => Verdict::NotArchived,
            Ok(Some(stored)) => compare(comparison, &source, stored),
            Err(error) => Verdict::Failed(error.into()),
        };
        Judged {
            verdict,
            fault,
            looked_at: Some((Identity::of(&source.metadata), source.metadata.len())),
        }
    }

    fn as_wal(&self) -> Option<WalFile> {
        let name = self.wal_name.clone()?;
        let is_file = fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_file());
        is_file.then(|| WalFile {
            name,
            path: self.path.clone(),
        })
    }
}

/// An outcast that was looked at.
#[derive(Debug)]
pub struct Judged {
    /// How it compares with the archive.
    pub verdict: Verdict,
    /// Why it cannot be what its name says.
    pub fault: Option<WalFault>,
    /// The file that was looked at, and its size in bytes.
    looked_at: Option<(Identity, u64)>,
}

impl From<Verdict> for Judged {
    fn from(verdict: Verdict) -> Self {
        Judged {
            verdict,
            fault: None,
            looked_at: None,
        }
    }
}

impl Judged {
    /// Its size in bytes, if it is a file that could be opened.
    pub fn size_bytes(&self) -> Option<u64> {
        self.looked_at.map(|(_, size_bytes)| size_bytes)
    }
}

/// What lies in the errors directory, sorted by name; a directory that is not there is empty.
pub fn outcasts(directory: &Path) -> io::Result<Vec<Outcast>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let outcasts = entries.map(|entry| Ok(Outcast::parse(entry?.path())));
    let mut outcasts = outcasts.collect::<io::Result<Vec<_>>>()?;
    outcasts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(outcasts)
}

/// Why an outcast that is in the archive was not removed.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The archived copy could not be made durable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The archived copy could not be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The file cannot be removed.
    #[error("cannot remove {}: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Removes those outcasts of which the archive holds the same WAL, once that is durable and listed.
/// Returns their paths.
///
/// The caller holds the lock that keeps whoever changes the archive away, and has held it since
/// before they were judged.
pub fn resolve(
    judged: &[(Outcast, Judged)],
    comparison: &Comparison<'_>,
    catalog: &Catalog,
    errors_directory: &Path,
) -> Result<Vec<PathBuf>, ResolveError> {
    let archived: Vec<(&PathBuf, Identity, &StoredWal)> = judged
        .iter()
        .filter_map(
            |(outcast, judged)| match (&judged.verdict, judged.looked_at) {
                (Verdict::Archived(stored), Some((file, _))) => Some((&outcast.path, file, stored)),
                _ => None,
            },
        )
        .collect();
    if archived.is_empty() {
        return Ok(Vec::new());
    }
    let stored: Vec<StoredWal> = archived
        .iter()
        .map(|(.., stored)| (*stored).clone())
        .collect();
    comparison.storage.sync(&stored)?;
    let entry = |stored: StoredWal| Entry {
        info: stored.info,
        may_be_listed: true,
    };
    let entries = stored.into_iter().map(entry).collect();
    add_listed(catalog, comparison.storage, entries)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ResolveError::Remove { path, source }
    };
    let mut removed = Vec::new();
    for (path, file, _) in archived {
        // What has another file's place by now was never compared.
        if file.is_at(path) {
            durable::remove(path).map_err(failed(path))?;
            removed.push(path.clone());
        }
    }
    durable::sync_directory(errors_directory).map_err(failed(errors_directory))?;
    Ok(removed)
}

fn compare(comparison: &Comparison<'_>, source: &Source, stored: StoredWal) -> Verdict {
    let location = stored.location.clone();
    match comparison.compare(source, &stored) {
        Ok(Likeness::Same) => Verdict::Archived(stored),
        Ok(Likeness::Different) => Verdict::Different {
            location,
            difference: comparison.difference(source, &stored).ok(),
        },
        Ok(Likeness::Unknown) => Verdict::Incomparable { location },
        Err(error) => Verdict::Failed(error),
    }
}

/// Splits `NAME.STAMP` or `NAME.STAMP.NUMBER`.
fn split_stamp(text: &str) -> Option<(&str, &str)> {
    let (rest, last) = text.rsplit_once('.')?;
    if is_stamp(last) {
        return Some((rest, last));
    }
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, stamp) = rest.rsplit_once('.').filter(|_| is_number)?;
    is_stamp(stamp).then_some((rest, stamp))
}

/// Whether a text is of the form `YYYYMMDDTHHMMSSZ`.
fn is_stamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit_or = |at: usize, byte: u8| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    };
    bytes.len() == 16 && (0..).zip(bytes).all(|(at, byte)| digit_or(at, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parse = |name: &str| {
            let outcast = Outcast::parse(Path::new("/errors").join(name));
            let wal_name = outcast.wal_name.map(|name| name.to_string());
            (outcast.kind, outcast.stamp.is_some(), wal_name)
        };
        let segment = "000000010000000000000001";
        let known = Some(segment.to_owned());
        let stamp = "20260102T030405Z";
        for (name, expected) in [
            (
                format!("{segment}.{stamp}.duplicate"),
                (OutcastKind::Duplicate, true, known.clone()),
            ),
            (
                format!("{segment}.{stamp}.12.invalid"),
                (OutcastKind::Invalid, true, known.clone()),
            ),
            (
                format!("stranger.{stamp}.unknown"),
                (OutcastKind::Unknown, true, None),
            ),
            (
                format!("{segment}.partial.{stamp}.duplicate"),
                (
                    OutcastKind::Duplicate,
                    true,
                    Some(format!("{segment}.partial")),
                ),
            ),
            (
                format!("{segment}.00000028.backup.{stamp}.duplicate"),
                (
                    OutcastKind::Duplicate,
                    true,
                    Some(format!("{segment}.00000028.backup")),
                ),
            ),
            (
                format!("{segment}.partial.{stamp}.superseded"),
                (
                    OutcastKind::Superseded,
                    true,
                    Some(format!("{segment}.partial")),
                ),
            ),
            (segment.to_owned(), (OutcastKind::Other, false, known)),
            ("notes.txt".to_owned(), (OutcastKind::Other, false, None)),
            ("duplicate".to_owned(), (OutcastKind::Other, false, None)),
        ] {
            assert_eq!(parse(&name), expected, "{name}");
        }
    }
}
