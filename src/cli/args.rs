//! The command line, as clap parses it; help, completions and the manual page come from here too.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{Compression, CompressionLevel};
use crate::shipping::BackupHost;

/// Archives PostgreSQL's write-ahead log: a fast, crash-safe drop-in for the WAL half of Barman
///
/// walarch reads the same barman.conf and works in the same home as Barman 3.19, before, after and
/// at the same time.
#[derive(Debug, Parser)]
#[command(
    name = "walarch",
    version,
    disable_version_flag = true,
    max_term_width = 100
)]
#[command(after_help = "Exit codes: 0 success, 1 failure, 2 usage.")]
pub(super) struct Args {
    /// Configuration file [default: $BARMAN_CONFIG_FILE, ~/.barman.conf, /etc/barman.conf, /etc/barman/barman.conf]
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Whether to use colours in the output
    #[arg(
        long,
        alias = "colour",
        value_name = "WHEN",
        value_enum,
        default_value_t
    )]
    pub(super) color: Color,

    /// Least severity that goes to the log, in place of the configured one
    #[arg(long, value_name = "LEVEL", value_parser = super::log::LEVELS)]
    pub(super) log_level: Option<String>,

    /// Print warnings and errors only
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// Print debug messages on standard error
    #[arg(short, long)]
    pub(super) debug: bool,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) format: Format,

    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Color {
    Never,
    Always,
    /// When standard output and standard error are terminals
    #[default]
    Auto,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Format {
    #[default]
    Console,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Archive the WAL files that wait in incoming and streaming, or one file
    ///
    /// Without WAL_PATH, everything that waits for the server is compressed, encrypted, stored,
    /// listed in xlogdb and removed from its queue, as `barman archive-wal` does it; the command
    /// ends at once if another process is at it.
    ///
    /// With WAL_PATH, that one file is archived straight from where it is, for use as PostgreSQL's
    /// archive_command: 'walarch archive-wal SERVER %p'. The file is only read. Exit code 0 means
    /// that exactly its bytes are durable in the archive; different content under its name is an
    /// error, and nothing is ever overwritten.
    ArchiveWal {
        /// The server's section in the configuration
        #[arg(value_name = "SERVER")]
        server_name: String,
        /// The one file to archive
        #[arg(value_name = "WAL_PATH")]
        wal_path: Option<PathBuf>,
    },

    /// Receive a WAL file on standard input and store it durably in incoming
    ///
    /// The input is a tar stream with the file and its checksum in SHA256SUMS or MD5SUMS, as wal-archive and
    /// barman-wal-archive send it. Exit code 0 means that a good copy is durable.
    PutWal(PutWalArgs),

    /// Send a WAL file to the backup host by ssh, for use as PostgreSQL's archive_command
    ///
    /// 'walarch wal-archive BARMAN_HOST SERVER %p' runs `barman put-wal SERVER` on the backup host. Under the name
    /// barman-wal-archive the program is this command. Exit codes: 0 the file is durable there, 2 a
    /// failure on this host, 3 a failure of the connection, else that of the remote command.
    #[command(version, disable_version_flag = true, args_override_self = true)]
    WalArchive(WalArchiveArgs),

    /// Receive a server's WAL by streaming replication, or set that up
    ///
    /// Without an option, pg_receivewal is run and watched until it ends or walarch is told to stop.
    #[command(group = clap::ArgGroup::new("action").args(["stop", "reset", "create_slot", "drop_slot"]))]
    ReceiveWal(ReceiveWalArgs),

    /// Start what is due: archiving and receiving for every server (global command)
    Cron {
        /// Keep the standard output and error of the started processes attached to ours
        #[arg(long)]
        keep_descriptors: bool,
    },

    /// Check that WAL arrives and can be archived; nothing is changed
    Check {
        /// The servers, or 'all'
        #[arg(value_name = "SERVER", required = true)]
        server_names: Vec<String>,
        /// Output for Nagios and its relatives
        #[arg(long)]
        nagios: bool,
        /// Time limit for the checks of one server, in seconds; 0 is no limit [default: check_timeout]
        #[arg(long, value_name = "TIMEOUT")]
        check_timeout: Option<u64>,
    },

    /// Show the state of the WAL side of servers
    Status {
        /// The servers, or 'all'
        #[arg(value_name = "SERVER", required = true)]
        server_names: Vec<String>,
    },

    /// Let PostgreSQL close its current WAL segment
    #[command(alias = "switch-xlog")]
    SwitchWal(SwitchWalArgs),

    /// Show who streams from a server
    ReplicationStatus(ReplicationStatusArgs),

    /// List the running processes of a server
    ListProcesses {
        /// The server's section in the configuration
        #[arg(value_name = "SERVER")]
        server_name: String,
    },

    /// End a running process of a server
    TerminateProcess {
        /// The server's section in the configuration
        #[arg(value_name = "SERVER")]
        server_name: String,
        /// The task: receive-wal, archive-wal, cron, ...
        #[arg(value_name = "TASK")]
        task: String,
    },

    /// Write xlogdb anew from what is in the archive
    RebuildXlogdb {
        /// The servers, or 'all'
        #[arg(value_name = "SERVER", required = true)]
        server_names: Vec<String>,
    },

    /// List the configured servers
    #[command(alias = "list-server")]
    ListServers {
        /// Print names only
        #[arg(long)]
        minimal: bool,
    },

    /// Show the WAL side of servers' configuration, and where each value comes from
    #[command(alias = "show-server")]
    ShowServers {
        /// The servers, or 'all'
        #[arg(value_name = "SERVER", required = true)]
        server_names: Vec<String>,
    },

    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Print the manual page of walarch or of one of its commands, in roff
    Man {
        /// The command
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct PutWalArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER", required_unless_present = "forced_command")]
    pub(super) server_name: Option<String>,
    /// Only see whether the server could receive WAL
    #[arg(short, long)]
    pub(super) test: bool,
    /// Do what SSH_ORIGINAL_COMMAND says, if it is put-wal or get-wal for one of these servers
    ///
    /// For authorized_keys of sshd: 'restrict,command="walarch put-wal --forced-command main,other" ssh-ed25519 ...'.
    /// The holder of that key can send and get WAL of those servers and do nothing else.
    #[arg(long, value_name = "SERVERS", value_delimiter = ',', conflicts_with_all = ["server_name", "test"])]
    pub(super) forced_command: Option<Vec<String>>,
}

/// How a client reaches the backup host.
#[derive(Debug, clap::Args)]
pub(super) struct SshArgs {
    /// The user on the backup host
    #[arg(short = 'U', long, default_value = "barman")]
    pub(super) user: String,
    /// The port of the backup host's sshd
    #[arg(long)]
    pub(super) port: Option<String>,
    /// Configuration file on the backup host
    #[arg(short, long, value_name = "CONFIG")]
    pub(super) config: Option<String>,
    /// The program to run on the backup host: barman, walarch, or a path
    #[arg(long, value_name = "PROGRAM", default_value = "barman")]
    pub(super) remote_program: String,
    /// Give up when nothing moves for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) timeout: u64,
}

impl SshArgs {
    /// The host of that name, reached so.
    pub(super) fn backup_host(&self, host: &str) -> BackupHost {
        BackupHost {
            host: host.to_owned(),
            user: self.user.clone(),
            port: self.port.clone(),
            program: self.remote_program.clone(),
            config: self.config.clone(),
            timeout: Duration::from_secs(self.timeout),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct WalArchiveArgs {
    #[command(flatten)]
    pub(super) ssh: SshArgs,
    /// Only test the connection and the configuration of the server there
    #[arg(short, long)]
    pub(super) test: bool,
    /// Send an MD5 checksum, for a backup host with a Barman that knows no other
    #[arg(long)]
    pub(super) md5: bool,
    #[command(flatten)]
    pub(super) codec: SendingCodec,
    /// Compression level: low, medium, high, or the codec's own number [default: medium]
    #[arg(long, value_name = "LEVEL", value_parser = compression_level, allow_hyphen_values = true)]
    pub(super) compression_level: Option<CompressionLevel>,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The backup host
    #[arg(value_name = "BARMAN_HOST")]
    pub(super) barman_host: String,
    /// The server's section in the configuration there
    #[arg(value_name = "SERVER_NAME")]
    pub(super) server_name: String,
    /// The file to send: %p of archive_command
    #[arg(value_name = "WAL_PATH")]
    pub(super) wal_path: PathBuf,
}

/// What a file is compressed with before it is sent; of several options the last one counts.
#[derive(Debug, clap::Args)]
pub(super) struct SendingCodec {
    /// Compress the file with gzip before it is sent
    #[arg(short = 'z', long, overrides_with_all = ["bzip2", "xz", "snappy", "zstd", "lz4"])]
    gzip: bool,
    /// Compress the file with bzip2 before it is sent
    #[arg(short = 'j', long, overrides_with_all = ["xz", "snappy", "zstd", "lz4"])]
    bzip2: bool,
    /// Compress the file with xz before it is sent
    #[arg(long, overrides_with_all = ["snappy", "zstd", "lz4"])]
    xz: bool,
    /// Compress the file with snappy before it is sent
    #[arg(long, overrides_with_all = ["zstd", "lz4"])]
    snappy: bool,
    /// Compress the file with zstd before it is sent
    #[arg(long, overrides_with = "lz4")]
    zstd: bool,
    /// Compress the file with lz4 before it is sent
    #[arg(long)]
    lz4: bool,
}

impl SendingCodec {
    pub(super) fn compression(&self) -> Option<Compression> {
        let chosen = [
            (self.gzip, Compression::Gzip),
            (self.bzip2, Compression::Bzip2),
            (self.xz, Compression::Xz),
            (self.snappy, Compression::Snappy),
            (self.zstd, Compression::Zstd),
            (self.lz4, Compression::Lz4),
        ];
        chosen
            .into_iter()
            .find_map(|(is_chosen, compression)| is_chosen.then_some(compression))
    }
}

fn compression_level(text: &str) -> Result<CompressionLevel, String> {
    Ok(match text.to_lowercase().as_str() {
        "low" => CompressionLevel::Low,
        "medium" => CompressionLevel::Medium,
        "high" => CompressionLevel::High,
        number => CompressionLevel::Number(
            number
                .parse()
                .map_err(|_| "must be low, medium, high or an integer")?,
        ),
    })
}

#[derive(Debug, clap::Args)]
pub(super) struct ReceiveWalArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    pub(super) server_name: String,
    /// Stop the receive-wal process of the server
    #[arg(long)]
    pub(super) stop: bool,
    /// Let the receiver begin anew at the slot's or the server's position
    #[arg(long)]
    pub(super) reset: bool,
    /// Create the replication slot
    #[arg(long)]
    pub(super) create_slot: bool,
    /// With --create-slot: a slot that exists is no error
    #[arg(long)]
    pub(super) if_not_exists: bool,
    /// Drop the replication slot
    #[arg(long)]
    pub(super) drop_slot: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SwitchWalArgs {
    /// The servers, or 'all'
    #[arg(value_name = "SERVER", required = true)]
    pub(super) server_names: Vec<String>,
    /// Make a checkpoint first, so that there is something to switch
    #[arg(long)]
    pub(super) force: bool,
    /// Wait until one WAL file has been archived
    #[arg(long)]
    pub(super) archive: bool,
    /// How long to wait, in seconds
    #[arg(long, value_name = "TIMEOUT", default_value_t = 30)]
    pub(super) archive_timeout: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplicationStatusArgs {
    /// The servers, or 'all'
    #[arg(value_name = "SERVER", required = true)]
    pub(super) server_names: Vec<String>,
    /// Machine readable output
    #[arg(long)]
    pub(super) minimal: bool,
    /// Which clients to show
    #[arg(long, value_enum, default_value_t)]
    pub(super) target: ReplicationTarget,
    /// Which connection to ask over
    #[arg(long, value_enum, default_value_t)]
    pub(super) source: ReplicationSource,
}

/// Clients of streaming replication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ReplicationTarget {
    /// All of them
    #[default]
    All,
    /// Standbys
    HotStandby,
    /// Clients that receive WAL only, such as pg_receivewal
    WalStreamer,
}

/// The connection that is asked for streaming clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ReplicationSource {
    /// conninfo
    #[default]
    BackupHost,
    /// wal_conninfo, or wal_streaming_conninfo
    WalHost,
}
