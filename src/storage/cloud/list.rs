//! Listing an archive.

use std::error::Error;
use std::io;

use super::{Shared, uploaded_s};
use crate::codec::Encoding;
use crate::storage::StoredWal;
use crate::wal::WalName;

/// What is kept of each object until all are known.
struct Found {
    name: WalName,
    encoding: Encoding,
    size_bytes: u64,
    uploaded_s: f64,
}

/// Passes every file on in the order of directories: stores list in an order of their own, and endings come
/// between. Takes about 200 bytes of memory per file.
pub(super) fn list(
    shared: &Shared,
    visit: &mut dyn FnMut(StoredWal) -> io::Result<()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut all: Vec<Found> = Vec::new();
    let root = shared.keys.root();
    let mut take = |meta: object_store::ObjectMeta| match shared.keys.parse(&meta.location) {
        Some((name, encoding)) => all.push(Found {
            name,
            encoding,
            size_bytes: meta.size,
            uploaded_s: uploaded_s(&meta),
        }),
        None => tracing::warn!(
            "unexpected object in the WAL archive: {}",
            shared.location(&meta.location)
        ),
    };
    shared
        .remote
        .list(&root, &mut take)
        .map_err(shared.error("list", &root))?;
    // History files by their name between the directories of segments, as directories are listed.
    all.sort_by_cached_key(|found| {
        let directory = found.name.hash_directory();
        (
            directory.unwrap_or(found.name.to_string()),
            found.name.clone(),
        )
    });
    let mut last: Option<WalName> = None;
    for found in all {
        let Found {
            name,
            encoding,
            size_bytes,
            uploaded_s,
        } = found;
        let key = shared.keys.key(&name, encoding);
        if last.as_ref() == Some(&name) {
            let location = shared.location(&key);
            tracing::warn!("{name} is there a second time: {location}");
            continue;
        }
        last = Some(name.clone());
        visit(shared.stored(name, encoding, &key, size_bytes, uploaded_s))?;
    }
    Ok(())
}
