//! The command line, as clap parses it; help, completions and the manual page come from here too.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

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

    /// Archive one file into an object store, for use as PostgreSQL's archive_command
    ///
    /// 'walarch cloud-wal-archive SERVER %p -p 4'. Exit code 0 means that exactly the bytes of this file are in the
    /// bucket; different content under its name is an error, and nothing is ever overwritten. With -p, files that
    /// PostgreSQL has ready are sent at the same time and remembered.
    #[cfg(feature = "cloud")]
    CloudWalArchive {
        /// The server's section in the configuration
        #[arg(value_name = "SERVER")]
        server_name: String,
        /// The file to archive
        #[arg(value_name = "WAL_PATH")]
        wal_path: PathBuf,
        /// Files that are sent at the same time [default: cloud_wal_archive_parallel]
        #[arg(short, long, value_name = "FILES")]
        parallel: Option<usize>,
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
