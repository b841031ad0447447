//! Which codec a file carries, as far as its first bytes tell.

use crate::codec;
use crate::config::{Compression, ServerConfig};
use crate::wal::{WalFault, WalKind, WalName, find_fault, find_fault_of_plain};

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

    /// Why a file cannot be what its name says, as somebody sent it; `head` is how it begins.
    ///
    /// What carries a codec cannot be judged undecoded. Everything else is plain, and what `get-wal` would refuse
    /// must not be accepted: nobody else may have it by then.
    pub fn fault_of_source(
        &self,
        name: &WalName,
        size_bytes: u64,
        head: &[u8],
        system_identifier: Option<u64>,
    ) -> Option<WalFault> {
        match self.of_source(head) {
            Some(_) => None,
            None => self.fault_of_decoded(name, size_bytes, head, head, system_identifier),
        }
    }

    /// The same of what was decoded according to [`of_source`](Self::of_source): `head` is how that begins,
    /// `source_head` how it did before.
    pub fn fault_of_decoded(
        &self,
        name: &WalName,
        size_bytes: u64,
        head: &[u8],
        source_head: &[u8],
        system_identifier: Option<u64>,
    ) -> Option<WalFault> {
        // Encrypted, or what the custom filter made: that may still be good.
        let may_be_wrapped = self.of_source(source_head).is_none()
            && (codec::is_encrypted(source_head) || self.unidentified.is_some());
        // The room for a partial segment may be all that there is of it.
        let may_say_nothing = name.kind() == WalKind::Partial;
        match may_say_nothing || (may_be_wrapped && size_bytes > 0) {
            true => find_fault(name, size_bytes, head, system_identifier),
            false => find_fault_of_plain(name, size_bytes, head, system_identifier),
        }
    }
}
