//! Which cluster a server's home belongs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::durable;

const IDENTITY_FILE: &str = "identity.json";

/// Permissions of a new one, less the umask.
const IDENTITY_MODE: u32 = 0o666;

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

/// Writes down which cluster a home belongs to, as Barman does it with the first base backup. One
/// that says so already stays as it is.
pub fn pin_identity(
    backup_directory: &Path,
    system_identifier: u64,
    postgres_major_version: i32,
) -> io::Result<()> {
    let text = format!(
        "{{\n    \"systemid\": \"{system_identifier}\",\n    \"version\": \
         \"{postgres_major_version}\"\n}}\n"
    );
    let path = identity_path(backup_directory);
    if !path.exists() {
        durable::create_file(&path, text.as_bytes(), IDENTITY_MODE)?;
    }
    Ok(())
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
