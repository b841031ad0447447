//! The part of a server's configuration that concerns codecs.

use crate::config::{Compression, CompressionLevel, Encryption, ServerConfig};

/// What an [`Encoder`](super::Encoder) and a [`Decoder`](super::Decoder) have to know. Names and meanings are those of the
/// server options; the default is to store files as they are.
#[derive(Clone, Debug, Default)]
pub struct CodecOptions {
    /// `compression`
    pub compression: Option<Compression>,
    /// `compression_level`
    pub compression_level: CompressionLevel,
    /// `custom_compression_filter`, a shell command line.
    pub custom_compression_filter: Option<String>,
    /// `custom_decompression_filter`, a shell command line.
    pub custom_decompression_filter: Option<String>,
    /// `custom_compression_magic`
    pub custom_compression_magic: Option<Vec<u8>>,
    /// `encryption`
    pub encryption: Option<Encryption>,
    /// `encryption_key_id`
    pub encryption_key_id: Option<String>,
    /// `encryption_passphrase_command`, a shell command line.
    pub encryption_passphrase_command: Option<String>,
    /// `path_prefix`
    pub path_prefix: Option<String>,
}

impl From<&ServerConfig> for CodecOptions {
    fn from(server: &ServerConfig) -> CodecOptions {
        CodecOptions {
            compression: server.compression,
            compression_level: server.compression_level,
            custom_compression_filter: server.custom_compression_filter.clone(),
            custom_decompression_filter: server.custom_decompression_filter.clone(),
            custom_compression_magic: server.custom_compression_magic.clone(),
            encryption: server.encryption,
            encryption_key_id: server.encryption_key_id.clone(),
            encryption_passphrase_command: server.encryption_passphrase_command.clone(),
            path_prefix: server.path_prefix.clone(),
        }
    }
}
