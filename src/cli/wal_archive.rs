//! `wal-archive`

use std::path::PathBuf;

use super::exit_code::ExitCode;
use super::output::Output;
use super::ssh_args::SshArgs;
use crate::codec::{CodecOptions, Encoder};
use crate::config::{Compression, CompressionLevel};
use crate::shipping::{Algorithm, SendError, Sending};

#[derive(Debug, clap::Args)]
pub(super) struct WalArchiveArgs {
    #[command(flatten)]
    ssh: SshArgs,
    /// Only test the connection and the configuration of the server there
    #[arg(short, long)]
    test: bool,
    /// Send an MD5 checksum, for a backup host with a Barman that knows no other
    #[arg(long)]
    md5: bool,
    #[command(flatten)]
    codec: SendingCodec,
    /// Compression level: low, medium, high, or the codec's own number [default: medium]
    #[arg(long, value_name = "LEVEL", value_parser = compression_level, allow_hyphen_values = true)]
    compression_level: Option<CompressionLevel>,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The backup host
    #[arg(value_name = "BARMAN_HOST")]
    barman_host: String,
    /// The server's section in the configuration there
    #[arg(value_name = "SERVER_NAME")]
    server_name: String,
    /// The file to send: %p of archive_command
    #[arg(value_name = "WAL_PATH")]
    wal_path: PathBuf,
}

/// What a file is compressed with before it is sent; of several options the last one counts.
#[derive(Debug, clap::Args)]
struct SendingCodec {
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
