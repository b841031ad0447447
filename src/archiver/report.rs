//! What `check` and `status` find out, as values.

use std::borrow::Cow;

use jiff::Timestamp;
use nix::unistd::Pid;
use serde_json::Value;

use crate::postgres::{ReplicationSlot, ServerFacts, WalSender};

/// The verdict of one check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// Barman's name of it.
    pub name: Cow<'static, str>,
    /// Whether all is well.
    pub passed: bool,
    /// What is wrong and what to do about it, or what is worth knowing.
    pub hint: Option<String>,
    /// Numbers and words for programs, which Barman does not have.
    pub facts: Vec<(&'static str, Value)>,
    /// Only for programs: Barman does not have this check, and it says nothing new to a person.
    pub is_silent: bool,
}

impl CheckResult {
    /// A check that passed, or did not.
    pub fn new(name: impl Into<Cow<'static, str>>, passed: bool) -> Self {
        CheckResult {
            name: name.into(),
            passed,
            hint: None,
            facts: Vec::new(),
            is_silent: false,
        }
    }

    /// With something to say about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a value for programs. The unit ends its name.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.push((name, value.into()));
        self
    }

    /// Kept from people while there is nothing to say.
    #[must_use]
    pub fn silent_unless(mut self, worth_saying: bool) -> Self {
        self.is_silent = !worth_saying;
        self
    }
}

/// The verdicts about one server, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckReport {
    /// The verdicts.
    pub results: Vec<CheckResult>,
    /// What is wrong with the configuration, for a check named `configuration`.
    pub messages: Vec<String>,
}

impl CheckReport {
    /// Adds a verdict.
    pub fn add(&mut self, result: CheckResult) {
        self.results.push(result);
    }

    /// Adds a verdict without more to say.
    pub fn verdict(&mut self, name: &'static str, passed: bool) {
        self.add(CheckResult::new(name, passed));
    }
}

/// One thing that `status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// Its name for programs.
    pub key: &'static str,
    /// Its name for people.
    pub description: &'static str,
    /// Its value.
    pub message: String,
}

/// What `status` shows of one server, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusReport {
    /// What is shown.
    pub lines: Vec<StatusLine>,
}

impl StatusReport {
    /// Adds a line.
    pub fn add(&mut self, key: &'static str, description: &'static str, message: impl ToString) {
        self.lines.push(StatusLine {
            key,
            description,
            message: message.to_string(),
        });
    }
}

/// What was found out about a server and its receiver, once for all archivers.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    /// What an ordinary connection tells; `None` if there is none.
    pub facts: Option<ServerFacts>,
    /// The receiver, as this host knows it.
    pub receiver: ReceiverFacts,
    /// The receiver, as the server sees it.
    pub wal_sender: Option<WalSender>,
    /// The configured replication slot.
    pub slot: Option<ReplicationSlot>,
}

/// What is known of a receiver and of the program that it is.
#[derive(Clone, Debug, Default)]
pub struct ReceiverFacts {
    /// Whether there is something to receive with: `pg_receivewal`, or walarch's own receiver.
    pub is_installed: bool,
    /// Its version, as it prints it; `built-in` for walarch's own.
    pub version: Option<String>,
    /// The version of the server it would receive from, as a number: 150018 for 15.18.
    pub server_version: Option<i32>,
    /// Whether it can receive from that.
    pub is_compatible: bool,
    /// The process that holds the lock of `receive-wal`.
    pub pid: Option<Pid>,
    /// Since when it receives WAL.
    pub streaming_since: Option<Timestamp>,
    /// When and why the last run ended.
    pub last_exit: Option<(Timestamp, String)>,
    /// How many runs failed in a row.
    pub failures: u32,
    /// When `cron` will start it, if that is not at once.
    pub next_start_at: Option<Timestamp>,
    /// WAL that was not received and never will be, each with its first and last position.
    pub holes: Vec<String>,
}
