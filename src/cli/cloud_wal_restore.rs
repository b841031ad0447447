//! `cloud-wal-restore`: PostgreSQL's `restore_command`, straight from an object store

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::archive_wal::Parts;
use super::exit_code::ExitCode;
use super::get_wal::{report, with_retriever};
use super::output::Output;
use super::servers::select_one_to_read;
use super::wal_restore::{CONNECTION, How, Restoring, WalToRestore, system_identifier};
use crate::config::{Config, WalsDirectory};
use crate::restore::{FileOutlet, RestoreError, Retriever, Trouble, WalSource, data_directory};
use crate::wal::WalName;

#[derive(Debug, clap::Args)]
pub(super) struct CloudWalRestoreArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    /// The WAL file: %f of restore_command
    #[arg(value_name = "WAL_NAME")]
    wal_name: String,
    /// Where to put it: %p of restore_command
    #[arg(value_name = "WAL_DEST")]
    wal_dest: PathBuf,
    /// Fetch so many files at a time ahead of what PostgreSQL asks for; 0 and 1 are none [default:
    /// cloud_wal_restore_parallel]
    #[arg(short, long, value_name = "FILES")]
    parallel: Option<usize>,
    /// Where files that were fetched ahead wait, in a directory for each recovery
    #[arg(long, value_name = "SPOOL_DIR", default_value = "/var/tmp/walrestore")]
    spool_dir: PathBuf,
    /// Be the process that fetches ahead
    #[arg(long, hide = true)]
    pub(super) prefetch: bool,
}

/// What is added to an exit code where PostgreSQL must not take it for "there is no such file": above 125 it stops, and
/// neither ends its recovery nor promotes (manual, `restore_command`).
const STOP: u8 = 200;

/// How long a file that is on its way is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Restores one file.
pub(super) fn run(config: Config, args: &CloudWalRestoreArgs, is_process: bool, output: &Output) {
    if WalName::parse(&args.wal_name).is_err() {
        output.error(&format!("File is not a valid WAL file: {}", args.wal_name));
        return output.exit_with(ExitCode::Unwritable);
    }
    let stops = ends_at_a_target(&args.wal_dest);
    let configuration = config.path.display().to_string();
    let Some(server) = select_one_to_read(config, &args.server_name, output) else {
        return output.exit_with(code(5, stops));
    };
    let WalsDirectory::Cloud(url) = &server.wals_directory else {
        output.error(&format!(
            "cloud-wal-restore is not supported for server {} because no cloud storage configuration is \
             set in 'wals_directory'. Please check the configuration of the server.",
            server.name
        ));
        return output.exit_with(code(5, stops));
    };
    let parts = match Parts::new(&server) {
        Ok(parts) => parts,
        Err(message) => {
            output.error(&message);
            return output.exit_with(code(5, stops));
        }
    };
    let parallel = args.parallel.unwrap_or(server.cloud.wal_restore_parallel);
    let cluster = system_identifier(&args.wal_dest);
    with_retriever(&server, &parts, true, cluster, |retriever| {
        let restored = Restoring {
            source: &Bucket {
                retriever,
                takes_partial: !args.prefetch,
            },
            identity: format!("cloud {configuration} {url} {}", server.name),
            how: How {
                partial: false,
                parallel: if parallel > 1 { parallel } else { 0 },
                spool_dir: &args.spool_dir,
                patience: PATIENCE,
                prefetch: args.prefetch,
            },
            wal: WalToRestore {
                barman_host: None,
                server_name: &server.name,
                wal_name: &args.wal_name,
                wal_dest: &args.wal_dest,
            },
            is_process,
        }
        .run(output);
        let Err(error) = restored else { return };
        report(&error, "", output);
        match error.trouble() {
            Trouble::Absent => {}
            Trouble::Connection => {
                output.exit_with(if stops { code(2, stops) } else { CONNECTION })
            }
            Trouble::Damage => output.exit_with(code(4, stops)),
            Trouble::Configuration => output.exit_with(code(5, stops)),
            Trouble::Outlet => output.exit_with(code(3, stops)),
            Trouble::Remote(status) => output.exit_with(ExitCode::Status(status)),
        }
    });
}

/// The exit code of a mistake in the configuration.
pub(super) fn misconfigured(args: &CloudWalRestoreArgs) -> ExitCode {
    code(5, ends_at_a_target(&args.wal_dest))
}

fn code(number: u8, stops: bool) -> ExitCode {
    ExitCode::Status(if stops { STOP + number } else { number })
}

/// Whether PostgreSQL would take every failure for the end of the archive, and promote: in a recovery from
/// an archive that is no standby's. A standby only asks again.
fn ends_at_a_target(wal_dest: &Path) -> bool {
    data_directory(wal_dest).is_ok_and(|data| {
        data.join("recovery.signal").exists() && !data.join("standby.signal").exists()
    })
}

/// The archive in the bucket. As in Barman, an incomplete segment will do where there is no complete one, but not to
/// fetch ahead: the complete one may yet come.
struct Bucket<'a> {
    retriever: &'a Retriever<'a>,
    takes_partial: bool,
}

impl WalSource for Bucket<'_> {
    fn fetch(
        &self,
        name: &WalName,
        _partial: bool,
        outlet: &mut FileOutlet,
    ) -> Result<(), RestoreError> {
        self.retriever.fetch(name, self.takes_partial, outlet)
    }
}
