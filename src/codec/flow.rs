//! The two ends of an encoding run. They remember the first error of the operating system, because the
//! codec in between may swallow, wrap or repeat it, and they stop the flow once it is broken.

use std::cell::Cell;
use std::io::{self, Read, Write};

use super::error::CodecError;

/// Set once the run cannot succeed any more. Encoders write their trailer when they are dropped; without
/// this switch a read error would leave a shorter, but perfectly well-formed, file behind.
#[derive(Default)]
pub(super) struct Broken(Cell<bool>);

impl Broken {
    fn set(&self) {
        self.0.set(true);
    }

    fn is_set(&self) -> bool {
        self.0.get()
    }
}

/// The side the bytes come from.
pub(super) struct Source<'a> {
    inner: &'a mut (dyn Read + Send),
    expected_bytes: u64,
    read_bytes: u64,
    broken: &'a Broken,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        inner: &'a mut (dyn Read + Send),
        expected_bytes: u64,
        broken: &'a Broken,
    ) -> Source<'a> {
        Source {
            inner,
            expected_bytes,
            read_bytes: 0,
            broken,
        }
    }

    /// The size in bytes that the caller announced.
    pub(super) fn expected_bytes(&self) -> u64 {
        self.expected_bytes
    }

    /// Whether all announced bytes were read. One more [`Source::next`] tells whether there are others.
    pub(super) fn is_complete(&self) -> bool {
        self.read_bytes == self.expected_bytes
    }

    /// The next piece, as long as `buffer` unless the source ends; empty at its end.
    ///
    /// Full buffers matter: a codec is fastest with few large calls, and some sources read little at a time.
    pub(super) fn next<'b>(&mut self, buffer: &'b mut [u8]) -> Result<&'b [u8], CodecError> {
        let mut filled_bytes = 0;
        while let Some(rest) = buffer
            .get_mut(filled_bytes..)
            .filter(|rest| !rest.is_empty())
        {
            match self.inner.read(rest) {
                Ok(0) => break,
                Ok(count) => filled_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken.set();
                    return Err(CodecError::ReadSource(error));
                }
            }
        }
        self.read_bytes += filled_bytes as u64;
        let ended = filled_bytes < buffer.len();
        if self.read_bytes > self.expected_bytes || (ended && self.read_bytes < self.expected_bytes)
        {
            self.broken.set();
            return Err(CodecError::SourceSize {
                expected_bytes: self.expected_bytes,
                read_bytes: self.read_bytes,
            });
        }
        Ok(head(buffer, filled_bytes))
    }
}

/// What stored bytes are written to.
pub trait Output: Write + Send {
    /// Memory, `size_bytes` long, for what would be written next: who puts it there and says so with
    /// [`Output::fill`] spares a copy, and does not wait for a disk. Some outputs have none, or none that large.
    fn room(&mut self, size_bytes: usize) -> Option<&mut [u8]> {
        let _ = size_bytes;
        None
    }

    /// Takes the first `filled_bytes` of the room as written.
    fn fill(&mut self, filled_bytes: usize) {
        let _ = filled_bytes;
    }
}

/// Any writer as an [`Output`], without room.
pub struct Roomless<'a>(pub &'a mut (dyn Write + Send));

impl Write for Roomless<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output for Roomless<'_> {}

/// The side the bytes go to.
pub(super) struct Sink<'a> {
    inner: &'a mut dyn Output,
    failure: Option<io::Error>,
    broken: &'a Broken,
}

impl<'a> Sink<'a> {
    pub(super) fn new(inner: &'a mut dyn Output, broken: &'a Broken) -> Sink<'a> {
        Sink {
            inner,
            failure: None,
            broken,
        }
    }

    /// What the run ends with: the sink's own failure goes before whatever the codec made of it.
    pub(super) fn conclude(self, result: Result<(), CodecError>) -> Result<(), CodecError> {
        match self.failure {
            Some(original) => Err(CodecError::WriteSink(original)),
            None => result,
        }
    }

    /// See [`Output::room`].
    pub(super) fn room(&mut self, size_bytes: usize) -> Option<&mut [u8]> {
        self.inner.room(size_bytes)
    }

    /// See [`Output::fill`].
    pub(super) fn fill(&mut self, filled_bytes: usize) {
        self.inner.fill(filled_bytes);
    }

    fn fail(&mut self, original: io::Error) -> io::Error {
        self.broken.set();
        let stand_in = io::Error::from(original.kind());
        self.failure = Some(original);
        stand_in
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken.is_set() {
            return Err(io::Error::other("the run is broken off"));
        }
        loop {
            return match self.inner.write(bytes) {
                Ok(0) if !bytes.is_empty() => Err(self.fail(io::ErrorKind::WriteZero.into())),
                Ok(count) => Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(self.fail(error)),
            };
        }
    }

    /// Codecs flush their buffers into the sink; only [`flush_all`] flushes the sink itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Flushes the caller's writer at the end of a run, where its last error would otherwise be lost.
pub(super) fn flush_all(sink: &mut dyn Write) -> Result<(), CodecError> {
    sink.flush().map_err(CodecError::WriteSink)
}

/// The side stored bytes are read from when decoding.
pub(super) struct Stored {
    inner: Box<dyn Read + Send>,
    failure: Option<io::Error>,
}

impl Stored {
    pub(super) fn new(inner: Box<dyn Read + Send>) -> Stored {
        Stored {
            inner,
            failure: None,
        }
    }

    /// The reader's own error, if it had one.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            return match self.inner.read(buffer) {
                Ok(count) => Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // Not UnexpectedEof and the like: a codec may take those for the end of the data.
                    self.failure = Some(error);
                    Err(io::Error::other("the stored file cannot be read"))
                }
            };
        }
    }
}

/// The first `count_bytes` of `buffer`, or all of it.
pub(super) fn head(buffer: &[u8], count_bytes: usize) -> &[u8] {
    buffer.get(..count_bytes).unwrap_or(buffer)
}
