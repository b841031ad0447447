//! Reads from the calls of a run whether it kept the commit protocol of every WAL file:
//!
//! bytes durable -> name published without overwriting -> directories durable -> xlogdb line written and
//! durable -> source removed -> source directory durable.
//!
//! Works on what the calls do, not on a particular way to do it: one sync may serve a whole group of
//! files, and bytes may reach the archive by a copy or by a hard link.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::home::{Home, tree};
use super::trace::{Call, Effect};

/// A line of the trace, counted from 1; 0 is "before the run".
type Moment = usize;
const END: Moment = Moment::MAX;

/// When something was entered and when it had returned.
#[derive(Clone, Copy)]
struct Span {
    begin: Moment,
    end: Moment,
}

/// The bytes behind one or more names.
#[derive(Default)]
struct Inode {
    written: Moment,
    syncs: Vec<Span>,
    /// The xlogdb lines written into it, by WAL name, with the moment at which each had been written.
    lines: BTreeMap<String, Moment>,
}

impl Inode {
    fn durable_before(&self, moment: Moment) -> bool {
        synced(&self.syncs, self.written, moment)
    }
}

fn synced(syncs: &[Span], since: Moment, before: Moment) -> bool {
    syncs
        .iter()
        .any(|sync| sync.begin >= since && sync.end < before)
}

/// The files as they were before the run, then as each call leaves them.
pub struct Protocol {
    wals: PathBuf,
    errors: PathBuf,
    xlogdb: PathBuf,
    sources: BTreeSet<PathBuf>,
    /// A file that the run must not touch at all: WAL still owned by PostgreSQL.
    untouchable: Option<PathBuf>,
    names: HashMap<PathBuf, usize>,
    inodes: Vec<Inode>,
    /// Names made by the run, files and directories alike.
    entries: HashMap<PathBuf, Moment>,
    directory_syncs: HashMap<PathBuf, Vec<Span>>,
    removed: Vec<(PathBuf, Moment)>,
    violations: BTreeSet<String>,
}

impl Protocol {
    pub fn before(home: &Home) -> Self {
        // Descriptors show in the trace with their real paths.
        let wals = home.wals().canonicalize().unwrap();
        let mut protocol = Self {
            xlogdb: wals.join("main-xlog.db"),
            wals,
            errors: home.errors(),
            sources: BTreeSet::new(),
            untouchable: None,
            names: HashMap::new(),
            inodes: Vec::new(),
            entries: HashMap::new(),
            directory_syncs: HashMap::new(),
            removed: Vec::new(),
            violations: BTreeSet::new(),
        };
        let listed = home.listed();
        let root = home.barman_home();
        for path in tree(&root)
            .into_iter()
            .map(|path| root.join(path))
            .filter(|path| path.is_file())
        {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let mut inode = Inode::default();
            // What a finished run has listed is durable; all else may still be only in memory.
            if path.starts_with(&protocol.wals)
                && (listed.contains(&name) || path == protocol.xlogdb)
            {
                inode.syncs.push(Span { begin: 0, end: 0 });
            }
            if path == protocol.xlogdb {
                inode.lines = listed.iter().map(|name| (name.clone(), 0)).collect();
            }
            protocol.add(&path, inode);
            if [home.incoming(), home.streaming()]
                .iter()
                .any(|dir| path.parent() == Some(dir))
            {
                protocol.sources.insert(path);
            }
        }
        protocol
    }

    /// As `archive_command`: this one file is archived and belongs to PostgreSQL all the time.
    pub fn before_command(home: &Home, source: &Path) -> Self {
        let mut protocol = Self::before(home);
        protocol.add(source, Inode::default());
        protocol.untouchable = Some(source.to_owned());
        protocol
    }

    /// Every way in which these calls, of a run that ended with success, break the protocol.
    pub fn violations(mut self, calls: &[Call]) -> Vec<String> {
        for call in calls.iter().filter(|call| call.succeeded) {
            let span = Span {
                begin: call.begin + 1,
                end: call.end + 1,
            };
            let effect = call.effect();
            self.check_untouchable(&effect);
            self.apply(effect, span);
        }
        self.check_the_end();
        self.violations.into_iter().collect()
    }

    fn check_untouchable(&mut self, effect: &Effect) {
        let Some(source) = self.untouchable.clone() else {
            return;
        };
        let changed = match effect {
            Effect::Open {
                path,
                creates: true,
            }
            | Effect::Write { path, .. }
            | Effect::Unlink { path }
            | Effect::Metadata { path } => *path == source,
            Effect::Rename { from, to, .. } => *from == source || *to == source,
            // PostgreSQL recycles segments in place: through a second name the archive would change.
            Effect::Link { from, .. } => *from == source,
            _ => false,
        };
        if changed {
            self.violation("PostgreSQL's own file is touched", &source);
        }
    }

    fn apply(&mut self, effect: Effect, span: Span) {
        match effect {
            Effect::Open {
                path,
                creates: true,
            } => {
                if self.is_final(&path) {
                    self.violation("bytes are written under the final name", &path);
                }
                if !self.names.contains_key(&path) {
                    self.add(
                        &path,
                        Inode {
                            written: span.end,
                            ..Inode::default()
                        },
                    );
                    self.entries.insert(path, span.end);
                }
            }
            Effect::Write { path, text } => self.write(&path, &text, span),
            Effect::Sync { path } => self.sync(&path, span),
            Effect::SyncAll => {
                let mut paths: BTreeSet<PathBuf> = self.names.keys().cloned().collect();
                paths.extend(
                    self.entries
                        .keys()
                        .filter_map(|path| path.parent())
                        .map(Path::to_owned),
                );
                paths.iter().for_each(|path| self.sync(path, span));
            }
            Effect::Rename { from, to, replaces } => {
                if replaces && self.is_final(&to) {
                    self.violation(
                        "the final name is published by a call that may overwrite",
                        &to,
                    );
                }
                if self.sources.contains(&from) {
                    self.source_removed(&from, to.starts_with(&self.errors), span);
                }
                if let Some(inode) = self.names.remove(&from) {
                    self.published(inode, to, span);
                }
            }
            Effect::Link { from, to } => {
                if let Some(inode) = self.names.get(&from).copied() {
                    self.published(inode, to, span);
                }
            }
            Effect::Unlink { path } => {
                if self.sources.contains(&path) {
                    let elsewhere = self.has_a_name_in_errors(&path);
                    self.source_removed(&path, elsewhere, span);
                }
                self.names.remove(&path);
                self.entries.remove(&path);
            }
            Effect::Mkdir { path } => {
                self.entries.insert(path, span.end);
            }
            Effect::Open { .. } | Effect::Metadata { .. } | Effect::Nothing => {}
        }
    }

    fn write(&mut self, path: &Path, text: &str, span: Span) {
        if self.is_final(path) {
            self.violation("bytes are written under the final name", path);
        }
        let Some(inode) = self.names.get(path).copied() else {
            return;
        };
        self.inodes[inode].written = span.end;
        // In the trace, a tab and the end of a line are escapes.
        for line in text.trim_matches('"').split("\\n") {
            let Some((name, _)) = line.split_once("\\t") else {
                continue;
            };
            if !is_wal_name(name) {
                continue;
            }
            if self.inodes[inode]
                .lines
                .insert(name.to_owned(), span.end)
                .is_some()
            {
                self.violation(
                    "a second xlogdb line is written for one file",
                    Path::new(name),
                );
            }
            if path == self.xlogdb {
                self.check_listing(name, span.begin);
            }
        }
    }

    fn check_listing(&mut self, name: &str, moment: Moment) {
        let archived = self.archived(name);
        if !self.is_durable(&archived, moment) {
            self.violation(
                "the xlogdb line is written before the archived file is durable",
                &archived,
            );
        }
    }

    fn sync(&mut self, path: &Path, span: Span) {
        match self.names.get(path).copied() {
            Some(inode) => self.inodes[inode].syncs.push(span),
            None => self
                .directory_syncs
                .entry(path.to_owned())
                .or_default()
                .push(span),
        }
    }

    fn published(&mut self, inode: usize, path: PathBuf, span: Span) {
        if self.is_final(&path) && !self.inodes[inode].durable_before(span.begin) {
            self.violation(
                "the final name is published before the bytes are durable",
                &path,
            );
        }
        if path == self.xlogdb {
            let names: Vec<String> = self.inodes[inode].lines.keys().cloned().collect();
            names
                .iter()
                .for_each(|name| self.check_listing(name, span.begin));
        }
        self.names.insert(path.clone(), inode);
        self.entries.insert(path, span.end);
    }

    fn has_a_name_in_errors(&self, source: &Path) -> bool {
        let inode = self.names.get(source);
        self.names
            .iter()
            .any(|(path, other)| path.starts_with(&self.errors) && Some(other) == inode)
    }

    fn source_removed(&mut self, source: &Path, kept_in_errors: bool, span: Span) {
        self.removed.push((source.to_owned(), span.end));
        if kept_in_errors {
            return;
        }
        let name = source.file_name().unwrap().to_str().unwrap();
        if !self.is_durable(&self.archived(name), span.begin) {
            self.violation(
                "the source is removed before the archived file is durable",
                source,
            );
        }
        if !self.is_listed(name, span.begin) {
            self.violation(
                "the source is removed before its xlogdb line is durable",
                source,
            );
        }
    }

    fn check_the_end(&mut self) {
        for (path, removed) in std::mem::take(&mut self.removed) {
            if !synced(self.syncs_of(&path), removed, END) {
                self.violation("the removal of the source is never made durable", &path);
            }
        }
        let paths: Vec<PathBuf> = self.names.keys().cloned().collect();
        for path in paths {
            if self.is_final(&path) {
                if !self.is_durable(&path, END) {
                    self.violation("the archived file is never made durable", &path);
                }
                if !self.is_listed(path.file_name().unwrap().to_str().unwrap(), END) {
                    self.violation("the xlogdb line is never made durable", &path);
                }
            } else if path.starts_with(&self.errors) && !self.entry_is_durable(&path, END) {
                self.violation("the name in errors is never made durable", &path);
            }
        }
    }

    /// Bytes, name and every directory that this run had to create are on disk.
    fn is_durable(&self, path: &Path, before: Moment) -> bool {
        self.names
            .get(path)
            .is_some_and(|inode| self.inodes[*inode].durable_before(before))
            && path
                .ancestors()
                .take_while(|ancestor| ancestor.starts_with(&self.wals))
                .all(|ancestor| self.entry_is_durable(ancestor, before))
    }

    /// The name was there before the run, or the directory that holds it was synced since.
    fn entry_is_durable(&self, path: &Path, before: Moment) -> bool {
        self.entries
            .get(path)
            .is_none_or(|made| synced(self.syncs_of(path), *made, before))
    }

    fn is_listed(&self, name: &str, before: Moment) -> bool {
        let Some(inode) = self
            .names
            .get(&self.xlogdb)
            .map(|inode| &self.inodes[*inode])
        else {
            return false;
        };
        inode
            .lines
            .get(name)
            .is_some_and(|written| synced(&inode.syncs, *written, before))
            && self.entry_is_durable(&self.xlogdb, before)
    }

    /// The syncs of the directory that holds the name.
    fn syncs_of(&self, path: &Path) -> &[Span] {
        self.directory_syncs
            .get(path.parent().unwrap())
            .map_or(&[], Vec::as_slice)
    }

    fn archived(&self, name: &str) -> PathBuf {
        match name.get(..16) {
            Some(group) if !name.ends_with(".history") => self.wals.join(group).join(name),
            _ => self.wals.join(name),
        }
    }

    /// Whether this is the name of an archived WAL file, not of something temporary.
    fn is_final(&self, path: &Path) -> bool {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        is_wal_name(name) && self.archived(name) == path
    }

    fn add(&mut self, path: &Path, inode: Inode) {
        self.inodes.push(inode);
        self.names.insert(path.to_owned(), self.inodes.len() - 1);
    }

    fn violation(&mut self, what: &str, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.violations.insert(format!("{what}: {name}"));
    }
}

/// A segment, a partial segment, a backup label or a history file, by its name.
pub fn is_wal_name(name: &str) -> bool {
    let (stem, suffix) = name.split_once('.').unwrap_or((name, ""));
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex(stem)
        && match stem.len() {
            8 => suffix == "history",
            24 => match suffix.strip_suffix("backup") {
                Some(offset) => offset.len() == 9 && is_hex(&offset[..8]),
                None => matches!(suffix, "" | "partial"),
            },
            _ => false,
        }
}
