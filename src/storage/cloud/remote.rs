//! The one place where asynchronous code is waited for: an object store with a runtime of one thread
//! and a time limit on everything.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, ObjectMeta, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::error::io_error;

/// An object store, for threads that wait. Several may wait at a time.
#[derive(Debug)]
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    limit: Duration,
}

/// What is known of an object without its content.
pub(super) struct Head {
    pub(super) meta: ObjectMeta,
    /// The user metadata under [`MODIFIED`], if it has any.
    pub(super) modified_s: Option<f64>,
}

/// An object's content as it arrives.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, object_store::Error>>;

/// Metadata of an object: when its source was last modified, in seconds since 1970, as rclone has it.
pub(super) const MODIFIED: &str = "mtime";

impl Remote {
    /// `limit` bounds each operation, repetitions included.
    pub(super) fn new(store: Arc<dyn ObjectStore>, limit: Duration) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Remote {
            store,
            runtime,
            limit,
        })
    }

    fn wait<T>(
        &self,
        operation: impl Future<Output = Result<T, object_store::Error>>,
    ) -> io::Result<T> {
        self.runtime.block_on(async {
            match timeout(self.limit, operation).await {
                Ok(result) => result.map_err(io_error),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no success within {} s", self.limit.as_secs()),
                )),
            }
        })
    }

    /// Stores an object unless its key is taken, which is `AlreadyExists`.
    pub(super) fn create(
        &self,
        key: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> io::Result<()> {
        let options = PutOptions {
            mode: PutMode::Create,
            ..options
        };
        self.wait(self.store.put_opts(key, payload, options))
            .map(drop)
    }

    /// Stores an object where there must be one of a version that no store has ever given.
    pub(super) fn update_nothing(&self, key: &Path) -> Result<(), object_store::Error> {
        let version = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".to_owned()),
            version: Some("1".to_owned()),
        };
        let mode = PutMode::Update(version);
        let put = self.store.put_opts(key, PutPayload::new(), mode.into());
        self.runtime.block_on(async {
            match timeout(self.limit, put).await {
                Ok(result) => result.map(drop),
                Err(elapsed) => Err(object_store::Error::Generic {
                    store: "cloud",
                    source: Box::new(elapsed),
                }),
            }
        })
    }

    /// Looks for one object.
    pub(super) fn head(&self, key: &Path) -> io::Result<Option<Head>> {
        found(self.wait(self.get_head(key)))
    }

    /// Looks for several objects at once; the answers are in the order of the keys.
    pub(super) fn heads(&self, keys: &[Path]) -> io::Result<Vec<Option<Head>>> {
        let all = async { Ok(join_all(keys.iter().map(|key| self.get_head(key))).await) };
        let answers = self.wait(all)?;
        answers
            .into_iter()
            .map(|answer| found(answer.map_err(io_error)))
            .collect()
    }

    async fn get_head(&self, key: &Path) -> Result<Head, object_store::Error> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        self.store
            .get_opts(key, options)
            .await
            .map(|result| head_of(&result))
    }

    /// Begins to read an object.
    pub(super) fn get(&self, key: &Path) -> io::Result<(Head, Pieces)> {
        let result = self.wait(self.store.get_opts(key, GetOptions::default()))?;
        Ok((head_of(&result), result.into_stream()))
    }

    /// The next piece of an object.
    pub(super) fn next(&self, stream: &mut Pieces) -> io::Result<Option<Bytes>> {
        self.wait(async { stream.next().await.transpose() })
    }

    /// Every object below a prefix, in whatever order the store has.
    pub(super) fn list(&self, prefix: &Path, visit: &mut dyn FnMut(ObjectMeta)) -> io::Result<()> {
        let mut objects = self.store.list(Some(prefix));
        while let Some(object) = self.wait(async { objects.next().await.transpose() })? {
            visit(object);
        }
        Ok(())
    }

    /// Whether there is any object below a prefix, asked with one request.
    pub(super) fn holds_any(&self, prefix: &Path) -> io::Result<bool> {
        let mut objects = self.store.list(Some(prefix));
        let first = self.wait(async { objects.next().await.transpose() })?;
        Ok(first.is_some())
    }

    /// Deletes objects, in as few requests as the store can; one that is not there counts as deleted. The
    /// answers are in the order of the keys.
    pub(super) fn delete(&self, keys: Vec<Path>) -> Vec<io::Result<()>> {
        let count = keys.len();
        let keys = futures_util::stream::iter(keys.into_iter().map(Ok)).boxed();
        let mut answers = self.store.delete_stream(keys);
        let mut results = Vec::with_capacity(count);
        let mut failure = None;
        while results.len() < count {
            match self.wait(async { Ok(answers.next().await) }) {
                Ok(Some(Ok(_) | Err(object_store::Error::NotFound { .. }))) => results.push(Ok(())),
                Ok(Some(Err(error))) => {
                    let error = io_error(error);
                    failure = Some((error.kind(), error.to_string()));
                    results.push(Err(error));
                }
                // A request that failed as a whole has one answer for all its objects.
                Ok(None) => break,
                Err(error) => {
                    failure = Some((error.kind(), error.to_string()));
                    break;
                }
            }
        }
        let (kind, text) = failure
            .unwrap_or_else(|| (io::ErrorKind::Other, "the store gave no answer".to_owned()));
        results.resize_with(count, || Err(io::Error::new(kind, text.clone())));
        results
    }

    /// How long one operation may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn head_of(result: &GetResult) -> Head {
    let modified = object_store::Attribute::Metadata(MODIFIED.into());
    Head {
        meta: result.meta.clone(),
        modified_s: result
            .attributes
            .get(&modified)
            .and_then(|value| value.parse().ok()),
    }
}
