//! `wal-archive`

use super::args::WalArchiveArgs;
use super::exit_code::ExitCode;
use super::output::Output;
use crate::codec::{CodecOptions, Encoder};
use crate::shipping::{Algorithm, SendError, Sending};

/// What happens on the database host.
const LOCAL_FAILURE: ExitCode = ExitCode::Status(2);

/// What happens between the hosts.
const CONNECTION_FAILURE: ExitCode = ExitCode::Status(3);

/// Sends a file, or tests whether one could be sent.
pub(super) fn run(args: &WalArchiveArgs, output: &Output) {
    let host = args.ssh.backup_host(&args.barman_host);
    let encoder = match encoder(args) {
        Ok(encoder) => encoder,
        Err(error) => return output.error_with_code(LOCAL_FAILURE, &error),
    };
    if let Some(notice) = encoder.as_ref().and_then(Encoder::level_notice) {
        output.warning(notice);
    }
    let sending = Sending {
        host: &host,
        server: &args.server_name,
        algorithm: match args.md5 {
            true => Algorithm::Md5,
            false => Algorithm::Sha256,
        },
        encoder,
    };
    let result = match args.test {
        true => sending.test().map(|(answer, code)| {
            output.line(&answer);
            output.exit_with(ExitCode::Status(code));
        }),
        false => sending.send(&args.wal_path),
    };
    if let Err(error) = result {
        output.error_with_code(exit_code(&error), &error.to_string());
    }
}

fn encoder(args: &WalArchiveArgs) -> Result<Option<Encoder>, String> {
    let Some(compression) = args.codec.compression() else {
        return Ok(None);
    };
    let options = CodecOptions {
        compression: Some(compression),
        compression_level: args.compression_level.unwrap_or_default(),
        ..CodecOptions::default()
    };
    let encoder = Encoder::with_options(&options);
    encoder.map(Some).map_err(|error| error.to_string())
}

/// As Barman's client ends.
fn exit_code(error: &SendError) -> ExitCode {
    match error {
        SendError::Connection { .. } => CONNECTION_FAILURE,
        SendError::Remote { code, .. } => ExitCode::Status(*code),
        _ => LOCAL_FAILURE,
    }
}
