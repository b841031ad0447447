//! A bucket of S3, Azure Blob Storage or Google Cloud Storage, laid out as Barman lays it out.
//!
//! # Never overwriting
//!
//! An object is created by a single request with a condition: `If-None-Match: *` on S3 and Azure, generation 0
//! on Google. It is durable once the store has said yes. Every other answer that leaves room for doubt is
//! settled by looking, and what is found is compared by its content before it counts as archived.
//!
//! # One request
//!
//! A file is not looked for before it is stored, unless this home may have stored it with another ending:
//! see [`Written`].

mod address;
mod blocks;
mod delete;
mod error;
mod keys;
mod list;
mod probe;
mod provider;
mod reader;
mod remote;
mod staged;
#[cfg(test)]
mod tests;
mod written;

use std::error::Error;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use md5::{Digest, Md5};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, ObjectMeta, ObjectStore, PutOptions, PutPayload, TagSet,
};

use super::{
    AroundDelete, Contents, Fetched, InFlight, SealedWal, Source, StagedWal, StorageError,
    StoredWal, WalStorageStrategy,
};
use crate::catalog::{Catalog, CatalogError, WalFileInfo};
use crate::codec::Encoding;
use crate::config::{Compression, OwnCloudOptions, ServerConfig};
use crate::wal::WalName;
use address::{Address, Provider};
use blocks::Blocks;
use delete::encoding_of;
pub use error::CloudError;
use keys::Keys;
use provider::BodyDigest;
use reader::ObjectReader;
use remote::{Head, Remote};
use staged::Staged;
use written::Written;

/// Barman's reason.
const IN_MEMORY_ONLY: &str = "Cloud WAL storage only supports in-memory compression algorithms \
                              (gzip, bzip2, xz, zstd, lz4, snappy). \
                              pigz and custom compressors are not supported.";

/// As many files of this size as may travel at a time do; of larger ones fewer, which bounds the memory.
const FILE_SIZE_BYTES: u64 = 64 << 20;

/// `wals_directory` in an object store.
#[derive(Debug)]
pub struct Cloud {
    shared: Arc<Shared>,
    concurrency: NonZeroUsize,
    delete_batch_size: NonZeroUsize,
    catalog: Catalog,
    /// The form that the last file had that was looked for: the next one will have it, too.
    likely: Mutex<Encoding>,
}

/// Why it could not be written down how files are stored.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum NoteError {
    Catalog(#[from] CatalogError),
    Io(#[from] io::Error),
}

/// What files on their way need.
#[derive(Debug)]
struct Shared {
    address: Address,
    keys: Keys,
    remote: Remote,
    own: OwnCloudOptions,
    written: Written,
    blocks: Arc<Blocks>,
}

impl Cloud {
    /// `url` is the server's `wals_directory`. Touches no network.
    ///
    /// # Errors
    ///
    /// When the URL, an option or the environment is at fault, and where the codec is one that Barman refuses.
    pub fn new(url: &str, server: &ServerConfig) -> Result<Self, CloudError> {
        let address = Address::parse(url)
            .map_err(|reason| CloudError::new(url, reason, "correct wals_directory"))?;
        if matches!(
            server.compression,
            Some(Compression::Pigz | Compression::Custom)
        ) {
            let hint = "set compression to one of them; gzip writes the same format as pigz";
            return Err(CloudError::new(&address.url, IN_MEMORY_ONLY, hint));
        }
        let store = provider::connect(&address, server)?;
        Self::over(store, address, server)
    }

    /// A storage over a client that is there already.
    fn over(
        store: Arc<dyn ObjectStore>,
        address: Address,
        server: &ServerConfig,
    ) -> Result<Self, CloudError> {
        let own = server.own.cloud.clone();
        let remote = Remote::new(store, own.total_timeout).map_err(|error| {
            CloudError::new(&address.url, error, "check the limits of this user")
        })?;
        let usual = Encoding {
            compression: server.compression,
            encryption: server.encryption,
        };
        let keys = Keys::new(&address.prefix, &server.name, usual).map_err(|error| {
            CloudError::new(
                &address.url,
                error,
                "correct wals_directory, or the server's name",
            )
        })?;
        Ok(Cloud {
            catalog: Catalog::of(server),
            concurrency: own.concurrency,
            delete_batch_size: server
                .cloud
                .delete_batch_size
                .unwrap_or(delete::BATCH_SIZE_MAX),
            shared: Arc::new(Shared {
                address,
                keys,
                remote,
                own,
                written: Written::of(server),
                blocks: Arc::default(),
            }),
            likely: Mutex::new(usual),
        })
    }

    /// Sends this many files at a time, in place of the configured number.
    pub fn with_concurrency(mut self, concurrency: NonZeroUsize) -> Self {
        self.concurrency = concurrency;
        self
    }

    fn likely(&self) -> Encoding {
        *self.likely.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self, name: WalName, encoding: Encoding, key: &Path, head: &Head) -> StoredWal {
        *self.likely.lock().unwrap_or_else(PoisonError::into_inner) = encoding;
        let modified_s = head.modified_s.unwrap_or_else(|| uploaded_s(&head.meta));
        self.shared
            .stored(name, encoding, key, head.meta.size, modified_s)
    }

    /// Once files arrive that had no other ending before, xlogdb tells where the other endings end.
    fn note(&self, published: &[StoredWal]) -> Result<(), NoteError> {
        let is_usual = |info: &WalFileInfo| self.shared.keys.is_usual(encoding_of(info));
        let are_usual = published.iter().all(|stored| is_usual(&stored.info));
        if self.shared.written.is_known() || !are_usual {
            return Ok(());
        }
        let mut last = None;
        self.catalog.visit(&Contents(self), &mut |line| {
            if let Ok(info) = line
                && !is_usual(&info)
            {
                last = last.max(info.name.ordinal());
            }
            ControlFlow::Continue(())
        })?;
        Ok(self.shared.written.begin(last)?)
    }

    /// Looks for a file in every form but one, in one go.
    fn find_but(&self, name: &WalName, asked: Encoding) -> Result<Option<StoredWal>, StorageError> {
        let keys = &self.shared.keys;
        let mut forms = keys.unusual();
        forms.insert(0, keys.usual());
        forms.retain(|form| *form != asked);
        let all: Vec<Path> = forms.iter().map(|form| keys.key(name, *form)).collect();
        let heads = self
            .shared
            .remote
            .heads(&all)
            .map_err(self.shared.error("look for", &keys.key(name, asked)))?;
        let found = forms
            .into_iter()
            .zip(all)
            .zip(heads)
            .find_map(|((form, key), head)| {
                head.map(|head| self.stored(name.clone(), form, &key, &head))
            });
        Ok(found)
    }
}

impl Shared {
    fn location(&self, key: &Path) -> String {
        format!("{}/{key}", self.address.url)
    }

    fn error<'a>(
        &'a self,
        action: &'static str,
        key: &'a Path,
    ) -> impl Fn(io::Error) -> StorageError + 'a {
        move |source| StorageError {
            action,
            location: self.location(key),
            source,
        }
    }

    fn stored(
        &self,
        name: WalName,
        encoding: Encoding,
        key: &Path,
        size_bytes: u64,
        modified_s: f64,
    ) -> StoredWal {
        StoredWal {
            info: WalFileInfo {
                name,
                size_bytes,
                modified_s,
                compression: encoding.compression.map(|codec| codec.name().to_owned()),
                encryption: encoding
                    .encryption
                    .map(|encryption| encryption.name().to_owned()),
            },
            location: self.location(key),
            is_durable: true,
        }
    }

    /// Everything that goes with an object besides its bytes.
    fn put_options(&self, info: &WalFileInfo, payload: &PutPayload) -> PutOptions {
        let mut attributes = Attributes::new();
        let modified = Attribute::Metadata(remote::MODIFIED.into());
        attributes.insert(modified, format!("{:?}", info.modified_s).into());
        if let Some(class) = &self.own.storage_class {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        let mut tags = TagSet::default();
        for (key, value) in &self.own.tags {
            tags.push(key, value);
        }
        let mut options = PutOptions {
            tags,
            attributes,
            ..PutOptions::default()
        };
        // S3's client sends a digest of its own.
        if self.address.provider != Provider::S3
            && let Ok(digest) = HeaderValue::from_str(&md5_of(payload))
        {
            options.extensions.insert(BodyDigest(digest));
        }
        options
    }
}

/// When an object was stored, in seconds since 1970.
fn uploaded_s(meta: &ObjectMeta) -> f64 {
    meta.last_modified.timestamp_millis() as f64 / 1000.0
}

fn md5_of(payload: &PutPayload) -> String {
    let mut digest = Md5::new();
    for piece in payload {
        digest.update(piece);
    }
    BASE64_STANDARD.encode(digest.finalize())
}

impl WalStorageStrategy for Cloud {
    fn location(&self, name: &WalName) -> String {
        let keys = &self.shared.keys;
        self.shared.location(&keys.key(name, keys.usual()))
    }

    fn is_on_this_host(&self) -> bool {
        false
    }

    fn in_flight(&self) -> Option<InFlight> {
        let files = self.concurrency;
        Some(InFlight {
            files,
            size_bytes: FILE_SIZE_BYTES.saturating_mul(files.get() as u64),
        })
    }

    fn must_be_looked_for(&self, name: &WalName) -> bool {
        self.shared.written.may_be_unusual(name)
    }

    fn find(&self, name: &WalName) -> Result<Option<StoredWal>, StorageError> {
        let form = self.likely();
        let key = self.shared.keys.key(name, form);
        let head = self
            .shared
            .remote
            .head(&key)
            .map_err(self.shared.error("look for", &key))?;
        match head {
            Some(head) => Ok(Some(self.stored(name.clone(), form, &key, &head))),
            None => self.find_but(name, form),
        }
    }

    fn open(&self, stored: &StoredWal) -> Result<Box<dyn Read + Send>, StorageError> {
        let key = self.shared.key_of(&stored.info);
        let error = self.shared.error("read", &key);
        let (_, stream) = self.shared.remote.get(&key).map_err(error)?;
        Ok(Box::new(ObjectReader::new(&self.shared, stream)))
    }

    /// What "there is no such file" rests on is the store's own word: PostgreSQL ends its recovery by it.
    fn fetch(&self, name: &WalName) -> Result<Option<Fetched>, StorageError> {
        let form = self.likely();
        let key = self.shared.keys.key(name, form);
        let absence = match self.shared.remote.get(&key) {
            Ok((head, stream)) => {
                let stored = self.stored(name.clone(), form, &key, &head);
                let reader = ObjectReader::new(&self.shared, stream);
                return Ok(Some((stored, Box::new(reader))));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => error,
            Err(error) => return Err(self.shared.error("read", &key)(error)),
        };
        if let Some(stored) = self.find_but(name, form)? {
            return self.open(&stored).map(|stream| Some((stored, stream)));
        }
        if !error::is_of_a_store(&absence) {
            self.must_be_a_store()?;
        }
        Ok(None)
    }

    fn stage(&self, source: &Source) -> Result<Box<dyn StagedWal>, StorageError> {
        Ok(Box::new(Staged::new(&self.shared, source)))
    }

    fn adopt(&self, _source: &Source) -> Result<Option<Box<dyn SealedWal>>, StorageError> {
        Ok(None)
    }

    /// An object never shares its bytes with a file.
    fn detach(&self, _source: &Source) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// An object that exists is durable. What is left to do makes the next files cheaper to store, no more.
    fn sync(&self, published: &[StoredWal]) -> Result<(), StorageError> {
        if let Err(error) = self.note(published) {
            tracing::warn!("cannot record how files are stored: {error}");
        }
        Ok(())
    }

    fn list(
        &self,
        visit: &mut dyn FnMut(StoredWal) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        list::list(&self.shared, visit)
    }

    /// One request lists a thousand objects with all that is known of them: names cost as much.
    fn list_names(
        &self,
        visit: &mut dyn FnMut(WalName) -> io::Result<()>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.list(&mut |stored| visit(stored.info.name))
    }

    fn delete(
        &self,
        wals: &[WalFileInfo],
        around: &mut dyn AroundDelete,
    ) -> Result<Vec<WalName>, Box<dyn Error + Send + Sync>> {
        delete::delete(&self.shared, self.delete_batch_size, wals, around)
    }
}
