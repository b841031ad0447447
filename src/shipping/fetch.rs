//! What a command on the backup host writes, as a stream.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::patience::{PatientReader, end, wait_for_end};
use super::ssh::BackupHost;

/// ssh's own exit status when there is no connection, or none any more (ssh(1)).
const SSH_FAILED: i32 = 255;

/// How much is kept of what a test prints over there.
const ANSWER_SIZE_MAX_BYTES: u64 = 1 << 20;

/// Why a command on the backup host gave nothing, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// ssh cannot be started on this host.
    #[error("Error executing \"ssh\": {0}")]
    NotStarted(#[source] io::Error),
    /// There is no connection, or it broke or fell silent.
    #[error("Connection problem with ssh{}", reason.as_ref().map_or(String::new(), |error| format!(": {error}")))]
    Connection {
        /// What is known beyond what ssh says itself.
        reason: Option<io::Error>,
    },
    /// The command failed over there; it said why on its standard error, which is ours.
    #[error("Remote '{program} get-wal' command has failed!")]
    Remote {
        /// The program over there.
        program: String,
        /// Its exit status.
        status: u8,
        /// What it had sent before.
        sent_bytes: u64,
    },
}

/// The output of a command that runs over ssh.
///
/// Its end is reported only once the command has succeeded; otherwise the last read fails with a [`FetchError`]
/// inside. Dropping it ends the command.
pub struct RemoteOutput {
    child: Child,
    output: PatientReader,
    program: String,
    patience: Duration,
    received_bytes: u64,
    is_over: bool,
}

impl RemoteOutput {
    /// Starts an ssh command, which runs `program` over there.
    pub fn start(
        mut command: Command,
        program: &str,
        patience: Duration,
    ) -> Result<Self, FetchError> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(FetchError::NotStarted)?;
        let Some(output) = child.stdout.take() else {
            end(&mut child);
            return Err(FetchError::NotStarted(io::Error::other("it has no pipe")));
        };
        Ok(RemoteOutput {
            child,
            output: PatientReader::new(OwnedFd::from(output), patience),
            program: program.to_owned(),
            patience,
            received_bytes: 0,
            is_over: false,
        })
    }

    fn conclude(&mut self) -> Result<(), FetchError> {
        let status = wait_for_end(&mut self.child, self.patience).map_err(broken)?;
        self.is_over = true;
        match (status.success(), status.code()) {
            (true, _) => Ok(()),
            (_, Some(SSH_FAILED)) => Err(FetchError::Connection { reason: None }),
            (_, Some(code)) => Err(FetchError::Remote {
                program: self.program.clone(),
                status: u8::try_from(code).unwrap_or(u8::MAX),
                sent_bytes: self.received_bytes,
            }),
            (_, None) => Err(broken(io::Error::other(killed(status)))),
        }
    }
}

/// What a command on the backup host says, on either stream, and how it ends: ssh's own 255 included.
///
/// # Errors
///
/// [`FetchError::NotStarted`], and [`FetchError::Connection`] when nothing comes back in time.
pub fn answer(host: &BackupHost, words: &[&str]) -> Result<(String, u8), FetchError> {
    let (reader, writer) = io::pipe().map_err(FetchError::NotStarted)?;
    let mut command = host.command(words);
    let spawned = writer.try_clone().and_then(|both| {
        command
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(writer)
            .spawn()
    });
    // The command holds the writing ends, and so long there is no end to be read.
    drop(command);
    let mut child = spawned.map_err(FetchError::NotStarted)?;
    let mut answer = Vec::new();
    let read = PatientReader::new(OwnedFd::from(reader), host.timeout)
        .take(ANSWER_SIZE_MAX_BYTES)
        .read_to_end(&mut answer);
    if let Err(error) = read {
        end(&mut child);
        return Err(broken(error));
    }
    let status = wait_for_end(&mut child, host.timeout).map_err(broken)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let code = code.ok_or_else(|| broken(io::Error::other(killed(status))))?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), code))
}

fn broken(reason: io::Error) -> FetchError {
    FetchError::Connection {
        reason: Some(reason),
    }
}

fn killed(status: ExitStatus) -> String {
    format!("ssh ended with {status}")
}

impl Read for RemoteOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over || buffer.is_empty() {
            return Ok(0);
        }
        match self.output.read(buffer) {
            Ok(0) => self.conclude().map(|()| 0).map_err(io::Error::other),
            Ok(count) => {
                self.received_bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::other(broken(error))),
        }
    }
}

impl Drop for RemoteOutput {
    fn drop(&mut self) {
        if !self.is_over {
            end(&mut self.child);
        }
    }
}
