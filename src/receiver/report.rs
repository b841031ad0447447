//! What a running receiver measures, in files: for `status`, and for Prometheus.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use super::gap::wal_names;
use super::measurements::Measurements;
use super::state::StateError;
use super::{Meter, metrics};
use crate::config::ServerConfig;
use crate::durable;

/// The file in `backup_directory`; hidden, so that Barman passes over it.
const LIVE_FILE: &str = ".walarch-receive-wal-live.json";

/// Permissions of that file, less the umask.
const LIVE_MODE: u32 = 0o600;

/// Permissions of the metrics file: a collector reads it as another user.
const METRICS_MODE: u32 = 0o644;

/// How often the files are written.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the last write may take; nobody waits longer for a disk that hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

impl Measurements {
    /// What the receiver of a server measured a moment ago, or before it ended in whatever way: the
    /// lock of `receive-wal` tells whether it runs. `None` if none has measured yet.
    ///
    /// # Errors
    ///
    /// When the file is there and makes no sense.
    pub fn load(server: &ServerConfig) -> Result<Option<Self>, StateError> {
        let path = live_path(server);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| error.to_string()),
        };
        text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()))
            .map_err(|reason| StateError { path, reason })
    }
}

fn live_path(server: &ServerConfig) -> PathBuf {
    Path::new(&server.backup_directory).join(LIVE_FILE)
}

/// Writes the files until it is dropped, in a thread of its own: a disk that hangs holds up nobody
/// else.
pub(super) struct Reporter {
    /// Dropped, it ends the thread.
    stop: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

impl Reporter {
    pub(super) fn start(server: &ServerConfig, meter: Arc<Meter>) -> io::Result<Self> {
        let mut files = Files {
            server: server.clone(),
            meter,
            failure: None,
        };
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let (ending, ended) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("report".to_owned())
            .spawn(move || {
                files.write();
                while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    files.write();
                }
                files.end();
                // Nobody listens any more if it took too long.
                let _ = ending.send(());
            })?;
        Ok(Reporter {
            stop: Some(stop),
            ended,
        })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop = None;
        if self.ended.recv_timeout(STOP_TIMEOUT).is_err() {
            tracing::warn!("the last measurements of the receiver could not be written in time");
        }
    }
}

struct Files {
    server: ServerConfig,
    meter: Arc<Meter>,
    /// Why they could not be written the last time.
    failure: Option<String>,
}

impl Files {
    fn write(&mut self) {
        let measurements = self.measure();
        let live = self.write_live(&measurements);
        let written = live.and(self.write_metrics(&measurements));
        self.warn(written);
    }

    /// Prometheus is told that it is over; `status` sees that.
    fn end(&mut self) {
        let metrics = self.write_metrics(&self.measure());
        let path = live_path(&self.server);
        let removed = durable::remove(&path).map_err(|error| failed(&path, &error));
        self.warn(metrics.and(removed));
    }

    /// What is reported serves people; receiving goes on without.
    fn warn(&mut self, written: Result<(), String>) {
        let failure = written.err();
        if failure != self.failure
            && let Some(failure) = &failure
        {
            tracing::warn!("cannot report what is received: {failure}");
        }
        self.failure = failure;
    }

    fn measure(&self) -> Measurements {
        let waiting = wal_names(&self.server.streaming_wals_directory).ok();
        // One of them is being received, or tells where to go on.
        let waiting = waiting.map(|names| names.len().saturating_sub(1));
        self.meter
            .queue(waiting.and_then(|count| u64::try_from(count).ok()));
        self.meter.read()
    }

    fn write_live(&self, measurements: &Measurements) -> Result<(), String> {
        // No home yet: the receiver will say what is wrong with that.
        if !self.server.backup_directory.exists() {
            return Ok(());
        }
        let text = serde_json::to_string(measurements).map_err(|error| error.to_string())?;
        publish(&live_path(&self.server), &format!("{text}\n"), LIVE_MODE)
    }

    fn write_metrics(&self, measurements: &Measurements) -> Result<(), String> {
        let server = &self.server;
        let Some(directory) = &server.own.metrics_directory else {
            return Ok(());
        };
        let path = directory.join(format!("walarch_receive_wal_{}.prom", server.name));
        let text = metrics::text(&server.name, measurements);
        publish(&path, &text, METRICS_MODE)
    }
}

/// Never seen half written; what was there before a crash is as good as this.
fn publish(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    durable::refresh_file(path, text.as_bytes(), mode).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
