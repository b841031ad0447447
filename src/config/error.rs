//! The errors that stop a configuration from being used at all, and the messages that do not.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A configuration that cannot be used.
///
/// It displays as the sentence itself (Barman's words where Barman has the same error), then where
/// it happened, then a hint. Every such error ends the program with exit code 1, so there is one
/// type and no variants.
#[derive(Debug, Error)]
#[error("{}", self.rendered())]
pub struct ConfigError(Box<Details>);

#[derive(Debug, Default)]
struct Details {
    text: String,
    path: Option<PathBuf>,
    line: Option<usize>,
    option: Option<String>,
    hint: Option<String>,
}

impl ConfigError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        ConfigError(Box::new(Details {
            text: text.into(),
            ..Details::default()
        }))
    }

    pub(super) fn file(mut self, path: &Path) -> Self {
        self.0.path = Some(path.to_path_buf());
        self
    }

    pub(super) fn line(mut self, line: usize) -> Self {
        self.0.line = Some(line);
        self
    }

    pub(super) fn place(self, place: &Place) -> Self {
        self.file(&place.path).line(place.line)
    }

    pub(super) fn option(mut self, name: &str) -> Self {
        self.0.option = Some(name.to_owned());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error in one sentence, without place and hint.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The file the error is in, where it is in one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The line, from 1, where the error is in one.
    pub fn line_number(&self) -> Option<usize> {
        self.0.line
    }

    /// The name of the option the error is about, where it is about one.
    pub fn option_name(&self) -> Option<&str> {
        self.0.option.as_deref()
    }

    /// What the operator can do, where walarch knows.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn rendered(&self) -> String {
        let details = &self.0;
        let mut out = details.text.clone();
        if let Some(path) = &details.path {
            out.push_str(&format!("\nFile: {}", path.display()));
            if let Some(line) = details.line {
                out.push_str(&format!(", line {line}"));
            }
        }
        if let Some(hint) = &details.hint {
            out.push_str(&format!("\nHINT: {hint}"));
        }
        out
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The configuration file.
    pub path: PathBuf,
    /// The line of the option's name, from 1.
    pub line: usize,
}

/// How much a [`Message`] matters, in Barman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the log at level DEBUG, and for the console under `--debug`.
    Debug,
    /// Worth saying, nothing is wrong.
    Info,
    /// Something was ignored or assumed.
    Warning,
    /// Something is wrong; Barman makes the exit code 1.
    Error,
}

/// Something the operator should hear. Collected while loading, never printed by this module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How much it matters.
    pub level: Level,
    /// The sentence; Barman's own where Barman says the same.
    pub text: String,
    /// True: for the log and the console. False: for the log only.
    pub console: bool,
}

impl Message {
    pub(super) fn console(level: Level, text: impl Into<String>) -> Self {
        Message {
            level,
            text: text.into(),
            console: true,
        }
    }

    pub(super) fn log(level: Level, text: impl Into<String>) -> Self {
        Message {
            level,
            text: text.into(),
            console: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_place_and_its_hint() {
        let error = ConfigError::new("A line has no delimiter")
            .file(Path::new("/etc/barman.conf"))
            .line(7)
            .hint("Write it as `option = value`.");
        assert_eq!(
            error.to_string(),
            "A line has no delimiter\nFile: /etc/barman.conf, line 7\n\
             HINT: Write it as `option = value`."
        );
        assert_eq!(ConfigError::new("Short").to_string(), "Short");
    }
}
