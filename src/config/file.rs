//! Finding the configuration file, and what must be known before the log is open: the `[barman]`
//! section.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::error::{ConfigError, Level, Message};
use super::home::{expand_user, home_directory};
use super::own::OwnTables;
use super::sections::Sections;
use super::value::parse_bool;
use super::{ini, toml_file};

const DEFAULT_USER: &str = "barman";

const DEFAULT_LOG_FORMAT: &str = "%(asctime)s [%(process)s] %(name)s %(levelname)s: %(message)s";

/// The main configuration file, read; the first of the two steps of loading.
///
/// Between the steps the program changes to [`GlobalConfig::barman_user`] and opens the log.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) global: GlobalConfig,
    pub(super) sections: Sections,
    pub(super) messages: Vec<Message>,
    /// walarch's own options, from the file beside the main one or, if that is TOML, from itself.
    pub(super) own: OwnTables,
    /// Who started the process: only this user's `$HOME` is believed.
    pub(super) started_as: Uid,
}

/// What `[barman]` says about the whole installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalConfig {
    /// `barman_home`
    pub barman_home: PathBuf,
    /// `barman_user`
    pub barman_user: String,
    /// `barman_lock_directory`
    pub barman_lock_directory: PathBuf,
    /// `lock_directory_cleanup`: whether `cron` removes lock files that nobody holds.
    pub lock_directory_cleanup: bool,
    /// `config_changes_queue`
    pub config_changes_queue: PathBuf,
    /// `configuration_files_directory`, as written: a leading `~` is the home of `barman_user`.
    pub configuration_files_directory: Option<String>,
    /// `log_file`; standard error when unset.
    pub log_file: Option<PathBuf>,
    /// `log_level`, as written: a name of Python's or a number.
    pub log_level: Option<String>,
    /// `log_format`, in Python's notation.
    pub log_format: String,
}

impl ConfigFile {
    /// Finds and reads the configuration file: `cli_path`, else `$BARMAN_CONFIG_FILE`, else
    /// `~/.barman.conf`, `/etc/barman.conf`, `/etc/barman/barman.conf`. An empty path counts as none.
    ///
    /// A file whose name ends in `.toml` is read as TOML.
    ///
    /// # Errors
    ///
    /// When there is no such file, when it cannot be read or parsed, and when `[barman]` has no
    /// `barman_home`.
    pub fn find(cli_path: Option<&Path>) -> Result<ConfigFile, ConfigError> {
        let variable = || std::env::var_os("BARMAN_CONFIG_FILE");
        let named = cli_path.map(|path| path.as_os_str().to_owned());
        match named
            .or_else(variable)
            .filter(|path: &OsString| !path.is_empty())
        {
            Some(path) => Self::open(Path::new(&path)),
            None => Self::find_among(&default_paths()),
        }
    }

    /// Reads the configuration file at `path`.
    ///
    /// # Errors
    ///
    /// As [`ConfigFile::find`].
    pub fn open(path: &Path) -> Result<ConfigFile, ConfigError> {
        if !path.exists() {
            return Err(ConfigError::new(format!(
                "Configuration file '{}' does not exist",
                path.display()
            )));
        }
        let bytes = std::fs::read(path).map_err(|error| {
            ConfigError::new(format!("Cannot read the configuration file: {error}")).file(path)
        })?;
        Self::read(path, &bytes, Vec::new())
    }

    fn find_among(paths: &[PathBuf]) -> Result<ConfigFile, ConfigError> {
        let mut messages = Vec::new();
        for path in paths.iter().filter(|path| path.exists()) {
            match std::fs::read(path) {
                Ok(bytes) => return Self::read(path, &bytes, messages),
                // Barman goes on to the next place as well, but without a word.
                Err(error) => messages.push(Message::console(
                    Level::Warning,
                    format!(
                        "Passing over configuration file {}: {error}",
                        path.display()
                    ),
                )),
            }
        }
        let unreadable: String = messages.iter().map(|m| format!("{}\n", m.text)).collect();
        Err(ConfigError::new(format!(
            "{unreadable}Could not find any configuration file at default locations.\n\
             See walarch's README, or give one with -c FILE."
        )))
    }

    fn read(path: &Path, bytes: &[u8], messages: Vec<Message>) -> Result<ConfigFile, ConfigError> {
        let text = ini::decode(bytes, path)?;
        let is_toml = path
            .extension()
            .is_some_and(|extension| extension == "toml");
        let (file, own) = if is_toml {
            toml_file::parse(text, path)?
        } else {
            // Now, as the user that could read the file beside it.
            (ini::parse(text, path)?, OwnTables::beside(path)?)
        };
        let mut sections = Sections::default();
        sections.merge(&file, path);
        Ok(ConfigFile {
            global: GlobalConfig::read(&sections, path)?,
            path: path.to_path_buf(),
            sections,
            messages,
            own,
            started_as: Uid::current(),
        })
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `[barman]` says about the whole installation.
    pub fn global(&self) -> &GlobalConfig {
        &self.global
    }
}

impl GlobalConfig {
    fn read(sections: &Sections, path: &Path) -> Result<GlobalConfig, ConfigError> {
        let get = |option: &str| sections.get("barman", option, &|_| None, None);
        let text = |option: &str| {
            let value = get(option).map(|text| text.value);
            value.filter(|value| !value.is_empty())
        };
        let Some(home) = text("barman_home") else {
            return Err(ConfigError::new(
                "Parameter \"barman_home\" is required in [barman] section.\n\
                 Your configuration is missing required parameters. Exiting.",
            )
            .file(path)
            .option("barman_home"));
        };
        let cleanup = match get("lock_directory_cleanup").filter(|t| !t.value.is_empty()) {
            None => true,
            Some(text) => parse_bool(&text.value).map_err(|reason| {
                ConfigError::new(reason)
                    .place(&text.place)
                    .option("lock_directory_cleanup")
                    .hint("Write lock_directory_cleanup = on or off.")
            })?,
        };
        let mut global = GlobalConfig::with_home(Path::new(&home));
        global.lock_directory_cleanup = cleanup;
        global.configuration_files_directory = text("configuration_files_directory");
        global.log_file = text("log_file").map(PathBuf::from);
        global.log_level = text("log_level");
        if let Some(user) = text("barman_user") {
            global.barman_user = user;
        }
        if let Some(directory) = text("barman_lock_directory") {
            global.barman_lock_directory = PathBuf::from(directory);
        }
        if let Some(queue) = text("config_changes_queue") {
            global.config_changes_queue = PathBuf::from(queue);
        }
        if let Some(format) = text("log_format") {
            global.log_format = format;
        }
        Ok(global)
    }

    pub(super) fn with_home(home: &Path) -> GlobalConfig {
        GlobalConfig {
            barman_home: home.to_path_buf(),
            barman_user: DEFAULT_USER.to_owned(),
            barman_lock_directory: home.to_path_buf(),
            lock_directory_cleanup: true,
            config_changes_queue: home.join("cfg_changes.queue"),
            configuration_files_directory: None,
            log_file: None,
            log_level: None,
            log_format: DEFAULT_LOG_FORMAT.to_owned(),
        }
    }

    /// The answer to a reference such as `%(barman_home)s` in a server's section.
    pub(super) fn reference(&self, name: &str) -> Option<String> {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        match name {
            "barman_home" => Some(path(&self.barman_home)),
            "barman_lock_directory" => Some(path(&self.barman_lock_directory)),
            "config_changes_queue" => Some(path(&self.config_changes_queue)),
            "lock_directory_cleanup" => Some(
                if self.lock_directory_cleanup {
                    "True"
                } else {
                    "False"
                }
                .to_owned(),
            ),
            _ => None,
        }
    }
}

fn default_paths() -> Vec<PathBuf> {
    let home = home_directory(Uid::current());
    vec![
        expand_user("~/.barman.conf", home.as_deref()),
        PathBuf::from("/etc/barman.conf"),
        PathBuf::from("/etc/barman/barman.conf"),
    ]
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<GlobalConfig, ConfigError> {
        ConfigFile::read(Path::new(name), text.as_bytes(), Vec::new()).map(|file| file.global)
    }

    #[test]
    fn defaults_hang_on_barman_home() -> Result<(), ConfigError> {
        let global = read("b.conf", "[barman]\nbarman_home = '/b'\n")?;
        assert_eq!(global.barman_lock_directory, Path::new("/b"));
        assert_eq!(
            global.config_changes_queue,
            Path::new("/b/cfg_changes.queue")
        );
        assert_eq!((&*global.barman_user, global.log_file), ("barman", None));
        assert!(global.lock_directory_cleanup);
        assert_eq!(global.log_format, DEFAULT_LOG_FORMAT);
        Ok(())
    }

    #[test]
    fn a_missing_home_is_barmans_error() {
        for text in [
            "",
            "[main]\n",
            "[barman]\n",
            "[barman]\nbarman_home = None\n",
        ] {
            let Err(error) = read("b.conf", text) else {
                panic!("{text:?} was accepted");
            };
            let first = "Parameter \"barman_home\" is required in [barman] section.";
            assert!(error.to_string().starts_with(first));
        }
    }

    #[test]
    fn toml_says_the_same_as_ini() -> Result<(), ConfigError> {
        let ini = "[barman]\nbarman_home = /b\nlock_directory_cleanup = off\nlog_level = 10\n";
        let toml = "[barman]\nbarman_home = '/b'\nlock_directory_cleanup = false\nlog_level = 10\n";
        assert_eq!(read("b.conf", ini)?, read("b.toml", toml)?);
        Ok(())
    }

    #[test]
    fn the_first_readable_default_counts() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let good = dir.path().join("good.conf");
        std::fs::write(&good, "[barman]\nbarman_home = /b\n")?;
        // Reading a directory fails, for root too.
        let paths = [
            dir.path().join("none"),
            dir.path().to_path_buf(),
            good.clone(),
        ];
        let found = ConfigFile::find_among(&paths)?;
        assert_eq!((found.path(), found.messages.len()), (&*good, 1));
        let error = ConfigFile::find_among(&[])
            .map(|_| ())
            .map_err(|e| e.to_string());
        let first = "Could not find any configuration file at default locations.\n";
        assert!(error.is_err_and(|text| text.starts_with(first)));
        Ok(())
    }
}
