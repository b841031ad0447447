//! Two homes after the same command, side by side: what a user or a script could see of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::decode::decode_with_tools;
use super::home::{Home, XlogdbLine, mode, tree};
use super::tool::{Barman, Run, Tool, Walarch};

/// What one run changed, in a form that can be compared with what another run changed elsewhere.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<String>,
    /// The lines of stderr that tell of errors; the two tools may warn about different things.
    pub errors: Vec<String>,
    pub files: BTreeMap<String, Entry>,
    pub xlogdb: Vec<XlogdbLine>,
    pub hooks: Vec<String>,
}

#[derive(PartialEq)]
pub struct Entry {
    mode: u32,
    /// Of files only: a directory's time tells when something was done in it, not what.
    modified: Option<SystemTime>,
    content: Option<Vec<u8>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = self.content.as_ref().map(Vec::len);
        write!(
            f,
            "mode {:o}, modified {:?}, plain length {length:?}",
            self.mode, self.modified
        )
    }
}

impl Outcome {
    pub fn of(home: &Home, run: &Run) -> Self {
        let mut xlogdb = home.xlogdb();
        for line in &mut xlogdb {
            // The two tools compress with different libraries: the size is checked against the file,
            // not against the other tool's.
            let stored = home
                .archived(&line.name)
                .metadata()
                .map_or(0, |file| file.len());
            assert_eq!(
                line.size_bytes, stored,
                "size of {} in the xlogdb",
                line.name
            );
            line.size_bytes = 0;
        }
        Self {
            code: run.code,
            stdout: run.stdout.lines().map(|line| masked(line, home)).collect(),
            errors: run
                .stderr
                .lines()
                .filter(|line| line.starts_with("ERROR"))
                .map(|line| masked(line, home))
                .collect(),
            files: files(home),
            xlogdb,
            hooks: hook_log(home),
        }
    }
}

/// Runs the same command by Barman and by walarch in two copies of the home, and demands that they leave
/// the same behind. Returns both homes (Barman's first) for what the test wants to see besides.
#[track_caller]
pub fn both_do_the_same(home: &Home, arguments: &[&str]) -> (Home, Home) {
    let [(theirs, barmans), (ours, walarchs)] =
        [Barman, Walarch].map(|tool| outcome(tool, home, arguments));
    assert_same(&barmans, &walarchs);
    (theirs, ours)
}

/// What the tool does in a copy of the home.
pub fn outcome(tool: Tool, home: &Home, arguments: &[&str]) -> (Home, Outcome) {
    let home = home.copy();
    let run = tool.run(&home, arguments);
    let outcome = Outcome::of(&home, &run);
    (home, outcome)
}

#[track_caller]
pub fn assert_same(barmans: &Outcome, walarchs: &Outcome) {
    let mut differences = Vec::new();
    let mut differ = |what: &str, barman: String, walarch: String| {
        if barman != walarch {
            differences.push(format!(
                "{what}\n   barman:  {barman}\n   walarch: {walarch}"
            ));
        }
    };
    differ(
        "exit code",
        barmans.code.to_string(),
        walarchs.code.to_string(),
    );
    differ(
        "stdout",
        barmans.stdout.join("\n"),
        walarchs.stdout.join("\n"),
    );
    differ(
        "xlogdb",
        format!("{:#?}", barmans.xlogdb),
        format!("{:#?}", walarchs.xlogdb),
    );
    differ("hooks", barmans.hooks.join("\n"), walarchs.hooks.join("\n"));
    let names: std::collections::BTreeSet<&String> =
        barmans.files.keys().chain(walarchs.files.keys()).collect();
    for name in names {
        let (barman, walarch) = (barmans.files.get(name), walarchs.files.get(name));
        if barman != walarch {
            differ(
                name,
                format!("{barman:?}"),
                format!("{walarch:?} (or other bytes)"),
            );
        }
    }
    assert!(
        differences.is_empty(),
        "walarch differs from Barman:\n{}",
        differences.join("\n")
    );
}

/// Everything below the Barman home but locks and the xlogdb, which are compared by their meaning.
fn files(home: &Home) -> BTreeMap<String, Entry> {
    let root = home.barman_home();
    tree(&root)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            !name.ends_with(".lock") && !name.ends_with("-xlog.db")
        })
        .map(|path| {
            let entry = entry(home, &root.join(&path));
            (masked(path.to_str().unwrap(), home), entry)
        })
        .collect()
}

fn entry(home: &Home, path: &Path) -> Entry {
    let metadata = path.symlink_metadata().unwrap();
    let stored = path.starts_with(home.wals());
    let content = metadata.is_file().then(|| {
        // Only what is in the archive may be encoded differently; all else is compared as it is.
        if stored {
            decode_with_tools(home, path)
        } else {
            fs::read(path).unwrap()
        }
    });
    let modified = metadata.is_file().then(|| metadata.modified().unwrap());
    Entry {
        mode: mode(path),
        modified,
        content,
    }
}

/// The script of a hook that writes its environment to the log that `hook_log` reads.
pub const HOOK_LOGGER: &str = r#"
{ echo "--"; env | grep '^BARMAN_' | sort; test -e "$BARMAN_FILE" && echo "file exists"; } \
    >> "$(dirname "$0")/hooks.log"
"#;

/// What hooks were run with. Masked: the root folder, the version, and the size in post hooks, where
/// codecs differ.
pub fn hook_log(home: &Home) -> Vec<String> {
    let text = fs::read_to_string(home.root().join("hooks.log")).unwrap_or_default();
    let mut lines = Vec::new();
    for call in text.split("--\n").filter(|call| !call.is_empty()) {
        let post = call.contains("BARMAN_PHASE=post");
        lines.push("--".to_owned());
        lines.extend(
            call.lines()
                .filter(|line| !line.starts_with("BARMAN_VERSION="))
                .filter(|line| !(post && line.starts_with("BARMAN_SIZE=")))
                .map(|line| masked(line, home)),
        );
    }
    lines
}

/// The text without what differs from run to run: root folder and the time stamps in `errors`.
pub fn masked(text: &str, home: &Home) -> String {
    let text = text.replace(home.root().to_str().unwrap(), "ROOT");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        if is_stamp(rest) {
            out.push_str("STAMP");
            rest = &rest[STAMP..];
        } else {
            let first = rest.chars().next().unwrap();
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// The length of `20260102T030405Z`.
const STAMP: usize = 16;

/// Whether the text starts with a time stamp like `20260102T030405Z`.
fn is_stamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= STAMP
        && bytes[..8].iter().all(u8::is_ascii_digit)
        && bytes[8] == b'T'
        && bytes[9..15].iter().all(u8::is_ascii_digit)
        && bytes[15] == b'Z'
}
