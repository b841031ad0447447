//! Which servers a command is for, with Barman's rules and messages.

use std::collections::BTreeSet;

use super::output::Output;
use crate::config::{Config, Level, Message, ServerConfig};

/// The word that stands for every server.
const ALL: &str = "all";

/// Passes messages of the configuration on.
pub(super) fn report(messages: &[Message], output: &Output) {
    for message in messages {
        match (message.level, message.console) {
            (Level::Error, true) => output.error(&message.text),
            (Level::Error, false) => tracing::error!("{}", message.text),
            (Level::Warning, true) => output.warning(&message.text),
            (Level::Warning, false) => tracing::warn!("{}", message.text),
            (Level::Info, true) => output.info(&message.text),
            (Level::Info, false) => tracing::info!("{}", message.text),
            (Level::Debug, _) => tracing::debug!("{}", message.text),
        }
    }
}

/// The one server of a command that takes one. `None` if there is nothing to do; why was printed.
pub(super) fn select_one(config: Config, name: &str, output: &Output) -> Option<ServerConfig> {
    one(name, output, |names| select(config, names, output))
}

/// The one server of a command that fetches WAL, with the connection strings for that. `inactive_too`
/// lets a server pass that is not active. `None` if there is nothing to do; why was printed.
pub(super) fn select_for_wal(
    config: Config,
    name: &str,
    inactive_too: bool,
    output: &Output,
) -> Option<ServerConfig> {
    let keep = |server: &ServerConfig| inactive_too || is_active(server, output);
    one(name, output, |names| {
        only_enabled(find(config, names, Host::Wal, keep, output), output)
    })
}

fn one(
    name: &str,
    output: &Output,
    select: impl FnOnce(&[String]) -> Vec<ServerConfig>,
) -> Option<ServerConfig> {
    if name == ALL {
        output.error("You cannot use 'all' in a single server context");
        return None;
    }
    select(&[name.to_owned()]).pop()
}

/// The one server of a command that somebody's data depends on: to do nothing, because the server is inactive, is an
/// error.
pub(super) fn select_one_active(
    config: Config,
    name: &str,
    output: &Output,
) -> Option<ServerConfig> {
    if let Some(server) = config.server(name).filter(|server| !server.active) {
        output.error(&format!("Inactive server: {}", server.name));
        return None;
    }
    select_one(config, name, output)
}

/// The one server of a command that reads only, inactive or not. `None` if it cannot be used; why was printed.
pub(super) fn select_one_to_read(
    config: Config,
    name: &str,
    output: &Output,
) -> Option<ServerConfig> {
    if name == ALL {
        output.error("You cannot use 'all' in a single server context");
        return None;
    }
    let server = select_with_inactive(config, &[name.to_owned()], output).pop()?;
    if server.disabled {
        server
            .messages
            .iter()
            .for_each(|message| output.error(message));
    }
    (!server.disabled).then_some(server)
}

/// The active servers of a command that takes several, sorted by name.
pub(super) fn select(config: Config, names: &[String], output: &Output) -> Vec<ServerConfig> {
    let keep = |server: &ServerConfig| is_active(server, output);
    only_enabled(find(config, names, Host::Backup, keep, output), output)
}

/// The same for a command that asks the host which WAL is received from.
pub(super) fn select_wal_hosts(
    config: Config,
    names: &[String],
    output: &Output,
) -> Vec<ServerConfig> {
    let keep = |server: &ServerConfig| is_active(server, output);
    only_enabled(find(config, names, Host::Wal, keep, output), output)
}

/// The servers that `cron` has work for, sorted by name. A disabled one is no error there.
pub(super) fn select_due(config: Config, output: &Output) -> Vec<ServerConfig> {
    let is_due = |server: &ServerConfig| {
        let name = &server.name;
        if server.active && server.disabled {
            output.info(&format!("Skipping temporarily disabled server '{name}'"));
        }
        is_active(server, output) && !server.disabled
    };
    find(config, &[ALL.to_owned()], Host::Wal, is_due, output)
}

/// The servers of a command that shows even inactive and disabled ones, sorted by name.
pub(super) fn select_with_inactive(
    config: Config,
    names: &[String],
    output: &Output,
) -> Vec<ServerConfig> {
    find(config, names, Host::Backup, |_| true, output)
}

fn only_enabled(mut servers: Vec<ServerConfig>, output: &Output) -> Vec<ServerConfig> {
    servers.retain(|server| {
        if server.disabled {
            server
                .messages
                .iter()
                .for_each(|message| output.error(message));
        }
        !server.disabled
    });
    servers
}

fn is_active(server: &ServerConfig, output: &Output) -> bool {
    if !server.active {
        output.info(&format!("Skipping inactive server '{}'", server.name));
    }
    server.active
}

/// Which of a server's connection strings are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    /// `conninfo`, `streaming_conninfo`
    Backup,
    /// `wal_conninfo`, `wal_streaming_conninfo`, where they are set.
    Wal,
}

/// The servers of these names that are to be kept.
fn find(
    config: Config,
    names: &[String],
    host: Host,
    keep: impl Fn(&ServerConfig) -> bool,
    output: &Output,
) -> Vec<ServerConfig> {
    if !config.global_errors.is_empty() {
        config
            .global_errors
            .iter()
            .for_each(|error| output.error(error));
        return Vec::new();
    }
    let all = names.iter().any(|name| name == ALL);
    if all && names.len() != 1 {
        output.error("You cannot use 'all' with other server names");
    }
    let mut wanted: BTreeSet<String> = names.iter().filter(|_| !all).cloned().collect();
    let mut servers: Vec<ServerConfig> = config
        .servers
        .into_iter()
        .filter(|server| wanted.remove(&server.name) || all)
        .collect();
    servers.sort_by(|a, b| a.name.cmp(&b.name));
    servers.retain_mut(|server| {
        let overridden = (host == Host::Wal).then(|| server.use_wal_conninfo());
        report(overridden.flatten().as_slice(), output);
        report(&server.prepare(), output);
        keep(server)
    });
    for unknown in wanted {
        output.error(&format!("Unknown server '{unknown}'"));
    }
    servers
}
