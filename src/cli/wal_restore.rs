//! `wal-restore`: PostgreSQL's `restore_command`, on the database host or beside the archive.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::detach::program;
use super::exit_code::ExitCode;
use super::get_wal::{open_server, report, requester, with_retriever};
use super::output::Output;
use super::ssh_args::SshArgs;
use crate::config::Config;
use crate::restore::{
    Ahead, FileOutlet, Outlet, Remote, RestoreError, Spool, Trouble, WalSource, cluster_identifier,
    data_directory, outlet_for, prefetch, restore, works_for_pg_rewind,
};
use crate::shipping::{BackupHost, FetchError, answer};
use crate::wal::WalName;

#[derive(Debug, clap::Args)]
pub(super) struct WalRestoreArgs {
    #[command(flatten)]
    pub(super) ssh: SshArgs,
    /// The archive is on this host; there is no BARMAN_HOST
    #[arg(long)]
    pub(super) local: bool,
    /// Wait for so many seconds after a failure
    #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
    sleep: u64,
    /// Fetch so many files at a time ahead of what PostgreSQL asks for; 0 is none
    ///
    /// Files are fetched in the background and wait in the spool directory, twice as many as this at most. Off for
    /// pg_rewind and with --partial.
    #[arg(short, long, value_name = "JOBS", default_value_t = 0)]
    parallel: usize,
    /// Where files that were fetched ahead wait, in a directory for each recovery
    #[arg(long, value_name = "SPOOL_DIR", default_value = "/var/tmp/walrestore")]
    spool_dir: PathBuf,
    /// Where there is no complete segment, take the incomplete one (.partial), filled up with zeros
    #[arg(short = 'P', long)]
    partial: bool,
    /// Transfer files compressed with gzip (deprecated: let the archive compress, and use --keep-compression)
    #[arg(short = 'z', long)]
    gzip: bool,
    /// Transfer files compressed with bzip2 (deprecated, as --gzip)
    #[arg(short = 'j', long, conflicts_with = "gzip")]
    bzip2: bool,
    /// Transfer files as they are compressed in the archive
    #[arg(long, conflicts_with_all = ["gzip", "bzip2"])]
    keep_compression: bool,
    /// Only test the connection and the configuration of the server there
    #[arg(short, long)]
    test: bool,
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
    fn wal(&self) -> WalToRestore<'_> {
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

/// What a Barman client says for trouble with the connection.
pub(super) const CONNECTION: ExitCode = ExitCode::Status(2);

/// Restores from a backup host.
pub(super) fn run_remote(args: &WalRestoreArgs, is_process: bool, output: &Output) {
    let wal = args.wal();
    let host = args.ssh.backup_host(wal.barman_host.unwrap_or_default());
    if args.test {
        return test(&host, wal.server_name, output);
    }
    if let Some(compression) = deprecated(args) {
        output.line(&format!(
            "WARNING: `{compression}` option is deprecated and will be removed in future versions. \
             For WAL compression, please make sure to enable it directly on the Barman server via \
             the `compression` configuration option"
        ));
    }
    let source = Remote {
        host: &host,
        server_name: wal.server_name,
        transfer: match deprecated(args) {
            Some("gzip") => Some("--gzip"),
            Some(_) => Some("--bzip2"),
            None => args.keep_compression.then_some("--keep-compression"),
        },
        system_identifier: system_identifier(wal.wal_dest),
    };
    // Whatever decides over what comes.
    let identity = format!("{host:?} {}", wal.server_name);
    let restored = Restoring {
        source: &source,
        identity,
        how: args.into(),
        wal,
        is_process,
    }
    .run(output);
    let Err(error) = restored else { return };
    match error.trouble() {
        Trouble::Connection => {
            output.error(&error.to_string());
            output.exit_with(CONNECTION);
        }
        _ => report(&error, "", output),
    }
    pause(args, output);
}

fn deprecated(args: &WalRestoreArgs) -> Option<&'static str> {
    match (args.gzip, args.bzip2) {
        (true, _) => Some("gzip"),
        (_, true) => Some("bzip2"),
        _ => None,
    }
}

/// Restores from an archive on this host.
pub(super) fn run_local(config: Config, args: &WalRestoreArgs, is_process: bool, output: &Output) {
    let wal = args.wal();
    let configuration = config.path.display().to_string();
    let Some((server, parts)) = open_server(config, wal.server_name, args.test, output) else {
        return;
    };
    let identity = format!("local {configuration} {}", server.name);
    let mut restored = Ok(());
    let cluster = system_identifier(wal.wal_dest);
    with_retriever(&server, &parts, false, cluster, |retriever| {
        restored = Restoring {
            source: retriever,
            identity,
            how: args.into(),
            wal,
            is_process,
        }
        .run(output);
    });
    if let Err(error) = restored {
        report(&error, &requester(), output);
        pause(args, output);
    }
}

/// Passes on what the other end says, and how it ends.
fn test(host: &BackupHost, server_name: &str, output: &Output) {
    match answer(host, &["get-wal", "--test", server_name, "dummy_wal_name"]) {
        Ok((text, code)) => {
            output.line(&text);
            output.exit_with(match code {
                0 => ExitCode::Success,
                code => ExitCode::Status(code),
            });
        }
        Err(FetchError::NotStarted(error)) => {
            output.error(&format!("Impossible to invoke remote get-wal: {error}"));
            output.exit_with(CONNECTION);
        }
        Err(error) => {
            output.error(&error.to_string());
            output.exit_with(CONNECTION);
        }
    }
}

/// That of the cluster that the file is for, if it is for one.
pub(super) fn system_identifier(wal_dest: &Path) -> Option<u64> {
    let data_directory = data_directory(wal_dest).ok()?;
    cluster_identifier(&data_directory)
}

/// So that a log is not filled with attempts.
fn pause(args: &WalRestoreArgs, output: &Output) {
    if args.sleep > 0 {
        output.note(&format!("Sleeping for {} seconds.", args.sleep));
        thread::sleep(Duration::from_secs(args.sleep));
    }
}

/// How a call of `restore_command` goes about it.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// An incomplete segment will do.
    pub(super) partial: bool,
    /// Files that are fetched ahead at a time.
    pub(super) parallel: usize,
    pub(super) spool_dir: &'a Path,
    /// How long a file that is on its way is waited for.
    pub(super) patience: Duration,
    /// Be the process that fetches ahead.
    pub(super) prefetch: bool,
}

impl<'a> From<&'a WalRestoreArgs> for How<'a> {
    fn from(args: &'a WalRestoreArgs) -> Self {
        How {
            partial: args.partial,
            parallel: args.parallel,
            spool_dir: &args.spool_dir,
            patience: Duration::from_secs(args.ssh.timeout),
            prefetch: args.prefetch,
        }
    }
}

/// One call of `restore_command`.
pub(super) struct Restoring<'a> {
    pub(super) source: &'a dyn WalSource,
    /// Tells the archive from others; part of the spool's identity.
    pub(super) identity: String,
    pub(super) how: How<'a>,
    pub(super) wal: WalToRestore<'a>,
    pub(super) is_process: bool,
}

impl Restoring<'_> {
    pub(super) fn run(&self, output: &Output) -> Result<(), RestoreError> {
        let goal = self.wal.wal_dest;
        if self.how.prefetch {
            self.prefetch();
            return Ok(());
        }
        let Ok(name) = WalName::parse(self.wal.wal_name) else {
            let name = self.wal.wal_name;
            output.error(&format!("'{name}' is not a valid wal file name"));
            output.exit_with(ExitCode::Unwritable);
            return Ok(());
        };
        let Some(mut outlet) = open(goal, output) else {
            return Ok(());
        };
        let spool = self.spool(output);
        let ahead = spool.as_ref().map(|spool| Ahead {
            spool,
            patience: self.how.patience,
            start: &start_prefetching,
        });
        let partial = self.how.partial;
        restore(
            self.source,
            &name,
            partial,
            goal,
            &mut outlet,
            ahead.as_ref(),
            &mut |warning| output.warning(warning),
        )
    }

    /// Where files wait that were fetched ahead; `None` when none are to be.
    fn spool(&self, output: &Output) -> Option<Spool> {
        let how = self.how;
        if how.parallel == 0 || how.partial || !self.is_process || works_for_pg_rewind() {
            return None;
        }
        match self.open_spool() {
            Ok(spool) => Some(spool),
            Err(error) => {
                let directory = how.spool_dir.display();
                output.warning(&format!(
                    "nothing is fetched ahead: cannot use '{directory}' directory: {error}"
                ));
                None
            }
        }
    }

    fn open_spool(&self) -> io::Result<Spool> {
        let data_directory = data_directory(self.wal.wal_dest)?;
        let identity = format!("{} {}", self.identity, data_directory.display());
        Spool::open(
            self.how.spool_dir,
            self.wal.server_name,
            &identity,
            cluster_identifier(&data_directory),
        )
    }

    /// Nobody listens: whoever needs a file that could not be had will find out why.
    fn prefetch(&self) {
        let jobs = NonZeroUsize::new(self.how.parallel).unwrap_or(NonZeroUsize::MIN);
        let done = self
            .open_spool()
            .and_then(|spool| prefetch(self.source, &spool, jobs, self.how.patience, &give_up));
        if let Err(error) = done {
            tracing::warn!("nothing more is fetched ahead: {error}");
        }
    }
}

/// Ends the process that fetches ahead, whose threads wait for what never comes. The next one removes what is half done.
#[expect(clippy::exit, reason = "no thread can be ended in another way")]
fn give_up() {
    tracing::warn!("nothing more is fetched ahead: nothing arrives any more");
    process::exit(0);
}

/// Makes sure that the file can be written, before anything is asked for. `None` if not; why was printed.
fn open(goal: &Path, output: &Output) -> Option<FileOutlet> {
    let shown = goal.display();
    let mut outlet = outlet_for(goal);
    let refused = if goal.is_dir() {
        Some(format!("WAL_DEST cannot be a directory: {shown}"))
    } else if fs::symlink_metadata(goal).is_ok_and(|metadata| !metadata.is_file()) {
        // What is there is replaced: a device, or a link into another file system, would be gone.
        Some(format!(
            "Cannot write '{shown}' (WAL_DEST): it is not a regular file\nHINT: name the file itself; get-wal writes to \
             standard output"
        ))
    } else {
        let begun = outlet.begin().err();
        begun.map(|error| format!("Cannot open '{shown}' (WAL_DEST) for writing: {error}"))
    };
    if let Some(message) = refused {
        output.error(&message);
        output.exit_with(ExitCode::Unwritable);
        return None;
    }
    Some(outlet)
}

/// Starts this program once more, with the same arguments, to fetch ahead. It goes on when we have answered, and must
/// not hold PostgreSQL's streams; what else it inherits it lets go of by itself (`detach`).
fn start_prefetching() -> io::Result<()> {
    let mut words = env::args_os();
    let called = words.next().unwrap_or_else(|| OsString::from("walarch"));
    let mut words: Vec<OsString> = words.collect();
    // Before a "--", if there is one, and behind the command's name if there is one.
    let at = words
        .iter()
        .position(|word| word == "wal-restore" || word == "cloud-wal-restore")
        .map_or(0, |at| at + 1);
    words.insert(at, OsString::from("--prefetch"));
    let program = program()?;
    Command::new(&program)
        .arg0(called)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
        .map_err(|error| {
            let program = program.display();
            io::Error::new(error.kind(), format!("cannot start '{program}': {error}"))
        })
}
