//! What can go wrong on the way of a WAL file through the codecs, told apart by what the caller does next.

use std::io;

use thiserror::Error;

use super::command::describe_code;

/// Why a file could not be brought into, or out of, its stored form.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Reading failed on the side the bytes come from. The operating system's error is kept as it was.
    #[error("cannot read: {0}")]
    ReadSource(#[source] io::Error),

    /// The source did not hold as many bytes as announced: somebody writes to it, or it was cut.
    #[error(
        "read {read_bytes} bytes where {expected_bytes} were announced: the file changed meanwhile"
    )]
    SourceSize {
        /// The size the caller gave.
        expected_bytes: u64,
        /// What was really there. Reading stops soon after the announced size is passed.
        read_bytes: u64,
    },

    /// Writing failed on the side the bytes go to. The operating system's error is kept as it was.
    #[error("cannot write: {0}")]
    WriteSink(#[source] io::Error),

    /// The stored bytes are not what the codec wrote: cut short, altered, or followed by something else.
    #[error("damaged {codec} data: {detail}")]
    Damaged {
        /// The format, by the name `compression` has for it.
        codec: &'static str,
        /// What is wrong, in the codec's own words where it has some.
        detail: String,
    },

    /// A codec could not do its work for a reason that is not in the data, such as lack of memory.
    #[error("{codec} failed: {detail}")]
    Codec {
        /// The format, by the name `compression` has for it.
        codec: &'static str,
        /// The codec's own words.
        detail: String,
    },

    /// An external command could not be started at all.
    #[error(
        "cannot start {program}: {source}\nHINT: install it, or let path_prefix name the directory it is in."
    )]
    CommandNotStarted {
        /// The program, without its arguments.
        program: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// An external command ran, and failed.
    #[error("{program} {outcome}{}", if stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
    CommandFailed {
        /// The program, or the shell command line of a custom filter.
        program: String,
        /// How it ended, as a verb phrase: `exited with status 2`, `was killed by signal 9`.
        outcome: String,
        /// The end of what the command wrote to its standard error, trimmed.
        stderr: String,
    },

    /// The configuration asks for something that cannot work.
    #[error("{message}\nHINT: {hint}")]
    Configuration {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },

    /// `encryption_passphrase_command` gave no passphrase. What it wrote is never repeated here.
    #[error("encryption_passphrase_command {reason}")]
    PassphraseCommand {
        /// What happened, as a verb phrase.
        reason: String,
    },
}

impl CodecError {
    /// Recovers the cause from an error of a reader that [`Decoder::decode`](super::Decoder::decode) returned.
    ///
    /// `Read` can only speak [`io::Error`]. Those readers return the operating system's error of the
    /// stored file unchanged (here it becomes [`CodecError::ReadSource`]) and carry everything else inside.
    pub fn from_read(error: io::Error) -> CodecError {
        match error.downcast::<CodecError>() {
            Ok(cause) => cause,
            Err(original) => CodecError::ReadSource(original),
        }
    }

    /// The form in which a reader hands this error out; [`CodecError::from_read`] is the way back.
    pub(super) fn into_read(self) -> io::Error {
        let kind = match self {
            CodecError::ReadSource(original) => return original,
            CodecError::Damaged { .. } => io::ErrorKind::InvalidData,
            CodecError::Codec { .. } => io::ErrorKind::OutOfMemory,
            CodecError::Configuration { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }

    /// Whether an external command is missing, or cannot be executed: what a shell's status 127 and 126 mean.
    pub fn is_missing_command(&self) -> bool {
        match self {
            CodecError::CommandNotStarted { .. } => true,
            CodecError::CommandFailed { outcome, .. } => [126, 127]
                .iter()
                .any(|status| *outcome == describe_code(*status)),
            _ => false,
        }
    }

    /// Whether the stored bytes themselves are at fault, so that another copy may be good.
    pub fn is_damage(&self) -> bool {
        matches!(self, CodecError::Damaged { .. })
    }
}
