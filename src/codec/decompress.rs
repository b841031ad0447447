//! In-process decompression, strict about the end: data that stops too early, or goes on too long, is an error.

use std::io::{self, BufRead, BufReader, Read};

use xz2::stream::{CONCATENATED, Stream};
use zstd::zstd_safe;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;

use super::error::CodecError;
use super::flow::Stored;
use super::lz4_frames::Lz4Frames;
use super::segment_size::SegmentSize;
use super::snappy_stream::SnappyStream;

/// How much of the stored file is read at a time.
const INPUT_SIZE_BYTES: usize = 128 * 1024;

/// The formats, as opposed to the names `compression` has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
    Lz4,
    Snappy,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Bzip2 => "bzip2",
            Format::Xz => "xz",
            Format::Zstd => "zstd",
            Format::Lz4 => "lz4",
            Format::Snappy => "snappy",
        }
    }
}

type Input = BufReader<Stored>;

enum Codec {
    Gzip(flate2::bufread::MultiGzDecoder<Input>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Input>),
    Xz(xz2::bufread::XzDecoder<Input>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input>>),
    Lz4(Lz4Frames<Input>),
    Snappy(SnappyStream<Input>),
}

/// How much a decoder remembers of what it has decoded already. The file says how much it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WindowLimit {
    /// What the usual programs take: 128 MiB for zstd, as in Barman and `zstd -d`, and all that an xz file asks for.
    Usual,
    /// 32 MiB. None of zstd's levels up to 19 needs more than 8, and none of xz's but the last.
    Small,
}

impl WindowLimit {
    /// As a power of two.
    fn zstd_log(self) -> u32 {
        match self {
            WindowLimit::Usual => 27,
            WindowLimit::Small => 25,
        }
    }

    fn text(self) -> &'static str {
        match self {
            WindowLimit::Usual => "128 MiB",
            WindowLimit::Small => "32 MiB",
        }
    }

    /// For everything together.
    fn xz_memory_bytes(self) -> u64 {
        match self {
            WindowLimit::Usual => u64::MAX,
            WindowLimit::Small => 33 << 20,
        }
    }
}

impl Codec {
    fn new(format: Format, window: WindowLimit, input: Input) -> io::Result<Codec> {
        Ok(match format {
            // Like the command-line tools, all of these go on with the next member, stream or frame.
            Format::Gzip => Codec::Gzip(flate2::bufread::MultiGzDecoder::new(input)),
            Format::Bzip2 => Codec::Bzip2(bzip2::bufread::MultiBzDecoder::new(input)),
            Format::Xz => {
                let stream = Stream::new_auto_decoder(window.xz_memory_bytes(), CONCATENATED)?;
                Codec::Xz(xz2::bufread::XzDecoder::new_stream(input, stream))
            }
            Format::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(window.zstd_log())?;
                Codec::Zstd(Box::new(decoder))
            }
            Format::Lz4 => Codec::Lz4(Lz4Frames::new(input)),
            Format::Snappy => Codec::Snappy(SnappyStream::new(input)),
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Codec::Gzip(decoder) => decoder.read(buffer),
            Codec::Bzip2(decoder) => decoder.read(buffer),
            Codec::Xz(decoder) => decoder.read(buffer),
            Codec::Zstd(decoder) => decoder.read(buffer),
            Codec::Lz4(decoder) => decoder.read(buffer),
            Codec::Snappy(decoder) => decoder.read(buffer),
        }
    }

    fn input(&mut self) -> &mut Input {
        match self {
            Codec::Gzip(decoder) => decoder.get_mut(),
            Codec::Bzip2(decoder) => decoder.get_mut(),
            Codec::Xz(decoder) => decoder.get_mut(),
            Codec::Zstd(decoder) => decoder.get_mut(),
            Codec::Lz4(decoder) => decoder.get_mut(),
            Codec::Snappy(decoder) => decoder.get_mut(),
        }
    }
}

/// Where a [`Decompressing`] reader stands.
enum State {
    /// Nothing was read yet.
    Fresh,
    Running,
    /// Everything was delivered and found complete.
    Ended,
    /// An error was delivered; the same reader never recovers from it.
    Failed,
}

/// The reader behind [`Decoder::decode`](super::Decoder::decode) for the formats handled in process.
pub(super) struct Decompressing {
    format: Format,
    window: WindowLimit,
    codec: Codec,
    size: SegmentSize,
    state: State,
}

impl Decompressing {
    pub(super) fn new(
        format: Format,
        window: WindowLimit,
        stored: Box<dyn Read + Send>,
    ) -> Result<Decompressing, CodecError> {
        let input = BufReader::with_capacity(INPUT_SIZE_BYTES, Stored::new(stored));
        let codec = Codec::new(format, window, input).map_err(|error| CodecError::Codec {
            codec: format.name(),
            detail: error.to_string(),
        })?;
        Ok(Decompressing {
            format,
            window,
            codec,
            size: SegmentSize::default(),
            state: State::Fresh,
        })
    }

    /// No format has a form without any byte, and several decoders would take it for empty content.
    fn refuse_empty_input(&mut self) -> io::Result<()> {
        if self.codec.input().fill_buf()?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is empty",
            ));
        }
        Ok(())
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if matches!(self.state, State::Fresh) {
            self.refuse_empty_input()?;
            self.state = State::Running;
        }
        let count = self.codec.read(buffer)?;
        if count == 0 {
            // Also makes sure that a command in front of us has ended, and ended well.
            if !self.codec.input().fill_buf()?.is_empty() {
                return Err(io::Error::other("there are other bytes behind its end"));
            }
            if let Some(complaint) = self.size.complaint() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, complaint));
            }
            self.state = State::Ended;
        }
        self.size.watch(super::flow::head(buffer, count));
        Ok(count)
    }

    fn explain(&mut self, error: io::Error) -> io::Error {
        if let Some(original) = self.codec.input().get_mut().take_failure() {
            return original;
        }
        let codec = self.format.name();
        match error.kind() {
            _ if is_about_memory(&error) => CodecError::Codec {
                codec,
                detail: format!("{error} (it may have {})", self.window.text()),
            },
            io::ErrorKind::UnexpectedEof => CodecError::Damaged {
                codec,
                detail: format!("it ends too early ({error})"),
            },
            _ => CodecError::Damaged {
                codec,
                detail: error.to_string(),
            },
        }
        .into_read()
    }
}

/// Whether there is not enough memory, or more would be needed than is allowed: the file may be good.
fn is_about_memory(error: &io::Error) -> bool {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return matches!(
            error,
            xz2::stream::Error::Mem | xz2::stream::Error::MemLimit
        );
    }
    let zstd_says = |code: ZSTD_ErrorCode| {
        // The library returns its codes as negative numbers of an unsigned type.
        let code = (code as usize).wrapping_neg();
        error.to_string() == zstd_safe::get_error_name(code)
    };
    error.kind() == io::ErrorKind::OutOfMemory
        || zstd_says(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge)
        || zstd_says(ZSTD_ErrorCode::ZSTD_error_memory_allocation)
}

impl Read for Decompressing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.state {
            _ if buffer.is_empty() => return Ok(0),
            State::Ended => return Ok(0),
            State::Failed => return Err(io::Error::other("reading goes on after an error")),
            State::Fresh | State::Running => {}
        }
        self.step(buffer).map_err(|error| {
            self.state = State::Failed;
            self.explain(error)
        })
    }
}
