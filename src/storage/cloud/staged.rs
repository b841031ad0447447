//! A file on its way into the bucket: collected in memory in its stored form, then stored by one request that
//! creates the object and never replaces one.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use object_store::PutPayload;
use object_store::path::Path;

use super::Shared;
use super::blocks::Collector;
use super::error::may_have_happened;
use crate::catalog::WalFileInfo;
use crate::codec::{Encoding, Output};
use crate::durable::Publication;
use crate::storage::{SealedWal, Source, StagedWal, StorageError};

/// How often storing is begun anew after it was unclear whether it had happened, and it had not.
const ATTEMPTS_MAX: u32 = 5;

/// The pause before it is; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(200);

pub(super) struct Staged {
    shared: Arc<Shared>,
    info: WalFileInfo,
    collector: Collector,
}

impl Staged {
    pub(super) fn new(shared: &Arc<Shared>, source: &Source) -> Self {
        Staged {
            shared: Arc::clone(shared),
            info: source.info(),
            collector: Collector::new(&shared.blocks),
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.collector.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Staged {}

impl StagedWal for Staged {
    fn seal(self: Box<Self>, encoding: &Encoding) -> Result<Box<dyn SealedWal>, StorageError> {
        let Staged {
            shared,
            mut info,
            collector,
        } = *self;
        let payload = collector.freeze();
        info.size_bytes = payload.content_length() as u64;
        info.compression = encoding.compression.map(|codec| codec.name().to_owned());
        info.encryption = encoding
            .encryption
            .map(|encryption| encryption.name().to_owned());
        let key = shared.keys.key(&info.name, *encoding);
        Ok(Box::new(Sealed {
            is_usual: shared.keys.is_usual(*encoding),
            shared,
            key,
            info,
            payload,
        }))
    }
}

struct Sealed {
    shared: Arc<Shared>,
    key: Path,
    /// Whether it has the ending that files have now.
    is_usual: bool,
    info: WalFileInfo,
    payload: PutPayload,
}

impl SealedWal for Sealed {
    fn info(&self) -> &WalFileInfo {
        &self.info
    }

    /// An answer that leaves open whether the object was stored, "exists already" included (a repetition may
    /// have met its own first attempt, and S3 reports conflicts so), is settled by looking for it.
    fn publish(self: Box<Self>) -> Result<Publication, StorageError> {
        if !self.is_usual {
            let written = &self.shared.written;
            written
                .expect_unusual(&self.info.name)
                .map_err(self.shared.error("store", &self.key))?;
        }
        let remote = &self.shared.remote;
        let start = Instant::now();
        let mut pause = PAUSE_FIRST;
        let mut attempt = 1;
        loop {
            let options = self.shared.put_options(&self.info, &self.payload);
            let failure = match remote.create(&self.key, self.payload.clone(), options) {
                Ok(()) => return Ok(Publication::Created),
                Err(failure) if !may_have_happened(&failure) => {
                    return Err(self.shared.error("store", &self.key)(failure));
                }
                Err(failure) => failure,
            };
            let found = remote.head(&self.key).map_err(|unknown| {
                let text =
                    format!("{failure}; and it is not known whether it was stored: {unknown}");
                self.shared.error("store", &self.key)(io::Error::new(unknown.kind(), text))
            })?;
            if found.is_some() {
                return Ok(Publication::AlreadyExists);
            }
            if attempt == ATTEMPTS_MAX || start.elapsed() + pause >= self.shared.remote.limit() {
                return Err(self.shared.error("store", &self.key)(failure));
            }
            tracing::info!(
                "{}: {failure}; it is not there, trying again",
                self.shared.location(&self.key)
            );
            thread::sleep(jittered(pause));
            attempt += 1;
            pause *= 2;
        }
    }
}

/// Between half and all of a pause, so that many clients do not come back at the same instant.
fn jittered(pause: Duration) -> Duration {
    let nanoseconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    pause / 2 + pause.mul_f64(f64::from(nanoseconds % 1000) / 2000.0)
}
