//! The decoder of replication messages, against what the manual says of them.
//!
//! Facts: PostgreSQL manual, "Streaming Replication Protocol", under `START_REPLICATION`.

#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the modules under test are taken as they are; only a part of each is used"
)]

#[path = "../../src/postgres/replication.rs"]
mod replication;
#[path = "../../src/wal/mod.rs"]
mod wal;

use libfuzzer_sys::fuzz_target;
use replication::ReplicationMessage;

/// Kind, two positions and a clock.
const WAL_HEADER: usize = 1 + 3 * 8;
/// Kind, a position, a clock and whether to reply.
const KEEPALIVE: usize = 1 + 2 * 8 + 1;

fuzz_target!(|message: &[u8]| {
    let decoded = ReplicationMessage::decode(message);
    assert_eq!(decoded.is_ok(), is_sound(message), "{decoded:?}");
    let Ok(decoded) = decoded else {
        return;
    };
    // Nothing is lost or made up on the way.
    match decoded {
        ReplicationMessage::Wal {
            start,
            server_end,
            clock,
            bytes,
        } => {
            assert_eq!(message[0], b'w');
            assert_eq!(start.0, number(message, 1));
            assert_eq!(server_end.0, number(message, 9));
            assert_eq!(clock.0.cast_unsigned(), number(message, 17));
            assert_eq!(bytes, &message[WAL_HEADER..]);
        }
        ReplicationMessage::Keepalive {
            server_end,
            clock,
            reply_requested,
        } => {
            assert_eq!(message[0], b'k');
            assert_eq!(server_end.0, number(message, 1));
            assert_eq!(clock.0.cast_unsigned(), number(message, 9));
            assert_eq!(reply_requested, message[17] != 0);
        }
    }
});

/// Whether a server may send this.
fn is_sound(message: &[u8]) -> bool {
    match message.first() {
        Some(b'w') if message.len() > WAL_HEADER => {
            let wal = message.len() - WAL_HEADER;
            u64::MAX - number(message, 1) >= wal as u64
        }
        Some(b'k') => message.len() == KEEPALIVE,
        _ => false,
    }
}

fn number(message: &[u8], at: usize) -> u64 {
    message[at..at + 8]
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
