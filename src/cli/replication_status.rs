//! `replication-status`

use super::args::ReplicationStatusArgs;
use super::output::Output;
use crate::config::Config;

pub(super) fn run(_config: Config, _args: &ReplicationStatusArgs, output: &Output) {
    output.error("unfinished");
}
