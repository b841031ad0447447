//! Which codec a file carries, as far as its first bytes tell.

use crate::codec;
use crate::config::{Compression, ServerConfig};

/// Recognises codecs as Barman does with a server's configuration.
#[derive(Clone, Debug, Default)]
pub struct Recognition {
    custom_magic: Option<Vec<u8>>,
    /// What a stored file without any known magic is taken for.
    unidentified: Option<Compression>,
}

impl Recognition {
    /// `custom_compression_magic` counts only while the custom filter is in use. Without one, the
    /// custom filter must have written what nothing else is known to have written.
    pub fn new(server: &ServerConfig) -> Self {
        let is_custom = server.compression == Some(Compression::Custom);
        let custom_magic = server
            .custom_compression_magic
            .clone()
            .filter(|_| is_custom);
        let unidentified = (is_custom && custom_magic.is_none()).then_some(Compression::Custom);
        Recognition {
            custom_magic,
            unidentified,
        }
    }

    /// The codec of a file that somebody sent us.
    pub fn of_source(&self, head: &[u8]) -> Option<Compression> {
        codec::identify_compression(head, self.custom_magic.as_deref())
    }

    /// The codec of a file in the archive, once its encryption is off.
    pub fn of_stored(&self, head: &[u8]) -> Option<Compression> {
        self.of_source(head).or(self.unidentified)
    }
}
