//! Positions in the WAL and the size of a segment.

use std::fmt;
use std::str::FromStr;

/// A position in the WAL: bytes since the beginning of the cluster's history.
///
/// Written `HIGH/LOW` in hexadecimal, as PostgreSQL prints `pg_lsn`
/// (PostgreSQL manual, "pg_lsn Type").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = InvalidLsn;

    /// Accepts what `pg_lsn` accepts: two hexadecimal numbers of one to eight digits around a
    /// slash. Anything else is [`InvalidLsn`].
    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let half = |digits: &str| {
            let well_formed =
                (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            well_formed
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| InvalidLsn(text.to_owned()))
    }
}

/// A text that is not an LSN.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid LSN \"{0}\": expected two hexadecimal numbers around a slash, such as 16/B374D848"
)]
pub struct InvalidLsn(String);

/// The size of a WAL segment: a power of two from 1 MiB to 1 GiB, chosen at `initdb`
/// (`IsValidWalSegSize` in PostgreSQL's `xlog_internal.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// What `initdb` chooses when it is not told otherwise.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// Checks that PostgreSQL could have been initialised with this size.
    pub fn new(size_bytes: u64) -> Result<Self, InvalidSegmentSize> {
        match u32::try_from(size_bytes) {
            Ok(size) if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) => {
                Ok(SegmentSize(size))
            }
            _ => Err(InvalidSegmentSize(size_bytes)),
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many segments share the middle eight digits of their names: 4 GiB worth of WAL.
    pub fn segments_per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

/// A size that no PostgreSQL cluster can have for its segments.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is not a WAL segment size (a power of two from 1 MiB to 1 GiB)")]
pub struct InvalidSegmentSize(u64);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_lsn_survives_printing_and_parsing(position: u64) {
            prop_assert_eq!(Lsn(position).to_string().parse(), Ok(Lsn(position)));
        }

        #[test]
        fn parsing_an_lsn_never_panics(text in "\\PC{0,24}") {
            let _ = text.parse::<Lsn>();
        }
    }

    #[test]
    fn an_lsn_is_written_as_postgresql_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!("0/0".parse(), Ok(Lsn(0)));
        assert_eq!("ffffffff/FFFFFFFF".parse(), Ok(Lsn(u64::MAX)));
        for bad in ["", "/", "1/", "/1", "1/2/3", "+1/1", "123456789/0", "1 /2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn segment_sizes_are_those_initdb_accepts() {
        for megabytes in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] {
            assert!(SegmentSize::new(megabytes << 20).is_ok());
        }
        for bad in [0, 8192, (1 << 20) + 1, 3 << 20, 2 << 30, u64::MAX] {
            assert_eq!(SegmentSize::new(bad), Err(InvalidSegmentSize(bad)));
        }
    }
}
