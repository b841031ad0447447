//! Why a WAL file could not be given back, told apart by what the caller has to do next.

use std::io;
use std::path::PathBuf;

use crate::catalog::CatalogError;
use crate::codec::CodecError;
use crate::shipping::FetchError;
use crate::storage::StorageError;
use crate::wal::{WalFault, WalName};

/// Why a WAL file was not delivered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// There is no file of that name in any place. For PostgreSQL, the end of the archive.
    #[error("WAL file '{name}' not found in server '{server}'")]
    NotFound {
        /// What was asked for.
        name: WalName,
        /// The server.
        server: String,
    },
    /// The directory that should hold the archive does not exist.
    #[error("{} does not exist", directory.display())]
    NoArchive {
        /// `wals_directory`
        directory: PathBuf,
    },
    /// Nothing at all is in the directory that should hold the archive, and no xlogdb elsewhere.
    #[error("{} is empty", directory.display())]
    EmptyArchive {
        /// `wals_directory`
        directory: PathBuf,
    },
    /// The file is in no place, and xlogdb cannot tell whether it should be.
    #[error("the file is in no place, and whether it was archived is not known: {0}")]
    Uncertain(CatalogError),
    /// The file is in no place, and xlogdb says that it was archived.
    #[error("{location} is gone, though {} lists it", catalog.display())]
    Vanished {
        /// Where it should be.
        location: String,
        /// xlogdb.
        catalog: PathBuf,
    },
    /// The partial segment is empty or full of zeros: a receiver has made room for it, and got nothing yet. Where there is
    /// no other, that is no better than none.
    #[error("{location} holds no WAL yet")]
    NothingReceived {
        /// The file.
        location: String,
    },
    /// The stored bytes are not what was once stored.
    #[error("{location} is damaged: {source}")]
    Damaged {
        /// The file.
        location: String,
        /// What its codec, or the command that decodes it, says.
        source: CodecError,
    },
    /// The file can be decoded, and cannot be what its name says.
    #[error("{location} is not {name}: {fault}")]
    Invalid {
        /// The file.
        location: String,
        /// What was asked for.
        name: WalName,
        /// Where the file comes from.
        origin: Origin,
        /// The evidence.
        fault: WalFault,
    },
    /// The file is encrypted, and gpg does not open it.
    #[error("cannot decrypt {location}: {source}")]
    Undecryptable {
        /// The file.
        location: String,
        /// What gpg says.
        source: CodecError,
    },
    /// The same, and gpg was given no passphrase.
    #[error(
        "Encrypted WAL file '{name}' detected, but no 'encryption_passphrase_command' is configured. \
         Please set 'encryption_passphrase_command' in the configuration so the correct private key \
         can be identified for decryption. ({source})"
    )]
    NoPassphrase {
        /// What was asked for.
        name: WalName,
        /// What gpg says.
        source: CodecError,
    },
    /// What decodes the file cannot run: gpg, a filter, the passphrase command.
    #[error("cannot decode {location}: {source}")]
    Decoder {
        /// The file.
        location: String,
        /// What failed.
        source: CodecError,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {location}: {source}")]
    Unreadable {
        /// The file.
        location: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The backup host did not deliver.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The bytes cannot be put where they were asked for.
    #[error("cannot write {location}: {source}")]
    Outlet {
        /// The file, or the name of the stream.
        location: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The bytes cannot be compressed as asked.
    #[error("cannot compress {name}: {source}")]
    Encoder {
        /// What was asked for.
        name: WalName,
        /// What failed.
        source: CodecError,
    },
}

/// Where a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An archive whose configuration is ours to change.
    Archive,
    /// A backup host, over ssh.
    BackupHost,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The file is in no place.
    Absent,
    /// The file is there, and its bytes cannot be had from it.
    Damage,
    /// The configuration, or a program it names, is at fault.
    Configuration,
    /// The storage, or the backup host, does not answer, or is not there.
    Connection,
    /// The command on the backup host ended with this status.
    Remote(u8),
    /// The bytes cannot be put where they were asked for.
    Outlet,
}

impl RestoreError {
    /// What kind of trouble this is.
    pub fn trouble(&self) -> Trouble {
        match self {
            RestoreError::NotFound { .. } | RestoreError::NothingReceived { .. } => Trouble::Absent,
            RestoreError::Unreadable { source, .. } if is_about_connection(source) => {
                Trouble::Connection
            }
            RestoreError::NoArchive { .. } | RestoreError::EmptyArchive { .. } => {
                Trouble::Connection
            }
            RestoreError::Uncertain(_)
            | RestoreError::Vanished { .. }
            | RestoreError::Damaged { .. }
            | RestoreError::Invalid { .. }
            | RestoreError::Undecryptable { .. }
            | RestoreError::NoPassphrase { .. }
            | RestoreError::Unreadable { .. } => Trouble::Damage,
            RestoreError::Storage(error) if is_about_connection(&error.source) => {
                Trouble::Connection
            }
            RestoreError::Storage(_) => Trouble::Damage,
            RestoreError::Fetch(FetchError::Remote {
                status, sent_bytes, ..
            }) => match (status, sent_bytes) {
                (1, 0) => Trouble::Absent,
                // Of a file that is not there nothing can have come.
                (1, _) => Trouble::Damage,
                _ => Trouble::Remote(*status),
            },
            RestoreError::Fetch(_) => Trouble::Connection,
            RestoreError::Decoder { .. } | RestoreError::Encoder { .. } => Trouble::Configuration,
            RestoreError::Outlet { .. } => Trouble::Outlet,
        }
    }

    /// What the operator can do about it; `None` where the text says it already.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            RestoreError::Fetch(FetchError::Remote {
                status: 1,
                sent_bytes: 1..,
                ..
            }) => {
                "the file, or a part of it, is there: run get-wal on the backup host to see what is wrong with it"
            }
            RestoreError::NotFound { .. }
            | RestoreError::NothingReceived { .. }
            | RestoreError::Fetch(_) => return None,
            RestoreError::NoArchive { .. } => {
                "is its file system mounted, and wals_directory right?"
            }
            RestoreError::EmptyArchive { .. } => {
                "is its file system mounted? In the archive of a new server the first file that is archived ends this"
            }
            RestoreError::Uncertain(_) => {
                "only xlogdb tells a file that is lost from one that never was"
            }
            RestoreError::Vanished { .. } => {
                "if a copy exists, put it there; if the file was removed on purpose, rebuild-xlogdb takes it off the list"
            }
            RestoreError::Damaged { .. } => {
                "nothing was delivered; if another copy exists, put it in the place of this one"
            }
            RestoreError::Invalid { origin, .. } => match origin {
                Origin::Archive => {
                    "nothing was delivered; is this the right server? validate_wal = \"off\" in \
                     walarch.toml delivers it as it is"
                }
                Origin::BackupHost => {
                    "nothing was delivered; is this the right server of the right backup host? \
                     get-wal there shows what is in its archive"
                }
            },
            RestoreError::Undecryptable { .. } => {
                "does this user have the key, is encryption_passphrase_command right, is the file whole?"
            }
            RestoreError::NoPassphrase { .. } => {
                "a key without a passphrase needs no command; gpg --list-secret-keys shows whether \
                 this user has the key at all"
            }
            RestoreError::Decoder { source, .. } => match source {
                CodecError::PassphraseCommand { .. } => {
                    "run encryption_passphrase_command by hand as this user"
                }
                CodecError::Configuration { .. } | CodecError::CommandNotStarted { .. } => {
                    return None;
                }
                CodecError::CommandFailed { .. } => {
                    "is the program of the filter installed, and path_prefix right?"
                }
                CodecError::Codec { .. } => {
                    "the file itself may be good, but takes more memory than there is, or than walarch allows: decode it \
                     by hand (zstd -d --long=31)"
                }
                _ => "the file itself may be good: try again when the cause is gone",
            },
            RestoreError::Unreadable { .. } => "check its permissions and its disk",
            RestoreError::Storage(_) => "nothing was delivered; try again when the cause is gone",
            RestoreError::Outlet { .. } => "check the directory, its permissions and its disk",
            RestoreError::Encoder { .. } => "ask for the file without compression",
        })
    }

    /// What a failed step of decoding means. `is_locked` says that the file is encrypted and no passphrase is known.
    pub(super) fn decoding(
        location: &str,
        name: &WalName,
        is_locked: bool,
        error: CodecError,
    ) -> Self {
        let location = location.to_owned();
        match error {
            CodecError::ReadSource(source) => match source.downcast() {
                Ok(fetch) => RestoreError::Fetch(fetch),
                Err(source) => RestoreError::Unreadable { location, source },
            },
            source if source.is_missing_command() => RestoreError::Decoder { location, source },
            source @ CodecError::CommandFailed { .. } if is_locked && is_gpg(&source) => {
                RestoreError::NoPassphrase {
                    name: name.clone(),
                    source,
                }
            }
            source @ CodecError::CommandFailed { .. } if is_gpg(&source) => {
                RestoreError::Undecryptable { location, source }
            }
            source @ (CodecError::Damaged { .. } | CodecError::CommandFailed { .. }) => {
                RestoreError::Damaged { location, source }
            }
            source => RestoreError::Decoder { location, source },
        }
    }
}

fn is_gpg(error: &CodecError) -> bool {
    matches!(error, CodecError::CommandFailed { program, .. } if program == "gpg")
}

/// Whether an object store, rather than the object, is in trouble.
fn is_about_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::StaleNetworkFileHandle
    )
}
