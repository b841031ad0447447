//! The command line, as clap parses it; help, completions and the manual page come from here too.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::check_wal_archive::CheckWalArchiveArgs;
#[cfg(feature = "cloud")]
use super::cloud_wal_restore::CloudWalRestoreArgs;
use super::delete_wals::DeleteWalsArgs;
use super::errors::ErrorsArgs;
use super::exit_code::ExitCode;
use super::get_wal::GetWalArgs;
use super::list_wals::ListWalsArgs;
use super::put_wal::PutWalArgs;
use super::receive_wal::ReceiveWalArgs;
use super::replication_status::ReplicationStatusArgs;
use super::switch_wal::SwitchWalArgs;
use super::verify_wals::VerifyWalsArgs;
use super::wal_archive::WalArchiveArgs;
use super::wal_restore::WalRestoreArgs;

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
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub(super) format: Format,

    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,

    /// Become independent of the process that started this one; for cron's own use
    #[arg(long, hide = true)]
    pub(super) detached: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// This process was started with these arguments, so that it can start another one with them.
    #[arg(skip)]
    pub(super) are_of_process: bool,
}

impl Args {
    /// The configuration file that was named, before the command or, where it is of this host, behind it.
    pub(super) fn config_file(&self) -> Option<&Path> {
        let behind = match &self.command {
            Some(Command::WalRestore(args)) => args.ssh.config.as_deref().map(Path::new),
            _ => None,
        };
        behind.or(self.config.as_deref())
    }
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
    #[command(infer_long_args = true, args_override_self = true)]
    PutWal(PutWalArgs),

    /// Send a WAL file to the backup host by ssh, for use as PostgreSQL's archive_command
    ///
    /// 'walarch wal-archive BARMAN_HOST SERVER %p' runs `barman put-wal SERVER` on the backup host. Under the name
    /// barman-wal-archive the program is this command. Exit codes: 0 the file is durable there, 2 a
    /// failure on this host, 3 a failure of the connection, else that of the remote command.
    #[command(
        version,
        disable_version_flag = true,
        infer_long_args = true,
        args_override_self = true
    )]
    WalArchive(WalArchiveArgs),

    /// Receive a server's WAL by streaming replication, or set that up
    ///
    /// Without an option, pg_receivewal is run and watched until it ends or walarch is told to stop.
    #[command(group = clap::ArgGroup::new("action").args(["stop", "create_slot", "drop_slot"]))]
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
    #[command(alias = "list-process")]
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

    /// Give a WAL file back, for use as PostgreSQL's restore_command
    ///
    /// The file is looked for in the archive, incoming and streaming, decoded and checked, and written to standard
    /// output, which carries nothing else, or into a directory, where it appears whole or not at all.
    ///
    /// Exit codes: 0 delivered, 1 not found, 2 usage, 3 no name of a WAL file or output not writable, 4 found but
    /// damaged, unreadable or undecryptable, 5 configuration, 6 storage not reachable.
    #[command(infer_long_args = true, args_override_self = true)]
    GetWal(GetWalArgs),

    /// Get a WAL file from the backup host by ssh, for use as PostgreSQL's restore_command
    ///
    /// 'walarch wal-restore BARMAN_HOST SERVER %f %p' runs `barman get-wal SERVER %f` on the backup host, checks what
    /// comes and puts it to %p whole or not at all. Under the name barman-wal-restore the program is this command.
    ///
    /// With --local, the archive is on this host: 'walarch wal-restore --local SERVER %f %p'.
    ///
    /// Exit codes: 0 delivered, 1 not found, 2 connection or usage, 3 destination not writable, 4 what came is damaged,
    /// else that of the remote command.
    #[command(
        version,
        disable_version_flag = true,
        infer_long_args = true,
        args_override_self = true,
        override_usage = "walarch wal-restore [OPTIONS] BARMAN_HOST SERVER_NAME WAL_NAME WAL_DEST\n       \
        walarch wal-restore [OPTIONS] --local SERVER_NAME WAL_NAME WAL_DEST"
    )]
    WalRestore(WalRestoreArgs),

    /// Write xlogdb anew from what is in the archive
    RebuildXlogdb {
        /// The servers, or 'all'
        #[arg(value_name = "SERVER", required = true)]
        server_names: Vec<String>,
    },

    /// Delete old WAL from the archive
    ///
    /// Everything before one position goes, so that no gap comes about. What a base backup of this
    /// home needs stays, and so do the newest segment and every history file that is still of use.
    DeleteWals(DeleteWalsArgs),

    /// List the archived WAL files
    ListWals(ListWalsArgs),

    /// Read the whole archive and report damaged and missing WAL files
    ///
    /// Exit code 0: every file can be restored, and none is missing in between.
    VerifyWals(VerifyWalsArgs),

    /// Check that the archive can be used for a new server: that it is empty
    CheckWalArchive(CheckWalArchiveArgs),

    /// Tell what lies in the errors directory and why
    Errors(ErrorsArgs),
    /// Archive one file into an object store, for use as PostgreSQL's archive_command
    ///
    /// 'walarch cloud-wal-archive SERVER %p -p 4'. Exit code 0 means that exactly the bytes of this file are in the
    /// bucket; different content under its name is an error, and nothing is ever overwritten. With -p, files that
    /// PostgreSQL has ready are sent at the same time and remembered.
    #[cfg(feature = "cloud")]
    #[command(infer_long_args = true, args_override_self = true)]
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

    /// Restore one file from an object store, for use as PostgreSQL's restore_command
    ///
    /// 'walarch cloud-wal-restore SERVER %f %p -p 4'. Exit code 1 means that the bucket certainly has no such file;
    /// every other one but 0 that this could not be found out, or that the file cannot be used. In a recovery to a target those are
    /// above 125, so that PostgreSQL stops instead of ending its recovery too early.
    #[cfg(feature = "cloud")]
    #[command(infer_long_args = true, args_override_self = true)]
    CloudWalRestore(CloudWalRestoreArgs),

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

impl Command {
    /// Whether standard output carries a WAL file.
    pub(super) fn writes_wal(&self) -> bool {
        match self {
            Command::GetWal(args) => {
                !args.test && args.peek.is_none() && args.output_directory.is_none()
            }
            _ => false,
        }
    }

    /// Whether this is the process that fetches ahead, which outlives the one that starts it.
    pub(super) fn is_prefetch(&self) -> bool {
        match self {
            #[cfg(feature = "cloud")]
            Command::CloudWalRestore(args) => args.prefetch,
            Command::WalRestore(args) => args.prefetch,
            _ => false,
        }
    }

    /// What a mistake in the configuration ends with where somebody who restores has to tell it from a file that is not
    /// there.
    pub(super) fn code_of_misconfiguration(&self) -> Option<ExitCode> {
        match self {
            #[cfg(feature = "cloud")]
            Command::CloudWalRestore(args) => Some(super::cloud_wal_restore::misconfigured(args)),
            Command::GetWal(_) | Command::WalRestore(_) => Some(ExitCode::Configuration),
            _ => None,
        }
    }
}
