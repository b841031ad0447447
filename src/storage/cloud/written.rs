//! With which ending this home has stored its files so far.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::keys::ending;
use crate::config::ServerConfig;
use crate::durable::{self, Temporary};
use crate::storage::archive_location;

/// In the server's `meta` directory, beside Barman's own state.
const FILE_NAME: &str = "walarch-cloud.json";

const MODE: u32 = 0o666;

/// What is written down of the archive in the object store.
///
/// The same WAL file under two endings would be two objects, and no condition of the store keeps them
/// apart. So files are looked for under every ending before they are stored, until one run under the present
/// ending has gone well: from then on, a file that comes again (after a crash, say) meets its own key.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    present: State,
    recorded: Option<State>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    location: String,
    ending: String,
}

impl Written {
    /// Reads the record of a server; one that cannot be read is none.
    pub fn of(server: &ServerConfig) -> Self {
        let path = server.backup_directory.join("meta").join(FILE_NAME);
        let recorded = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let location = archive_location(server);
        let encrypted = if server.encryption.is_some() {
            ".gpg"
        } else {
            ""
        };
        let ending = format!(
            "{}{encrypted}",
            ending(server.compression).unwrap_or_default()
        );
        Written {
            path,
            present: State { location, ending },
            recorded,
        }
    }

    /// Whether everything that this home may meet again has the present ending.
    pub fn is_uniform(&self) -> bool {
        self.recorded.as_ref() == Some(&self.present)
    }

    /// Writes down that a run under the present ending has gone well, unless that is known.
    pub fn record(&self) -> io::Result<()> {
        if self.is_uniform() {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.present)?;
        if let Some(directory) = self.path.parent() {
            durable::create_directories(directory)?;
        }
        let temporary = self.path.with_extension("json.tmp");
        let (temporary, mut file) = Temporary::create(temporary, MODE)?;
        file.write_all(&text)?;
        durable::sync_file(&file, temporary.path())?;
        temporary.replace(&self.path)
    }
}
