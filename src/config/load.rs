//! The second step of loading: further files, servers, models, and the checks across them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Level, Message};
use super::file::{ConfigFile, GlobalConfig};
use super::home::{expand_user, home_directory};
use super::ini::{self, IniFile};
use super::options::{global_options, server_option};
use super::resolve::{Resolver, Settings, invalid_option};
use super::sections::Sections;
use super::server::ServerConfig;
use super::value::parse_bool;
use super::{assemble, conflicts};

/// The word that stands for every server on the command line.
const RESERVED_NAME: &str = "all";

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The main configuration file.
    pub path: PathBuf,
    /// What `[barman]` says about the whole installation.
    pub global: GlobalConfig,
    /// The servers in the order in which the files name them.
    pub servers: Vec<ServerConfig>,
    /// The names of the models.
    pub models: Vec<String>,
    /// Conflicts between servers. While there are any, Barman's commands print them and stop.
    pub global_errors: Vec<String>,
    /// What the operator should hear, in the order in which it was found.
    pub messages: Vec<Message>,
}

impl Config {
    /// The server of this name.
    pub fn server(&self, name: &str) -> Option<&ServerConfig> {
        self.servers.iter().find(|server| server.name == name)
    }

    /// The server of this name, for [`ServerConfig::prepare`].
    pub fn server_mut(&mut self, name: &str) -> Option<&mut ServerConfig> {
        self.servers.iter_mut().find(|server| server.name == name)
    }

    /// The names of the servers in the order in which the files name them.
    pub fn server_names(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| server.name.as_str())
    }
}

impl ConfigFile {
    /// Reads the included files, `.barman.auto.conf` and `walarch.toml`, and checks everything.
    ///
    /// Call it after the change to `barman_user`, whose permissions and home directory count from here.
    /// What is only worth a word is in [`Config::messages`].
    ///
    /// # Errors
    ///
    /// When a file cannot be parsed, when an included file changes `[barman]`, when a server has a
    /// reserved name or an empty directory, when a model is malformed, when an own option is wrong.
    pub fn load(mut self) -> Result<Config, ConfigError> {
        self.include_directory()?;
        self.include_auto_conf()?;
        let ConfigFile {
            path,
            global,
            sections,
            mut messages,
            own,
            ..
        } = self;
        warn_of_unknown_global_options(&sections, &mut messages);
        let mut resolver = Resolver {
            sections: &sections,
            global: &global,
            messages: &mut messages,
        };
        let (mut servers, models) = resolver.servers_and_models()?;
        let global_errors = conflicts::check(&mut servers);
        for server in &mut servers {
            resolver.apply_active_model(server, &models);
        }
        let names: BTreeSet<&str> = servers.iter().map(|server| &*server.name).collect();
        messages.extend(own.unknown_servers(|name| names.contains(name)));
        let servers = servers
            .iter()
            .map(|settings| {
                let own = own.of_server(&settings.name);
                assemble::server(settings, &global, own, &mut messages)
            })
            .collect();
        Ok(Config {
            path,
            servers,
            models: models.into_iter().map(|model| model.name).collect(),
            global,
            global_errors,
            messages,
        })
    }

    fn include_directory(&mut self) -> Result<(), ConfigError> {
        let Some(written) = self.global.configuration_files_directory.clone() else {
            return Ok(());
        };
        let home = home_directory(self.started_as);
        let directory = expand_user(&written, home.as_deref());
        if !directory.is_dir() {
            self.messages.push(Message::log(
                Level::Warning,
                format!(
                    "Ignoring the \"configuration_files_directory\" option as \"{written}\" is \
                     not a directory"
                ),
            ));
            return Ok(());
        }
        for path in conf_files(&directory)? {
            self.include(&path)?;
        }
        Ok(())
    }

    fn include_auto_conf(&mut self) -> Result<(), ConfigError> {
        let path = self.global.barman_home.join(".barman.auto.conf");
        if path.exists() {
            self.include(&path)?;
        }
        Ok(())
    }

    fn include(&mut self, path: &Path) -> Result<(), ConfigError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !path.is_file() {
            let why = if path.exists() {
                "not a file"
            } else {
                "not found"
            };
            self.messages.push(Message::log(
                Level::Warning,
                format!("Discarding configuration file: {name} ({why})"),
            ));
            return Ok(());
        }
        self.messages.push(Message::log(
            Level::Debug,
            format!("Including configuration file: {name}"),
        ));
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            // Barman passes over such a file without a word, and its servers are unknown then.
            Err(error) => {
                self.messages.push(Message::console(
                    Level::Warning,
                    format!("Discarding configuration file: {name} ({error})"),
                ));
                return Ok(());
            }
        };
        let file = ini::parse(ini::decode(&bytes, path)?, path)?;
        self.merge(&file, path, &name)
    }

    fn merge(&mut self, file: &IniFile, path: &Path, name: &str) -> Result<(), ConfigError> {
        let before = barman_section(&self.sections);
        self.sections.merge(file, path);
        if barman_section(&self.sections) == before {
            return Ok(());
        }
        let mut error = ConfigError::new(format!(
            "FATAL: the configuration file {name} contains a not empty [barman] section"
        ))
        .file(path)
        .hint("Move these options to the main configuration file.");
        let section = file
            .sections
            .iter()
            .find(|section| section.name == "barman");
        if let Some(option) = section.and_then(|section| section.options.first()) {
            error = error.line(option.line).option(&option.name);
        }
        Err(error)
    }
}

impl Resolver<'_> {
    fn servers_and_models(&mut self) -> Result<(Vec<Settings>, Vec<Settings>), ConfigError> {
        let (mut servers, mut models) = (Vec::new(), Vec::new());
        let sections = self.sections;
        for section in sections.iter().filter(|section| section.name != "barman") {
            let name = &section.name;
            if name == RESERVED_NAME {
                let error = ConfigError::new(format!(
                    "FATAL: the reserved word '{name}' is not allowed as server name.\
                     Please rename it."
                ));
                return Err(match section.options.first() {
                    Some(option) => error.place(&option.place),
                    None => error,
                });
            }
            if is_model(sections, name)? {
                models.push(self.model(name)?);
            } else {
                servers.push(self.server(name)?);
            }
        }
        Ok((servers, models))
    }
}

fn is_model(sections: &Sections, section: &str) -> Result<bool, ConfigError> {
    // Quotes count as text here, for Barman too.
    let Some(text) = sections.text(section, "model", &|_| None) else {
        return Ok(false);
    };
    parse_bool(&text.value).map_err(|reason| {
        ConfigError::new(reason)
            .place(&text.place)
            .option("model")
            .hint("Write model = true in a model, and nothing in a server.")
    })
}

/// The options of `[barman]` with their texts, to tell whether a file changed any.
fn barman_section(sections: &Sections) -> BTreeSet<(String, String)> {
    let options = sections.section("barman").map(|section| &section.options);
    options
        .into_iter()
        .flatten()
        .map(|option| (option.name.clone(), option.template.fill(&|_| None).0))
        .collect()
}

fn warn_of_unknown_global_options(sections: &Sections, messages: &mut Vec<Message>) {
    let options = sections.section("barman").map(|section| &section.options);
    for option in options.into_iter().flatten() {
        let name = option.name.as_str();
        let is_global = global_options().iter().any(|spec| spec.name == name);
        if !is_global && server_option(name).is_none() {
            messages.push(invalid_option(name, "barman"));
        }
    }
}

/// The `*.conf` files of a directory in the order of their names; hidden ones do not count.
fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |error: std::io::Error| {
        ConfigError::new(format!(
            "Cannot read the directory of configuration files: {error}"
        ))
        .file(directory)
        .option("configuration_files_directory")
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_conf_name(&entry.file_name()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_conf_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".conf") && !name.as_bytes().starts_with(b".")
}
