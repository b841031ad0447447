//! Reads `barman.conf`, its included files and `walarch.toml` into validated configurations.
//!
//! Loading has two steps, because the program changes the user and opens the log between them:
//!
//! ```no_run
//! use walarch::config::ConfigFile;
//!
//! # fn main() -> Result<(), walarch::config::ConfigError> {
//! let file = ConfigFile::find(None)?;
//! println!("become {}", file.global().barman_user);
//! let mut config = file.load()?;
//! if let Some(server) = config.server_mut("main") {
//!     for message in server.prepare() {
//!         println!("{}", message.text);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! From the file to the value, in the order of the work: `ini` and `toml_file` read one file as written;
//! `sections` merges files, with `interpolate`; `options` says which options there are, and `value` what
//! their text means; `resolve` finds each value and its source; `conflicts` and `models` look across
//! servers; `assemble` makes the [`ServerConfig`] that the rest of walarch reads; `prepare` does what
//! depends on the command. `file` is the first step of loading, `load` the second.
//!
//! # Where this differs from Barman 3.19
//!
//! - A `%` that cannot be expanded stays as it stands, where Barman stops. A reference may name anything
//!   known about the server, such as `%(barman_home)s`.
//! - `compression = none` means no compression, without a warning.
//! - `log_format` is accepted without a warning.
//! - An included file that cannot be read is worth a warning; Barman passes over it in silence.
//! - Errors that end Barman with an exception (an empty directory, a malformed `model`, an unreadable
//!   active model, a malformed `custom_compression_magic`) are messages with file and line, or disable
//!   the one server.
//! - What only base backups need disables no server: Barman asks for an `ssh_command` where
//!   `backup_method` is `rsync`, its default, before it archives any WAL.
//! - Invalid values of options that only base backups use are left for Barman to report.

mod assemble;
mod conflicts;
mod error;
mod file;
mod home;
mod ini;
mod interpolate;
mod load;
mod models;
mod option_table;
mod options;
mod own;
mod prepare;
mod resolve;
mod sections;
mod server;
mod toml_file;
mod value;

pub use error::{ConfigError, Level, Message};
pub use file::{ConfigFile, GlobalConfig};
pub use ini::{IniFile, IniOption, IniSection, parse as parse_ini};
pub use load::Config;
pub use options::{
    OptionSpec, Scope, global_options, reference_markdown, server_option, server_options,
};
pub use resolve::Source;
pub use server::{
    CloudOptions, Compression, CompressionLevel, EffectiveOption, Encryption, HookScripts,
    OwnOptions, ReceiverKind, ServerConfig, Synchronous, WalsDirectory, search_path,
};
pub use value::{Kind, parse_age};
