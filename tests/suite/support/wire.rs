//! PostgreSQL's protocol, as far as tests must speak it themselves (PostgreSQL manual, "Frontend/Backend Protocol").

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A message after the start-up: its kind, and what follows kind and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { kind, body }
    }

    /// The next message; `None` at the end of the stream between two of them.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut kind = [0];
        if stream.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let body = read_sized(stream)?;
        Ok(Some(Self::new(kind[0], body)))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend(sized(&self.body));
        bytes
    }

    /// The body as text, up to the first zero byte.
    pub fn text(&self) -> String {
        let text = self.body.split(|byte| *byte == 0).next().unwrap();
        String::from_utf8_lossy(text).into_owned()
    }
}

/// A length, which counts itself, and that many bytes; of these only the bytes.
pub fn read_sized(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// The bytes behind their length.
pub fn sized(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes()[..], body].concat()
}

/// A position as PostgreSQL writes it: `16/B374D848`.
pub fn position(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    number(high) << 32 | number(low)
}

/// The other way round.
pub fn position_text(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// A client who notices what psql would only print.
pub struct Client(UnixStream);

impl Client {
    /// To the server whose socket is in this folder.
    pub fn connect(folder: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(format!("{folder}/.s.PGSQL.5432"))?;
        // A commit may wait for its receiver, but not for ever.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let start = b"\0\x03\0\0user\0postgres\0database\0postgres\0application_name\0writer\0\0";
        stream.write_all(&sized(start))?;
        let mut client = Self(stream);
        client.answer()?;
        Ok(client)
    }

    /// Runs statements and returns the first column of all rows. A warning is an error as well: a commit that was
    /// not waited for is told by one.
    pub fn query(&mut self, sql: &str) -> io::Result<Vec<String>> {
        let query = Frame::new(b'Q', [sql.as_bytes(), b"\0"].concat());
        self.0.write_all(&query.bytes())?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Vec<String>> {
        let mut values = Vec::new();
        let mut refusal = None;
        loop {
            let frame = Frame::read(&mut self.0)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            match frame.kind {
                b'Z' => return refusal.map_or(Ok(values), Err),
                b'D' => {
                    let size = u32::from_be_bytes(frame.body[2..6].try_into().unwrap()) as usize;
                    values.push(String::from_utf8_lossy(&frame.body[6..6 + size]).into_owned());
                }
                b'E' | b'N' => {
                    let words = String::from_utf8_lossy(&frame.body).replace('\0', " ");
                    refusal = refusal.or(Some(io::Error::other(words)));
                }
                _ => {}
            }
        }
    }
}
