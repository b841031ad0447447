//! `check`

use super::output::Output;
use crate::config::Config;

pub(super) fn run(
    _config: Config,
    _server_names: &[String],
    _nagios: bool,
    _check_timeout: Option<u64>,
    output: &Output,
) {
    output.error("unfinished");
}
