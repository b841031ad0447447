//! What a client sends to put-wal, and what it should not: tar archives, byte by byte, with the checksums in
//! them.

use sha2::{Digest, Sha256};

use super::decode::filter;
use super::home::Home;

/// Types of members, as in the header.
pub const REGULAR: u8 = b'0';
pub const SYMBOLIC_LINK: u8 = b'2';
pub const DIRECTORY: u8 = b'5';
pub const EXTENDED: u8 = b'x';

/// A tar archive that grows member by member.
#[derive(Clone, Default)]
pub struct Tarball {
    bytes: Vec<u8>,
    sums: String,
}

impl Tarball {
    pub fn new() -> Self {
        Self::default()
    }

    /// A regular file, whose checksum will be in the list.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.sums
            .push_str(&format!("{} *{name}\n", sha256(content)));
        self.member(name, REGULAR, content)
    }

    /// A member of which nothing else knows.
    pub fn member(self, name: &str, kind: u8, content: &[u8]) -> Self {
        self.member_of_size(name, kind, content.len() as u64, content)
    }

    /// A member whose header promises another size than what follows.
    pub fn member_of_size(mut self, name: &str, kind: u8, size: u64, content: &[u8]) -> Self {
        self.bytes.extend(header(name, kind, size));
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The list of checksums of what was put in so far.
    pub fn sums(self) -> Self {
        let text = self.sums.clone();
        self.member("SHA256SUMS", REGULAR, text.as_bytes())
    }

    /// A line of one's own in the list.
    pub fn sum_line(mut self, line: &str) -> Self {
        self.sums.push_str(&format!("{line}\n"));
        self
    }

    /// The archive with its end.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    /// What a client sends: everything so far, its checksums, the end.
    pub fn stream(self) -> Vec<u8> {
        self.sums().end()
    }
}

/// A stream with one file.
pub fn stream(name: &str, content: &[u8]) -> Vec<u8> {
    Tarball::new().file(name, content).stream()
}

/// The same made by the standard tools, with MD5.
pub fn stream_by_tools(home: &Home, directory: &str) -> Vec<u8> {
    let script = "cd \"$1\" && md5sum ./* > MD5SUMS && tar -c -f - ./*";
    let arguments = ["-c", script, "sh", directory];
    filter(home, "sh", &arguments, Vec::new())
}

/// In hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A header in the ustar format of POSIX.1-1988, with a time in 2025.
fn header(name: &str, kind: u8, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut field = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    field(0, name);
    field(100, "0000600");
    field(108, "0000000");
    field(116, "0000000");
    field(124, &format!("{size:011o}"));
    field(136, &format!("{TIME_S:011o}"));
    field(148, "        ");
    field(257, "ustar\0");
    field(263, "00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// The time of every member, in seconds since 1970.
pub const TIME_S: u64 = 1_750_000_000;
