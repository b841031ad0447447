//! The checksums that travel with a file, in the form of sha256sum(1) and md5sum(1).

use std::fmt::Write as _;
use std::io::{self, Read};

use md5::Md5;
use sha2::{Digest, Sha256};

/// How much is read at a time.
const CHUNK_SIZE_BYTES: usize = 256 << 10;

/// The two that Barman knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// What is sent unless asked otherwise.
    Sha256,
    /// For a Barman that knows no other.
    Md5,
}

impl Algorithm {
    /// The file in the stream that lists the checksums.
    pub fn file_name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA256SUMS",
            Algorithm::Md5 => "MD5SUMS",
        }
    }

    /// The algorithm of a file of checksums.
    pub(super) fn of_file(name: &str) -> Option<Self> {
        [Algorithm::Sha256, Algorithm::Md5]
            .into_iter()
            .find(|algorithm| algorithm.file_name() == name)
    }

    /// A checksum of nothing yet.
    pub(super) fn start(self) -> Checksum {
        match self {
            Algorithm::Sha256 => Checksum::Sha256(Sha256::new()),
            Algorithm::Md5 => Checksum::Md5(Md5::new()),
        }
    }

    /// The checksum of everything that is left to read, in hexadecimal digits.
    pub(super) fn of(self, source: &mut dyn Read) -> io::Result<String> {
        let mut checksum = self.start();
        let read = copy(source, |bytes| {
            checksum.update(bytes);
            Ok(())
        });
        match read {
            Ok(_) => Ok(checksum.finish()),
            Err(CopyError::Read(error) | CopyError::Write(error)) => Err(error),
        }
    }
}

/// A checksum being computed.
pub(super) enum Checksum {
    Sha256(Sha256),
    Md5(Md5),
}

impl Checksum {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Checksum::Sha256(state) => state.update(bytes),
            Checksum::Md5(state) => state.update(bytes),
        }
    }

    /// In hexadecimal digits.
    pub(super) fn finish(self) -> String {
        match self {
            Checksum::Sha256(state) => hexadecimal(&state.finalize()),
            Checksum::Md5(state) => hexadecimal(&state.finalize()),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Which side of a copy failed.
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Passes everything that is left to read to `sink`, piece by piece. Returns how many bytes that were.
pub(super) fn copy(
    source: &mut dyn Read,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<u64, CopyError> {
    let mut buffer = vec![0; CHUNK_SIZE_BYTES];
    let mut copied_bytes = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(copied_bytes),
            Ok(count) => {
                sink(buffer.get(..count).unwrap_or_default()).map_err(CopyError::Write)?;
                copied_bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
}

/// One line of a file of checksums: the checksum, and the file it is of, without `./` before it.
///
/// `None` for a line that is none: checksum and name stand around a blank and another blank or an asterisk.
pub(super) fn parse_line(line: &str) -> Option<(&str, &str)> {
    let at = line.match_indices(' ').map(|(at, _)| at).find(|at| {
        line.get(at + 1..)
            .is_some_and(|rest| rest.starts_with([' ', '*']))
    })?;
    let (checksum, name) = (line.get(..at)?, line.get(at + 2..)?);
    Some((checksum, name.strip_prefix("./").unwrap_or(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard_tools() {
        let of = |algorithm: Algorithm| algorithm.of(&mut &b"abc"[..]).unwrap();
        assert_eq!(
            of(Algorithm::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(of(Algorithm::Md5), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn lines_of_either_form_are_read() {
        assert_eq!(parse_line("ab *name"), Some(("ab", "name")));
        assert_eq!(parse_line("ab  ./name"), Some(("ab", "name")));
        assert_eq!(parse_line("ab cd  name"), Some(("ab cd", "name")));
        for bad in ["", "ab", "ab name", "*", " "] {
            assert_eq!(parse_line(bad), None, "{bad:?}");
        }
    }
}
