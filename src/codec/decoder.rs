//! From the stored form of a WAL file back to its bytes.

use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::command::Program;
use super::decompress::{Decompressing, Format, WindowLimit};
use super::encoder::required_filter;
use super::error::CodecError;
use super::filter::FilterReader;
use super::gpg::{self, Passphrase};
use super::magic::identify_compression;
use super::openpgp::{is_encrypted, is_wal_page};
use super::{CodecOptions, Encoding};
use crate::config::{Compression, Encryption, ServerConfig};

/// Reads stored WAL files, whatever the configuration was when they were written.
pub struct Decoder {
    options: CodecOptions,
    window: WindowLimit,
    /// The command is run for the first encrypted file only: it may be slow, or ask a person.
    passphrase: Mutex<Option<Arc<Passphrase>>>,
}

impl Decoder {
    /// Never fails: what is missing matters only once a file needs it.
    pub fn new(server: &ServerConfig) -> Decoder {
        Decoder::with_options(CodecOptions::from(server))
    }

    /// [`Decoder::new`] for those who have the options without a server.
    pub fn with_options(options: CodecOptions) -> Decoder {
        Decoder {
            options,
            window: WindowLimit::Usual,
            passphrase: Mutex::new(None),
        }
    }

    /// Refuses files that take more than 32 MiB of memory to decode (zstd with `--ultra` or `--long`, xz with `-9`),
    /// where others decide what is to be decoded. Otherwise they are decoded, up to zstd's usual limit of 128 MiB.
    pub fn sparing(self) -> Decoder {
        Decoder {
            window: WindowLimit::Small,
            ..self
        }
    }

    /// Whether encrypted files can be read unattended: `encryption_passphrase_command` is set.
    ///
    /// Without it [`Decoder::decode`] still tries, and succeeds for a key that has no passphrase.
    pub fn can_decrypt(&self) -> bool {
        self.options.encryption_passphrase_command.is_some()
    }

    /// The clear bytes of `stored`, as a stream.
    ///
    /// The reader reports the end only when everything was there and every check of the format, and of every
    /// command involved, was passed; otherwise its last `read` fails. [`CodecError::from_read`] turns
    /// that error back into its cause. Bytes delivered before are to be thrown away then.
    ///
    /// What is *not* noticed: bytes altered (not missing) in zstd files without a checksum, which is how Barman
    /// writes them, and in LZ4 files without one; and a Snappy stream, or a file of several members or frames,
    /// that was cut exactly between two of them, unless it holds a WAL segment.
    ///
    /// # Errors
    ///
    /// - [`CodecError::Configuration`] for a custom compression without `custom_decompression_filter`.
    /// - [`CodecError::PassphraseCommand`] when the passphrase cannot be had.
    /// - [`CodecError::CommandNotStarted`] when gpg or the shell cannot be started.
    ///
    /// A file that needs more memory than it may have is a [`CodecError::Codec`] of the reader.
    pub fn decode(
        &self,
        stored: Box<dyn Read + Send>,
        encoding: &Encoding,
    ) -> Result<Box<dyn Read + Send>, CodecError> {
        let clear = match encoding.encryption {
            None => stored,
            Some(Encryption::Gpg) => self.decrypt(stored)?,
        };
        match encoding.compression {
            None => Ok(clear),
            Some(compression) => self.decompress(clear, compression),
        }
    }

    /// Takes the encryption off a stored file that has one, as its first bytes tell.
    ///
    /// # Errors
    ///
    /// Those of `stored`, and of [`Decoder::decode`].
    pub fn clear(&self, stored: Box<dyn Read + Send>) -> Result<Clear, CodecError> {
        let (mut head, mut stream) = peek_head(stored)?;
        let was_encrypted = is_encrypted(&head);
        if was_encrypted {
            (head, stream) = peek_head(self.decrypt(stream)?)?;
        }
        Ok(Clear {
            head,
            stream,
            was_encrypted,
        })
    }

    /// How a stored file that is not, or no longer, encrypted may be compressed, judged by its first bytes: what to try,
    /// in this order, until one succeeds. `None` is "as it is".
    ///
    /// As in Barman, `custom_decompression_filter` has the first word about everything compressed: what a custom filter
    /// writes may begin with another codec's magic. And with `compression = custom` but no
    /// `custom_compression_magic`, whatever is not recognised counts as custom; unlike in Barman, a raw WAL page
    /// is recognised, so that files from before that setting can be read.
    ///
    /// For files that come in, [`identify_compression`] alone is the answer.
    pub fn compressions_to_try(&self, head: &[u8]) -> Vec<Option<Compression>> {
        let options = &self.options;
        let is_custom = options.compression == Some(Compression::Custom);
        let custom_magic = options.custom_compression_magic.as_deref();
        match identify_compression(head, custom_magic.filter(|_| is_custom)) {
            Some(Compression::Custom) => vec![Some(Compression::Custom)],
            Some(identified) if options.custom_decompression_filter.is_some() => {
                vec![Some(Compression::Custom), Some(identified)]
            }
            Some(identified) => vec![Some(identified)],
            None if is_custom && custom_magic.is_none() && !is_wal_page(head) => {
                vec![Some(Compression::Custom)]
            }
            None => vec![None],
        }
    }

    fn decrypt(&self, stored: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, CodecError> {
        let path_prefix = self.options.path_prefix.as_deref();
        let reader = gpg::decrypt(self.passphrase()?, path_prefix, stored)?;
        Ok(Box::new(reader))
    }

    fn decompress(
        &self,
        stored: Box<dyn Read + Send>,
        compression: Compression,
    ) -> Result<Box<dyn Read + Send>, CodecError> {
        let format = match compression {
            // pigz writes ordinary gzip files.
            Compression::Gzip | Compression::PyGzip | Compression::Pigz => Format::Gzip,
            Compression::Bzip2 | Compression::PyBzip2 => Format::Bzip2,
            Compression::Xz => Format::Xz,
            Compression::Zstd => Format::Zstd,
            Compression::Lz4 => Format::Lz4,
            Compression::Snappy => Format::Snappy,
            Compression::Custom => return self.filter(stored),
        };
        Ok(Box::new(Decompressing::new(format, self.window, stored)?))
    }

    fn filter(&self, stored: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, CodecError> {
        let options = &self.options;
        let line = required_filter("decompression", &options.custom_decompression_filter)?;
        let program = Program::careful_shell(line, options.path_prefix.as_deref());
        let reader = FilterReader::start(program, |_| Ok(()), stored)?;
        Ok(Box::new(reader))
    }

    fn passphrase(&self) -> Result<Option<Arc<Passphrase>>, CodecError> {
        let Some(line) = &self.options.encryption_passphrase_command else {
            return Ok(None);
        };
        // Held while the command runs: two threads must not ask a person twice.
        let mut known = self
            .passphrase
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            let path_prefix = self.options.path_prefix.as_deref();
            *known = Some(Arc::new(Passphrase::ask(line, path_prefix)?));
        }
        Ok(known.clone())
    }
}

/// A stored file without its encryption, if it had any.
pub struct Clear {
    /// Its first bytes, up to [`HEAD_SIZE_BYTES`](super::HEAD_SIZE_BYTES): they tell how it is compressed.
    pub head: Vec<u8>,
    /// All of it.
    pub stream: Box<dyn Read + Send>,
    /// Whether it is encrypted as it is stored.
    pub was_encrypted: bool,
}

/// Reads the first [`HEAD_SIZE_BYTES`](super::HEAD_SIZE_BYTES) of a stream, or less if it ends, and returns them with a
/// reader that starts from the beginning again.
///
/// # Errors
///
/// Those of `stored`; [`CodecError::from_read`] knows what they mean when it came from [`Decoder::decode`].
pub fn peek_head(
    mut stored: Box<dyn Read + Send>,
) -> Result<(Vec<u8>, Box<dyn Read + Send>), CodecError> {
    let mut head = Vec::new();
    stored
        .by_ref()
        .take(super::HEAD_SIZE_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(CodecError::from_read)?;
    let whole = Cursor::new(head.clone()).chain(stored);
    Ok((head, Box::new(whole)))
}
