//! What a server sends to a receiver, and what it should not (PostgreSQL manual, "Message Formats" and "Streaming
//! Replication Protocol").

use super::wire::Frame;

pub fn copy_data(body: &[u8]) -> Vec<u8> {
    Frame::new(b'd', body).bytes()
}

/// A message with WAL.
pub fn data(start: u64, server_end: u64, wal: &[u8]) -> Vec<u8> {
    let numbers = [start, server_end, 7].map(u64::to_be_bytes).concat();
    copy_data(&[b"w", &numbers[..], wal].concat())
}

pub fn keepalive(server_end: u64, clock: i64, reply: u8) -> Vec<u8> {
    let body = [
        &b"k"[..],
        &server_end.to_be_bytes(),
        &clock.to_be_bytes(),
        &[reply],
    ];
    copy_data(&body.concat())
}

pub const COPY_BOTH: [u8; 8] = [b'W', 0, 0, 0, 7, 0, 0, 0];
pub const COPY_DONE: [u8; 5] = [b'c', 0, 0, 0, 4];
pub const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

/// One row of text values under these names, and the end of the statement.
pub fn row(columns: &[(&str, &str)]) -> Vec<u8> {
    let count = u16::try_from(columns.len()).unwrap().to_be_bytes();
    let (mut names, mut values) = (count.to_vec(), count.to_vec());
    for (name, value) in columns {
        names.extend(name.as_bytes());
        // The end of the name; no table, column 0, type text of any size, as text.
        names.extend([0; 1 + 4 + 2]);
        names.extend(25_u32.to_be_bytes());
        names.extend([0xFF; 2 + 4]);
        names.extend([0; 2]);
        values.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        values.extend(value.as_bytes());
    }
    let frames = [Frame::new(b'T', names), Frame::new(b'D', values)];
    let mut bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    bytes.extend(end_of_statement());
    bytes
}

pub fn end_of_statement() -> Vec<u8> {
    [Frame::new(b'C', *b"SELECT 1\0").bytes(), READY.to_vec()].concat()
}

/// What the server says at the end of a timeline.
pub fn end_of_timeline(next: &str, position: &str) -> Vec<u8> {
    let columns = [("next_tli", next), ("next_tli_startpos", position)];
    [COPY_DONE.to_vec(), row(&columns)].concat()
}

pub fn refusal() -> Vec<u8> {
    Frame::new(b'E', *b"SFATAL\0C57P01\0Mgo away\0\0").bytes()
}

/// As `IDENTIFY_SYSTEM` answers.
pub fn identity(system: &str, timeline: &str, position: &str) -> Vec<u8> {
    let columns = [
        ("systemid", system),
        ("timeline", timeline),
        ("xlogpos", position),
        ("dbname", ""),
    ];
    row(&columns)
}
