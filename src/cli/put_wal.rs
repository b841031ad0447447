//! `put-wal`

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::archive_wal::validation;
use super::output::Output;
use super::servers::select_one_active;
use crate::config::{Config, ServerConfig};
use crate::shipping::{Inbox, Notice, PatientReader};

#[derive(Debug, clap::Args)]
pub(super) struct PutWalArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER", required_unless_present = "forced_command")]
    server_name: Option<String>,
    /// Only see whether the server could receive WAL
    #[arg(short, long)]
    test: bool,
    /// Do what SSH_ORIGINAL_COMMAND says, if it is put-wal or get-wal for one of these servers
    ///
    /// For authorized_keys of sshd: 'restrict,command="walarch put-wal --forced-command main,other" ssh-ed25519 ...'.
    /// The holder of that key can send and get WAL of those servers and do nothing else.
    #[arg(long, value_name = "SERVERS", value_delimiter = ',', conflicts_with_all = ["server_name", "test"])]
    pub(super) forced_command: Option<Vec<String>>,
}

/// How long a sender may be silent. Barman's compresses a segment, which may have 1 GiB, before it sends anything; one
/// that has died leaves a session behind that should end some time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Receives what comes on standard input.
pub(super) fn run(config: Config, args: &PutWalArgs, output: &Output) {
    let name = args.server_name.as_deref().unwrap_or_default();
    let Some(server) = select_one_active(config, name, output) else {
        return;
    };
    if args.test {
        output.info(&format!(
            "Ready to accept WAL files for the server {}",
            server.name
        ));
        return;
    }
    receive(&server, output);
}

fn receive(server: &ServerConfig, output: &Output) {
    let stdin = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(stdin) => stdin,
        Err(error) => return output.error(&format!("cannot read standard input: {error}")),
    };
    let origin = format!("in put-wal for server '{}'{}", server.name, client());
    let inbox = Inbox::new(server, validation(server));
    let received = inbox.receive(&mut PatientReader::new(stdin, PATIENCE), &mut |notice| {
        report(&notice, server, &origin, output)
    });
    if let Err(error) = received {
        output.error_with_hint(&format!("{error} {origin}"), error.hint());
    }
}

fn report(notice: &Notice<'_>, server: &ServerConfig, origin: &str, output: &Output) {
    match notice {
        Notice::BadChecksumLine(line) => {
            output.warning(&format!("Bad checksum line '{line}' found {origin}"));
        }
        Notice::Received { name, checksum } => tracing::info!(
            "Received file '{name}' with checksum '{checksum}' by put-wal for server '{}'{}",
            server.name,
            client()
        ),
        Notice::AlreadyThere { name } => output.debug(&format!(
            "Duplicate Files with Identical Checksums. File {name} already exists on server {}, \
             and the checksums are identical. Skipping the file.",
            server.name
        )),
        Notice::Replaced {
            name,
            moved_to: None,
        } => tracing::warn!("{name} replaced the beginning of it that was left {origin}"),
        Notice::Replaced {
            name,
            moved_to: Some(path),
        } => tracing::warn!(
            "{name} replaced a damaged file, which was moved to {} {origin}",
            path.display()
        ),
    }
}

/// Who is at the other end of ssh: the first word of what sshd says of the connection (ssh(1), ENVIRONMENT).
pub(super) fn client() -> String {
    let connection = env::var("SSH_CONNECTION").unwrap_or_default();
    let address = connection.split_whitespace().next();
    address.map_or(String::new(), |address| format!(" (SSH host: {address})"))
}
