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
    if name == ALL {
        output.error("You cannot use 'all' in a single server context");
        return None;
    }
    select(config, &[name.to_owned()], output).pop()
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
    select_with_inactive(config, names, output)
        .into_iter()
        .filter(|server| {
            if !server.active {
                output.info(&format!("Skipping inactive server '{}'", server.name));
            } else if server.disabled {
                server
                    .messages
                    .iter()
                    .for_each(|message| output.error(message));
            }
            server.active && !server.disabled
        })
        .collect()
}

/// The servers of a command that shows even inactive and disabled ones, sorted by name.
pub(super) fn select_with_inactive(
    config: Config,
    names: &[String],
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
    for server in &mut servers {
        let messages = server.prepare();
        report(&messages, output);
    }
    for unknown in wanted {
        output.error(&format!("Unknown server '{unknown}'"));
    }
    servers
}
