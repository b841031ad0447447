//! Which cluster a server's home belongs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The file in `backup_directory` in which Barman keeps what the cluster said of itself.
const IDENTITY_FILE: &str = "identity.json";

#[derive(Deserialize)]
struct Identity {
    systemid: Option<String>,
}

/// Why the identity file could not be understood.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the system identifier in {}: {reason}", path.display())]
pub struct IdentityError {
    path: PathBuf,
    reason: String,
}

/// `BACKUP_DIRECTORY/identity.json`, in which Barman keeps what the cluster said of itself.
pub fn identity_path(backup_directory: &Path) -> PathBuf {
    backup_directory.join(IDENTITY_FILE)
}

/// The system identifier in `BACKUP_DIRECTORY/identity.json`; `None` if the home has none.
pub fn system_identifier(backup_directory: &Path) -> Result<Option<u64>, IdentityError> {
    let path = identity_path(backup_directory);
    let failed = |reason: String| IdentityError {
        path: path.clone(),
        reason,
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let identity: Identity =
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    identity
        .systemid
        .map(|digits| {
            digits
                .parse()
                .map_err(|_| failed(format!("\"{digits}\" is no number")))
        })
        .transpose()
}
