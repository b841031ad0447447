//! walarch's own options: `walarch.toml`, or the same tables inside a TOML configuration.
//!
//! They stand apart from `barman.conf` because Barman warns about options it does not know.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::error::{ConfigError, Level, Message, Place};
use super::server::{
    AddressingStyle, CloudChecksum, OwnCloudOptions, OwnOptions, ReceiverKind, Synchronous,
};
use super::toml_file::{self, Entry};

/// The definition of one option of `walarch.toml`.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnOptionSpec {
    /// Its name.
    pub(super) name: &'static str,
    /// What may be written.
    pub(super) values: &'static str,
    /// What holds where nothing is written.
    pub(super) default: &'static str,
    /// What it does, in a line, with its unit.
    pub(super) help: &'static str,
}

/// Makes the table that is read and the table that documents it from one list.
macro_rules! own_options {
    ($($name:ident: $kind:ty, $values:literal, $default:literal, $help:literal;)*) => {
        /// One table of own options, as written.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct OwnTable {
            $($name: Option<$kind>,)*
        }

        impl OwnTable {
            /// This table with the values of `general` where it has none.
            fn over(&self, general: &OwnTable) -> OwnTable {
                OwnTable { $($name: self.$name.clone().or_else(|| general.$name.clone()),)* }
            }
        }

        /// Every option of `walarch.toml`.
        pub(super) const OWN_OPTIONS: &[OwnOptionSpec] = &[$(OwnOptionSpec {
            name: stringify!($name),
            values: $values,
            default: $default,
            help: $help,
        },)*];
    };
}

own_options! {
    jobs: NonZeroUsize, "1 or more", "the number of cores",
        "WAL files that are compressed and encrypted at a time.";
    validate_wal: Switch, "`true`, `false`, `\"on\"`, `\"off\"`", "`true`",
        "Check the size and the first page of a segment, and the lines of a history file, before it is archived, and \
         before `get-wal`, `wal-restore --local` and `cloud-wal-restore` give it back. \
         Off for encrypted WAL and forks with page headers of their own, which `verify-wals` only decodes then.";
    hook_timeout_s: u64, "seconds", "`0`",
        "A hook script that runs longer is killed and counts as failed; 0 is no limit.";
    receive_wal_synchronous: SwitchOrAuto, "`\"auto\"`, `true`, `false`, `\"on\"`, `\"off\"`", "`\"auto\"`",
        "`receive-wal` makes every write durable at once; auto: if the server waits for it (`synchronous_standby_names`).";
    cloud_endpoint_url: Url, "URL", "the provider's",
        "Where the object store answers, for S3 clones, private endpoints and tests.";
    cloud_addressing_style: AddressingStyle, "`\"auto\"`, `\"virtual\"`, `\"path\"`", "`\"auto\"`",
        "S3: the bucket in the host name or in the path; `auto` is the path where `cloud_endpoint_url` is set.";
    cloud_checksum: CloudChecksum, "`\"sha256\"`, `\"crc64nvme\"`, `\"none\"`", "`\"sha256\"`",
        "S3: the checksum that the store verifies; some clones know none of them.";
    cloud_storage_class: String, "text", "the bucket's",
        "Storage class (S3, Google) or access tier (Azure) of stored files.";
    cloud_tags: BTreeMap<String, String>, "table of texts", "none",
        "Tags of stored files (S3, Azure).";
    cloud_concurrency: NonZeroUsize, "1 or more", "`4`",
        "Files that `archive-wal` sends to the object store at a time, held in memory as they are stored; fewer of more than 64 MiB.";
    cloud_connect_timeout_s: NonZeroU64, "seconds", "`10`",
        "How long connecting to the object store may take.";
    cloud_request_timeout_s: NonZeroU64, "seconds", "`120`",
        "How long one request may take, with its body; more for large segments over slow links.";
    cloud_total_timeout_s: NonZeroU64, "seconds", "`300`",
        "How long one operation may take, with all its repetitions.";
    cloud_retries: u32, "0 or more", "`5`",
        "How often a request that failed is repeated.";
    cloud_proxy_url: Url, "URL", "`HTTPS_PROXY`, `HTTP_PROXY`",
        "Proxy on the way to the object store.";
    cloud_ca_file: PathBuf, "path", "`AWS_CA_BUNDLE`",
        "Certificates, in PEM, that are trusted besides the system's.";
    receiver: ReceiverWord, "`\"builtin\"`, `\"pg_receivewal\"`", "`\"builtin\"`",
        "What `receive-wal` receives with: walarch itself, or the program of that name.";
    archive_while_receiving: Switch, "`true`, `false`, `\"on\"`, `\"off\"`", "`true`",
        "The built-in receiver archives each segment as soon as it is complete; `cron` need not come first.";
    metrics_directory: Directory, "an absolute path", "none",
        "`receive-wal` writes `walarch_receive_wal_SERVER.prom` there once a second, OpenMetrics for node_exporter's textfile collector.";
}

/// An http or https URL.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Url(String);

impl TryFrom<String> for Url {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let host = ["http://", "https://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        match host {
            Some(host) if !host.is_empty() && !host.starts_with('/') => {
                Ok(Url(text.trim_end_matches('/').to_owned()))
            }
            _ => Err("expected a URL that begins with http:// or https://"),
        }
    }
}

/// A directory that does not depend on where the process was started.
#[derive(Clone, Debug)]
struct Directory(PathBuf);

impl<'de> Deserialize<'de> for Directory {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        match path.is_absolute() {
            true => Ok(Directory(path)),
            false => Err(serde::de::Error::custom(format!(
                "expected an absolute path, not \"{}\"",
                path.display()
            ))),
        }
    }
}

/// A TOML boolean, or the words of `barman.conf`.
#[derive(Clone, Copy, Debug)]
struct Switch(bool);

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected true, false, \"on\" or \"off\"")]
        enum Written {
            Bool(bool),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            On,
            Off,
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Bool(value) => Switch(value),
            Written::Word(word) => Switch(matches!(word, Word::On)),
        })
    }
}

/// The same, or the word `auto`.
#[derive(Clone, Copy, Debug)]
struct SwitchOrAuto(Synchronous);

impl<'de> Deserialize<'de> for SwitchOrAuto {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected \"auto\", true, false, \"on\" or \"off\""
        )]
        enum Written {
            Switch(Switch),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Word {
            Auto,
        }
        Ok(SwitchOrAuto(match Written::deserialize(deserializer)? {
            Written::Word(Word::Auto) => Synchronous::Auto,
            Written::Switch(Switch(true)) => Synchronous::On,
            Written::Switch(Switch(false)) => Synchronous::Off,
        }))
    }
}

impl OwnTable {
    fn cloud(&self) -> OwnCloudOptions {
        let default = OwnCloudOptions::default();
        let seconds = |written: Option<NonZeroU64>, default| {
            written.map_or(default, |seconds| Duration::from_secs(seconds.get()))
        };
        OwnCloudOptions {
            endpoint_url: self.cloud_endpoint_url.clone().map(|url| url.0),
            addressing_style: self.cloud_addressing_style.unwrap_or_default(),
            checksum: self.cloud_checksum.unwrap_or_default(),
            storage_class: self.cloud_storage_class.clone(),
            tags: self.cloud_tags.clone().unwrap_or_default(),
            concurrency: self.cloud_concurrency.unwrap_or(default.concurrency),
            connect_timeout: seconds(self.cloud_connect_timeout_s, default.connect_timeout),
            request_timeout: seconds(self.cloud_request_timeout_s, default.request_timeout),
            total_timeout: seconds(self.cloud_total_timeout_s, default.total_timeout),
            retries: self.cloud_retries.unwrap_or(default.retries),
            proxy_url: self.cloud_proxy_url.clone().map(|url| url.0),
            ca_file: self.cloud_ca_file.clone(),
        }
    }
}

/// A receiver by its name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReceiverWord {
    Builtin,
    PgReceivewal,
}

/// The tables `[walarch]` and `[server.NAME]` of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnTables {
    general: OwnTable,
    servers: Vec<OwnServer>,
}

#[derive(Clone, Debug)]
struct OwnServer {
    name: String,
    place: Place,
    table: OwnTable,
}

impl OwnTables {
    /// Reads the `walarch.toml` beside `config_path`; a missing one is an empty one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is no TOML, or holds anything that is not known.
    pub(super) fn beside(config_path: &Path) -> Result<OwnTables, ConfigError> {
        let path = own_path(config_path);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(OwnTables::default());
            }
            Err(error) => {
                return Err(ConfigError::new(format!(
                    "Cannot read walarch's own options: {error}"
                ))
                .file(&path));
            }
        };
        let text = super::ini::decode(&bytes, &path)?;
        let mut own = OwnTables::default();
        for entry in toml_file::entries(text, &path)? {
            match entry.name.as_str() {
                "walarch" => own.read_general(entry.value, text, &path)?,
                "server" => {
                    for entry in toml_file::table(entry, text, &path)? {
                        own.read_server(entry, text, &path)?;
                    }
                }
                other => {
                    return Err(
                        ConfigError::new(format!("Unknown table or option `{other}`"))
                            .place(&entry.place)
                            .option(other)
                            .hint("This file has the tables [walarch] and [server.NAME] only."),
                    );
                }
            }
        }
        Ok(own)
    }

    /// Takes the table `[walarch]`.
    pub(super) fn read_general(
        &mut self,
        value: Spanned<DeValue<'_>>,
        text: &str,
        path: &Path,
    ) -> Result<(), ConfigError> {
        self.general = read_table(value, text, path)?;
        Ok(())
    }

    /// Takes one table `[server.NAME]`.
    pub(super) fn read_server(
        &mut self,
        entry: Entry<'_>,
        text: &str,
        path: &Path,
    ) -> Result<(), ConfigError> {
        self.servers.push(OwnServer {
            name: entry.name,
            place: entry.place,
            table: read_table(entry.value, text, path)?,
        });
        Ok(())
    }

    /// The options that hold for a server.
    pub(super) fn of_server(&self, name: &str) -> OwnOptions {
        let own = self.servers.iter().find(|server| server.name == name);
        let written = own.map_or_else(|| self.general.clone(), |own| own.table.over(&self.general));
        let default = OwnOptions::default();
        OwnOptions {
            jobs: written.jobs.or(default.jobs),
            validate_wal: written.validate_wal.map_or(default.validate_wal, |s| s.0),
            hook_timeout: match written.hook_timeout_s {
                None => default.hook_timeout,
                Some(0) => None,
                Some(seconds) => Some(Duration::from_secs(seconds)),
            },
            receive_wal_synchronous: written
                .receive_wal_synchronous
                .map_or(default.receive_wal_synchronous, |s| s.0),
            cloud: written.cloud(),
            receiver: match written.receiver {
                None => default.receiver,
                Some(ReceiverWord::Builtin) => ReceiverKind::Builtin,
                Some(ReceiverWord::PgReceivewal) => ReceiverKind::PgReceivewal,
            },
            archive_while_receiving: written
                .archive_while_receiving
                .map_or(default.archive_while_receiving, |s| s.0),
            metrics_directory: written.metrics_directory.map(|directory| directory.0),
        }
    }

    /// A warning for each table of a server that does not exist.
    pub(super) fn unknown_servers(&self, exists: impl Fn(&str) -> bool) -> Vec<Message> {
        let strangers = self.servers.iter().filter(|server| !exists(&server.name));
        strangers
            .map(|server| {
                let text = format!(
                    "Ignoring the table [server.{}] in {}, line {}: there is no such server",
                    server.name,
                    server.place.path.display(),
                    server.place.line
                );
                Message::console(Level::Warning, text)
            })
            .collect()
    }
}

/// Where the own options of a `barman.conf` are looked up.
fn own_path(config_path: &Path) -> PathBuf {
    config_path.with_file_name("walarch.toml")
}

fn read_table(
    value: Spanned<DeValue<'_>>,
    text: &str,
    path: &Path,
) -> Result<OwnTable, ConfigError> {
    let start = value.span().start;
    OwnTable::deserialize(ValueDeserializer::from(value)).map_err(|error| {
        let offset = error.span().map_or(start, |span| span.start);
        ConfigError::new(error.message())
            .file(path)
            .line(toml_file::line_of(text, offset))
    })
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OwnTables, ConfigError> {
        let dir = tempfile::tempdir().map_err(|e| ConfigError::new(e.to_string()))?;
        let path = dir.path().join("barman.conf");
        std::fs::write(own_path(&path), text).map_err(|e| ConfigError::new(e.to_string()))?;
        OwnTables::beside(&path)
    }

    #[test]
    fn a_server_overrides_all_servers() -> Result<(), ConfigError> {
        let own = read(
            "[walarch]\njobs = 3\nhook_timeout_s = 60\n\
             [server.main]\nvalidate_wal = \"off\"\nhook_timeout_s = 0\n",
        )?;
        let main = own.of_server("main");
        assert_eq!(
            (main.jobs, main.validate_wal),
            (NonZeroUsize::new(3), false)
        );
        assert_eq!(main.hook_timeout, None);
        let other = own.of_server("other");
        assert!(other.validate_wal);
        assert_eq!(other.hook_timeout, Some(Duration::from_secs(60)));
        assert_eq!(own.unknown_servers(|name| name == "main"), []);
        assert!(
            own.unknown_servers(|_| false)
                .iter()
                .any(|m| m.text.contains("line 4"))
        );
        Ok(())
    }

    #[test]
    fn mistakes_are_errors_with_their_line() {
        for (text, line, word) in [
            ("[walarch]\njob = 1\n", 2, "job"),
            ("[walarch]\njobs = 0\n", 2, "nonzero"),
            ("[walarch]\n\nhook_timeout_s = -1\n", 3, "-1"),
            ("[walarch]\nvalidate_wal = \"maybe\"\n", 2, "\"off\""),
            ("[walarch]\nmetrics_directory = \"m\"\n", 2, "absolute"),
            ("[server.main]\nx = 1\n", 2, "x"),
            ("[main]\n", 1, "[server.NAME]"),
            ("[server]\nmain = 1\n", 2, "integer"),
            (
                "[walarch]\ncloud_endpoint_url = \"s3.example\"\n",
                2,
                "http",
            ),
            ("[walarch]\ncloud_checksum = \"md4\"\n", 2, "md4"),
            ("[walarch]\ncloud_total_timeout_s = 0\n", 2, "nonzero"),
            ("jobs\n", 1, ""),
        ] {
            let Err(error) = read(text) else {
                panic!("{text:?} was accepted");
            };
            assert_eq!(error.line_number(), Some(line), "{text:?}: {error}");
            assert!(error.to_string().contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn no_file_means_defaults() -> Result<(), ConfigError> {
        let own = OwnTables::beside(Path::new("/nonexistent/barman.conf"))?;
        assert_eq!(own.of_server("main"), OwnOptions::default());
        Ok(())
    }
}
