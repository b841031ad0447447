//! `switch-wal`

use super::args::SwitchWalArgs;
use super::output::Output;
use crate::config::Config;

pub(super) fn run(_config: Config, _args: &SwitchWalArgs, output: &Output) {
    output.error("unfinished");
}
