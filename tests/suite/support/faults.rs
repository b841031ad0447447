//! The same run again and again, each time killed at, or failed in, another of its calls.
//!
//! strace counts calls for `when=` per thread and per system call. A call is therefore aimed at by its
//! path as well (`-P`): few threads work on one path, so that the count hardly depends on how threads
//! interleave. Where it does, a fault comes a little early, late or not at all; the invariants hold
//! for every instant, so that none of these makes a false alarm.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::decode::decode;
use super::home::{Files, Home, names, tree};
use super::order::is_wal_name;
use super::tool::{Run, Tool};
use super::trace::{Call, Effect, QUICK, record, traced};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill,
    NoSpace,
    IoError,
}

/// Where a path lies, from the run's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Source,
    SourceDirectory,
    Temporary,
    Archived,
    ArchiveDirectory,
    Xlogdb,
    Errors,
    Other,
}

impl Place {
    fn of(path: &Path, home: &Home, source: Option<&Path>) -> Self {
        let name = path.file_name().unwrap_or_default().to_str().unwrap();
        let sources = [home.incoming(), home.streaming()];
        if Some(path) == source {
            Self::Source
        } else if sources.iter().any(|dir| dir == path) {
            Self::SourceDirectory
        } else if sources.iter().any(|dir| path.starts_with(dir)) {
            if is_wal_name(name) {
                Self::Source
            } else {
                Self::Temporary
            }
        } else if path.starts_with(home.errors()) {
            Self::Errors
        } else if !path.starts_with(home.wals()) || name.ends_with(".lock") {
            Self::Other
        } else if name.contains("xlog") {
            Self::Xlogdb
        } else if is_wal_name(name) {
            Self::Archived
        } else if path == home.wals() || name.len() == 16 && !name.contains('.') {
            Self::ArchiveDirectory
        } else {
            Self::Temporary
        }
    }
}

/// One call to be hit, and how strace finds it again.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub place: Place,
    selector: String,
    /// The how-manieth such call of its thread.
    count: usize,
    synces: bool,
}

/// A home with WAL waiting, the command that archives it, and what the WAL contained.
pub struct Scenario {
    pub tool: Tool,
    pub home: Home,
    pub originals: Files,
    /// In `archive_command` mode: the file outside the home that is archived and must stay as it is.
    pub command_file: Option<PathBuf>,
}

impl Scenario {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["archive-wal".to_owned(), "main".to_owned()];
        arguments.extend(
            self.command_file
                .iter()
                .map(|path| path.to_str().unwrap().to_owned()),
        );
        arguments
    }

    fn run(&self, home: &Home) -> Run {
        let arguments = self.arguments();
        self.tool.run(
            home,
            &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    }

    /// Every call of an undisturbed run that changes something below the Barman home.
    pub fn targets(&self) -> (Home, Vec<Target>) {
        let home = self.home.copy();
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (run, calls) = record(self.tool, &home, &arguments);
        run.exits(0);
        let mut seen: HashMap<(u32, &str, String), usize> = HashMap::new();
        let mut totals: HashMap<(&str, String), usize> = HashMap::new();
        for call in &calls {
            for selector in call.selectors() {
                *totals.entry((&call.name, selector)).or_default() += 1;
            }
        }
        let mut targets = Vec::new();
        for call in &calls {
            for selector in call.selectors() {
                *seen.entry((call.thread, &call.name, selector)).or_default() += 1;
            }
            let Some(place) = self.place(call, &home) else {
                continue;
            };
            // The rarest selector is the one on which fewest threads can disagree.
            let selector = call
                .selectors()
                .into_iter()
                .min_by_key(|selector| totals[&(call.name.as_str(), selector.clone())])
                .unwrap();
            let count = seen[&(call.thread, call.name.as_str(), selector.clone())];
            let synces = matches!(call.effect(), Effect::Sync { .. } | Effect::SyncAll);
            targets.push(Target {
                name: call.name.clone(),
                place,
                selector,
                count,
                synces,
            });
        }
        (home, targets)
    }

    fn place(&self, call: &Call, home: &Home) -> Option<Place> {
        let effect = call.effect();
        let path = effect.path().filter(|_| call.changes())?;
        let ours =
            path.starts_with(home.barman_home()) || Some(path) == self.command_file.as_deref();
        ours.then(|| Place::of(path, home, self.command_file.as_deref()))
    }

    /// Runs the sweep over the chosen targets; returns how many of the faults really struck.
    pub fn sweep(&self, fault: Fault) -> usize {
        let (recorded_in, targets) = self.targets();
        let chosen = choose(targets);
        assert!(
            !chosen.is_empty(),
            "the run changes nothing: there is nothing to sweep"
        );
        let mut struck = 0;
        let mut breaches = Vec::new();
        for target in &chosen {
            let (hit, broken) = self.strike(recorded_in.root(), target, fault);
            struck += usize::from(hit);
            if !broken.is_empty() {
                breaches.push(format!(
                    "{fault:?} at {target:?}:\n    {}",
                    broken.join("\n    ")
                ));
            }
        }
        let count = breaches.len();
        assert!(
            breaches.is_empty(),
            "{count} of {} runs:\n{}",
            chosen.len(),
            breaches.join("\n")
        );
        struck
    }

    /// One run with the fault and one without: whether the fault struck, and what was broken by it.
    pub fn strike(&self, recorded_in: &Path, target: &Target, fault: Fault) -> (bool, Vec<String>) {
        let home = self.home.copy();
        let before = self.command_file.as_ref().map(|path| Fingerprint::of(path));
        let selector = target
            .selector
            .replace(recorded_in.to_str().unwrap(), home.root().to_str().unwrap());
        let effect = match fault {
            Fault::Kill => "signal=KILL",
            Fault::NoSpace => "error=ENOSPC",
            Fault::IoError => "error=EIO",
        };
        let mut options = vec![
            "-P".to_owned(),
            selector,
            "-e".to_owned(),
            format!("trace={}", target.name),
            "-e".to_owned(),
            format!("inject={}:{effect}:when={}", target.name, target.count),
        ];
        if fault != Fault::Kill {
            options.push(QUICK.to_owned());
        }
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (run, calls) = traced(self.tool, &home, &arguments, &options);
        let hit = match fault {
            Fault::Kill => run.code == 128 + 9,
            _ => calls.iter().any(|call| call.injected),
        };

        let mut broken = self.lost_or_torn(&home);
        if run.code == 0 {
            broken.extend(
                self.unfinished(&home)
                    .into_iter()
                    .map(|what| format!("exit 0, but {what}")),
            );
        }
        if hit && fault != Fault::Kill && target.synces && target.place != Place::Other {
            broken.extend(self.unheard_sync(&home, &run, target));
        }
        let again = self.run(&home);
        if again.code != 0 {
            broken.push(format!(
                "the rerun ends with {}: {}",
                again.code, again.stderr
            ));
        }
        broken.extend(self.lost_or_torn(&home));
        broken.extend(
            self.unfinished(&home)
                .into_iter()
                .map(|what| format!("after the rerun {what}")),
        );
        if self.command_file.as_ref().map(|path| Fingerprint::of(path)) != before {
            broken.push("PostgreSQL's own file was touched".to_owned());
        }
        (hit, broken)
    }

    /// A sync that failed says that the bytes may never reach the disk: success must not be reported, and
    /// sources that rely on it must stay.
    fn unheard_sync(&self, home: &Home, run: &Run, target: &Target) -> Vec<String> {
        let mut broken = Vec::new();
        if run.code == 0 {
            broken.push("a failed sync did not show in the exit code".to_owned());
        }
        let is_last = target.place == Place::SourceDirectory || target.place == Place::Errors;
        let sources_left = self
            .originals
            .keys()
            .any(|name| self.source(home, name).exists());
        if !is_last && !sources_left {
            broken.push("no source was kept although a sync had failed".to_owned());
        }
        broken
    }

    fn source(&self, home: &Home, name: &str) -> PathBuf {
        let incoming = home.incoming().join(name);
        match &self.command_file {
            Some(path) => path.clone(),
            None if incoming.exists() => incoming,
            None => home.streaming().join(name),
        }
    }

    /// What must hold at every instant.
    fn lost_or_torn(&self, home: &Home) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, bytes) in &self.originals {
            let in_source = fs::read(self.source(home, name)).is_ok_and(|found| found == *bytes);
            let archived = home.archived(name);
            let in_archive =
                archived.exists() && decode(&archived).is_ok_and(|found| found == *bytes);
            if !in_source && !in_archive {
                broken.push(format!(
                    "{name} is whole neither in its source nor in the archive"
                ));
            }
            if archived.exists() && !in_archive {
                broken.push(format!(
                    "{name} is in the archive under its final name, but not whole"
                ));
            }
        }
        // The receiver finds its place by what must stay in `streaming`.
        for name in names(&self.home.streaming()) {
            let kept = fs::read(home.streaming().join(&name)).unwrap_or_default();
            let before = fs::read(self.home.streaming().join(&name)).unwrap();
            if !self.originals.contains_key(&name) && kept != before {
                broken.push(format!("{name} did not stay in streaming"));
            }
        }
        let text = fs::read_to_string(home.xlogdb_file()).unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            broken.push(format!("the last xlogdb line is torn: {text:?}"));
        }
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines() {
            *lines.entry(line.split('\t').next().unwrap()).or_default() += 1;
        }
        for (name, count) in lines {
            if count > 1 {
                broken.push(format!("{name} has {count} xlogdb lines"));
            }
            if !home.archived(name).exists() {
                broken.push(format!(
                    "{name} has an xlogdb line, but is not in the archive"
                ));
            }
        }
        if !names(&home.errors()).is_empty() {
            broken.push(format!(
                "something went to errors: {:?}",
                names(&home.errors())
            ));
        }
        broken
    }

    /// What must hold besides once a run has ended well.
    fn unfinished(&self, home: &Home) -> Vec<String> {
        let mut broken = Vec::new();
        for name in self.originals.keys() {
            if self.command_file.is_none() && self.source(home, name).exists() {
                broken.push(format!("the source of {name} is still there"));
            }
            if !home.archived(name).exists() {
                broken.push(format!("{name} is not in the archive"));
            }
        }
        let mut listed = home.listed();
        listed.sort();
        let archive = tree(&home.wals());
        let mut stored: Vec<String> = Vec::new();
        for path in archive
            .iter()
            .filter(|path| home.wals().join(path).is_file())
        {
            let name = path.file_name().unwrap().to_str().unwrap();
            if is_wal_name(name) {
                stored.push(name.to_owned());
            } else if name != "main-xlog.db" && !name.ends_with(".lock") {
                broken.push(format!("{path:?} is left over in the archive"));
            }
        }
        stored.sort();
        if listed != stored {
            broken.push(format!(
                "the xlogdb lists {listed:?}, the archive holds {stored:?}"
            ));
        }
        for dir in [home.incoming(), home.streaming()] {
            let left = names(&dir).into_iter().filter(|name| !is_wal_name(name));
            broken.extend(left.map(|name| format!("{name} is left over in {dir:?}")));
        }
        broken
    }
}

/// Whether the run shall take as long as it takes.
pub fn is_full_sweep() -> bool {
    std::env::var_os("WALARCH_FULL_SWEEP").is_some()
}

/// All targets in a full sweep; otherwise of each kind of call at each place the first, the last and one
/// between.
fn choose(targets: Vec<Target>) -> Vec<Target> {
    if is_full_sweep() {
        return targets;
    }
    let mut kinds: BTreeMap<(Place, String), Vec<Target>> = BTreeMap::new();
    for target in targets {
        kinds
            .entry((target.place, target.name.clone()))
            .or_default()
            .push(target);
    }
    let mut chosen = Vec::new();
    for (_, targets) in kinds {
        let last = targets.len() - 1;
        let mut picks = vec![0, last / 2, last];
        picks.dedup();
        chosen.extend(picks.into_iter().map(|pick| targets[pick].clone()));
    }
    chosen
}

/// Everything about a file that must not change.
#[derive(PartialEq, Eq)]
struct Fingerprint {
    bytes: Vec<u8>,
    inode: u64,
    links: u64,
    mode: u32,
    modified: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> Self {
        let metadata = path.symlink_metadata().unwrap();
        Self {
            bytes: fs::read(path).unwrap(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}
