//! `status`

use super::output::Output;
use crate::config::Config;

pub(super) fn run(_config: Config, _server_names: &[String], output: &Output) {
    output.error("unfinished");
}
