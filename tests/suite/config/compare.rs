//! Loads the same files with walarch and with the real Barman, and compares all there is to see.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;
use walarch::config::{Config, ConfigFile, Level, Message, ServerConfig, Source, WalsDirectory};

use crate::support::tool::barman_venv;

const DUMP: &str = include_str!("barman_dump.py");

pub(super) fn ask_barman<T: for<'de> Deserialize<'de>>(request: &Value) -> T {
    let python = barman_venv().join("bin/python");
    let mut child = Command::new(&python)
        .args(["-c", DUMP])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("no Barman: {}: {error}", python.display()));
    let input = serde_json::to_vec(request).unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What Barman made of one main configuration file.
#[derive(Debug, Deserialize)]
struct Answer {
    /// The sentences of the error that stopped it.
    fatal: Option<String>,
    /// (level, text) of what went to the console while loading.
    said: Vec<(String, String)>,
    /// (level, text) of what went to the log alone.
    logged: Vec<(String, String)>,
    global_errors: Vec<String>,
    models: Vec<String>,
    servers: Vec<AnsweredServer>,
}

#[derive(Debug, Deserialize)]
struct AnsweredServer {
    name: String,
    /// Option -> (console, JSON, file).
    options: BTreeMap<String, (String, Value, String)>,
    reasons: Vec<String>,
    active_model: Option<String>,
    /// After Barman made a server object of it.
    prepared: Prepared,
    /// The same with the connection strings for WAL.
    overrides: Vec<String>,
    wal_conninfo: (Option<String>, Option<String>),
}

#[derive(Debug, Deserialize)]
struct Prepared {
    archiver: bool,
    disabled: bool,
    passive: bool,
    cloud: bool,
    xlogdb_directory: String,
    reasons: Vec<String>,
    said: Vec<(String, String)>,
}

/// A set of files; `@` in them stands for the directory they are in.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) files: Vec<(&'static str, String)>,
}

pub(super) fn case(name: &'static str, files: &[(&'static str, &str)]) -> Case {
    let files = files.iter().map(|(path, text)| (*path, (*text).to_owned()));
    Case {
        name,
        files: files.collect(),
    }
}

/// A case of one file with a usual `[barman]`.
pub(super) fn servers(name: &'static str, text: &str) -> Case {
    let text = format!("[barman]\nbarman_home = @\nbarman_user = root\n{text}");
    case(name, &[("barman.conf", &text)])
}

impl Case {
    pub(super) fn write(&self, root: &Path) -> PathBuf {
        let directory = root.join(self.name.replace(' ', "_"));
        for (path, text) in &self.files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace('@', directory.to_str().unwrap())).unwrap();
        }
        directory.join("barman.conf")
    }
}

pub(super) fn compare(cases: &[Case]) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let paths: Vec<PathBuf> = cases.iter().map(|case| case.write(&root)).collect();
    let answers: Vec<Answer> = ask_barman(&serde_json::json!({ "load": paths }));
    assert_eq!(answers.len(), cases.len());
    for ((case, path), answer) in cases.iter().zip(&paths).zip(answers) {
        let ours = ConfigFile::open(path).and_then(ConfigFile::load);
        match (ours, &answer.fatal) {
            (Ok(ours), None) => compare_config(case.name, ours, &answer),
            (Err(error), Some(fatal)) => assert_eq!(error.text(), fatal, "{}", case.name),
            (Ok(_), Some(fatal)) => panic!("{}: only Barman stops: {fatal}", case.name),
            (Err(error), None) => panic!("{}: only walarch stops: {error}", case.name),
        }
    }
}

fn compare_config(case: &str, mut ours: Config, barman: &Answer) {
    let of = |console: bool| {
        let messages = ours
            .messages
            .iter()
            .filter(|message| message.console == console);
        shown(messages.cloned().collect::<Vec<_>>().as_slice())
    };
    // Barman applies the values of a model in no order.
    assert_eq!(
        sorted(of(true)),
        sorted(barman.said.clone()),
        "{case}: console"
    );
    assert_eq!(of(false), barman.logged, "{case}: log");
    assert_eq!(ours.global_errors, barman.global_errors, "{case}");
    assert_eq!(ours.models, barman.models, "{case}");
    let names: Vec<&str> = ours.server_names().collect();
    let expected: Vec<&str> = barman.servers.iter().map(|server| &*server.name).collect();
    assert_eq!(names, expected, "{case}");
    let quiet = barman.said.is_empty();
    for (server, barman) in ours.servers.iter_mut().zip(&barman.servers) {
        let place = format!("{case}, [{}]", server.name);
        for option in &server.options {
            let place = format!("{place}, {}", option.name);
            let (console, json, file) = &barman.options[option.name];
            assert_eq!(&option.value, console, "{place}");
            assert_eq!(&option.json, json, "{place}");
            // After an invalid value Barman names the file with that value.
            if let (Source::File { path, .. } | Source::Model { path, .. }, true) =
                (&option.source, quiet)
            {
                assert_eq!(path.to_str().unwrap(), file, "{place}");
            }
        }
        assert_eq!(server.messages, barman.reasons, "{place}");
        assert_eq!(server.active_model, barman.active_model, "{place}");
        compare_prepared(&place, server.clone(), &barman.prepared);
        let overrides = server.use_wal_conninfo();
        let overrides: Vec<String> = overrides.into_iter().map(|message| message.text).collect();
        assert_eq!(overrides, barman.overrides, "{place}");
        let pair = (server.streaming_conninfo.clone(), server.conninfo.clone());
        assert_eq!(pair, barman.wal_conninfo, "{place}");
    }
}

fn compare_prepared(place: &str, mut server: ServerConfig, barman: &Prepared) {
    assert_eq!(shown(&server.prepare()), barman.said, "{place}");
    assert_eq!(server.messages, barman.reasons, "{place}");
    assert_eq!(server.archiver, barman.archiver, "{place}");
    assert_eq!(server.disabled, barman.disabled, "{place}");
    assert_eq!(server.passive, barman.passive, "{place}");
    assert_eq!(server.messages, barman.reasons, "{place}");
    let cloud = matches!(server.wals_directory, WalsDirectory::Cloud(_));
    assert_eq!(cloud, barman.cloud, "{place}");
    assert_eq!(
        server.xlogdb_directory.to_str().unwrap(),
        barman.xlogdb_directory,
        "{place}"
    );
}

fn shown(messages: &[Message]) -> Vec<(String, String)> {
    let level = |level: Level| match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let messages = messages.iter();
    messages
        .map(|message| (level(message.level).to_owned(), message.text.clone()))
        .collect()
}

fn sorted(mut messages: Vec<(String, String)>) -> Vec<(String, String)> {
    messages.sort();
    messages
}
