//! Archives in object stores.

mod commands;
mod credentials;
mod endings;
mod faults;
mod interop;
mod network;
mod receiving;
mod recovery;
mod stores;
mod upkeep;

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::home::{Files, Home, XlogdbLine};
use crate::support::object_stores::s3_environment;
use crate::support::tool::{Run, Tool, Walarch, finish, start};

/// A home whose archive is in a bucket.
pub struct CloudHome {
    pub home: Home,
    environment: Vec<(&'static str, String)>,
}

impl CloudHome {
    /// `url` is `wals_directory`; `toml` are further lines of walarch.toml.
    pub fn new(
        url: &str,
        endpoint: &str,
        environment: Vec<(&'static str, String)>,
        options: &[(&str, &str)],
        toml: &str,
    ) -> Self {
        let mut all = vec![("wals_directory", url), ("compression", "zstd")];
        all.extend(options);
        let text = format!("[walarch]\ncloud_endpoint_url = \"{endpoint}\"\n{toml}");
        let home = Home::with(&all).walarch_toml(&text);
        Self { home, environment }
    }

    /// Sets one more variable for every command.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// With S3 at this endpoint.
    pub fn s3(endpoint: &str, options: &[(&str, &str)], toml: &str) -> Self {
        Self::new("s3://wal/pre", endpoint, s3_environment(), options, toml)
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_as(Walarch, arguments)
    }

    pub fn run_as(&self, tool: Tool, arguments: &[&str]) -> Run {
        self.finish(tool.command(&self.home, arguments))
    }

    /// Runs a command that knows the credentials.
    pub fn finish(&self, mut command: Command) -> Run {
        command.envs(self.environment.clone());
        finish(start(&mut command), Duration::from_secs(120))
    }

    /// A command that knows the credentials.
    pub fn command(&self, tool: Tool, arguments: &[&str]) -> Command {
        let mut command = tool.command(&self.home, arguments);
        command.envs(self.environment.clone());
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        start(&mut self.command(Walarch, arguments))
    }

    pub fn archive(&self) -> Run {
        self.run(&["archive-wal", "main"])
    }

    pub fn xlogdb_text(&self) -> String {
        fs::read_to_string(self.home.dir("meta").join("main-xlog.db")).unwrap_or_default()
    }

    /// The lines of xlogdb, which lies in `meta`.
    pub fn xlogdb(&self) -> Vec<XlogdbLine> {
        self.xlogdb_text().lines().map(XlogdbLine::parse).collect()
    }

    pub fn listed(&self) -> Vec<String> {
        self.xlogdb().into_iter().map(|line| line.name).collect()
    }

    /// Restores a file and returns its bytes.
    #[track_caller]
    pub fn restored(&self, name: &str) -> Vec<u8> {
        let goal = self.home.root().join(format!("restored-{name}"));
        self.run(&["cloud-wal-restore", "main", name, goal.to_str().unwrap()])
            .exits(0);
        fs::read(goal).unwrap()
    }

    #[track_caller]
    pub fn assert_holds(&self, files: &Files) {
        for (name, bytes) in files {
            assert!(self.restored(name) == *bytes, "{name} differs");
        }
    }
}

/// Where Barman keeps a file of `main`.
pub fn key(name: &str, ending: &str) -> String {
    match name.ends_with(".history") {
        true => format!("pre/main/wals/{name}{ending}"),
        false => format!("pre/main/wals/{}/{name}{ending}", &name[..16]),
    }
}
