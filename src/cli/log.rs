//! The log: lines in the form that Barman's `log_format` asks for.

use std::env;
use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::redact::redact;

/// The names that `--log-level` accepts.
pub(super) const LEVELS: [&str; 6] = ["NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

/// Opens the log for the rest of the process.
///
/// Without a file, or with one that cannot be opened, lines go to standard error. `level` is a name
/// of [`LEVELS`] in any case or Python's number for it; `None` is INFO.
pub(super) fn open(file: Option<&Path>, level: Option<&str>, format: &str) {
    let opened = file.map(LogFile::open);
    let severity = level.map_or(Some(INFO), severity);
    let (file_in_use, failure) = match opened.transpose() {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let log = Log {
        file: Mutex::new(file_in_use),
        format: format.to_owned(),
        least_severity: severity.unwrap_or(INFO),
    };
    // A second call in one process would be a mistake of ours; the first log stays in use.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(log));
    if let (Some(error), Some(path)) = (failure, file) {
        tracing::warn!(
            "Failed opening the requested log file. Using standard error instead. ({}: {error})",
            path.display()
        );
    }
    if let (None, Some(level)) = (severity, level) {
        tracing::warn!("unknown log_level in config file: {level}");
    }
}

const INFO: i64 = 20;

/// The log file, which another one may replace at any time: logrotate moves it away.
struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode.
    identity: (u64, u64),
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty())
        {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let metadata = file.metadata()?;
        Ok(LogFile {
            path: path.to_owned(),
            file,
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// Writes to the file that has the name now, as Barman does; to the former one where that fails.
    fn write(&mut self, line: &str) -> io::Result<()> {
        let named = fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        if named.ok() != Some(self.identity)
            && let Ok(new) = LogFile::open(&self.path)
        {
            *self = new;
        }
        self.file.write_all(line.as_bytes())
    }
}

/// Python's number for a level.
fn severity(level: &str) -> Option<i64> {
    level.parse().ok().or_else(|| {
        Some(match level.to_ascii_uppercase().as_str() {
            "NOTSET" => 0,
            "DEBUG" => 10,
            "INFO" => INFO,
            "WARNING" | "WARN" => 30,
            "ERROR" => 40,
            "CRITICAL" | "FATAL" => 50,
            _ => return None,
        })
    })
}

struct Log {
    /// Standard error if there is none.
    file: Mutex<Option<LogFile>>,
    format: String,
    least_severity: i64,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let (name, number) = match *event.metadata().level() {
            Level::ERROR => ("ERROR", 40),
            Level::WARN => ("WARNING", 30),
            Level::INFO => ("INFO", INFO),
            _ => ("DEBUG", 10),
        };
        let ours = event
            .metadata()
            .target()
            .starts_with(env!("CARGO_CRATE_NAME"));
        if number < self.least_severity || !ours {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let record = Record {
            level: name,
            number,
            logger: event.metadata().target().replace("::", "."),
            message: redact(&message.0),
            time: Timestamp::now().to_zoned(LOCAL_TIME.clone()),
        };
        let line = format!("{}\n", record.render(&self.format));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not stop the archiving.
        let _ = match &mut *file {
            Some(file) => file.write(&line),
            None => io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// What `TZ` says, else `/etc/localtime`.
///
/// Left to itself, jiff looks up the name behind the link `/etc/localtime`, for which it lists the whole
/// database: a hundred system calls, in a process that may live for ten milliseconds.
static LOCAL_TIME: LazyLock<TimeZone> = LazyLock::new(|| {
    let linked = match env::var_os("TZ") {
        None => fs::read("/etc/localtime").ok(),
        Some(_) => None,
    };
    linked
        .and_then(|rules| TimeZone::tzif("", &rules).ok())
        .unwrap_or_else(TimeZone::system)
});

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

struct Record {
    level: &'static str,
    number: i64,
    logger: String,
    message: String,
    time: Zoned,
}

impl Record {
    /// Fills in a format of Python's logging module: `%(NAME)` with flags, width and a conversion.
    /// What it does not know stays as it stands.
    fn render(&self, format: &str) -> String {
        let mut line = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            line.push_str(rest.get(..at).unwrap_or_default());
            rest = rest.get(at..).unwrap_or_default();
            if let Some(after) = rest.strip_prefix("%%") {
                line.push('%');
                rest = after;
            } else if let Some((text, after)) = self.placeholder(rest) {
                line.push_str(&text);
                rest = after;
            } else {
                line.push('%');
                rest = rest.get(1..).unwrap_or_default();
            }
        }
        line + rest
    }

    /// Renders the placeholder that `text` begins with and returns what comes after it.
    fn placeholder<'t>(&self, text: &'t str) -> Option<(String, &'t str)> {
        let (name, after) = text.strip_prefix("%(")?.split_once(')')?;
        let conversion_at = after.find(|c: char| c.is_ascii_alphabetic())?;
        let (padding, after) = after.split_at(conversion_at);
        let value = self.attribute(name)?;
        let width = padding.trim_start_matches(['-', '0']).parse().unwrap_or(0);
        let padded = if padding.starts_with('-') {
            format!("{value:<width$}")
        } else if padding.starts_with('0') {
            format!("{value:0>width$}")
        } else {
            format!("{value:>width$}")
        };
        Some((padded, after.get(1..)?))
    }

    fn attribute(&self, name: &str) -> Option<String> {
        Some(match name {
            "asctime" => {
                let milliseconds = self.time.millisecond();
                format!(
                    "{},{milliseconds:03}",
                    self.time.strftime("%Y-%m-%d %H:%M:%S")
                )
            }
            "created" => self
                .time
                .timestamp()
                .as_duration()
                .as_secs_f64()
                .to_string(),
            "levelname" => self.level.to_owned(),
            "levelno" => self.number.to_string(),
            "message" => self.message.clone(),
            "msecs" => self.time.millisecond().to_string(),
            "name" => self.logger.clone(),
            "module" => self
                .logger
                .rsplit('.')
                .next()
                .unwrap_or_default()
                .to_owned(),
            "process" => std::process::id().to_string(),
            "processName" => "MainProcess".to_owned(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_format_makes_barmans_lines() {
        let record = Record {
            level: "INFO",
            number: 20,
            logger: "walarch.cli".to_owned(),
            message: "100 % done".to_owned(),
            time: "2026-11-21T12:00:00.0421Z"
                .parse::<jiff::Timestamp>()
                .unwrap()
                .to_zoned(TimeZone::UTC),
        };
        let format = "%(asctime)s [%(process)s] %(name)s %(levelname)s: %(message)s";
        let pid = std::process::id();
        assert_eq!(
            record.render(format),
            format!("2026-11-21 12:00:00,042 [{pid}] walarch.cli INFO: 100 % done")
        );
        assert_eq!(
            record.render("%(levelname)-8s|%(levelno)05d|%%|%(no)s|%"),
            "INFO    |00020|%|%(no)s|%"
        );
    }
}
