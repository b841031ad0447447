//! `receive-wal`

use super::args::ReceiveWalArgs;
use super::output::Output;
use crate::config::Config;

pub(super) fn run(_config: Config, _args: &ReceiveWalArgs, output: &Output) {
    output.error("unfinished");
}
