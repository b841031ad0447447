//! The validated configuration of one server, as the rest of walarch reads it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::resolve::Source;

/// A value of the `compression` option, and of the fourth column of an xlogdb line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// gzip format, in process.
    Gzip,
    /// bzip2 format, in process.
    Bzip2,
    /// The older name of [`Compression::Gzip`]; kept as written.
    PyGzip,
    /// The older name of [`Compression::Bzip2`]; kept as written.
    PyBzip2,
    /// gzip format, written and read by the external command `pigz`.
    Pigz,
    /// xz format, in process.
    Xz,
    /// Zstandard format, in process.
    Zstd,
    /// LZ4 frame format, in process.
    Lz4,
    /// Snappy framing format, in process.
    Snappy,
    /// The shell commands `custom_compression_filter` and `custom_decompression_filter`.
    Custom,
}

impl Compression {
    /// Every value, in the order in which Barman lists them in its messages.
    pub const ALL: [Compression; 10] = [
        Compression::Gzip,
        Compression::Bzip2,
        Compression::PyGzip,
        Compression::PyBzip2,
        Compression::Pigz,
        Compression::Xz,
        Compression::Zstd,
        Compression::Lz4,
        Compression::Snappy,
        Compression::Custom,
    ];

    /// The name in the configuration file and in xlogdb.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Bzip2 => "bzip2",
            Compression::PyGzip => "pygzip",
            Compression::PyBzip2 => "pybzip2",
            Compression::Pigz => "pigz",
            Compression::Xz => "xz",
            Compression::Zstd => "zstd",
            Compression::Lz4 => "lz4",
            Compression::Snappy => "snappy",
            Compression::Custom => "custom",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compression {
    type Err = ();

    /// Accepts exactly the names of [`Compression::name`].
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|value| value.name() == text)
            .ok_or(())
    }
}

/// The `compression_level` option. What the words mean is decided per codec, in `codec::level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CompressionLevel {
    /// Fast.
    Low,
    /// The default.
    #[default]
    Medium,
    /// Small.
    High,
    /// A codec's own number, clamped to its range.
    Number(i64),
}

/// A value of the `encryption` option, and of the fifth column of an xlogdb line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encryption {
    /// OpenPGP, by the `gpg` command.
    Gpg,
}

impl Encryption {
    /// The name in the configuration file and in xlogdb.
    pub fn name(self) -> &'static str {
        match self {
            Encryption::Gpg => "gpg",
        }
    }
}

/// Where `wals_directory` points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalsDirectory {
    /// A directory of this host.
    Local(PathBuf),
    /// The URL of an object store, as written (`s3://bucket/path`, ...).
    Cloud(String),
}

/// The `PATH` for external commands: `path_prefix` goes before ours, as in Barman. `None` means that
/// the command inherits ours.
pub fn search_path(path_prefix: Option<&str>) -> Option<OsString> {
    let prefix = path_prefix.filter(|prefix| !prefix.is_empty())?;
    let mut path = OsString::from(prefix);
    if let Some(inherited) = std::env::var_os("PATH") {
        path.push(":");
        path.push(inherited);
    }
    Some(path)
}

/// The hook scripts around archiving and deleting; each is a shell command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookScripts {
    /// `pre_archive_script`
    pub pre_archive: Option<String>,
    /// `pre_archive_retry_script`
    pub pre_archive_retry: Option<String>,
    /// `post_archive_script`
    pub post_archive: Option<String>,
    /// `post_archive_retry_script`
    pub post_archive_retry: Option<String>,
    /// `pre_wal_delete_script`
    pub pre_wal_delete: Option<String>,
    /// `pre_wal_delete_retry_script`
    pub pre_wal_delete_retry: Option<String>,
    /// `post_wal_delete_script`
    pub post_wal_delete: Option<String>,
    /// `post_wal_delete_retry_script`
    pub post_wal_delete_retry: Option<String>,
}

/// The option `receive_wal_synchronous`: whether every write is made durable and reported at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// When the receiver is one of the server's `synchronous_standby_names`.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The option `receiver`: what `receive-wal` receives with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiverKind {
    /// The receiver inside walarch.
    #[default]
    Builtin,
    /// The program `pg_receivewal`, supervised.
    PgReceivewal,
}

impl ReceiverKind {
    /// As it is written in `walarch.toml`.
    pub fn name(self) -> &'static str {
        match self {
            ReceiverKind::Builtin => "builtin",
            ReceiverKind::PgReceivewal => "pg_receivewal",
        }
    }
}

/// walarch's own options, from `walarch.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnOptions {
    /// `jobs`: how many files are compressed at a time; `None` is the number of cores.
    pub jobs: Option<NonZeroUsize>,
    /// `validate_wal`: whether raw segments are checked before they are accepted.
    pub validate_wal: bool,
    /// `hook_timeout_s`: after this time a hook script is killed and counts as failed; `None` is no limit.
    pub hook_timeout: Option<Duration>,
    /// `receive_wal_synchronous`
    pub receive_wal_synchronous: Synchronous,
    /// The options whose names begin with `cloud_`.
    pub cloud: OwnCloudOptions,
    /// `receiver`
    pub receiver: ReceiverKind,
    /// `archive_while_receiving`: whether the receiver archives what it has completed.
    pub archive_while_receiving: bool,
    /// `metrics_directory`: where the receiver writes what it measures, for Prometheus.
    pub metrics_directory: Option<PathBuf>,
}

impl Default for OwnOptions {
    fn default() -> Self {
        OwnOptions {
            jobs: None,
            validate_wal: true,
            hook_timeout: None,
            receive_wal_synchronous: Synchronous::Auto,
            cloud: OwnCloudOptions::default(),
            receiver: ReceiverKind::default(),
            archive_while_receiving: true,
            metrics_directory: None,
        }
    }
}

/// How S3 requests name the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressingStyle {
    /// In the path where an endpoint is configured, in the host name otherwise.
    #[default]
    Auto,
    /// In the host name.
    Virtual,
    /// In the path.
    Path,
}

/// The checksum that S3 verifies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloudChecksum {
    /// `x-amz-checksum-sha256`
    #[default]
    Sha256,
    /// `x-amz-checksum-crc64nvme`
    Crc64Nvme,
    /// Only the digest of the body that the signature covers.
    None,
}

/// walarch's own options about object stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCloudOptions {
    /// `cloud_endpoint_url`, without a slash at its end.
    pub endpoint_url: Option<String>,
    /// `cloud_addressing_style`
    pub addressing_style: AddressingStyle,
    /// `cloud_checksum`
    pub checksum: CloudChecksum,
    /// `cloud_storage_class`
    pub storage_class: Option<String>,
    /// `cloud_tags`
    pub tags: BTreeMap<String, String>,
    /// `cloud_concurrency`
    pub concurrency: NonZeroUsize,
    /// `cloud_connect_timeout_s`
    pub connect_timeout: Duration,
    /// `cloud_request_timeout_s`
    pub request_timeout: Duration,
    /// `cloud_total_timeout_s`
    pub total_timeout: Duration,
    /// `cloud_retries`
    pub retries: u32,
    /// `cloud_proxy_url`
    pub proxy_url: Option<String>,
    /// `cloud_ca_file`
    pub ca_file: Option<PathBuf>,
}

impl Default for OwnCloudOptions {
    fn default() -> Self {
        OwnCloudOptions {
            endpoint_url: None,
            addressing_style: AddressingStyle::Auto,
            checksum: CloudChecksum::Sha256,
            storage_class: None,
            tags: BTreeMap::new(),
            concurrency: NonZeroUsize::MIN.saturating_add(3),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(120),
            total_timeout: Duration::from_secs(300),
            retries: 5,
            proxy_url: None,
            ca_file: None,
        }
    }
}

/// What is asked of an object store that holds WAL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudOptions {
    /// `azure_credential`
    pub azure_credential: Option<String>,
    /// `aws_profile`
    pub aws_profile: Option<String>,
    /// `aws_region`
    pub aws_region: Option<String>,
    /// `aws_encryption`
    pub aws_encryption: Option<String>,
    /// `aws_sse_kms_key_id`
    pub aws_sse_kms_key_id: Option<String>,
    /// `aws_read_timeout`
    pub aws_read_timeout: Option<Duration>,
    /// `cloud_delete_batch_size`, in objects per request.
    pub delete_batch_size: Option<NonZeroUsize>,
    /// `cloud_wal_archive_parallel`, in files; 0 is one at a time.
    pub wal_archive_parallel: usize,
    /// `cloud_wal_restore_parallel`, in files fetched ahead.
    pub wal_restore_parallel: usize,
}

/// An option of a server with the value in force.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveOption {
    /// The name in the configuration file.
    pub name: &'static str,
    /// The value as Barman's console prints it: `True`, `False`, `None`, a number or the text.
    pub value: String,
    /// The value as Barman's JSON output has it.
    pub json: serde_json::Value,
    /// Where the value comes from.
    pub source: Source,
}

/// One server section with every default, inheritance and fallback applied.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The section's name.
    pub name: String,
    /// `description`
    pub description: Option<String>,
    /// `active`: false means that commands pass over this server.
    pub active: bool,
    /// Set when the configuration of this server is contradictory; `messages` says why.
    pub disabled: bool,
    /// Why the server is disabled, one sentence each.
    pub messages: Vec<String>,
    /// Set when the server's WAL comes from another Barman host (`primary_ssh_command`).
    pub passive: bool,
    /// `primary_ssh_command`
    pub primary_ssh_command: Option<String>,
    /// `cluster`
    pub cluster: Option<String>,
    /// The model whose values are in force.
    pub active_model: Option<String>,
    /// `conninfo`
    pub conninfo: Option<String>,
    /// `streaming_conninfo`; `conninfo` where it is not set.
    pub streaming_conninfo: Option<String>,
    /// `wal_conninfo`; see [`ServerConfig::use_wal_conninfo`].
    pub wal_conninfo: Option<String>,
    /// `wal_streaming_conninfo`; see [`ServerConfig::use_wal_conninfo`].
    pub wal_streaming_conninfo: Option<String>,
    /// `primary_conninfo`: the primary, where `conninfo` is a standby.
    pub primary_conninfo: Option<String>,
    /// `slot_name`
    pub slot_name: Option<String>,
    /// `create_slot = auto`: `receive-wal` creates a missing slot.
    pub create_slot: bool,
    /// `streaming_archiver_name`: the `application_name` of `receive-wal`.
    pub streaming_archiver_name: Option<String>,
    /// `backup_method = postgres`: base backups need the streaming connection, so its absence disables
    /// the server.
    pub uses_streaming_backup: bool,
    /// `check_timeout`; `None` is no limit.
    pub check_timeout: Option<Duration>,
    /// `last_wal_maximum_age`
    pub last_wal_maximum_age: Option<Duration>,
    /// `max_incoming_wals_queue`, in files.
    pub max_incoming_wals_queue: Option<i64>,
    /// `forward_config_path`: child processes are started with the same `-c FILE`.
    pub forward_config_path: bool,
    /// `archiver`: WAL arrives in `incoming_wals_directory`.
    pub archiver: bool,
    /// `streaming_archiver`: WAL arrives in `streaming_wals_directory`.
    pub streaming_archiver: bool,
    /// `archiver_batch_size`, in files per run; `None` is no limit.
    pub archiver_batch_size: Option<NonZeroUsize>,
    /// `streaming_archiver_batch_size`, in files per run; `None` is no limit.
    pub streaming_archiver_batch_size: Option<NonZeroUsize>,
    /// `backup_directory`
    pub backup_directory: PathBuf,
    /// `incoming_wals_directory`
    pub incoming_wals_directory: PathBuf,
    /// `streaming_wals_directory`
    pub streaming_wals_directory: PathBuf,
    /// `errors_directory`
    pub errors_directory: PathBuf,
    /// `basebackups_directory`: what Barman says there of base backups tells which WAL they need.
    pub basebackups_directory: PathBuf,
    /// `wals_directory`
    pub wals_directory: WalsDirectory,
    /// Where `SERVER-xlog.db` lives: `xlogdb_directory`, or `BACKUP_DIRECTORY/meta` where that would be in the cloud.
    pub xlogdb_directory: PathBuf,
    /// `barman_lock_directory` of the `[barman]` section.
    pub lock_directory: PathBuf,
    /// `path_prefix`, put before `PATH` for every external command.
    pub path_prefix: Option<String>,
    /// `compression`
    pub compression: Option<Compression>,
    /// `compression_level`
    pub compression_level: CompressionLevel,
    /// `custom_compression_filter`, a shell command line.
    pub custom_compression_filter: Option<String>,
    /// `custom_decompression_filter`, a shell command line.
    pub custom_decompression_filter: Option<String>,
    /// `custom_compression_magic`: the first bytes of what the custom filter writes.
    pub custom_compression_magic: Option<Vec<u8>>,
    /// `encryption`
    pub encryption: Option<Encryption>,
    /// `encryption_key_id`
    pub encryption_key_id: Option<String>,
    /// `encryption_passphrase_command`, a shell command line.
    pub encryption_passphrase_command: Option<String>,
    /// Hook scripts.
    pub hooks: HookScripts,
    /// Options of the object store.
    pub cloud: CloudOptions,
    /// walarch's own options.
    pub own: OwnOptions,
    /// The WAL-side options with their values and sources, sorted by name.
    pub options: Vec<EffectiveOption>,
}
