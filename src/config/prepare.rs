//! What Barman does to a server's configuration when a command selects it.

use std::path::Path;

use super::assemble;
use super::error::{Level, Message};
use super::file::GlobalConfig;
use super::resolve::{Resolver, Source};
use super::sections::Sections;
use super::server::{OwnOptions, ServerConfig};
use super::value::Value;

impl ServerConfig {
    /// The configuration of a server about which nothing is written, in `barman_home`.
    pub fn with_defaults(name: &str, barman_home: &Path) -> ServerConfig {
        let sections = Sections::default();
        let mut messages = Vec::new();
        let global = GlobalConfig::with_home(barman_home);
        let mut resolver = Resolver {
            sections: &sections,
            global: &global,
            messages: &mut messages,
        };
        let settings = resolver.defaults(name);
        assemble::server(&settings, &global, OwnOptions::default(), &mut messages)
    }

    /// Does what Barman does when a command selects this server: disables it when it has no connection
    /// string, or streams only and has no slot; turns `archiver` on when both archivers are off.
    ///
    /// Call it once per run, after [`ServerConfig::use_wal_conninfo`] where that is called. Inactive
    /// and passive servers are left alone. Returns what is to be said.
    pub fn prepare(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        if !self.active || self.passive {
            return messages;
        }
        let name = self.name.clone();
        if self.conninfo.is_none() {
            self.disable(format!(
                "PostgreSQL connection: Missing 'conninfo' parameter for server '{name}'"
            ));
        }
        let streams = self.uses_streaming_backup || self.streaming_archiver;
        if streams && self.streaming_conninfo.is_none() {
            self.disable(format!(
                "Streaming connection: Missing 'streaming_conninfo' parameter for server '{name}'"
            ));
        }
        if !self.archiver && self.streaming_archiver && self.slot_name.is_none() {
            self.disable(
                "Streaming-only archiver requires 'streaming_conninfo' and 'slot_name' options \
                 to be properly configured"
                    .to_owned(),
            );
        }
        if !self.archiver && !self.streaming_archiver {
            messages.push(Message::console(
                Level::Warning,
                format!(
                    "No archiver enabled for server '{name}'. Please turn on 'archiver', \
                     'streaming_archiver' or both"
                ),
            ));
            messages.push(Message::console(Level::Warning, "Forcing 'archiver = on'"));
            self.archiver = true;
            self.force_option("archiver", &Value::Bool(true));
        }
        messages
    }

    /// For the commands that fetch WAL: replaces the connection strings by `wal_streaming_conninfo` and
    /// `wal_conninfo`. Where only the former is set, it replaces both.
    ///
    /// Returns Barman's message about it when anything was replaced; Barman keeps it from `check`.
    pub fn use_wal_conninfo(&mut self) -> Option<Message> {
        let streaming = self.wal_streaming_conninfo.clone();
        let ordinary = self.wal_conninfo.clone().or_else(|| streaming.clone());
        let mut parts = Vec::new();
        if let Some(conninfo) = streaming {
            parts.push(format!("'streaming_conninfo' overridden with '{conninfo}'"));
            self.force_option("streaming_conninfo", &Value::Text(conninfo.clone()));
            self.streaming_conninfo = Some(conninfo);
        }
        if let Some(conninfo) = ordinary {
            parts.push(format!("'conninfo' overridden with '{conninfo}'"));
            self.force_option("conninfo", &Value::Text(conninfo.clone()));
            self.conninfo = Some(conninfo);
        }
        if parts.is_empty() {
            return None;
        }
        let text = format!("Configuration overrides applied: {}", parts.join(" and "));
        Some(Message::console(Level::Info, text))
    }

    /// Disables the server and keeps the reason, once.
    pub fn disable(&mut self, reason: String) {
        self.disabled = true;
        self.force_option("disabled", &Value::Bool(true));
        if !self.messages.contains(&reason) {
            self.messages.push(reason);
        }
    }

    fn force_option(&mut self, name: &str, value: &Value) {
        if let Some(option) = self.options.iter_mut().find(|option| option.name == name) {
            option.value = value.console();
            option.json = value.json();
            option.source = Source::Forced;
        }
    }
}
