//! `list-servers` and `show-servers`.

use serde_json::{Map, Value, json};

use super::output::Output;
use super::servers::select_with_inactive;
use crate::config::{Config, ServerConfig, Source};

/// Every server, whatever its state.
pub(super) fn list_servers(config: Config, minimal: bool, output: &Output) {
    for server in select_with_inactive(config, &["all".to_owned()], output) {
        let mut description = server.description.clone().unwrap_or_default();
        if !server.active {
            description.push_str(" (inactive)");
        } else if server.disabled {
            description.push_str(" (WARNING: disabled)");
        }
        if server.passive {
            description.push_str(" (Passive)");
        }
        if output.is_json() {
            output.value(&server.name, json!({ "description": description }));
        } else if minimal || description.is_empty() {
            output.info(&server.name);
        } else {
            output.info(&format!("{} - {description}", server.name));
        }
    }
}

/// The WAL side of the configuration. A value's source has a line of its own, so that scripts that
/// pick a value by its name find what they find in Barman's output.
pub(super) fn show_servers(config: Config, names: &[String], output: &Output) {
    for server in select_with_inactive(config, names, output) {
        let state = match (server.active, server.disabled) {
            (false, _) => Some("(inactive)"),
            (true, true) => Some("(WARNING: disabled)"),
            (true, false) => None,
        };
        if output.is_json() {
            output.value(&server.name, as_json(&server, state));
            continue;
        }
        match state {
            Some(state) => output.info(&format!("Server {} {state}:", server.name)),
            None => output.info(&format!("Server {}:", server.name)),
        }
        for option in &server.options {
            output.info(&format!("\t{}: {}", option.name, option.value));
            output.info(&format!("\t\t({})", source_text(&option.source)));
        }
    }
}

fn as_json(server: &ServerConfig, state: Option<&str>) -> Value {
    let mut values: Map<String, Value> = server
        .options
        .iter()
        .map(|option| (option.name.to_owned(), option.json.clone()))
        .collect();
    // Barman's command puts the state where a description may stand, too; the description wins.
    if values.get("description").is_none_or(Value::is_null) {
        values.insert("description".to_owned(), json!(state));
    }
    let sources: Map<String, Value> = server
        .options
        .iter()
        .map(|option| (option.name.to_owned(), source_text(&option.source).into()))
        .collect();
    values.insert("_sources".to_owned(), sources.into());
    values.into()
}

fn source_text(source: &Source) -> String {
    match source {
        Source::File { path, line } => format!("{}:{line}", path.display()),
        Source::Default => "default".to_owned(),
        Source::Model { name, path, line } => format!("{}:{line}, model {name}", path.display()),
        Source::Forced => "set by walarch".to_owned(),
    }
}
