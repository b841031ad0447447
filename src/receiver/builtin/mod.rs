//! The receiver inside walarch.
//!
//! ```text
//! mod          connects, asks for WAL, follows it from timeline to timeline
//! timeline     can the server go on where we are? history files
//! stream       one stream: messages in, checked; files written; status updates out
//! acknowledge  when what was received is made durable and reported
//! segment      the files, and which bytes of them outlast a crash
//! finish       complete segments become durable beside the writing
//! ```
//!
//! On disk it leaves exactly what `pg_receivewal` leaves, at every instant, so that either can go on
//! where the other one was killed.

mod acknowledge;
mod finish;
mod open_segment;
mod segment;
mod stream;
mod timeline;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use self::stream::End;
use self::timeline::Place;
use super::error::ArchiverFailure;
use super::{Progress, Receiver, Task};
use crate::postgres::{
    Connection, Limits, NextTimeline, PostgresError, Replication, identify_system,
    start_replication,
};

/// How long the server may take to answer before WAL flows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// walarch itself.
#[derive(Clone, Copy, Debug)]
pub struct Builtin;

/// The first version whose WAL it receives, as a number.
const OLDEST_SERVER_VERSION: i32 = 100_000;

impl Builtin {
    /// Whether it can receive from a server of this version, as a number (150018 for 15.18).
    pub fn is_compatible_with(server_version: i32) -> bool {
        server_version >= OLDEST_SERVER_VERSION
    }
}

impl Receiver for Builtin {
    fn name(&self) -> &'static str {
        "builtin"
    }

    fn tells_of_files(&self) -> bool {
        true
    }

    fn receive(
        &self,
        task: &Task<'_>,
        stop: &Arc<AtomicBool>,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), ArchiverFailure> {
        match follow(task, stop, on_progress) {
            Err(ArchiverFailure::Connection(PostgresError::Interrupted)) => Ok(()),
            other => other,
        }
    }
}

/// Receives one timeline after the other, over one connection.
fn follow(
    task: &Task<'_>,
    stop: &Arc<AtomicBool>,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), ArchiverFailure> {
    let mut connection = Connection::open(&task.conninfo, limits(stop))?;
    let identity = identify_system(&connection)?;
    if identity.system_identifier != task.system_identifier {
        return Err(ArchiverFailure::Stranger {
            expected: task.system_identifier,
            connected: identity.system_identifier,
        });
    }
    let mut place = Place {
        timeline: task.start.segment.timeline(),
        start: task.start.start,
    };
    place.check(&identity, &connection)?;
    let mut is_new_connection = true;
    loop {
        place.fetch_history(task.directory, &connection, task.meter)?;
        let Place { timeline, start } = place;
        let replication = start_replication(connection, task.slot_name, timeline, start)?;
        let ended = match replication {
            Replication::EndOfTimeline(connection, next) => {
                End::Timeline(connection, next_place(task, place, next)?)
            }
            Replication::Streaming(stream) => {
                task.meter.streaming(timeline, start, is_new_connection);
                is_new_connection = false;
                let position = format!("{start} (timeline {timeline})");
                on_progress(Progress::Line(&format!(
                    "starting log streaming at {position}"
                )));
                on_progress(Progress::Streaming(&position));
                on_progress(Progress::Timeline(timeline));
                stream::receive(stream, task, place, stop, on_progress)?
            }
        };
        match ended {
            End::Stopped => return Ok(()),
            End::Timeline(same, next) => {
                let line = format!("switched to timeline {} at {}", next.timeline, next.start);
                on_progress(Progress::Line(&line));
                (connection, place) = (same, next);
                connection.set_limits(limits(stop));
            }
        }
    }
}

fn next_place(task: &Task<'_>, place: Place, next: NextTimeline) -> Result<Place, ArchiverFailure> {
    Ok(place.after(place.start, next, task.segment_size)?)
}

fn limits(stop: &Arc<AtomicBool>) -> Limits {
    Limits {
        deadline: Some(Instant::now() + ANSWER_TIMEOUT),
        stop: Some(Arc::clone(stop)),
    }
}
