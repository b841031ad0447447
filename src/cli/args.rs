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
