//! Deleting in bulk requests.

use std::error::Error;
use std::num::NonZeroUsize;

use super::Shared;
use crate::catalog::WalFileInfo;
use crate::codec::Encoding;
use crate::config::Encryption;
use crate::storage::AroundDelete;
use crate::wal::WalName;

/// As many as one request may name (`DeleteObjects` in the S3 API).
pub(super) const BATCH_SIZE_MAX: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not zero");

impl Shared {
    /// Where a file is according to what xlogdb says of it.
    pub(super) fn key_of(&self, info: &WalFileInfo) -> object_store::path::Path {
        self.keys.key(&info.name, encoding_of(info))
    }
}

/// The form that a file has according to xlogdb.
pub(super) fn encoding_of(info: &WalFileInfo) -> Encoding {
    let compression = info.compression.as_deref();
    Encoding {
        compression: compression.and_then(|name| name.parse().ok()),
        encryption: info.encryption.as_ref().map(|_| Encryption::Gpg),
    }
}

/// Announces a batch, deletes it, reports it; a refusal ends with what was announced before it.
pub(super) fn delete(
    shared: &Shared,
    batch_size: NonZeroUsize,
    wals: &[WalFileInfo],
    around: &mut dyn AroundDelete,
) -> Result<Vec<WalName>, Box<dyn Error + Send + Sync>> {
    let mut deleted = Vec::new();
    for batch in wals.chunks(batch_size.min(BATCH_SIZE_MAX).get()) {
        let mut announced = Vec::new();
        let mut refusal = None;
        for wal in batch {
            let key = shared.key_of(wal);
            if let Err(error) = around.before(wal, &shared.location(&key)) {
                refusal = Some(error);
                break;
            }
            announced.push((wal, key));
        }
        let keys = announced.iter().map(|(_, key)| key.clone()).collect();
        for ((wal, key), result) in announced.iter().zip(shared.remote.delete(keys)) {
            let failure = result.map_err(shared.error("delete", key)).err();
            around.after(wal, &shared.location(key), failure.as_ref());
            deleted.extend(failure.is_none().then(|| wal.name.clone()));
        }
        if let Some(error) = refusal {
            return Err(error);
        }
    }
    Ok(deleted)
}
