//! The command line, as clap parses it; help, completions and the manual page come from here too.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::check_wal_archive::CheckWalArchiveArgs;
use super::delete_wals::DeleteWalsArgs;
use super::errors::ErrorsArgs;
use super::exit_code::ExitCode;
use super::list_wals::ListWalsArgs;
use super::verify_wals::VerifyWalsArgs;
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

#[derive(Debug, clap::Args)]
pub(super) struct GetWalArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    pub(super) server_name: String,
    /// The WAL file
    #[arg(value_name = "WAL_NAME")]
    pub(super) wal_name: String,
    /// Put the file into this directory, under its name
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(super) output_directory: Option<PathBuf>,
    /// Where there is no complete segment, take the incomplete one (.partial), filled up with zeros
    #[arg(short = 'P', long)]
    pub(super) partial: bool,
    /// Compress the output with gzip [aliases of -z: -x]
    #[arg(short = 'z', short_alias = 'x', long, overrides_with = "bzip2")]
    pub(super) gzip: bool,
    /// Compress the output with bzip2
    #[arg(short = 'j', long, overrides_with = "gzip")]
    pub(super) bzip2: bool,
    /// Leave the compression as it is in the archive
    #[arg(long)]
    pub(super) keep_compression: bool,
    /// List up to SIZE names that are there, from WAL_NAME on, instead of delivering anything
    #[arg(short, long, value_name = "SIZE", value_parser = positive)]
    pub(super) peek: Option<usize>,
    /// Only say whether WAL can be retrieved from the server; WAL_NAME is ignored
    #[arg(short, long)]
    pub(super) test: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("'{text}' is not a valid positive integer")),
        Ok(number) => Ok(number),
    }
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
pub(super) struct WalRestoreArgs {
    #[command(flatten)]
    pub(super) ssh: SshArgs,
    /// The archive is on this host; there is no BARMAN_HOST
    #[arg(long)]
    pub(super) local: bool,
    /// Wait for so many seconds after a failure
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    pub(super) sleep: u64,
    /// Fetch so many files at a time ahead of what PostgreSQL asks for; 0 is none
    ///
    /// Files are fetched in the background and wait in the spool directory, twice as many as this at most. Off for
    /// pg_rewind and with --partial.
    #[arg(short, long, value_name = "JOBS", default_value_t = 0)]
    pub(super) parallel: usize,
    /// Where files that were fetched ahead wait, in a directory for each recovery
    #[arg(long, value_name = "SPOOL_DIR", default_value = "/var/tmp/walrestore")]
    pub(super) spool_dir: PathBuf,
    /// Where there is no complete segment, take the incomplete one (.partial), filled up with zeros
    #[arg(short = 'P', long)]
    pub(super) partial: bool,
    /// Transfer files compressed with gzip (deprecated: let the archive compress, and use --keep-compression)
    #[arg(short = 'z', long)]
    pub(super) gzip: bool,
    /// Transfer files compressed with bzip2 (deprecated, as --gzip)
    #[arg(short = 'j', long, conflicts_with = "gzip")]
    pub(super) bzip2: bool,
    /// Transfer files as they are compressed in the archive
    #[arg(long, conflicts_with_all = ["gzip", "bzip2"])]
    pub(super) keep_compression: bool,
    /// Only test the connection and the configuration of the server there
    #[arg(short, long)]
    pub(super) test: bool,
    /// Be the process that fetches ahead
    #[arg(long, hide = true)]
    pub(super) prefetch: bool,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The backup host
    #[arg(value_name = "BARMAN_HOST")]
    first: String,
    /// The server's section in the configuration
    #[arg(value_name = "SERVER_NAME")]
    second: String,
    /// The WAL file: %f of restore_command
    #[arg(value_name = "WAL_NAME")]
    third: String,
    /// Where to put it: %p of restore_command
    #[arg(
        value_name = "WAL_DEST",
        required_unless_present = "local",
        conflicts_with = "local"
    )]
    fourth: Option<String>,
}

#[cfg(feature = "cloud")]
#[derive(Debug, clap::Args)]
pub(super) struct CloudWalRestoreArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    pub(super) server_name: String,
    /// The WAL file: %f of restore_command
    #[arg(value_name = "WAL_NAME")]
    pub(super) wal_name: String,
    /// Where to put it: %p of restore_command
    #[arg(value_name = "WAL_DEST")]
    pub(super) wal_dest: PathBuf,
    /// Fetch so many files at a time ahead of what PostgreSQL asks for; 0 and 1 are none [default:
    /// cloud_wal_restore_parallel]
    #[arg(short, long, value_name = "FILES")]
    pub(super) parallel: Option<usize>,
    /// Where files that were fetched ahead wait, in a directory for each recovery
    #[arg(long, value_name = "SPOOL_DIR", default_value = "/var/tmp/walrestore")]
    pub(super) spool_dir: PathBuf,
    /// Be the process that fetches ahead
    #[arg(long, hide = true)]
    pub(super) prefetch: bool,
}

/// What `wal-restore` is to restore, from the one archive or the other.
pub(super) struct WalToRestore<'a> {
    /// `None` is this host.
    pub(super) barman_host: Option<&'a str>,
    pub(super) server_name: &'a str,
    pub(super) wal_name: &'a str,
    pub(super) wal_dest: &'a Path,
}

impl WalRestoreArgs {
    /// The positional arguments by their meaning.
    pub(super) fn wal(&self) -> WalToRestore<'_> {
        let (first, second, third) = (&self.first, &self.second, &self.third);
        match &self.fourth {
            Some(fourth) => WalToRestore {
                barman_host: Some(first),
                server_name: second,
                wal_name: third,
                wal_dest: Path::new(fourth),
            },
            None => WalToRestore {
                barman_host: None,
                server_name: first,
                wal_name: second,
                wal_dest: Path::new(third),
            },
        }
    }
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
    #[arg(long, conflicts_with_all = ["create_slot", "drop_slot"])]
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
