//! Which names of this home may lie in the bucket under another ending than the present one.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::keys::ending;
use crate::config::ServerConfig;
use crate::durable::{self, Temporary};
use crate::storage::archive_location;
use crate::wal::WalName;

/// In the server's `meta` directory, beside Barman's own state.
const FILE_NAME: &str = "walarch-cloud.json";

const MODE: u32 = 0o666;

/// What is written down of the archive in the object store.
///
/// The same WAL file under two endings would be two objects, and no condition of the store keeps them
/// apart. So a file is looked for under every ending before it is stored, unless it is known to be beyond
/// everything that has another ending than the present one: then its own key is the only one that it can have.
#[derive(Debug)]
pub(super) struct Written {
    path: PathBuf,
    location: String,
    ending: String,
    /// Held while the file is changed.
    changing: Mutex<()>,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    location: String,
    ending: String,
    /// The [ordinal](WalName::ordinal) of the last file that has another ending; none if there is no such file.
    last_unusual: Option<u64>,
}

impl Written {
    /// Touches nothing yet.
    pub(super) fn of(server: &ServerConfig) -> Self {
        let encrypted = server.encryption.map_or("", |_| ".gpg");
        Written {
            path: server.backup_directory.join("meta").join(FILE_NAME),
            location: archive_location(server),
            ending: format!(
                "{}{encrypted}",
                ending(server.compression).unwrap_or_default()
            ),
            changing: Mutex::default(),
        }
    }

    /// What is known; nothing if it cannot be read, or is about another archive or another ending. Read each time:
    /// a receiver runs for months, and others archive meanwhile.
    fn state(&self) -> Option<State> {
        let bytes = fs::read(&self.path).ok()?;
        let state: State = serde_json::from_slice(&bytes).ok()?;
        (state.location == self.location && state.ending == self.ending).then_some(state)
    }

    /// Whether it is known where the other endings end.
    pub(super) fn is_known(&self) -> bool {
        self.state().is_some()
    }

    /// Whether a file may be in the bucket under another ending. A history file always may: its name says nothing
    /// of when it was made.
    pub(super) fn may_be_unusual(&self, name: &WalName) -> bool {
        match (self.state(), name.ordinal()) {
            (Some(state), Some(ordinal)) => state.last_unusual.is_some_and(|last| ordinal <= last),
            _ => true,
        }
    }

    /// Writes down where the other endings end.
    pub(super) fn begin(&self, last_unusual: Option<u64>) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(last_unusual)
    }

    /// Makes sure that a file will be looked for which is about to be stored under another ending.
    pub(super) fn expect_unusual(&self, name: &WalName) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        match self.may_be_unusual(name) {
            true => Ok(()),
            false => self.write(name.ordinal()),
        }
    }

    fn write(&self, last_unusual: Option<u64>) -> io::Result<()> {
        let text = serde_json::to_vec(&State {
            location: self.location.clone(),
            ending: self.ending.clone(),
            last_unusual,
        })?;
        if let Some(directory) = self.path.parent() {
            durable::create_directories(directory)?;
        }
        let temporary = format!("json.{}.tmp", std::process::id());
        let (temporary, mut file) = Temporary::create(self.path.with_extension(temporary), MODE)?;
        file.write_all(&text)?;
        durable::sync_file(&file, temporary.path())?;
        temporary.replace(&self.path)
    }
}
