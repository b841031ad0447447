//! Decoding a zstd file in memory, on two threads if it has two parts.

use std::hash::Hasher;
use std::io::{self, Cursor, Read};
use std::mem;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;
use twox_hash::XxHash64;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::error::CodecError;
use super::flow::head;
use super::memory::Memory;
use super::segment_size::SegmentSize;
use super::zstd_parts::{
    CHECKSUM_SIZE_BYTES, SeamSearch, checksum, content_bytes, hasher, second_header,
};

/// How much is read and handed to a decoder at a time.
const PIECE_SIZE_BYTES: usize = 128 << 10;

/// How much decoded content is handed out at a time, at least. Little is still in the processor's cache, but with much the
/// page cache needs fewer and larger pages.
const HANDED_OUT_BYTES_MIN: usize = 1 << 20;

/// More than a stored file is larger than its content.
const EXCESS_SIZE_BYTES: usize = 256 << 10;

/// Takes decoded content: where it begins in the file, and the bytes.
pub type Taker<'a> = &'a mut (dyn FnMut(usize, &[u8]) -> io::Result<()> + Send);

/// The taker, for the thread whose turn it is. Two that write to one file wait for each other (the kernel lets one in
/// at a time), so whoever finds it taken goes on decoding, and hands out more later.
type Turn<'a> = Mutex<Taker<'a>>;

/// Memory for a zstd file that states its size, as it is stored and as its content.
///
/// A file of two parts (see `zstd_parts`) is decoded by two threads. Either keeps its own part, from decoding to writing:
/// bytes that one processor has in its cache can take another one longer to get than to decode.
pub struct FileInMemory {
    stored: Memory,
    read_bytes: usize,
    content: Memory,
    second_header: [u8; 6],
}

impl FileInMemory {
    /// For the file that begins with `head`, its first [`HEAD_SIZE_BYTES`](super::HEAD_SIZE_BYTES). `None` if that is not
    /// a zstd file with its size and a checksum, the content is larger than `size_bytes_max`, or there is no memory.
    pub fn new(head: &[u8], size_bytes_max: usize) -> Option<Self> {
        let size_bytes = content_bytes(head).filter(|size| *size <= size_bytes_max)?;
        Some(FileInMemory {
            stored: Memory::new(size_bytes + EXCESS_SIZE_BYTES).ok()?,
            read_bytes: 0,
            content: Memory::new(size_bytes).ok()?,
            second_header: second_header(head)?,
        })
    }

    /// The size of the content.
    pub fn content_bytes(&self) -> usize {
        self.content.len()
    }

    /// The beginning of the content, once it was decoded: up to so many bytes, which are in the first part.
    pub fn beginning(&self, size_bytes: usize) -> &[u8] {
        head(&self.content, size_bytes)
    }

    /// What was read of the stored file.
    pub fn into_read(self) -> impl Read + Send {
        Cursor::new(self.stored).take(self.read_bytes as u64)
    }

    /// Reads the file from its first byte on, decodes it, and hands the content to `take` meanwhile.
    ///
    /// False means that the file is not good, or not what it seems to be: whoever decodes it in the ordinary way will
    /// know. What `take` got is to be thrown away then. True means that it was decoded to its end and has its checksum.
    ///
    /// # Errors
    ///
    /// [`CodecError::WriteSink`] with the first error of `take`, and what reading `file` fails with.
    pub fn decode(
        &mut self,
        file: &mut (dyn Read + Send),
        take: Taker<'_>,
    ) -> Result<bool, CodecError> {
        let content_bytes = self.content.len();
        let content = &mut self.content[..];
        let turn = Mutex::new(take);
        let turn = &turn;
        let second_header = &self.second_header;
        let mut reading = Reading {
            file,
            room: &mut self.stored,
            read_bytes: &mut self.read_bytes,
        };
        let decoded = thread::scope(|scope| {
            let (sender, pieces) = mpsc::channel::<&[u8]>();
            let first = thread::Builder::new().spawn_scoped(scope, move || {
                let mut part = Part::new(content, 0, turn);
                part.digest = Some(hasher());
                for piece in pieces {
                    part.feed(piece)?;
                }
                part.end()
            });
            let first = first.ok()?;
            step_aside();
            let second = reading.feed_first(sender, content_bytes).and_then(|found| {
                let Some((start, beginning)) = found else {
                    return Ok(Rest::Nothing);
                };
                reading.decode_second(start..content_bytes, [second_header, beginning], turn)
            });
            soon(|| first.is_finished().then_some(()));
            let first = first.join().unwrap_or_else(|panic| resume_unwind(panic));
            Some((first, second))
        });
        // The system has no second thread to give.
        let Some((first, second)) = decoded else {
            return Ok(false);
        };
        let first = first.map_err(CodecError::WriteSink)?;
        let stored = head(&self.stored, self.read_bytes);
        let is_good = is_whole(first, second?, content_bytes, stored);
        // What fills all its room may go on behind it.
        Ok(is_good && self.read_bytes < self.stored.len() && !self.is_cut())
    }

    /// Whether the content is less than a segment that says how large it is.
    fn is_cut(&self) -> bool {
        let mut size = SegmentSize::default();
        size.watch(&self.content);
        size.complaint().is_some()
    }
}

/// The stored file, on its way into memory.
struct Reading<'a, 'b> {
    file: &'b mut (dyn Read + Send),
    room: &'a mut [u8],
    read_bytes: &'b mut usize,
}

impl<'a> Reading<'a, '_> {
    /// The next piece; the last one is shorter.
    fn next(&mut self) -> Result<&'a [u8], CodecError> {
        let size_bytes = self.room.len().min(PIECE_SIZE_BYTES);
        let (piece, rest) = mem::take(&mut self.room).split_at_mut(size_bytes);
        self.room = rest;
        let mut filled_bytes = 0;
        while let Some(missing) = piece
            .get_mut(filled_bytes..)
            .filter(|room| !room.is_empty())
        {
            match self.file.read(missing) {
                Ok(0) => break,
                Ok(count) => filled_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CodecError::from_read(error)),
            }
        }
        *self.read_bytes += filled_bytes;
        Ok(head(piece, filled_bytes))
    }

    /// Hands on what belongs to the first part. Returns where the second one begins in the content, and the beginning
    /// of it as it is stored; `None` if there is none.
    fn feed_first(
        &mut self,
        sender: mpsc::Sender<&'a [u8]>,
        content_bytes: usize,
    ) -> Result<Option<(usize, &'a [u8])>, CodecError> {
        let mut search = SeamSearch::new();
        loop {
            let piece = self.next()?;
            let end = search.find_end(piece);
            let (first, rest) = piece.split_at(end.unwrap_or(piece.len()));
            // Whoever takes no more has found out that the file is not good.
            let _ = sender.send(first);
            if end.is_some() {
                return Ok(Some((search.second_start(content_bytes), rest)));
            }
            if piece.len() < PIECE_SIZE_BYTES {
                return Ok(None);
            }
        }
    }

    /// Decodes the second part, from its `beginning` on, to where it is in the content.
    fn decode_second(
        &mut self,
        place: Range<usize>,
        beginning: [&[u8]; 2],
        turn: &Turn<'_>,
    ) -> Result<Rest, CodecError> {
        // Also where the place is empty: then this is no seam.
        let Ok(mut content) = Memory::new(place.len()) else {
            return Ok(Rest::Lost);
        };
        let mut part = Part::new(&mut content, place.start, turn);
        for piece in beginning {
            part.feed(piece).map_err(CodecError::WriteSink)?;
        }
        loop {
            let piece = self.next()?;
            part.feed(piece).map_err(CodecError::WriteSink)?;
            if piece.len() < PIECE_SIZE_BYTES {
                break;
            }
        }
        let end = part.end().map_err(CodecError::WriteSink)?;
        Ok(Rest::Second {
            content,
            place,
            end,
        })
    }
}

/// What comes behind the part that begins the file.
enum Rest {
    Nothing,
    Lost,
    Second {
        content: Memory,
        place: Range<usize>,
        end: End,
    },
}

/// One part, decoded without the other into memory of its own.
struct Part<'a, 't> {
    /// `None` when it is of no use any more.
    decoder: Option<DCtx<'static>>,
    content: OutBuffer<'a, [u8]>,
    start: usize,
    turn: &'a Turn<'t>,
    taken_bytes: usize,
    digest: Option<XxHash64>,
    digested_bytes: usize,
    has_ended: bool,
    /// How much came behind the end of the frame.
    left_bytes: usize,
}

/// How a part ended.
struct End {
    content_bytes: usize,
    digest: Option<XxHash64>,
    /// How much came behind the end of the frame; `None` if that was not reached.
    left_bytes: Option<usize>,
    is_good: bool,
}

impl<'a, 't> Part<'a, 't> {
    fn new(content: &'a mut [u8], start: usize, turn: &'a Turn<'t>) -> Self {
        Part {
            decoder: decoder(),
            content: OutBuffer::around(content),
            start,
            turn,
            taken_bytes: 0,
            digest: None,
            digested_bytes: 0,
            has_ended: false,
            left_bytes: 0,
        }
    }

    /// Decodes what comes next.
    fn feed(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(piece);
        while input.pos() < piece.len() && !self.has_ended {
            let Some(decoder) = &mut self.decoder else {
                return Ok(());
            };
            let before = input.pos();
            let missing_bytes = decoder.decompress_stream(&mut self.content, &mut input);
            self.has_ended = missing_bytes == Ok(0);
            if missing_bytes.is_err() || input.pos() == before {
                self.decoder = None;
            }
        }
        self.left_bytes += piece.len() - input.pos();
        if let Some(digest) = &mut self.digest {
            let fresh = self.content.as_slice().get(self.digested_bytes..);
            digest.write(fresh.unwrap_or_default());
            self.digested_bytes = self.content.pos();
        }
        if self.content.pos() - self.taken_bytes < HANDED_OUT_BYTES_MIN {
            return Ok(());
        }
        match self.turn.try_lock() {
            Ok(mut take) => self.hand_out(&mut take),
            Err(_) => Ok(()),
        }
    }

    fn hand_out(&mut self, take: &mut Taker<'_>) -> io::Result<()> {
        let decoded = self.content.as_slice().get(self.taken_bytes..);
        take(self.start + self.taken_bytes, decoded.unwrap_or_default())?;
        self.taken_bytes = self.content.pos();
        Ok(())
    }

    fn end(mut self) -> io::Result<End> {
        let turn = self.turn;
        let mut take = soon(|| turn.try_lock().ok())
            .unwrap_or_else(|| turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.hand_out(&mut take)?;
        Ok(End {
            content_bytes: self.taken_bytes,
            digest: self.digest,
            left_bytes: self.has_ended.then_some(self.left_bytes),
            is_good: self.decoder.is_some(),
        })
    }
}

/// Leaves this processor to the thread that was just started, which on a virtual machine may otherwise wait a
/// millisecond for one of its own. Where there is no other processor nothing happens.
fn step_aside() {
    let this_thread = Pid::from_raw(0);
    let (Ok(here), Ok(anywhere)) = (sched_getcpu(), sched_getaffinity(this_thread)) else {
        return;
    };
    let mut elsewhere = anywhere;
    if elsewhere.unset(here).is_ok() && sched_setaffinity(this_thread, &elsewhere).is_ok() {
        // It has moved, and may be moved again.
        let _ = sched_setaffinity(this_thread, &anywhere);
    }
}

/// How long it is waited for what the other thread will have done at any moment.
const PATIENCE: Duration = Duration::from_millis(3);

/// Looks for something until it is there or the patience is over. Whoever sleeps leaves a processor idle, and it can take
/// a virtual one a millisecond to wake.
fn soon<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() > PATIENCE {
            return found;
        }
        thread::yield_now();
    }
}

/// One that decodes right into the memory it is given, which must stay the same. The checksum is ours to look at.
fn decoder() -> Option<DCtx<'static>> {
    let mut decoder = DCtx::try_create()?;
    for parameter in [
        DParameter::StableOutBuffer(true),
        DParameter::ForceIgnoreChecksum(true),
    ] {
        decoder.set_parameter(parameter).ok()?;
    }
    Some(decoder)
}

/// Whether the parts are a whole content of this size, and `stored` ends with its checksum.
fn is_whole(first: End, rest: Rest, content_bytes: usize, stored: &[u8]) -> bool {
    let (Some(mut digest), true) = (first.digest, first.is_good) else {
        return false;
    };
    match rest {
        Rest::Lost => return false,
        // The frame's own end includes the checksum.
        Rest::Nothing => {
            if (first.left_bytes, first.content_bytes) != (Some(0), content_bytes) {
                return false;
            }
        }
        Rest::Second {
            content,
            place,
            end,
        } => {
            let (joint, size) = (first.content_bytes, end.content_bytes);
            let fits = first.left_bytes.is_none()
                && end.left_bytes == Some(CHECKSUM_SIZE_BYTES)
                && end.is_good;
            if !fits || (joint, size) != (place.start, place.len()) {
                return false;
            }
            digest.write(&content);
        }
    }
    stored.ends_with(&checksum(&digest))
}
