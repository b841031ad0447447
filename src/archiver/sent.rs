//! Which files were archived before PostgreSQL asked for them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::ServerConfig;
use crate::durable::{self, Identity, Temporary};
use crate::storage::{WalFile, archive_location};
use crate::wal::{LONG_HEADER_SIZE_BYTES, LongPageHeader};

/// In the server's `meta` directory, beside Barman's own state.
const FILE_NAME: &str = "walarch-sent.json";

const MODE: u32 = 0o666;

/// How many files are remembered: more than any sensible number is sent ahead.
const ENTRIES_MAX: usize = 256;

/// How much of a file is read at a time.
const CHUNK_SIZE_BYTES: usize = 256 << 10;

/// Exactly what a file was. Names alone mean nothing: another timeline, a cluster that was initialised anew or upgraded
/// use them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    name: String,
    size_bytes: u64,
    /// The cluster's, from the first page; none where the file has no such page.
    system_identifier: Option<u64>,
    /// The digest of the content, in hexadecimal digits.
    sha256: String,
}

impl Fingerprint {
    /// Reads a file. `expected` is the file that was archived: another one, or a changed one, is an error.
    pub fn of(wal: &WalFile, expected: Option<Identity>) -> io::Result<Self> {
        let mut file = File::open(&wal.path)?;
        let mut digest = Sha256::new();
        let mut head = Vec::new();
        let mut chunk = vec![0; CHUNK_SIZE_BYTES];
        let mut size_bytes = 0;
        loop {
            let length = file.read(&mut chunk)?;
            let piece = chunk.get(..length).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            if head.is_empty() {
                head.extend(piece.iter().take(LONG_HEADER_SIZE_BYTES));
            }
            digest.update(piece);
            size_bytes += length as u64;
        }
        if expected.is_some_and(
            |expected| !matches!(file.metadata(), Ok(now) if Identity::of(&now) == expected),
        ) {
            return Err(io::Error::other("it changed while it was archived"));
        }
        let sha256 = digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Fingerprint {
            name: wal.name.to_string(),
            size_bytes,
            system_identifier: LongPageHeader::parse(&head).map(|header| header.system_identifier),
            sha256,
        })
    }
}

/// The memory of one server.
#[derive(Debug)]
pub struct Sent {
    path: PathBuf,
    state: State,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// The archive that they were sent to.
    location: String,
    files: VecDeque<Fingerprint>,
}

impl Sent {
    /// Reads the memory; one that cannot be read, or that is about another archive, is empty.
    pub fn of(server: &ServerConfig) -> Self {
        let meta = server.backup_directory.join("meta");
        Self::read(&meta, archive_location(server))
    }

    fn read(meta: &Path, location: String) -> Self {
        let path = meta.join(FILE_NAME);
        let state = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .filter(|state: &State| state.location == location)
            .unwrap_or(State {
                location,
                files: VecDeque::new(),
            });
        Sent { path, state }
    }

    /// Whether exactly this file, byte for byte, has been archived. Reads it only if its name is known.
    pub fn holds(&self, wal: &WalFile) -> io::Result<bool> {
        let known = |entry: &&Fingerprint| entry.name == wal.name.as_str();
        match self.state.files.iter().find(known) {
            None => Ok(false),
            Some(entry) => Ok(Fingerprint::of(wal, None)? == *entry),
        }
    }

    /// Remembers files, durably; the oldest are forgotten. Whoever does so at the same time may win: what is
    /// forgotten is only sent again.
    pub fn remember(&mut self, files: Vec<Fingerprint>) -> io::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.state
            .files
            .retain(|old| files.iter().all(|new| new.name != old.name));
        self.state.files.extend(files);
        let excess = self.state.files.len().saturating_sub(ENTRIES_MAX);
        self.state.files.drain(..excess);
        if let Some(directory) = self.path.parent() {
            durable::create_directories(directory)?;
        }
        let temporary = self
            .path
            .with_extension(format!("json.{}.tmp", std::process::id()));
        let (temporary, mut file) = Temporary::create(temporary, MODE)?;
        file.write_all(&serde_json::to_vec(&self.state)?)?;
        durable::sync_file(&file, temporary.path())?;
        temporary.replace(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::wal::WalName;

    fn wal(folder: &TempDir, content: &[u8]) -> WalFile {
        let name = WalName::parse("000000010000000000000001").unwrap();
        let path = folder.path().join(name.as_str());
        fs::write(&path, content).unwrap();
        WalFile { name, path }
    }

    #[test]
    fn only_exactly_what_was_sent_is_remembered() {
        let folder = TempDir::new().unwrap();
        let sent = wal(&folder, b"content");
        let read = || Sent::read(folder.path(), "s3://bucket".to_owned());
        assert!(!read().holds(&sent).unwrap());
        read()
            .remember(vec![Fingerprint::of(&sent, None).unwrap()])
            .unwrap();
        assert!(read().holds(&sent).unwrap());
        assert!(!read().holds(&wal(&folder, b"CONTENT")).unwrap());
        assert!(!read().holds(&wal(&folder, b"content and more")).unwrap());
        wal(&folder, b"content");
        assert!(
            !Sent::read(folder.path(), "s3://other".to_owned())
                .holds(&sent)
                .unwrap()
        );
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let folder = TempDir::new().unwrap();
        let first = wal(&folder, b"content");
        let print = Fingerprint::of(&first, None).unwrap();
        let many = (0..ENTRIES_MAX as u32).map(|number| Fingerprint {
            name: format!("{number:08X}.history"),
            ..print.clone()
        });
        let mut sent = Sent::read(folder.path(), String::new());
        sent.remember(vec![print.clone()]).unwrap();
        sent.remember(many.collect()).unwrap();
        assert_eq!(sent.state.files.len(), ENTRIES_MAX);
        assert!(!sent.holds(&first).unwrap());
    }

    #[test]
    fn a_file_that_changed_meanwhile_has_no_fingerprint() {
        let folder = TempDir::new().unwrap();
        let before = Identity::of(&fs::metadata(wal(&folder, b"content").path).unwrap());
        let changed = wal(&folder, b"other content");
        assert!(Fingerprint::of(&changed, Some(before)).is_err());
    }
}
