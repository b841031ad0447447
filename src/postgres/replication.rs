//! The messages that sender and receiver exchange while WAL is streamed: pure, no I/O.
//!
//! Facts: PostgreSQL manual, "Streaming Replication Protocol", under `START_REPLICATION`. Numbers are
//! big-endian; clocks count microseconds since the beginning of the year 2000 in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::wal::Lsn;

/// Between the epochs of Unix and of PostgreSQL (`POSTGRES_EPOCH_JDATE` in PostgreSQL's
/// `timestamp.h`): 30 years, seven of them leap years.
const POSTGRES_EPOCH_S: u64 = 10_957 * 86_400;

/// The size of a [`StatusUpdate`] on the wire.
const STATUS_UPDATE_SIZE_BYTES: usize = 34;

/// A moment as a server's clock told it: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerClock(pub i64);

impl ServerClock {
    /// This host's clock, in the server's terms.
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH + Duration::from_secs(POSTGRES_EPOCH_S))
            .unwrap_or_default();
        ServerClock(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// What a server sends in the copy-both mode that `START_REPLICATION` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationMessage<'a> {
    /// `XLogData`: a piece of WAL.
    Wal {
        /// The position of its first byte.
        start: Lsn,
        /// How far the server's own WAL was when it sent this.
        server_end: Lsn,
        /// When that was.
        clock: ServerClock,
        /// The WAL: never empty.
        bytes: &'a [u8],
    },
    /// `Primary keepalive message`: how the server is.
    Keepalive {
        /// How far the server's own WAL is, or how far it has sent.
        server_end: Lsn,
        /// When that was.
        clock: ServerClock,
        /// Whether it wants a [`StatusUpdate`] at once: without one it will give us up.
        reply_requested: bool,
    },
}

/// Why bytes are no message of the replication protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedMessage {
    /// Nothing at all.
    #[error("an empty replication message")]
    Empty,
    /// A message of a kind that no PostgreSQL from 10 to 18 sends.
    #[error("a replication message of unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// Less or more than such a message has.
    #[error("a replication message of kind '{kind}' with {size_bytes} bytes")]
    Size {
        /// `w` or `k`.
        kind: char,
        /// All of it.
        size_bytes: usize,
    },
    /// WAL that would reach past the last position there is.
    #[error("{size_bytes} bytes of WAL at {start} reach past the last position there is")]
    Overflow {
        /// Where it says that it begins.
        start: Lsn,
        /// How long it is.
        size_bytes: usize,
    },
}

impl<'a> ReplicationMessage<'a> {
    /// Reads the content of one `CopyData` message.
    pub fn decode(message: &'a [u8]) -> Result<Self, MalformedMessage> {
        let (&kind, rest) = message.split_first().ok_or(MalformedMessage::Empty)?;
        let decoded = match kind {
            b'w' => wal(rest),
            b'k' => keepalive(rest),
            other => return Err(MalformedMessage::UnknownKind(other)),
        };
        let decoded = decoded.ok_or(MalformedMessage::Size {
            kind: char::from(kind),
            size_bytes: message.len(),
        })?;
        match decoded {
            ReplicationMessage::Wal { start, bytes, .. }
                if start.0.checked_add(bytes.len() as u64).is_none() =>
            {
                Err(MalformedMessage::Overflow {
                    start,
                    size_bytes: bytes.len(),
                })
            }
            sound => Ok(sound),
        }
    }
}

fn wal(rest: &[u8]) -> Option<ReplicationMessage<'_>> {
    let (start, rest) = number(rest)?;
    let (server_end, rest) = number(rest)?;
    let (clock, bytes) = number(rest)?;
    (!bytes.is_empty()).then_some(ReplicationMessage::Wal {
        start: Lsn(start),
        server_end: Lsn(server_end),
        clock: ServerClock(clock.cast_signed()),
        bytes,
    })
}

fn keepalive(rest: &[u8]) -> Option<ReplicationMessage<'_>> {
    let (server_end, rest) = number(rest)?;
    let (clock, rest) = number(rest)?;
    let [reply_requested] = *rest else {
        return None;
    };
    Some(ReplicationMessage::Keepalive {
        server_end: Lsn(server_end),
        clock: ServerClock(clock.cast_signed()),
        reply_requested: reply_requested != 0,
    })
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), rest))
}

/// `Standby status update`: what a receiver has done with the WAL that it got. Each position is the
/// one after the last byte; zero says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusUpdate {
    /// Up to here it is written.
    pub written: Lsn,
    /// Up to here it is durable. A slot lets go of what is before; a commit that waits for this
    /// receiver returns.
    pub flushed: Lsn,
    /// Up to here it is applied: never, for one that receives only.
    pub applied: Lsn,
    /// When this was said.
    pub clock: ServerClock,
    /// Whether the server shall answer at once with a keepalive.
    pub reply_requested: bool,
}

impl StatusUpdate {
    /// The content of the `CopyData` message.
    pub fn encode(&self) -> [u8; STATUS_UPDATE_SIZE_BYTES] {
        let mut message = [0; STATUS_UPDATE_SIZE_BYTES];
        let fields = [
            self.written.0,
            self.flushed.0,
            self.applied.0,
            self.clock.0.cast_unsigned(),
        ];
        let numbers = fields.into_iter().flat_map(u64::to_be_bytes);
        let all = [b'r'].into_iter().chain(numbers);
        for (place, byte) in message
            .iter_mut()
            .zip(all.chain([self.reply_requested.into()]))
        {
            *place = byte;
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a PostgreSQL 15 sent it.
    const KEEPALIVE: [u8; 18] = [
        b'k', 0, 0, 0, 0, 0x01, 0x5E, 0x2B, 0x40, 0, 0x03, 0x02, 0xA5, 0x6E, 0x4B, 0x10, 0x20, 1,
    ];

    #[test]
    fn a_keepalive_is_read() {
        assert_eq!(
            ReplicationMessage::decode(&KEEPALIVE),
            Ok(ReplicationMessage::Keepalive {
                server_end: Lsn(0x015E_2B40),
                clock: ServerClock(0x0003_02A5_6E4B_1020),
                reply_requested: true,
            })
        );
    }

    #[test]
    fn wal_is_read_with_its_position() {
        let mut message = vec![b'w'];
        for number in [0x1_0000_0000_u64, 0x1_0000_2000, 7] {
            message.extend(number.to_be_bytes());
        }
        let header = message.clone();
        message.extend(b"wal");
        assert_eq!(
            ReplicationMessage::decode(&message),
            Ok(ReplicationMessage::Wal {
                start: Lsn(0x1_0000_0000),
                server_end: Lsn(0x1_0000_2000),
                clock: ServerClock(7),
                bytes: b"wal",
            })
        );
        let empty = ReplicationMessage::decode(&header);
        let (kind, size_bytes) = ('w', 25);
        assert_eq!(empty, Err(MalformedMessage::Size { kind, size_bytes }));
    }

    #[test]
    fn every_other_length_is_refused() {
        for length in 1..KEEPALIVE.len() {
            let error = ReplicationMessage::decode(&KEEPALIVE[..length]).unwrap_err();
            let (kind, size_bytes) = ('k', length);
            assert_eq!(error, MalformedMessage::Size { kind, size_bytes });
        }
        let longer = [&KEEPALIVE[..], &[0]].concat();
        assert!(ReplicationMessage::decode(&longer).is_err());
        assert_eq!(
            ReplicationMessage::decode(b""),
            Err(MalformedMessage::Empty)
        );
        let unknown = ReplicationMessage::decode(b"s\0");
        assert_eq!(unknown, Err(MalformedMessage::UnknownKind(b's')));
    }

    #[test]
    fn wal_past_the_end_of_all_positions_is_refused() {
        let mut message = vec![b'w'];
        message.extend((u64::MAX - 1).to_be_bytes());
        message.extend([0; 16]);
        message.extend([1, 2]);
        let error = ReplicationMessage::decode(&message).unwrap_err();
        assert!(matches!(
            error,
            MalformedMessage::Overflow { size_bytes: 2, .. }
        ));
    }

    #[test]
    fn a_status_update_is_written_as_postgresql_reads_it() {
        let update = StatusUpdate {
            written: Lsn(0x0102_0304_0506_0708),
            flushed: Lsn(2),
            applied: Lsn(0),
            clock: ServerClock(1),
            reply_requested: true,
        };
        let message = update.encode();
        let mut expected = vec![b'r', 1, 2, 3, 4, 5, 6, 7, 8];
        for number in [2_u64, 0, 1] {
            expected.extend(number.to_be_bytes());
        }
        expected.push(1);
        assert_eq!(message, expected.as_slice());
    }

    #[test]
    fn the_clock_is_postgresqls() {
        // 2026-01-01 00:00:00 UTC is 9497 days after 2000-01-01.
        assert!(ServerClock::now() > ServerClock(9_497 * 86_400 * 1_000_000));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(message: Vec<u8>) {
            let _ = ReplicationMessage::decode(&message);
        }

        #[test]
        fn what_is_read_lies_within_the_message(mut message in prop::collection::vec(any::<u8>(), 26..99)) {
            message[0] = b'w';
            if let Ok(ReplicationMessage::Wal { bytes, .. }) = ReplicationMessage::decode(&message) {
                prop_assert_eq!(bytes, &message[25..]);
            }
        }
    }
}
