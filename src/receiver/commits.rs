//! Do commits wait for what is received? Asked again while it is received: nothing in the stream of WAL
//! tells that they have begun to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::preflight::connect_ordinary;
use super::{Task, is_synchronous};
use crate::config::{ReceiverKind, ServerConfig, Synchronous};
use crate::postgres::{Conninfo, Limits, PostgresError, ServerStatus, server_status};

/// How often the server is asked. A commit that begins to wait in between gets its answer with the next
/// status update.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether commits wait for a client with this connection string.
pub(super) fn commits_wait(status: &ServerStatus, conninfo: &Conninfo) -> bool {
    let names = &status.synchronous_standby_names;
    let name = conninfo.get("application_name").unwrap_or_default();
    let wait = is_synchronous(names, name);
    tracing::debug!("Synchronous WAL streaming for {name}: {wait} ({names:?})");
    wait
}

/// Keeps [`Task::synchronous`] true to the server's settings until it is dropped, over short connections
/// in a thread of its own.
pub(super) struct CommitWatch {
    /// Dropped, it ends the thread. Nobody waits for an answer that is still to come.
    _stop: SyncSender<()>,
}

impl CommitWatch {
    /// `None` where nothing can change: by configuration, or because the receiver looks once.
    pub(super) fn start(
        server: &ServerConfig,
        task: &Task<'_>,
        stop: &Arc<AtomicBool>,
    ) -> Option<Self> {
        let is_asked = server.own.receive_wal_synchronous == Synchronous::Auto
            && server.own.receiver == ReceiverKind::Builtin;
        let started = is_asked.then(|| Self::spawn(server, task, stop))?;
        started
            .inspect_err(|error| tracing::warn!("cannot ask whether commits wait: {error}"))
            .ok()
    }

    fn spawn(server: &ServerConfig, task: &Task<'_>, stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let (server, conninfo) = (server.clone(), task.conninfo.clone());
        let (synchronous, stop) = (Arc::clone(&task.synchronous), Arc::clone(stop));
        let (sender, stopped) = mpsc::sync_channel::<()>(0);
        let watch = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                match ask(&server, &stop) {
                    Ok(status) => {
                        synchronous.store(commits_wait(&status, &conninfo), Ordering::Relaxed);
                    }
                    // Whoever receives will notice if it is more than that.
                    Err(error) => tracing::debug!("cannot ask whether commits wait: {error}"),
                }
            }
        };
        let builder = thread::Builder::new().name("commits".to_owned());
        builder.spawn(watch)?;
        Ok(CommitWatch { _stop: sender })
    }
}

fn ask(server: &ServerConfig, stop: &Arc<AtomicBool>) -> Result<ServerStatus, PostgresError> {
    let limits = Limits {
        deadline: Some(Instant::now() + ANSWER_TIMEOUT),
        stop: Some(Arc::clone(stop)),
    };
    server_status(&connect_ordinary(server, limits)?)
}
