//! What a running receiver measures: in `status`, in the metrics file, and on a terminal.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::handover::busy;
use super::support::{Receiving, SETTINGS, home_with_slot, streaming};
use crate::support::home::{Home, names};
use crate::support::monitored::pretend_to_receive;
use crate::support::postgres::Postgres;
use crate::support::tool::{Walarch, barman_venv, finish, in_home, start, wait_for};

/// Prints the samples of a file, as JSON, unless it breaks a rule of the specification.
const READER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
text = open(sys.argv[1]).read()
samples = [
    {'name': sample.name, 'value': sample.value, **sample.labels}
    for family in text_string_to_metric_families(text)
    for sample in family.samples
]
print(json.dumps(samples))
";

/// A home whose receiver of this kind writes metrics.
fn measuring(postgres: &Postgres, slot: &str, receiver: &str) -> Home {
    let home = home_with_slot(postgres, slot, &[]);
    fs::create_dir(home.root().join("metrics")).unwrap();
    home.walarch_toml(&format!(
        "[walarch]\nreceiver = \"{receiver}\"\nmetrics_directory = \"{{root}}/metrics\"\n"
    ))
}

/// The samples of the metrics file, read by the reference implementation.
struct Metrics(Vec<Value>);

impl Metrics {
    #[track_caller]
    fn read(home: &Home) -> Self {
        let file = home.root().join("metrics/walarch_receive_wal_main.prom");
        wait_for("the file", || file.exists().then_some(()));
        // One version of it, which may be replaced meanwhile.
        let copy = home.root().join("metrics.copy");
        fs::copy(&file, &copy).unwrap();
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/openmetrics-reader");
        assert!(library.exists(), "no {library:?}: run tests/setup.sh");
        let python = barman_venv().join("bin/python");
        let mut command = in_home(Command::new(python), home);
        command.env("PYTHONPATH", library);
        command.args(["-c", READER, copy.to_str().unwrap()]);
        let run = finish(start(&mut command), Duration::from_secs(60));
        assert_eq!(
            run.code,
            0,
            "{run:?}\n{}",
            fs::read_to_string(copy).unwrap()
        );
        Metrics(serde_json::from_str(&run.stdout).unwrap())
    }

    /// The value of the sample with this name and, if that is not empty, this value of a label.
    fn value(&self, name: &str, label: &str) -> Option<f64> {
        let name = format!("walarch_receive_wal_{name}");
        let has_label = |sample: &Value| {
            let mut values = sample.as_object().unwrap().values();
            label.is_empty() || values.any(|value| value == label)
        };
        let mut samples = self.0.iter();
        let sample = samples.find(|sample| sample["name"] == name && has_label(sample))?;
        assert_eq!(sample["server"], "main");
        sample["value"].as_f64()
    }
}

fn status(home: &Home) -> Value {
    let run = home.run(&["-f", "json", "status", "main"]).exits(0);
    let mut status: Value = serde_json::from_str(&run.stdout).unwrap();
    status["main"].take()
}

#[test]
fn status_and_metrics_tell_the_same() {
    let postgres = busy();
    let home = measuring(&postgres, "measured", "builtin");
    let receiving = streaming(&home);
    postgres.fill_segment();
    postgres.fill_segment();
    let metrics = wait_for("two segments in the archive", || {
        let metrics = Metrics::read(&home);
        (metrics.value("files_archived_total", "") >= Some(2.0)).then_some(metrics)
    });
    assert!(metrics.value("segments_completed_total", "") >= Some(2.0));
    assert!(metrics.value("received_bytes_total", "") >= Some(f64::from(1 << 20)));
    assert!(metrics.value("flush_seconds_count", "") >= Some(2.0));
    assert!(metrics.value("flush_seconds_sum", "") > Some(0.0));
    assert_eq!(
        metrics.value("flush_seconds_bucket", "+Inf"),
        metrics.value("flush_seconds_count", "")
    );
    assert_eq!(metrics.value("phase", "streaming"), Some(1.0));
    assert_eq!(metrics.value("phase", "connecting"), Some(0.0));
    assert_eq!(metrics.value("reconnects_total", ""), Some(0.0));
    assert_eq!(metrics.value("holes", ""), Some(0.0));

    let status = status(&home);
    let measured = &status["receive_wal_measurements"]["measurements"];
    assert_eq!(measured["receiver"], "builtin");
    assert_eq!(measured["phase"], "streaming");
    assert_eq!(measured["pid"], receiving.pid().as_raw());
    let number = |name: &str| measured[name].as_f64();
    assert!(number("files_archived") >= metrics.value("files_archived_total", ""));
    assert!(number("received_bytes") >= metrics.value("received_bytes_total", ""));
    assert_eq!(number("timeline"), metrics.value("timeline", ""));
    receiving.end_by(Signal::SIGTERM).exits(0);

    let last = Metrics::read(&home);
    assert_eq!(last.value("phase", "stopped"), Some(1.0));
    assert_eq!(last.value("phase", "streaming"), Some(0.0));
    assert!(last.value("files_archived_total", "") >= metrics.value("files_archived_total", ""));
    assert_eq!(names(&home.root().join("metrics")).len(), 1);
}

#[test]
fn status_shows_how_the_built_in_receiver_goes() {
    let postgres = busy();
    let home = measuring(&postgres, "goes", "builtin");
    let receiving = streaming(&home);
    postgres.fill_segment();
    let message = |status: &Value, key: &str| status[key]["message"].as_str().map(str::to_owned);
    let shown = wait_for("the archived segment", || {
        let status = status(&home);
        let archived = message(&status, "receive_wal_archived")?;
        archived.starts_with("1 file,").then_some(status)
    });
    assert_eq!(
        message(&shown, "receive_wal_state").unwrap(),
        "builtin, streaming"
    );
    let written = message(&shown, "receive_wal_written").unwrap();
    assert!(written.ends_with(" on timeline 1"), "{written}");
    let lag = message(&shown, "receive_wal_lag").unwrap();
    assert!(lag.ends_with(" behind the server"), "{lag}");
    assert_eq!(
        message(&shown, "receive_wal_reconnects").unwrap(),
        "never reconnected"
    );
    // One that was killed leaves its numbers behind, and they count no more.
    receiving.end_by(Signal::SIGKILL);
    let dead = status(&home);
    assert_eq!(message(&dead, "receive_wal").unwrap(), "not running");
    assert_eq!(message(&dead, "receive_wal_state"), None);
    assert!(dead["receive_wal_measurements"].is_null());
    // Nor when somebody else receives, such as Barman.
    let _lock = pretend_to_receive(&home);
    let other = status(&home);
    assert!(
        message(&other, "receive_wal")
            .unwrap()
            .starts_with("running")
    );
    assert_eq!(message(&other, "receive_wal_state"), None);
}

#[test]
fn a_lost_connection_is_counted_and_its_reason_kept() {
    let postgres = busy();
    let home = measuring(&postgres, "lost", "builtin");
    let receiving = streaming(&home);
    postgres.ask(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'lost'",
    );
    let metrics = wait_for("the next connection", || {
        let metrics = Metrics::read(&home);
        (metrics.value("reconnects_total", "") == Some(1.0)).then_some(metrics)
    });
    assert_eq!(metrics.value("phase", "streaming"), Some(1.0));
    assert!(metrics.value("last_error_time_seconds", "").is_some());
    let status = status(&home);
    let reconnects = &status["receive_wal_reconnects"]["message"];
    assert_eq!(reconnects, "reconnected once");
    let error = status["receive_wal_error"]["message"].as_str().unwrap();
    assert!(error.contains("terminating connection"), "{error}");
    receiving.end_by(Signal::SIGTERM).exits(0);
}

#[test]
fn the_lag_is_nothing_while_all_is_here_and_grows_while_the_server_is_away() {
    let mut postgres = Postgres::start(|_| SETTINGS.to_owned());
    let home = measuring(&postgres, "lags", "builtin");
    let receiving = streaming(&home);
    let lag = |phase: &str| {
        wait_for(phase, || {
            let (metrics, status) = (Metrics::read(&home), status(&home));
            let measured = &status["receive_wal_measurements"]["measurements"];
            let is_now = metrics.value("phase", phase) == Some(1.0) && measured["phase"] == phase;
            let lags = ["lag_bytes", "lag_seconds"].map(|name| metrics.value(name, ""));
            let lags_of_status = ["lag_bytes", "lag_s"].map(|name| measured[name].as_f64());
            // The server has not said yet how far it is.
            let is_known = lags.iter().chain(&lags_of_status).all(Option::is_some);
            (is_now && is_known).then_some((lags, lags_of_status))
        })
    };
    let is_nothing = |lags: [Option<f64>; 2]| lags == [Some(0.0); 2];
    let nothing = || {
        wait_for("the rest", || {
            let (metrics, status) = lag("streaming");
            (is_nothing(metrics) && is_nothing(status)).then_some(())
        });
    };
    postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'something')");
    nothing();
    std::thread::sleep(Duration::from_secs(5));
    nothing();
    postgres.stop();
    let (first, _) = lag("waiting");
    std::thread::sleep(Duration::from_secs(5));
    let (metrics, status) = lag("waiting");
    for lags in [metrics, status] {
        assert_eq!(lags[0], Some(0.0), "nothing is known of more WAL");
        let (before, seconds) = (first[1].unwrap(), lags[1].unwrap());
        assert!(
            before + 4.0 < seconds && seconds < 60.0,
            "{before}, {seconds}"
        );
    }
    let text = fs::read_to_string(home.root().join("metrics/walarch_receive_wal_main.prom"));
    assert!(text.unwrap().contains(postgres.socket()), "why it waits");
    postgres.run();
    // Nobody writes anything.
    nothing();
    receiving.end_by(Signal::SIGTERM).exits(0);
}

#[test]
fn what_a_child_receives_is_measured_as_far_as_it_is_known() {
    let postgres = busy();
    let home = measuring(&postgres, "child_measured", "pg_receivewal");
    let receiving = streaming(&home);
    let metrics = wait_for("the file", || {
        let metrics = Metrics::read(&home);
        (metrics.value("phase", "streaming") == Some(1.0)).then_some(metrics)
    });
    assert_eq!(metrics.value("phase", "pg_receivewal"), Some(0.0));
    assert_eq!(metrics.value("received_bytes_total", ""), None);
    kill(receiving.receiver(), Signal::SIGKILL).unwrap();
    receiving.end().exits(1);
    let metrics = Metrics::read(&home);
    let reason = "pg_receivewal terminated by signal: 9";
    assert!(metrics.value("last_error_time_seconds", reason).is_some());
    assert_eq!(metrics.value("phase", "stopped"), Some(1.0));
}

#[test]
fn metrics_that_cannot_be_written_disturb_nobody() {
    let postgres = busy();
    let home = home_with_slot(&postgres, "unmeasured", &[])
        .walarch_toml("[walarch]\nmetrics_directory = \"/nonexistent/metrics\"\n");
    let receiving = streaming(&home);
    let complaints = || home.log().matches("/nonexistent/metrics").count();
    wait_for("a complaint", || (complaints() > 0).then_some(()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(complaints(), 1, "{}", home.log());
    receiving.end_by(Signal::SIGTERM).exits(0);
}

#[test]
fn a_person_at_a_terminal_sees_one_line_that_changes() {
    let postgres = busy();
    let home = measuring(&postgres, "terminal", "builtin");
    let walarch = Walarch.command(&home, &["receive-wal", "main"]);
    let program = walarch.get_program().to_str().unwrap().to_owned();
    let arguments = walarch.get_args().map(|it| it.to_str().unwrap());
    let line = [program.as_str()].into_iter().chain(arguments);
    let line = line.collect::<Vec<_>>().join(" ");
    // script(1) gives it a terminal.
    let mut command = in_home(Command::new("script"), &home);
    command.env("TERM", "xterm");
    command.args(["--quiet", "--flush", "--return", "--command"]);
    command.args([&line, "/dev/null"]);
    let receiving = Receiving::start_command(command, &home);
    receiving.wait_until_it_prints("main: streaming, 0/");
    receiving.wait_until_it_prints(" (timeline 1), 0 B/s, 0 B behind, 0 to archive");
    // A line of the log steps before it.
    postgres.fill_segment();
    receiving.wait_until_it_prints("finished segment at");
    home.run(&["receive-wal", "--stop", "main"]).exits(0);
    receiving.end().exits(0);
}
