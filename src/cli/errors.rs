//! `errors`
use super::output::Output;
use crate::config::Config;
#[derive(Debug, clap::Args)]
pub(super) struct ErrorsArgs {
    server_name: String,
}
pub(super) fn run(_config: Config, _args: &ErrorsArgs, _output: &Output) {}
