//! The measurements of a receiver as OpenMetrics text
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! node_exporter's textfile collector reads the older text format of Prometheus. What is written here is
//! both: no type, no time stamp and no unit line that one of them does not know.

use std::fmt::{Display, Write};

use super::measurements::{FLUSH_BOUNDS_S, FlushTimes, Measurements, Phase, Trouble};

/// What every name begins with.
const PREFIX: &str = "walarch_receive_wal";

/// All of a server's metrics, up to the line that says that nothing is missing.
pub(super) fn text(server_name: &str, it: &Measurements) -> String {
    let mut text = Text {
        text: String::new(),
        server: escaped(server_name),
    };
    text.state(it);
    text.positions(it);
    text.archive(it);
    text.troubles(it);
    text.text.push_str("# EOF\n");
    text.text
}

struct Text {
    text: String,
    /// The value of the label that every sample has.
    server: String,
}

impl Text {
    fn state(&mut self, it: &Measurements) {
        self.begin(
            "phase",
            "gauge",
            "1 for what the receiver is at, 0 for the rest.",
        );
        for phase in Phase::ALL {
            let labels = [("receiver", it.receiver.as_str()), ("phase", phase.name())];
            self.sample("phase", &labels, u8::from(phase == it.phase));
        }
        let help = "When the receiver was started.";
        self.gauge("start_time_seconds", help, Some(it.started_at.as_second()));
        let help = "When these numbers were read.";
        self.gauge("measured_time_seconds", help, Some(it.at.as_second()));
    }

    /// What a receiver knows that sees the WAL itself.
    fn positions(&mut self, it: &Measurements) {
        let lsn = |lsn: Option<crate::wal::Lsn>| lsn.map(|lsn| lsn.0);
        let help = "All WAL before this position is written to files.";
        self.gauge("write_position_bytes", help, lsn(it.write_lsn));
        let help = "All WAL before this position is durable here.";
        self.gauge("flush_position_bytes", help, lsn(it.flush_lsn));
        let help = "The server is known to have WAL up to this position.";
        self.gauge("server_position_bytes", help, lsn(it.server_lsn));
        let help = "WAL that the server is known to have and that is not written here.";
        self.gauge("lag_bytes", help, it.lag_bytes);
        let help = "Time since all WAL was here that the server was known to have.";
        self.gauge("lag_seconds", help, it.lag_s);
        let help = "When the server was last heard of.";
        let heard = it.last_message_at.map(|at| at.as_second());
        self.gauge("last_message_time_seconds", help, heard);
        self.gauge("timeline", "The timeline of what is received.", it.timeline);
        if it.write_lsn.is_none() {
            return;
        }
        self.counter("received_bytes", "WAL received.", it.received_bytes);
        self.counter("segments_completed", "Segments received to their end.", {
            it.segments_completed
        });
        let help = "How often the connection was made again.";
        self.counter("reconnects", help, it.reconnects);
        self.flushes(&it.flushes);
    }

    fn archive(&mut self, it: &Measurements) {
        let help = "Files that were archived straight from the receiver.";
        if let Some(files) = it.files_archived {
            self.counter("files_archived", help, files);
        }
        let help = "Files that wait to be archived.";
        self.gauge("archive_queue_files", help, it.archive_queue);
    }

    fn troubles(&mut self, it: &Measurements) {
        let help = "Gaps in what was received that no server can fill.";
        self.gauge("holes", help, Some(it.holes.len()));
        self.trouble(
            "last_error",
            "The last failure of receiving.",
            &it.last_error,
        );
        self.trouble(
            "archive_error",
            "The failure for which files wait to be archived.",
            &it.archive_error,
        );
    }

    /// When something failed, with the reason as a label.
    fn trouble(&mut self, name: &str, help: &str, trouble: &Option<Trouble>) {
        let Some(trouble) = trouble else { return };
        let name = format!("{name}_time_seconds");
        let reason = trouble.reason.lines().next().unwrap_or_default();
        self.begin(&name, "gauge", help);
        self.sample(&name, &[("reason", reason)], trouble.at.as_second());
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.begin(name, "gauge", help);
            self.sample(name, &[], value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, "counter", help);
        self.sample(&format!("{name}_total"), &[], value);
    }

    fn flushes(&mut self, flushes: &FlushTimes) {
        let name = "flush_seconds";
        self.begin(name, "histogram", "How long it took to make WAL durable.");
        let mut count = 0;
        let bounds = FLUSH_BOUNDS_S.iter().map(|bound| format!("{bound:?}"));
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (bound, of_class) in bounds.zip(flushes.counts) {
            count += of_class;
            self.sample(&format!("{name}_bucket"), &[("le", &bound)], count);
        }
        self.sample(&format!("{name}_sum"), &[], flushes.sum_s);
        self.sample(&format!("{name}_count"), &[], count);
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "# TYPE {PREFIX}_{name} {kind}\n# HELP {PREFIX}_{name} {help}"
        );
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{PREFIX}_{name}{{server=\"{}\"", self.server);
        for (label, value) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

/// The value of a label as it stands between quotes.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
