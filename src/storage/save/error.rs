//! Why a file was not archived, and what the operator can do about it.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::catalog::CatalogError;
use crate::codec::CodecError;
use crate::storage::StorageError;
use crate::wal::{WalFault, WalName};

/// Why a file was not archived.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The source cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Source {
        /// The source.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The source cannot be the segment that its name promises.
    #[error("{name} was not archived: {fault}{}", moved_text(moved_to))]
    Invalid {
        /// The file.
        name: WalName,
        /// The evidence.
        fault: WalFault,
        /// Where it is now, if it was moved.
        moved_to: Option<PathBuf>,
    },
    /// The archive holds something else under this name, and the source must stay where it is.
    #[error("{name} was not archived: {location} is already there with different content")]
    Different {
        /// The file.
        name: WalName,
        /// The archived file.
        location: String,
    },
    /// The archive holds something under this name that cannot be decrypted to compare the two.
    #[error(
        "{name} was not archived: {location} is already there, encrypted, and cannot be compared"
    )]
    Incomparable {
        /// The file.
        name: WalName,
        /// The archived file.
        location: String,
    },
    /// The archived file of the same name is damaged or cannot be read.
    #[error(
        "{name} was not archived: the file of that name in the archive, {location}, cannot be read: \
         {source}"
    )]
    ArchivedCopy {
        /// The file.
        name: WalName,
        /// The archived file.
        location: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The archived file of the same name cannot be decoded, for a reason that is not in the file.
    #[error("{name} was not archived: it cannot be compared with {location}: {source}")]
    Decoder {
        /// The file.
        name: WalName,
        /// The archived file.
        location: String,
        /// What failed.
        source: CodecError,
    },
    /// The source cannot be moved to the errors directory.
    #[error("cannot move {} to the errors directory: {source}", path.display())]
    SetAside {
        /// The source.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The source cannot be removed, although it is safe in the archive.
    #[error("cannot remove {}: {source}", path.display())]
    Retire {
        /// The source, or the first of several.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The source, whose very bytes were adopted by the archive, was written to before it could be removed.
    #[error(
        "{} was written to while it was archived: it stays, and the next run looks at it again",
        path.display()
    )]
    Rewritten {
        /// The source.
        path: PathBuf,
    },
    /// Compression or encryption failed.
    #[error("cannot encode {}: {source}", path.display())]
    Codec {
        /// The source.
        path: PathBuf,
        /// What failed.
        source: CodecError,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// xlogdb failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

fn moved_text(moved_to: &Option<PathBuf>) -> String {
    moved_to.as_ref().map_or(String::new(), |path| {
        format!("; moved to {}", path.display())
    })
}

impl SaveError {
    /// An archived file that could not be read. Where that is the fault of this process and not of
    /// the file, the storage as a whole has failed.
    pub(super) fn archived_copy(name: &WalName, location: String, source: io::Error) -> Self {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected, TimedOut,
        };
        const OURS: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ESTALE];
        // How an object store says that it cannot be reached.
        const AWAY: [io::ErrorKind; 5] = [
            ConnectionAborted,
            ConnectionRefused,
            ConnectionReset,
            NotConnected,
            TimedOut,
        ];
        let errno = source.raw_os_error().map(Errno::from_raw);
        if errno.is_some_and(|errno| OURS.contains(&errno)) || AWAY.contains(&source.kind()) {
            return StorageError {
                action: "read",
                location,
                source,
            }
            .into();
        }
        SaveError::ArchivedCopy {
            name: name.clone(),
            location,
            source,
        }
    }

    /// Whether the next file would meet the same trouble, so that going on makes no sense.
    pub fn stops_the_run(&self) -> bool {
        match self {
            SaveError::Source { .. }
            | SaveError::Invalid { .. }
            | SaveError::Different { .. }
            | SaveError::Incomparable { .. }
            | SaveError::ArchivedCopy { .. }
            | SaveError::Decoder { .. }
            | SaveError::SetAside { .. }
            | SaveError::Retire { .. }
            | SaveError::Rewritten { .. } => false,
            // A command may have failed over this one file; `Run` counts how often it does.
            SaveError::Codec { source, .. } => !matches!(source, CodecError::CommandFailed { .. }),
            SaveError::Storage(_) | SaveError::Catalog(_) => true,
        }
    }

    /// What the operator can do about it; `None` where the text says it already.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            SaveError::Source { .. } => {
                "the file stays in the queue; check its permissions and its disk"
            }
            SaveError::Invalid {
                moved_to: Some(_), ..
            } => {
                "find out who sent it; if it is right, set validate_wal = \"off\" in walarch.toml \
                 and move it back"
            }
            SaveError::Invalid { moved_to: None, .. } => {
                "is this the right server? If the file is right, set validate_wal = \"off\" in \
                 walarch.toml"
            }
            SaveError::Different { .. } => {
                "two clusters may be archiving to the same server; nothing was overwritten"
            }
            SaveError::Incomparable { .. } => {
                "set encryption_passphrase_command, so that walarch can see whether it is the same"
            }
            SaveError::ArchivedCopy { .. } => {
                "the source stays in the queue; if the file in the archive is damaged, move it away \
                 and run archive-wal again"
            }
            SaveError::SetAside { .. } => "the file stays in the queue; check errors_directory",
            SaveError::Retire { .. } => {
                "the archived copy is safe; the next run removes the source once it may"
            }
            SaveError::Rewritten { .. } => {
                "a sender that delivers a file again should write it under another name and rename it"
            }
            SaveError::Decoder { source, .. } | SaveError::Codec { source, .. }
                if matches!(
                    source,
                    CodecError::Configuration { .. } | CodecError::CommandNotStarted { .. }
                ) =>
            {
                return None;
            }
            SaveError::Decoder { .. }
            | SaveError::Codec { .. }
            | SaveError::Storage(_)
            | SaveError::Catalog(_) => {
                "nothing was lost: the file stays where it is and the next run tries again"
            }
        })
    }
}

/// An error about a source.
pub(super) fn source_error(path: &Path) -> impl FnOnce(io::Error) -> SaveError + '_ {
    move |source| SaveError::Source {
        path: path.to_owned(),
        source,
    }
}
