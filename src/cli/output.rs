//! What a person or a script reads: lines on the terminal, or one JSON object at the end.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::args::{Args, Color, Command, Format};
use super::exit_code::ExitCode;
use super::redact::redact;

/// The writer of one run. Remembers whether anything was an error.
pub(super) struct Output {
    format: Format,
    quiet: bool,
    debug: bool,
    colored: bool,
    /// Standard output carries WAL: lines go to standard error.
    stdout_is_taken: bool,
    exit_code: Cell<ExitCode>,
    /// The JSON object; keys in order, as Barman sorts them.
    json: RefCell<Map<String, Value>>,
    /// What must step aside while a line is printed.
    progress: RefCell<Option<ProgressBar>>,
}

impl Output {
    pub(super) fn new(args: &Args) -> Self {
        let colored = match args.color {
            Color::Never => false,
            Color::Always => true,
            Color::Auto => io::stdout().is_terminal() && io::stderr().is_terminal(),
        };
        Output {
            format: args.format,
            quiet: args.quiet,
            debug: args.debug,
            colored,
            stdout_is_taken: args.command.as_ref().is_some_and(Command::writes_wal),
            exit_code: Cell::new(ExitCode::Success),
            json: RefCell::default(),
            progress: RefCell::default(),
        }
    }

    /// Debug messages go to standard error with `-d`, and to the log.
    pub(super) fn debug(&self, message: &str) {
        tracing::debug!("{message}");
        if self.debug {
            self.message("_DEBUG", "DEBUG: ", None, message);
        }
    }

    /// A line for the person only.
    pub(super) fn line(&self, message: &str) {
        match self.format {
            Format::Console if self.quiet => {}
            Format::Console if self.stdout_is_taken => {
                self.print(&mut io::stderr(), &redact(message));
            }
            Format::Console => self.print(&mut io::stdout(), &redact(message)),
            Format::Json => self.collect("_INFO", message),
        }
    }

    /// A line for the person and for the log.
    pub(super) fn info(&self, message: &str) {
        tracing::info!("{message}");
        self.line(message);
    }

    /// Something is odd, and the command goes on.
    pub(super) fn warning(&self, message: &str) {
        tracing::warn!("{message}");
        self.message("_WARNING", "WARNING: ", Some(AnsiColor::Yellow), message);
    }

    /// A line on standard error, whatever was asked for.
    pub(super) fn note(&self, message: &str) {
        self.print(&mut io::stderr(), message);
    }

    /// Something failed, so that the exit code cannot be 0 any more.
    pub(super) fn error(&self, message: &str) {
        tracing::error!("{message}");
        if self.exit_code.get() == ExitCode::Success {
            self.exit_code.set(ExitCode::Failure);
        }
        self.message("_ERROR", "ERROR: ", Some(AnsiColor::Red), message);
    }

    /// An error with what the operator can do about it.
    pub(super) fn error_with_hint(&self, error: &dyn std::fmt::Display, hint: Option<&str>) {
        match hint {
            Some(hint) => self.error(&format!("{error}\nHINT: {hint}")),
            None => self.error(&error.to_string()),
        }
    }

    /// What the process ends with, where that says more than that something failed.
    pub(super) fn exit_with(&self, code: ExitCode) {
        self.exit_code.set(code);
    }

    /// Whether the format wants lines or values.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Whether only warnings and errors are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Puts a value into the JSON object.
    pub(super) fn value(&self, key: &str, value: Value) {
        self.json.borrow_mut().insert(key.to_owned(), value);
    }

    /// Lets lines and a progress bar share a terminal.
    pub(super) fn set_progress(&self, bar: Option<ProgressBar>) {
        *self.progress.borrow_mut() = bar;
    }

    /// Prints what was collected and says how it all ended.
    pub(super) fn close(self) -> ExitCode {
        if self.is_json() && !self.quiet {
            let mut text = Vec::new();
            let mut serializer = serde_json::Serializer::with_formatter(&mut text, PythonStyle);
            // Strings, lists and maps always serialise.
            let _ = self.json.borrow().serialize(&mut serializer);
            let mut stream: Box<dyn Write> = match self.stdout_is_taken {
                true => Box::new(io::stderr()),
                false => Box::new(io::stdout()),
            };
            let _ = stream.write_all(&text).and_then(|()| stream.flush());
        }
        self.exit_code.get()
    }

    fn message(&self, key: &str, prefix: &str, color: Option<AnsiColor>, message: &str) {
        match self.format {
            Format::Json => self.collect(key, message),
            Format::Console => {
                let style = Style::new().fg_color(color.filter(|_| self.colored).map(Into::into));
                let text = redact(message);
                self.print(
                    &mut io::stderr(),
                    &format!("{style}{prefix}{text}{style:#}"),
                );
            }
        }
    }

    fn collect(&self, key: &str, message: &str) {
        let mut json = self.json.borrow_mut();
        if let Value::Array(list) = json.entry(key).or_insert_with(|| json!([])) {
            list.push(redact(message).into());
        }
    }

    /// A reader that went away (`| head`) must not stop the archiving: errors are ignored.
    fn print(&self, stream: &mut dyn Write, text: &str) {
        let mut print = || {
            let _ = stream.write_all(format!("{text}\n").as_bytes());
            let _ = stream.flush();
        };
        match &*self.progress.borrow() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

/// JSON with the blanks that Barman's has, for scripts that grep in it.
struct PythonStyle;

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
