//! wal-archive: a WAL file goes to put-wal on the backup host.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::SystemTime;

use nix::fcntl::OFlag;
use tar::{EntryType, Header};

use super::checksum::{self, Algorithm, CopyError};
use super::fetch::{FetchError, answer};
use super::patience::{PatientWriter, end, wait_for_end};
use super::ssh::BackupHost;
use crate::codec::{CodecError, Encoder};
use crate::wal::WalName;

/// What ssh exits with when it failed itself (ssh(1)).
const SSH_FAILED: i32 = 255;

/// Tar counts in blocks of this size, and two empty ones are the end.
const BLOCK_SIZE_BYTES: u64 = 512;

/// How files are sent.
pub struct Sending<'a> {
    /// Where to.
    pub host: &'a BackupHost,
    /// The server's section in the configuration there.
    pub server: &'a str,
    /// The checksum that travels along.
    pub algorithm: Algorithm,
    /// Compresses the file on the way, where that is asked for.
    pub encoder: Option<Encoder>,
}

/// Why a file was not sent, or not received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// A directory.
    #[error("WAL_PATH cannot be a directory: {}", .0.display())]
    Directory(PathBuf),
    /// No name that PostgreSQL gives to what it archives.
    #[error("{} is not the name of a WAL file", .0.display())]
    NotWal(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file cannot be compressed.
    #[error("cannot compress {}: {source}", path.display())]
    Codec {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: CodecError,
    },
    /// ssh cannot be run.
    #[error("Error executing ssh: {0}")]
    NoSsh(#[source] io::Error),
    /// ssh failed, was killed, or came to a standstill.
    #[error("Connection problem with ssh{}", detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Connection {
        /// What is known besides; ssh has printed its own reason.
        detail: Option<String>,
    },
    /// The remote command failed, and has printed why.
    #[error("Remote '{program} put-wal' command has failed!")]
    Remote {
        /// The program that was asked for.
        program: String,
        /// Its exit code.
        code: u8,
    },
    /// The remote command was content before it had seen the whole file.
    #[error("Remote '{program} put-wal' command ended before the file was sent")]
    Unfinished {
        /// The program that was asked for.
        program: String,
    },
}

/// What is sent, opened.
struct Source {
    name: WalName,
    file: File,
    size_bytes: u64,
    modified: SystemTime,
}

impl Sending<'_> {
    /// Sends a file. Success means that the far end says that it is durable there.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub fn send(&self, path: &Path) -> Result<(), SendError> {
        let source = Source::open(path)?;
        let mut command = self.host.command(&["put-wal", self.server]);
        let mut child = command
            .stdin(Stdio::piped())
            .spawn()
            .map_err(SendError::NoSsh)?;
        let sent = self.feed(&mut child, source, path);
        let is_whole = match sent {
            Ok(is_whole) => is_whole,
            Err(error) => {
                end(&mut child);
                return Err(error);
            }
        };
        match self.wait(&mut child)? {
            0 if is_whole => Ok(()),
            0 => Err(SendError::Unfinished {
                program: self.host.program.clone(),
            }),
            code => Err(self.remote(code)),
        }
    }

    /// Asks the far end whether it could receive WAL for the server. Returns what it printed, and its exit code.
    ///
    /// # Errors
    ///
    /// [`SendError::NoSsh`], and [`SendError::Connection`] when nothing comes back in time.
    pub fn test(&self) -> Result<(String, u8), SendError> {
        answer(self.host, &["put-wal", self.server, "--test"]).map_err(|error| match error {
            FetchError::NotStarted(error) => SendError::NoSsh(error),
            FetchError::Connection { reason } => SendError::Connection {
                detail: reason.map(|error| error.to_string()),
            },
            FetchError::Remote { status, .. } => self.remote(status),
        })
    }

    /// Writes the archive into ssh. False means that ssh has stopped reading; its exit code tells why.
    fn feed(&self, child: &mut Child, source: Source, path: &Path) -> Result<bool, SendError> {
        let Some(pipe) = child.stdin.take() else {
            return Ok(false);
        };
        let mut pipe =
            PatientWriter::new(pipe.into(), self.host.timeout).map_err(SendError::NoSsh)?;
        let source = self.compressed(source, path)?;
        match write_archive(&mut pipe, source, self.algorithm) {
            Ok(()) => {
                // Nobody needs to read as far as that.
                let _ = pipe.write_all(&[0; 2 * BLOCK_SIZE_BYTES as usize]);
                Ok(true)
            }
            Err(CopyError::Read(source)) => Err(SendError::Source {
                path: path.to_owned(),
                source,
            }),
            Err(CopyError::Write(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(connection(error))
            }
            Err(CopyError::Write(_)) => Ok(false),
        }
    }

    /// The source, or in its place what becomes of it: tar wants to know the size first, so it goes through a
    /// file without a name.
    fn compressed(&self, mut source: Source, path: &Path) -> Result<Source, SendError> {
        let Some(encoder) = &self.encoder else {
            return Ok(source);
        };
        let failed = |source| SendError::Codec {
            path: path.to_owned(),
            source,
        };
        let in_scratch = |error| failed(CodecError::WriteSink(error));
        let mut scratch = tempfile::tempfile().map_err(in_scratch)?;
        encoder
            .encode(&mut source.file, source.size_bytes, None, &mut scratch)
            .map_err(failed)?;
        scratch.rewind().map_err(in_scratch)?;
        let size_bytes = scratch.metadata().map_err(in_scratch)?.len();
        Ok(Source {
            file: scratch,
            size_bytes,
            ..source
        })
    }

    fn wait(&self, child: &mut Child) -> Result<u8, SendError> {
        let status = wait_for_end(child, self.host.timeout).map_err(connection)?;
        match status.code().map(u8::try_from) {
            Some(Ok(code)) => Ok(code),
            _ => Err(killed(status)),
        }
    }

    fn remote(&self, code: u8) -> SendError {
        if i32::from(code) == SSH_FAILED {
            return SendError::Connection { detail: None };
        }
        SendError::Remote {
            program: self.host.program.clone(),
            code,
        }
    }
}

fn connection(error: io::Error) -> SendError {
    SendError::Connection {
        detail: Some(error.to_string()),
    }
}

fn killed(status: ExitStatus) -> SendError {
    let signal = status.signal().unwrap_or_default();
    SendError::Connection {
        detail: Some(format!("it was killed by signal {signal}")),
    }
}

impl Source {
    fn open(path: &Path) -> Result<Self, SendError> {
        let failed = |source| SendError::Source {
            path: path.to_owned(),
            source,
        };
        // A pipe under a WAL file's name must not block us.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = options.open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(SendError::Directory(path.to_owned()));
        }
        if !metadata.is_file() {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let name = path
            .file_name()
            .and_then(|name| WalName::parse(name.to_str()?).ok());
        Ok(Source {
            name: name.ok_or_else(|| SendError::NotWal(path.to_owned()))?,
            size_bytes: metadata.len(),
            modified: metadata.modified().map_err(failed)?,
            file,
        })
    }
}

/// Writes everything but the two blocks at the end: the file with its time to the nanosecond, and its checksum.
fn write_archive(
    sink: &mut dyn Write,
    source: Source,
    algorithm: Algorithm,
) -> Result<(), CopyError> {
    let write = CopyError::Write;
    let (name, time) = (source.name.as_str(), source.modified);
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH);
    let since_1970 = since_1970.unwrap_or_default();
    let (seconds, nanoseconds) = (since_1970.as_secs(), since_1970.subsec_nanos());
    let exact_time = pax_record("mtime", &format!("{seconds}.{nanoseconds:09}"));
    let pax_name = format!("PaxHeaders/{name}");
    let header = |name: &str, kind, size_bytes| header(name, kind, size_bytes, seconds);
    write_small(
        sink,
        &header(&pax_name, EntryType::XHeader, exact_time.len() as u64),
        exact_time.as_bytes(),
    )
    .map_err(write)?;
    sink.write_all(header(name, EntryType::Regular, source.size_bytes).as_bytes())
        .map_err(write)?;
    let mut state = algorithm.start();
    let copied_bytes = checksum::copy(&mut (&source.file).take(source.size_bytes), |piece| {
        state.update(piece);
        sink.write_all(piece)
    })?;
    if copied_bytes != source.size_bytes {
        let text = "the file became shorter while it was read";
        return Err(CopyError::Read(io::Error::other(text)));
    }
    sink.write_all(padding(copied_bytes)).map_err(write)?;
    let line = format!("{} *{name}\n", state.finish());
    write_small(
        sink,
        &header(algorithm.file_name(), EntryType::Regular, line.len() as u64),
        line.as_bytes(),
    )
    .map_err(write)
}

fn write_small(sink: &mut dyn Write, header: &Header, content: &[u8]) -> io::Result<()> {
    let size_bytes = content.len() as u64;
    sink.write_all(&[header.as_bytes(), content, padding(size_bytes)].concat())
}

fn padding(size_bytes: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK_SIZE_BYTES as usize] = [0; BLOCK_SIZE_BYTES as usize];
    let missing = size_bytes.next_multiple_of(BLOCK_SIZE_BYTES) - size_bytes;
    ZEROS.get(..missing as usize).unwrap_or_default()
}

fn header(name: &str, kind: EntryType, size_bytes: u64, modified_s: u64) -> Header {
    let mut header = Header::new_ustar();
    // The longest name of a WAL file has 40 characters, a header has room for 100.
    let _ = header.set_path(name);
    header.set_entry_type(kind);
    header.set_size(size_bytes);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified_s);
    header.set_cksum();
    header
}

/// One record of an extended header: its length, which counts its own digits, a key and a value (pax in POSIX.1-2017).
fn pax_record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        assert_eq!(pax_record("mtime", "1.5"), "13 mtime=1.5\n");
        for size in 1..120 {
            let record = pax_record("a", &"x".repeat(size));
            let (length, _) = record.split_once(' ').unwrap();
            assert_eq!(length.parse(), Ok(record.len()));
        }
    }
}
