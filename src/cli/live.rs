//! How receiving goes, in words: the line that changes on a terminal, and lines of `status`.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::receiver::{Measurements, Meter};
use crate::units::pretty_size;

/// How often the line changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// The line, from its beginning until it is dropped.
pub(super) struct LiveLine<'a> {
    output: &'a Output,
    bar: ProgressBar,
    /// Dropped, it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<'a> LiveLine<'a> {
    /// Shows what a meter counts, if somebody is there to see it.
    pub(super) fn begin(output: &'a Output, server: &str, meter: &Arc<Meter>) -> Option<Self> {
        if !io::stderr().is_terminal() || output.is_quiet() || output.is_json() {
            return None;
        }
        let style = ProgressStyle::with_template("{wide_msg}").ok()?;
        let bar = ProgressBar::new_spinner().with_style(style);
        let (stop, stopped) = mpsc::sync_channel(0);
        let (server, meter, line) = (server.to_owned(), Arc::clone(meter), bar.clone());
        let draw = move || {
            let mut before = meter.read().received_bytes;
            while stopped.recv_timeout(INTERVAL) == Err::<(), _>(RecvTimeoutError::Timeout) {
                let now = meter.read();
                let rate = now.received_bytes - before;
                before = now.received_bytes;
                line.set_message(format!("{server}: {}", sentence(&now, Some(rate))));
            }
        };
        let thread = thread::Builder::new().name("line".to_owned()).spawn(draw);
        output.set_progress(Some(bar.clone()));
        Some(LiveLine {
            output,
            bar,
            stop: Some(stop),
            thread: thread.ok(),
        })
    }
}

impl Drop for LiveLine<'_> {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It did not panic, and has nothing to say.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
        self.output.set_progress(None);
    }
}

/// What fits on a line of a terminal; `rate` is in bytes per second.
pub(super) fn sentence(it: &Measurements, rate: Option<u64>) -> String {
    let mut parts = vec![it.phase.to_string()];
    if let (Some(written), Some(timeline)) = (it.write_lsn, it.timeline) {
        parts.push(format!("{written} (timeline {timeline})"));
        parts.extend(rate.map(|rate| format!("{}/s", pretty_size(rate))));
    }
    parts.extend(
        it.lag_bytes
            .map(|lag| format!("{} behind", pretty_size(lag))),
    );
    parts.extend(it.archive_queue.map(|files| format!("{files} to archive")));
    match it.reconnects {
        0 => {}
        1 => parts.push("1 reconnect".to_owned()),
        count => parts.push(format!("{count} reconnects")),
    }
    parts.join(", ")
}

/// Up to where WAL is here, and durable.
pub(super) fn position(it: &Measurements) -> Option<String> {
    let mut text = it.write_lsn?.to_string();
    if let Some(flushed) = it
        .flush_lsn
        .filter(|flushed| Some(*flushed) != it.write_lsn)
    {
        text.push_str(&format!(" (flushed {flushed})"));
    }
    if let Some(timeline) = it.timeline {
        text.push_str(&format!(" on timeline {timeline}"));
    }
    Some(text)
}

/// How far behind the server, as far as is known.
pub(super) fn lag(it: &Measurements) -> Option<String> {
    let lag = pretty_size(it.lag_bytes?);
    Some(match it.lag_s {
        Some(lag_s) if lag_s > 0.0 => format!("{lag} and {lag_s:.1} s behind the server"),
        _ => format!("{lag} behind the server"),
    })
}

/// What waits to be archived.
pub(super) fn waiting(it: &Measurements) -> Option<String> {
    Some(match it.archive_queue? {
        0 => "nothing waits to be archived".to_owned(),
        1 => "1 file waits to be archived".to_owned(),
        count => format!("{count} files wait to be archived"),
    })
}

/// How often the connection was made again.
pub(super) fn reconnects(it: &Measurements) -> String {
    match it.reconnects {
        0 => "never reconnected".to_owned(),
        1 => "reconnected once".to_owned(),
        count => format!("reconnected {count} times"),
    }
}
