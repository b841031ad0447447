//! WAL files that lie where nobody looks for them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::{Local, sorted_names};
use crate::wal::WalName;

impl Local {
    /// Passes the files with the name of a WAL file that are at the root or one directory below it, but not where
    /// they belong, to `visit`.
    pub(super) fn find_misplaced(
        &self,
        visit: &mut dyn FnMut(WalName, String),
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut look_into =
            |directory: &Path| -> Result<Vec<PathBuf>, Box<dyn Error + Send + Sync>> {
                let mut directories = Vec::new();
                let entries = match sorted_names(directory) {
                    // Emptied and deleted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                    entries => entries.map_err(Self::error("read", directory))?,
                };
                for entry in entries {
                    let path = directory.join(&entry);
                    let name = entry.to_str().and_then(|name| WalName::parse(name).ok());
                    if path.is_dir() {
                        directories.push(path);
                    } else if let Some(name) = name.filter(|name| path != self.path(name)) {
                        visit(name, path.display().to_string());
                    }
                }
                Ok(directories)
            };
        for directory in look_into(&self.root)? {
            look_into(&directory)?;
        }
        Ok(())
    }
}
