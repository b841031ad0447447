//! `put-wal --forced-command`: what the holder of an ssh key may do.

use std::env;
use std::path::Path;

use clap::Parser;

use super::args::Args;
use super::put_wal::client;
use crate::config::ConfigFile;
use crate::shipping::Request;

/// What the client asked for, as if it stood in our own arguments, if it is put-wal or get-wal for one of these servers.
///
/// Options of ours, such as the configuration file, stay as they are. An error is the text of the refusal.
pub(super) fn allowed(args: &Args, servers: &[String]) -> Result<Args, String> {
    let line = env::var_os("SSH_ORIGINAL_COMMAND").unwrap_or_default();
    let request = line.to_str().map_or_else(
        || Err("it is not UTF-8".to_owned()),
        |line| Request::parse(line).map_err(|refusal| refusal.to_string()),
    );
    request
        .and_then(|request| accept(args, servers, request))
        .map_err(|reason| format!("The request was refused: {reason}{}", client()))
}

fn accept(args: &Args, servers: &[String], request: Request) -> Result<Args, String> {
    if !servers.contains(&request.server) {
        return Err(format!("this key is not for server '{}'", request.server));
    }
    if let Some(config) = &request.config {
        // Its hook scripts and commands would be run.
        let file = ConfigFile::find(args.config.as_deref()).map_err(|error| error.to_string())?;
        if file.path() != Path::new(config) {
            return Err(format!("'{config}' is not the configuration file in use"));
        }
    }
    let words = ["walarch".to_owned()].into_iter().chain(request.words);
    let mut asked = Args::try_parse_from(words).map_err(|error| error.kind().to_string())?;
    asked.config.clone_from(&args.config);
    asked.log_level.clone_from(&args.log_level);
    asked.color = args.color;
    asked.quiet = args.quiet;
    asked.debug = args.debug;
    asked.format = args.format;
    asked.are_of_process = args.are_of_process;
    Ok(asked)
}
