//! `get-wal`

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::archive_wal::Parts;
use super::exit_code::ExitCode;
use super::output::Output;
use super::servers::select_one_to_read;
use crate::archiver;
use crate::codec::Decoder;
use crate::config::{Compression, Config, ServerConfig, WalsDirectory};
use crate::restore::{
    FileOutlet, Form, Notice, Outlet, Request, RestoreError, Retriever, StreamOutlet, Trouble,
    Validation,
};
use crate::storage::Recognition;
use crate::wal::WalName;

#[derive(Debug, clap::Args)]
pub(super) struct GetWalArgs {
    /// The server's section in the configuration
    #[arg(value_name = "SERVER")]
    server_name: String,
    /// The WAL file
    #[arg(value_name = "WAL_NAME")]
    wal_name: String,
    /// Put the file into this directory, under its name
    #[arg(short, long, value_name = "DIRECTORY")]
    pub(super) output_directory: Option<PathBuf>,
    /// Where there is no complete segment, take the incomplete one (.partial), filled up with zeros
    #[arg(short = 'P', long)]
    partial: bool,
    /// Compress the output with gzip [aliases of -z: -x]
    #[arg(short = 'z', short_alias = 'x', long, overrides_with = "bzip2")]
    gzip: bool,
    /// Compress the output with bzip2
    #[arg(short = 'j', long, overrides_with = "gzip")]
    bzip2: bool,
    /// Leave the compression as it is in the archive
    #[arg(long)]
    keep_compression: bool,
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

/// Delivers a file, or lists what could be delivered.
pub(super) fn run(config: Config, args: &GetWalArgs, output: &Output) {
    let Some((server, parts)) = open_server(config, &args.server_name, args.test, output) else {
        return;
    };
    if args.keep_compression && (args.gzip || args.bzip2) {
        let wanted = if args.gzip { "gzip" } else { "bzip2" };
        output.error(&format!(
            "argument `{wanted}` not allowed with argument `keep-compression`"
        ));
        // Barman says 1, which from a restore_command means that there is no such file.
        return output.exit_with(ExitCode::Usage);
    }
    let requester = requester();
    let Ok(name) = WalName::parse(&args.wal_name) else {
        let name = &args.wal_name;
        output.error(&format!("'{name}' is not a valid wal file name{requester}"));
        return output.exit_with(ExitCode::Unwritable);
    };
    with_retriever(&server, &parts, false, None, |retriever| match args.peek {
        Some(limit) => list(retriever, &name, limit, &requester, output),
        None => deliver(retriever, &name, args, &requester, output),
    });
}

/// Lists what could be delivered. That nothing could be is an answer only where there is an archive.
fn list(retriever: &Retriever<'_>, name: &WalName, limit: usize, requester: &str, output: &Output) {
    let mut is_empty = true;
    // A reader that went away wants no more names.
    let _ = retriever.peek(name, limit, &mut |name| {
        is_empty = false;
        output.line(name.as_str());
        Ok(())
    });
    if let Some(root) = retriever.root.filter(|root| is_empty && !root.is_dir()) {
        let directory = root.to_owned();
        report(&RestoreError::NoArchive { directory }, requester, output);
    }
}

/// Puts together what finds and decodes a server's WAL, in the archive alone or in the queues as well. `cluster` is the
/// system identifier of the cluster that the WAL is for, where that is known better than from the archive's own records.
pub(super) fn with_retriever(
    server: &ServerConfig,
    parts: &Parts,
    only_archive: bool,
    cluster: Option<u64>,
    work: impl FnOnce(&Retriever<'_>),
) {
    let decoder = Decoder::new(server);
    let recognition = Recognition::new(server);
    let validation = server.own.validate_wal.then(|| Validation {
        system_identifier: cluster.or_else(|| known_system_identifier(server)),
    });
    let root = match &server.wals_directory {
        WalsDirectory::Local(root) => Some(root.as_path()),
        WalsDirectory::Cloud(_) => None,
    };
    work(&Retriever {
        server_name: &server.name,
        storage: &*parts.storage,
        root,
        catalog: &parts.catalog,
        incoming: &server.incoming_wals_directory,
        streaming: &server.streaming_wals_directory,
        only_archive,
        decoder: &decoder,
        recognition: &recognition,
        validation,
    });
}

fn known_system_identifier(server: &ServerConfig) -> Option<u64> {
    let known = archiver::system_identifier(&server.backup_directory);
    if let Err(error) = &known {
        tracing::warn!("{error}; WAL is not checked against it");
    }
    known.ok().flatten()
}

/// The server to give WAL back from, and its archive. `None` if it cannot be had, or if this was only a test: what there
/// is to say was said.
pub(super) fn open_server(
    config: Config,
    name: &str,
    is_test: bool,
    output: &Output,
) -> Option<(ServerConfig, Parts)> {
    let opened = select_one_to_read(config, name, output).and_then(|server| {
        let parts = Parts::new(&server).map_err(|message| output.error(&message));
        Some((server, parts.ok()?))
    });
    match &opened {
        None => output.exit_with(ExitCode::Configuration),
        Some((server, _)) if is_test => output.info(&format!(
            "Ready to retrieve WAL files from the server {}",
            server.name
        )),
        Some(_) => {}
    }
    opened.filter(|_| !is_test)
}

fn deliver(
    retriever: &Retriever<'_>,
    name: &WalName,
    args: &GetWalArgs,
    requester: &str,
    output: &Output,
) {
    let delivered = match &args.output_directory {
        Some(directory) => deliver_into(retriever, name, directory, args, requester, output),
        None => deliver_to_stdout(retriever, name, args, requester),
    };
    if let Err(error) = delivered {
        report(&error, requester, output);
    }
}

fn deliver_into(
    retriever: &Retriever<'_>,
    name: &WalName,
    directory: &Path,
    args: &GetWalArgs,
    requester: &str,
    output: &Output,
) -> Result<(), RestoreError> {
    let path = directory.join(name.as_str());
    let goal = format!("into '{}' file", path.display());
    let mut outlet = FileOutlet::durable(&path);
    // Barman opens it before it looks for anything, and says so.
    outlet.begin().map_err(|source| RestoreError::Outlet {
        location: outlet.location(),
        source,
    })?;
    get(retriever, name, args, &mut outlet, &|sending| {
        output.info(&sending_text(sending, retriever, &goal, requester));
    })
}

fn deliver_to_stdout(
    retriever: &Retriever<'_>,
    name: &WalName,
    args: &GetWalArgs,
    requester: &str,
) -> Result<(), RestoreError> {
    // Without the buffer that the standard library puts before it: the bytes come in large pieces.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let mut outlet = stdout
        .and_then(|stdout| StreamOutlet::new(STDOUT, stdout))
        .map_err(|source| RestoreError::Outlet {
            location: STDOUT.to_owned(),
            source,
        })?;
    get(retriever, name, args, &mut outlet, &|sending| {
        let text = sending_text(sending, retriever, "to standard output", requester);
        tracing::info!("{text}");
    })
}

const STDOUT: &str = "standard output";

fn sending_text(name: &WalName, retriever: &Retriever<'_>, goal: &str, requester: &str) -> String {
    let server = retriever.server_name;
    format!("Sending WAL '{name}' for server '{server}' {goal}{requester}")
}

fn get(
    retriever: &Retriever<'_>,
    name: &WalName,
    args: &GetWalArgs,
    outlet: &mut dyn Outlet,
    sending: &dyn Fn(&WalName),
) -> Result<(), RestoreError> {
    let form = match (args.keep_compression, args.gzip, args.bzip2) {
        (true, _, _) => Form::AsStored,
        (_, true, _) => Form::Compressed(Compression::Gzip),
        (_, _, true) => Form::Compressed(Compression::Bzip2),
        _ => Form::Plain,
    };
    let request = Request {
        name,
        form,
        partial: args.partial,
    };
    retriever.get(&request, outlet, &mut |notice| match notice {
        Notice::Sending(name) => sending(name),
        Notice::Unusable(error) => tracing::warn!("{error}"),
    })
}

/// Says what went wrong, in Barman's words where it has some, and chooses the exit code.
pub(super) fn report(error: &RestoreError, requester: &str, output: &Output) {
    match error {
        RestoreError::NotFound { .. } => output.error(&format!("{error}{requester}")),
        // Whoever reads it knows best what became of it.
        RestoreError::Outlet { location, .. } if location == STDOUT => {
            output.error(&error.to_string());
        }
        RestoreError::Outlet { location, source } => {
            let text = format!("Unable to open '{location}' file{requester}: {source}");
            output.error_with_hint(&text, error.hint());
        }
        error => output.error_with_hint(error, error.hint()),
    }
    output.exit_with(match error.trouble() {
        Trouble::Absent => ExitCode::Failure,
        Trouble::Damage => ExitCode::Damaged,
        Trouble::Configuration => ExitCode::Configuration,
        Trouble::Connection => ExitCode::Connection,
        Trouble::Outlet => ExitCode::Unwritable,
        Trouble::Remote(status) => ExitCode::Status(status),
    });
}

/// Who asks, where sshd tells us: the first word of `SSH_CONNECTION` is the client's address.
pub(super) fn requester() -> String {
    let connection = env::var("SSH_CONNECTION").unwrap_or_default();
    match connection.split_whitespace().next() {
        Some(host) => format!(" (SSH host: {host})"),
        None => String::new(),
    }
}
