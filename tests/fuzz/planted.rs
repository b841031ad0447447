//! A panic behind the decoder that no blind search would meet: the test suite asks whether the fuzzer does.

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

fuzz_target!(|message: &[u8]| {
    let Ok(ReplicationMessage::Wal { bytes, .. }) = ReplicationMessage::decode(message) else {
        return;
    };
    // Byte by byte: each one that fits is an edge of its own. By chance it takes 2^32 messages of this kind.
    if let [b'p', b'l', b'o', b't', ..] = bytes {
        panic!("the planted panic");
    }
});
