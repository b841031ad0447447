//! Pipes that do not wait for ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The longest pause between two looks at a process that is expected to end.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// The reading end of something that may fall silent.
#[derive(Debug)]
pub struct PatientReader {
    file: File,
    patience: Duration,
}

impl PatientReader {
    /// A read that brings nothing for `patience` fails with [`io::ErrorKind::TimedOut`].
    pub fn new(end: OwnedFd, patience: Duration) -> Self {
        PatientReader {
            file: end.into(),
            patience,
        }
    }
}

impl Read for PatientReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        wait_until(&self.file, PollFlags::POLLIN, self.patience)?;
        self.file.read(buffer)
    }
}

/// The writing end of a pipe whose reader may stop reading.
#[derive(Debug)]
pub(super) struct PatientWriter {
    file: File,
    patience: Duration,
}

impl PatientWriter {
    /// A write that cannot go on for `patience` fails with [`io::ErrorKind::TimedOut`].
    pub(super) fn new(end: OwnedFd, patience: Duration) -> io::Result<Self> {
        // A pipe with a little room would take as much and then block.
        let flags = OFlag::from_bits_retain(fcntl(&end, FcntlArg::F_GETFL)?);
        fcntl(&end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(PatientWriter {
            file: end.into(),
            patience,
        })
    }
}

impl Write for PatientWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_until(&self.file, PollFlags::POLLOUT, self.patience)?;
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until a file is ready, or closed at its other end.
fn wait_until(file: &File, readiness: PollFlags, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), readiness)], timeout) {
            Ok(0) if left.is_zero() => return Err(timed_out(patience)),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits for a process to end; one that does not is killed.
pub(super) fn wait_for_end(child: &mut Child, patience: Duration) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            end(child);
            return Err(timed_out(patience));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Ends a process that is of no use any more.
pub(super) fn end(child: &mut Child) {
    // One that has ended by itself cannot be killed, and nothing else can go wrong.
    let _ = child.kill();
    let _ = child.wait();
}

fn timed_out(patience: Duration) -> io::Error {
    let text = format!("nothing moved for {} seconds", patience.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_silent_writer_is_given_up() {
        let (reader, _writer) = io::pipe().unwrap();
        let mut reader = PatientReader::new(reader.into(), SHORT);
        let error = reader.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_writer_that_has_gone_is_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"last").unwrap();
        drop(writer);
        let mut text = String::new();
        PatientReader::new(reader.into(), SHORT)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "last");
    }

    #[test]
    fn a_reader_that_stops_reading_is_given_up() {
        let (_reader, writer) = io::pipe().unwrap();
        let mut writer = PatientWriter::new(writer.into(), SHORT).unwrap();
        let error = writer.write_all(&[0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let error = wait_for_end(&mut child, SHORT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(child.try_wait().unwrap().is_some());
    }
}
