//! One line of xlogdb.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use crate::wal::WalName;

/// What xlogdb knows of an archived file; [`Display`](fmt::Display) is the line, without its
/// newline.
#[derive(Clone, Debug, PartialEq)]
pub struct WalFileInfo {
    /// The file's name.
    pub name: WalName,
    /// The size of the stored file, compressed and encrypted as it is.
    pub size_bytes: u64,
    /// When the source was last modified, in seconds since 1970.
    pub modified_s: f64,
    /// The codec's name, as in the option `compression`; kept as written, also where walarch does
    /// not know it.
    pub compression: Option<String>,
    /// The encryption's name, as in the option `encryption`.
    pub encryption: Option<String>,
}

/// The modification time as Python's `st_mtime` has it, so that both tools write the same digits.
pub fn modification_time_s(metadata: &Metadata) -> f64 {
    metadata.mtime() as f64 + 1e-9 * metadata.mtime_nsec() as f64
}

impl fmt::Display for WalFileInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = |value: &Option<String>| value.clone().unwrap_or_else(|| "None".to_owned());
        write!(
            f,
            "{}\t{}\t{:?}\t{}\t{}",
            self.name,
            self.size_bytes,
            self.modified_s,
            column(&self.compression),
            column(&self.encryption),
        )
    }
}

/// A line that is none of xlogdb's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot parse line: {0:?}")]
pub struct InvalidLine(
    /// The line.
    pub String,
);

impl FromStr for WalFileInfo {
    type Err = InvalidLine;

    /// Reads the lines of every Barman version: three columns, four with the compression, five
    /// with the encryption. The word `None` stands for none.
    fn from_str(line: &str) -> Result<Self, InvalidLine> {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let optional = |at: usize| {
            columns
                .get(at)
                .filter(|&&value| value != "None")
                .map(|&value| value.to_owned())
        };
        match columns.as_slice() {
            [name, size, modified, rest @ ..] if rest.len() <= 2 => (|| {
                Some(WalFileInfo {
                    name: WalName::parse(name).ok()?,
                    size_bytes: size.parse().ok()?,
                    modified_s: modified.parse().ok()?,
                    compression: optional(3),
                    encryption: optional(4),
                })
            })(),
            _ => None,
        }
        .ok_or_else(|| InvalidLine(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_survives_writing_and_reading(
            segment: u32, size_bytes: u64, seconds in 0u32.., nanoseconds in 0u32..1_000_000_000,
            compression in proptest::option::of("[a-z0-9]{1,10}"), encrypted: bool,
        ) {
            let info = WalFileInfo {
                name: WalName::parse(&format!("0000000100000000{segment:08X}")).unwrap(),
                size_bytes,
                modified_s: f64::from(seconds) + 1e-9 * f64::from(nanoseconds),
                compression,
                encryption: encrypted.then(|| "gpg".to_owned()),
            };
            prop_assert_eq!(info.to_string().parse(), Ok(info));
        }

        #[test]
        fn reading_a_line_never_panics(line in "\\PC{0,80}") {
            let _ = line.parse::<WalFileInfo>();
        }
    }

    #[test]
    fn lines_of_older_versions_are_read() {
        let read = |line: &str| line.parse::<WalFileInfo>();
        let three = read("000000010000000000000001\t16777216\t1700000000.5").unwrap();
        assert_eq!(
            (three.modified_s, three.compression, three.encryption),
            (1700000000.5, None, None)
        );
        let four = read("000000010000000000000001 4711 1700000000 gzip").unwrap();
        assert_eq!(
            (four.compression.as_deref(), four.encryption),
            (Some("gzip"), None)
        );
        let five = read("00000002.history\t41\t1.0\tNone\tgpg\n").unwrap();
        assert_eq!(
            (five.compression, five.encryption.as_deref()),
            (None, Some("gpg"))
        );
    }

    #[test]
    fn the_digits_are_those_python_writes() {
        let mut info: WalFileInfo = "00000002.history 41 1700000000 None None".parse().unwrap();
        assert_eq!(
            info.to_string(),
            "00000002.history\t41\t1700000000.0\tNone\tNone"
        );
        info.modified_s = 1732190400.0 + 1e-9 * 123456789.0;
        assert_eq!(
            info.to_string(),
            "00000002.history\t41\t1732190400.1234567\tNone\tNone"
        );
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for bad in [
            "",
            "x 1 1.0",
            "00000002.history 41",
            "00000002.history -1 1.0",
            "00000002.history 1 1.0 a b c",
        ] {
            assert!(bad.parse::<WalFileInfo>().is_err(), "{bad:?} was accepted");
        }
    }
}
