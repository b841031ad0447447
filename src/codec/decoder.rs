//! From the stored form of a WAL file back to its bytes.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use super::command::Program;
use super::decompress::{Decompressing, Format};
use super::encoder::required_filter;
use super::error::CodecError;
use super::filter::FilterReader;
use super::gpg::{self, Passphrase};
use super::{CodecOptions, Encoding};
use crate::config::{Compression, Encryption, ServerConfig};

/// Reads stored WAL files, whatever the configuration was when they were written.
pub struct Decoder {
    options: CodecOptions,
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
            passphrase: Mutex::new(None),
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
        Ok(Box::new(Decompressing::new(format, stored)?))
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
