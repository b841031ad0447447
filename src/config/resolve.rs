//! From the merged sections to the value of every option of a server or a model, each with its source.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{ConfigError, Level, Message, Place};
use super::file::GlobalConfig;
use super::interpolate::Template;
use super::options::{OptionSpec, Scope, server_option, server_options};
use super::sections::{Sections, Text};
use super::value::Value;

/// Where the value of an option comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A configuration file; for an inherited value that of `[barman]`.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the option's name, from 1.
        line: usize,
    },
    /// The default.
    Default,
    /// The server's active model.
    Model {
        /// The model's name.
        name: String,
        /// The file the model's value is in.
        path: PathBuf,
        /// The line of the option's name, from 1.
        line: usize,
    },
    /// walarch itself set it while it prepared the server, see [`super::ServerConfig::prepare`].
    Forced,
}

impl From<Place> for Source {
    fn from(place: Place) -> Self {
        Source::File {
            path: place.path,
            line: place.line,
        }
    }
}

/// An option's value with its source.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) source: Source,
}

/// The values of all options of one server, or those a model sets.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) values: BTreeMap<&'static str, Setting>,
    /// Why the server is disabled.
    pub(super) reasons: Vec<String>,
    pub(super) active_model: Option<String>,
}

impl Settings {
    fn new(name: &str) -> Self {
        Settings {
            name: name.to_owned(),
            values: BTreeMap::new(),
            reasons: Vec::new(),
            active_model: None,
        }
    }

    pub(super) fn value(&self, option: &str) -> &Value {
        self.values
            .get(option)
            .map_or(&Value::None, |setting| &setting.value)
    }

    pub(super) fn text(&self, option: &str) -> Option<&str> {
        self.value(option).text()
    }

    pub(super) fn disable(&mut self, reason: String) {
        self.reasons.push(reason);
        let setting = Setting {
            value: Value::Bool(true),
            source: Source::Forced,
        };
        self.values.insert("disabled", setting);
    }
}

/// Computes settings from sections, and collects what is to be said about them.
pub(super) struct Resolver<'a> {
    pub(super) sections: &'a Sections,
    pub(super) global: &'a GlobalConfig,
    pub(super) messages: &'a mut Vec<Message>,
}

impl Resolver<'_> {
    /// The settings of the server `name`: its own section, then `[barman]`, then the default.
    ///
    /// # Errors
    ///
    /// When a directory that everything hangs on is empty.
    pub(super) fn server(&mut self, name: &str) -> Result<Settings, ConfigError> {
        self.warn_of_unknown_options(name, |option| server_option(option).is_some());
        let mut settings = Settings::new(name);
        for option in server_options() {
            let setting = self.server_option(option, &settings);
            self.refuse_empty_directory(option, &setting, name)?;
            settings.values.insert(option.name, setting);
        }
        Ok(settings)
    }

    /// The settings of a server about which nothing is written.
    pub(super) fn defaults(&mut self, name: &str) -> Settings {
        let mut settings = Settings::new(name);
        for option in server_options() {
            let setting = self.server_option(option, &settings);
            settings.values.insert(option.name, setting);
        }
        settings
    }

    /// The settings that the model `name` makes.
    ///
    /// # Errors
    ///
    /// When the model has no `cluster`.
    pub(super) fn model(&mut self, name: &str) -> Result<Settings, ConfigError> {
        let sections = self.sections;
        self.warn_of_unknown_options(name, |option| {
            option == "model" || server_option(option).is_some_and(OptionSpec::is_allowed_in_models)
        });
        let section = sections.section(name);
        if section.is_none_or(|section| section.get("cluster").is_none()) {
            let error = ConfigError::new(format!(
                "Parameter \"cluster\" is required in [{name}] section.\n\
                 Your configuration is missing required parameters. Exiting."
            ));
            let first = section.and_then(|section| section.get("model"));
            return Err(match first {
                Some(option) => error.place(&option.place).option("cluster"),
                None => error.option("cluster"),
            });
        }
        let mut settings = Settings::new(name);
        for option in server_options() {
            if option.is_allowed_in_models()
                && let Some(setting) = self.section_setting(option, name, &settings)
            {
                settings.values.insert(option.name, setting);
            }
        }
        settings.values.retain(|_, setting| !unset(&setting.value));
        Ok(settings)
    }

    fn server_option(&mut self, option: &OptionSpec, settings: &Settings) -> Setting {
        let mut found = None;
        if option.is_read_from_server() {
            found = self.section_setting(option, &settings.name, settings);
        }
        if found.is_none() && option.is_inherited() {
            found = self.section_setting(option, "barman", settings);
        }
        let mut setting = found.unwrap_or_else(|| self.default(option, settings));
        if unset(&setting.value) {
            setting.value = Value::None;
        }
        setting
    }

    /// The value in one section; `None` when there is none, or none that can be used.
    fn section_setting(
        &mut self,
        option: &OptionSpec,
        section: &str,
        settings: &Settings,
    ) -> Option<Setting> {
        let global = self.global;
        let known = |name: &str| reference(name, settings, global);
        // An empty value stands for "none" and keeps the value of [barman] out.
        let text = self.sections.get(section, option.name, &known, Some(""))?;
        self.warn_of_unknown_references(option, section, &text);
        match option.kind.parse(&text.value) {
            Ok(value) => Some(Setting {
                value: value?,
                source: text.place.into(),
            }),
            Err(reason) => {
                self.messages.push(Message::console(
                    Level::Warning,
                    format!(
                        "Ignoring invalid configuration value '{}' for key {} in [{section}] \
                         section: {reason}",
                        text.value, option.name
                    ),
                ));
                None
            }
        }
    }

    fn default(&self, option: &OptionSpec, settings: &Settings) -> Setting {
        let template = Template::expand(option.default.unwrap_or_default(), &|_| None);
        let (text, _) = template.fill(&|name| {
            // An option without a value makes the default that uses it empty as well.
            Some(reference(name, settings, self.global).unwrap_or_else(|| "None".to_owned()))
        });
        Setting {
            value: option
                .kind
                .parse(&text)
                .ok()
                .flatten()
                .unwrap_or(Value::None),
            source: Source::Default,
        }
    }

    fn warn_of_unknown_options(&mut self, section: &str, allowed: impl Fn(&str) -> bool) {
        let options = self.sections.section(section).map(|s| &s.options);
        for option in options.into_iter().flatten() {
            if !allowed(&option.name) {
                self.messages.push(invalid_option(&option.name, section));
            }
        }
    }

    fn warn_of_unknown_references(&mut self, option: &OptionSpec, section: &str, text: &Text) {
        if !option.is_wal_side() {
            return;
        }
        for reference in &text.unknown {
            self.messages.push(Message::console(
                Level::Warning,
                format!(
                    "{reference} in option \"{}\" in [{section}] section refers to nothing \
                     and stays as it stands ({}, line {})",
                    option.name,
                    text.place.path.display(),
                    text.place.line
                ),
            ));
        }
    }

    fn refuse_empty_directory(
        &self,
        option: &OptionSpec,
        setting: &Setting,
        server: &str,
    ) -> Result<(), ConfigError> {
        let is_directory = option.scope == Scope::Server || option.name == "xlogdb_directory";
        if !is_directory || !option.is_wal_side() || setting.value != Value::None {
            return Ok(());
        }
        let error = ConfigError::new(format!(
            "Option \"{}\" of server '{server}' must not be empty",
            option.name
        ))
        .option(option.name)
        .hint("Remove the line to get the default.");
        Err(match &setting.source {
            Source::File { path, line } => error.file(path).line(*line),
            _ => error,
        })
    }
}

/// Barman's sentence about an option that has no business where it stands.
pub(super) fn invalid_option(option: &str, section: &str) -> Message {
    let text = format!("Invalid configuration option \"{option}\" in [{section}] section.");
    Message::console(Level::Warning, text)
}

/// What `%(name)s` stands for in the section of a server whose settings are known so far.
fn reference(name: &str, settings: &Settings, global: &GlobalConfig) -> Option<String> {
    if name == "name" {
        return Some(settings.name.clone());
    }
    match settings.values.get(name) {
        Some(setting) if setting.value != Value::None => Some(setting.value.console()),
        _ => global.reference(name),
    }
}

/// Barman takes an empty text and the word `None`, however they came about, for no value.
fn unset(value: &Value) -> bool {
    matches!(value, Value::None)
        || value
            .text()
            .is_some_and(|text| text.is_empty() || text == "None")
}
