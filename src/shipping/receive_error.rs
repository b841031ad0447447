//! Why a stream was not accepted, in Barman's words where it has some.

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::CodecError;
use crate::wal::WalFault;

/// Why a WAL file was not received. Nothing that was there before has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The stream broke off, fell silent, or is no tar archive.
    #[error("cannot read the tar stream: {0}")]
    Stream(#[source] io::Error),
    /// The stream holds no file at all.
    #[error("there is no WAL file in the tar stream")]
    Empty,
    /// Something else than a regular file.
    #[error("Unsupported file type '{}' for file '{name}'", type_text(*kind))]
    UnsupportedType {
        /// The type in the header (pax in POSIX.1-2017).
        kind: u8,
        /// Its name.
        name: String,
    },
    /// A file that is not WAL, or not at the top of the archive.
    #[error("Unsupported filename '{name}'")]
    UnsupportedName {
        /// The name.
        name: String,
    },
    /// A file that is larger than any WAL file.
    #[error("Unsupported size of {size_bytes} bytes for file '{name}'")]
    UnsupportedSize {
        /// The file.
        name: String,
        /// Its size.
        size_bytes: u64,
    },
    /// More files than anybody sends at a time, or one of them twice.
    #[error("Unexpected file '{name}'")]
    UnexpectedFile {
        /// The file that is too much.
        name: String,
    },
    /// A checksum of a file that is not there.
    #[error("Checksum without corresponding file '{name}'")]
    ChecksumWithoutFile {
        /// The file.
        name: String,
    },
    /// A file that is not what was sent.
    #[error("Bad file checksum '{found}' (should be {expected}) for file '{name}'")]
    BadChecksum {
        /// The file.
        name: String,
        /// The checksum of what arrived.
        found: String,
        /// The checksum in the stream.
        expected: String,
    },
    /// A file that may or may not be what was sent.
    #[error("Missing checksum for file '{name}'")]
    MissingChecksum {
        /// The file.
        name: String,
    },
    /// The file arrived as it was sent, and cannot be what its name says.
    #[error("Invalid file '{name}': {fault}")]
    Invalid {
        /// The file.
        name: String,
        /// The evidence.
        fault: WalFault,
    },
    /// Another good file of that name waits to be archived.
    #[error(
        "Duplicate Files Detected with Mismatched Checksums. {} already exists with checksum {existing}, but \
         the checksum of the incoming file is {received}", path.display()
    )]
    Different {
        /// The file that is there.
        path: PathBuf,
        /// Its checksum.
        existing: String,
        /// The checksum of the one that arrived.
        received: String,
    },
    /// Another put-wal holds the lock for longer than the sender would wait for an answer.
    #[error("another put-wal, which holds {}, does not come to an end", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    System {
        /// A verb.
        action: &'static str,
        /// The file or directory concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl ReceiveError {
    /// What the operator can do about it; `None` where the text says it already.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            ReceiveError::UnsupportedName { .. } => {
                "only segments, partial segments, backup labels and history files are received"
            }
            ReceiveError::Invalid { .. } => {
                "is this the right server? If the file is right, set validate_wal = \"off\" in walarch.toml"
            }
            ReceiveError::Different { .. } => {
                "two clusters may be archiving to the same server; nothing was overwritten"
            }
            ReceiveError::Busy { .. } => {
                "the process whose number is in that file may hang on a dead file system"
            }
            ReceiveError::System { source, .. } if is_about_decoding(source) => {
                "let archive-wal take the file that waits there, then try again"
            }
            _ => return None,
        })
    }

    /// An error of the system about a path.
    pub(super) fn about<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> ReceiveError + 'a {
        move |source| ReceiveError::System {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// Whether a decoder gave up although the bytes may be good: it would need too much memory.
fn is_about_decoding(error: &io::Error) -> bool {
    let codec = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(codec, Some(CodecError::Codec { .. }))
}

/// The type as Barman prints it.
fn type_text(kind: u8) -> String {
    format!("b'{}'", kind.escape_ascii())
}
