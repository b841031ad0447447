//! What walarch's exit status means.

use std::process;

/// The exit status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Everything that was asked for is done. Of a command that archives one file: that file is
    /// durable in the archive, with exactly its bytes.
    Success,
    /// Something failed; it was printed and logged.
    Failure,
    /// The command line makes no sense.
    Usage,
    /// A check failed, in the code that Nagios calls CRITICAL.
    Critical,
    /// Something failed, with a status that the command's contract gives a meaning of its own.
    Status(u8),
    /// Of what gives WAL back, as Barman's: no WAL file can have that name, or the output cannot be written.
    Unwritable,
    /// Of what gives WAL back: the file is there and damaged, or cannot be read or decrypted.
    Damaged,
    /// Of what gives WAL back: the configuration, or a program that it names, is at fault. Of a forced command: the key is not for what
    /// was asked.
    Configuration,
    /// Of `get-wal` and `wal-restore --local`: the storage does not answer.
    Connection,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        process::ExitCode::from(match code {
            ExitCode::Success => 0,
            ExitCode::Failure => 1,
            ExitCode::Usage | ExitCode::Critical => 2,
            ExitCode::Status(status) => status,
            ExitCode::Unwritable => 3,
            ExitCode::Damaged => 4,
            ExitCode::Configuration => 5,
            ExitCode::Connection => 6,
        })
    }
}
