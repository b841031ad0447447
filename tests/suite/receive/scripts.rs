//! What a peer may say to a receiver that has asked it for WAL, and must not.

use std::fs;
use std::path::PathBuf;

use super::support::SMALL_SEGMENT;
use crate::support::messages::{
    COPY_DONE, copy_data, data, end_of_statement, end_of_timeline, keepalive, refusal, row,
};
use crate::support::wire::{Frame, position};

/// What a peer sends once it is asked to stream.
pub type Script = Vec<u8>;

/// The server's WAL, for whoever wants to send it in its place.
pub struct Source {
    pub pg_wal: PathBuf,
}

impl Source {
    /// WAL from this position on.
    fn wal(&self, start: u64, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = start;
        while at < start + size {
            let (number, offset) = (at / SMALL_SEGMENT, at % SMALL_SEGMENT);
            let segment = format!("00000001{:08X}{:08X}", number >> 12, number & 0xFFF);
            let segment = fs::read(self.pg_wal.join(segment)).unwrap();
            let part = (start + size - at).min(SMALL_SEGMENT - offset);
            let (offset, end) = (offset as usize, (offset + part) as usize);
            bytes.extend_from_slice(&segment[offset..end]);
            at += part;
        }
        bytes
    }

    /// The server's own bytes in a message as it would send them.
    pub fn sound(&self, start: u64, size: u64) -> Vec<u8> {
        data(start, start + size, &self.wal(start, size))
    }
}

/// What a peer may say once `START_REPLICATION` has been accepted at this position.
pub fn malformed(source: &Source, start: u64) -> Vec<(&'static str, Script)> {
    let page = 8192;
    let garbage = vec![0xEE; page as usize];
    let sound = || source.sound(start, page);
    let then = |bytes: Vec<u8>| [sound(), bytes].concat();
    vec![
        ("nothing in it", copy_data(b"")),
        ("an unknown kind", copy_data(b"z1234567890")),
        ("a kind for logical replication", copy_data(b"s")),
        ("half a header", copy_data(&[b'w', 0, 0, 0])),
        ("no WAL", data(start, start, b"")),
        ("half a keepalive", copy_data(&[b'k', 0, 0])),
        ("more than a keepalive", copy_data(&[b'k'; 100])),
        (
            "earlier WAL than asked for",
            data(start - page, start, &garbage),
        ),
        ("the first position of all", data(0, start, &garbage)),
        (
            "the last position of all",
            data(u64::MAX - 100, u64::MAX, &garbage),
        ),
        (
            "a page later",
            data(start + page, start + 2 * page, &garbage),
        ),
        (
            "a segment later",
            data(start + SMALL_SEGMENT, start + SMALL_SEGMENT, &garbage),
        ),
        (
            "a byte later, in the middle",
            then(data(start + page + 1, start, &garbage)),
        ),
        (
            "a byte earlier, other bytes",
            then(data(start + page - 1, start, &garbage)),
        ),
        (
            "the same again, other bytes",
            then(data(start, start + page, &garbage)),
        ),
        (
            "far back, in the middle",
            then(data(start - SMALL_SEGMENT, start, &garbage)),
        ),
        (
            "a length that never comes",
            then(vec![b'd', 0x7F, 0xFF, 0xFF, 0xFF, b'w']),
        ),
        (
            "a negative length",
            then(vec![b'd', 0xFF, 0xFF, 0xFF, 0xFF, b'w']),
        ),
        (
            "a length that does not count itself",
            then(vec![b'd', 0, 0, 0, 2, b'w']),
        ),
        ("an unknown message", then(Frame::new(b'@', *b"?").bytes())),
        (
            "a row without a statement",
            then(Frame::new(b'D', *b"\0\x01").bytes()),
        ),
        ("an error", then(refusal())),
        ("the end of the copy and no more", then(COPY_DONE.to_vec())),
        (
            "no next timeline",
            then([COPY_DONE.to_vec(), end_of_statement()].concat()),
        ),
        (
            "a timeline that is no number",
            then(end_of_timeline("two", "0/1000000")),
        ),
        ("timeline 0", then(end_of_timeline("0", "0/1000000"))),
        ("the same timeline", then(end_of_timeline("1", "0/1000000"))),
        (
            "a negative timeline",
            then(end_of_timeline("-2", "0/1000000")),
        ),
        (
            "a timeline too large",
            then(end_of_timeline("4294967296", "0/1000000")),
        ),
        (
            "an end that is no position",
            then(end_of_timeline("2", "../..")),
        ),
        (
            "an end before the beginning",
            then(end_of_timeline("2", "0/28")),
        ),
        (
            "an end that was not reached",
            then(end_of_timeline("2", "FFFFFFFF/FFFFFFFF")),
        ),
        (
            "one column",
            then([COPY_DONE.to_vec(), row(&[("next_tli", "2")])].concat()),
        ),
        (
            "a keepalive from the end of time",
            then(
                [
                    keepalive(u64::MAX, i64::MAX, 1),
                    keepalive(0, i64::MIN, 1),
                    data(start + page, u64::MAX, &source.wal(start + page, page)),
                    keepalive(0, -1, 0),
                    refusal(),
                ]
                .concat(),
            ),
        ),
        (
            "a flood of questions",
            then([keepalive(start, 7, 1).repeat(20_000), refusal()].concat()),
        ),
    ]
}

/// The position in `START_REPLICATION SLOT x PHYSICAL 0/1000000 TIMELINE 1`.
pub fn start_of(sql: &str) -> u64 {
    let position_of = |word: &&str| word.contains('/');
    position(sql.split_whitespace().find(position_of).unwrap())
}
