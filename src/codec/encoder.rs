//! From the bytes of a WAL file to its stored form.

use std::io::{Read, Write};
use std::num::NonZeroUsize;

use super::command::Program;
use super::compress::{ScratchPool, compress};
use super::error::CodecError;
use super::filter::pipe_through;
use super::flow::{Output, Roomless};
use super::level::{self, Setting};
use super::{CodecOptions, Encoding, gpg};
use crate::config::{Compression, Encryption, ServerConfig};

/// Brings WAL files into the stored form that a server's configuration asks for.
///
/// Built once per run and shared by all worker threads. It keeps buffers and compression contexts from file
/// to file: about 3 MiB for each thread that encodes at the same time, with zstd 24 MiB for two of them, and what the
/// codec itself needs.
pub struct Encoder {
    compression: Option<Stage>,
    encryption: Option<(Encryption, Program)>,
    level_notice: Option<String>,
    pool: ScratchPool,
}

/// The configured compression.
struct Stage {
    name: Compression,
    how: How,
}

enum How {
    InProcess(Setting),
    Command(Program),
}

impl Encoder {
    /// Prepares what `compression`, `encryption` and the options around them say.
    ///
    /// # Errors
    ///
    /// [`CodecError::Configuration`] for `compression = custom` without both filters, and for `encryption =
    /// gpg` without `encryption_key_id`.
    pub fn new(server: &ServerConfig) -> Result<Encoder, CodecError> {
        Encoder::with_options(&CodecOptions::from(server))
    }

    /// [`Encoder::new`] for those who have the options without a server.
    ///
    /// # Errors
    ///
    /// As [`Encoder::new`].
    pub fn with_options(options: &CodecOptions) -> Result<Encoder, CodecError> {
        let (compression, level_notice) = match options.compression {
            Some(name) => stage(name, options)?,
            None => (None, None),
        };
        let encryption = match options.encryption {
            Some(Encryption::Gpg) => {
                let path_prefix = options.path_prefix.as_deref();
                let program = gpg::encryption(gpg::key_id(options)?, path_prefix);
                Some((Encryption::Gpg, program))
            }
            None => None,
        };
        Ok(Encoder {
            compression,
            encryption,
            level_notice,
            pool: ScratchPool::ample(),
        })
    }

    /// With less memory and a little more time: for those who hold in memory what is encoded.
    #[must_use]
    pub fn sparing(mut self) -> Encoder {
        self.pool = ScratchPool::scarce();
        self
    }

    /// Barman's sentence about a `compression_level` that is out of range and was replaced by the nearest
    /// valid one.
    pub fn level_notice(&self) -> Option<&str> {
        self.level_notice.as_deref()
    }

    /// True when [`Encoder::encode`] would write the very bytes it reads, so that a link serves as well as a copy.
    ///
    /// `carried` is the compression the source has already.
    pub fn is_identity(&self, carried: Option<Compression>) -> bool {
        self.encryption.is_none() && (carried.is_some() || self.compression.is_none())
    }

    /// What [`Encoder::encode`] will return for a source that carries `carried`.
    pub fn encoding(&self, carried: Option<Compression>) -> Encoding {
        Encoding {
            compression: carried.or(self.compression.as_ref().map(|stage| stage.name)),
            encryption: self.encryption.as_ref().map(|(encryption, _)| *encryption),
        }
    }

    /// Reads `source` to its end and writes the stored form to `sink`, which is flushed at the end.
    ///
    /// A source that is compressed already (`carried`) is not compressed again. On error `sink` holds an
    /// unusable beginning that the caller has to throw away.
    ///
    /// # Errors
    ///
    /// - [`CodecError::ReadSource`] and [`CodecError::WriteSink`], with the original error inside.
    /// - [`CodecError::SourceSize`] when there are more or fewer than `source_size_bytes` bytes.
    /// - [`CodecError::CommandNotStarted`] and [`CodecError::CommandFailed`] about gpg, pigz and custom filters.
    /// - [`CodecError::Codec`] when a compressor gives up, which takes lack of memory.
    pub fn encode(
        &self,
        source: &mut (dyn Read + Send),
        source_size_bytes: u64,
        carried: Option<Compression>,
        sink: &mut (dyn Write + Send),
    ) -> Result<Encoding, CodecError> {
        let threads = NonZeroUsize::MIN;
        let sink = &mut Roomless(sink);
        self.encode_on_threads(threads, source, source_size_bytes, carried, sink)
    }

    /// [`Encoder::encode`] for a file that nothing else is encoded beside: zstd, unless told to search hard, uses
    /// up to `threads` cores for it.
    ///
    /// # Errors
    ///
    /// As [`Encoder::encode`].
    pub fn encode_on_threads(
        &self,
        threads: NonZeroUsize,
        source: &mut (dyn Read + Send),
        source_size_bytes: u64,
        carried: Option<Compression>,
        sink: &mut dyn Output,
    ) -> Result<Encoding, CodecError> {
        let stage = self.compression.as_ref().filter(|_| carried.is_none());
        match &self.encryption {
            None => self.write(stage, threads, source, source_size_bytes, sink)?,
            Some((Encryption::Gpg, program)) => pipe_through(
                program,
                |stdin| {
                    let stdin = &mut Roomless(stdin);
                    self.write(stage, threads, source, source_size_bytes, stdin)
                },
                sink,
            )?,
        }
        Ok(self.encoding(carried))
    }

    fn write(
        &self,
        stage: Option<&Stage>,
        threads: NonZeroUsize,
        source: &mut (dyn Read + Send),
        source_size_bytes: u64,
        sink: &mut dyn Output,
    ) -> Result<(), CodecError> {
        let run = |setting, source: &mut (dyn Read + Send), sink: &mut dyn Output| {
            compress(
                setting,
                threads,
                source,
                source_size_bytes,
                sink,
                &self.pool,
            )
        };
        match stage.map(|stage| &stage.how) {
            None => run(None, source, sink),
            Some(How::InProcess(setting)) => run(Some(setting), source, sink),
            Some(How::Command(program)) => {
                let feed = |stdin: &mut (dyn Write + Send)| run(None, source, &mut Roomless(stdin));
                pipe_through(program, feed, sink)
            }
        }
    }
}

fn stage(
    name: Compression,
    options: &CodecOptions,
) -> Result<(Option<Stage>, Option<String>), CodecError> {
    let (setting, notice) = level::resolve(name, options.compression_level);
    let path_prefix = options.path_prefix.as_deref();
    let how = match setting {
        Setting::Pigz { level } => {
            let level = format!("-{level}");
            How::Command(Program::new("pigz", ["-c", &level], path_prefix))
        }
        Setting::Custom => {
            let filter = required_filter("compression", &options.custom_compression_filter)?;
            // What cannot be read back is not written either.
            required_filter("decompression", &options.custom_decompression_filter)?;
            How::Command(Program::careful_shell(filter, path_prefix))
        }
        in_process => How::InProcess(in_process),
    };
    Ok((Some(Stage { name, how }), notice))
}

/// The custom filter of one direction, `compression` or `decompression`.
pub(super) fn required_filter<'a>(
    direction: &str,
    filter: &'a Option<String>,
) -> Result<&'a str, CodecError> {
    filter
        .as_deref()
        .filter(|line| !line.trim().is_empty())
        .ok_or_else(|| CodecError::Configuration {
            message: format!("compression is custom, but custom_{direction}_filter is not set"),
            hint: format!(
                "set custom_{direction}_filter to a shell command that reads standard input and writes standard output."
            ),
        })
}
