//! The options of the clients that reach the backup host over ssh.

use std::time::Duration;

use crate::shipping::BackupHost;

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
