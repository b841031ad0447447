//! A server with a home that receives from it.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::decode::decode;
use crate::support::home::{Home, names};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Barman, Run, Tool, Walarch, finish, wait_for};

/// Room for the slots and receivers of all tests.
pub const SETTINGS: &str = "max_replication_slots = 90\nmax_wal_senders = 90\n";

/// One server for all tests that do not harm it; it lives as long as one of them runs.
pub fn shared() -> Arc<Postgres> {
    static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(postgres) = shared.upgrade() {
        return postgres;
    }
    let postgres = Arc::new(Postgres::start(|_| SETTINGS.to_owned()));
    *shared = Arc::downgrade(&postgres);
    postgres
}

/// What receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    PgReceivewal,
    Builtin,
}

/// The options of a server `main` that streams from here with this slot.
pub fn options(postgres: &Postgres, slot: &str) -> Vec<(&'static str, String)> {
    vec![
        ("conninfo", postgres.conninfo()),
        ("streaming_conninfo", postgres.conninfo()),
        ("streaming_archiver", "on".to_owned()),
        ("archiver", "off".to_owned()),
        ("slot_name", slot.to_owned()),
        ("path_prefix", Major::Debian.bin().display().to_string()),
    ]
}

/// A home that streams from here with this slot, and with these options besides, by `pg_receivewal`.
pub fn home(postgres: &Postgres, slot: &str, more: &[(&'static str, &str)]) -> Home {
    let mut options = options(postgres, slot);
    options.extend(
        more.iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    let options: Vec<(&str, &str)> = options
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Home::with(&options).walarch_toml("[walarch]\nreceiver = \"pg_receivewal\"\n")
}

/// The same, with the slot created.
pub fn home_with_slot(postgres: &Postgres, slot: &str, more: &[(&'static str, &str)]) -> Home {
    let home = home(postgres, slot, more);
    home.run(&["receive-wal", "--create-slot", "main"]).exits(0);
    home
}

impl Way {
    /// As [`home`]; nothing leaves `streaming` by itself.
    pub fn home(self, postgres: &Postgres, slot: &str, more: &[(&'static str, &str)]) -> Home {
        self.received_by(home(postgres, slot, more))
    }

    /// As [`home_with_slot`]; nothing leaves `streaming` by itself.
    pub fn home_with_slot(
        self,
        postgres: &Postgres,
        slot: &str,
        more: &[(&'static str, &str)],
    ) -> Home {
        self.received_by(home_with_slot(postgres, slot, more))
    }

    /// As [`home`]; what is complete goes on into the archive, if this receiver can do that.
    pub fn archiving_home(
        self,
        postgres: &Postgres,
        slot: &str,
        more: &[(&'static str, &str)],
    ) -> Home {
        let receiver = self.receiver();
        home(postgres, slot, more).walarch_toml(&format!("[walarch]\nreceiver = \"{receiver}\"\n"))
    }

    /// A home, received into with this from now on.
    pub fn received_by(self, home: Home) -> Home {
        let receiver = self.receiver();
        home.walarch_toml(&format!(
            "[walarch]\nreceiver = \"{receiver}\"\narchive_while_receiving = false\n"
        ))
    }

    /// As `walarch.toml` has it.
    fn receiver(self) -> &'static str {
        match self {
            Way::PgReceivewal => "pg_receivewal",
            Way::Builtin => "builtin",
        }
    }

    /// A name that the same test with the other one does not use.
    pub fn name(self, name: &str) -> String {
        format!("{name}_{self:?}").to_lowercase()
    }
}

/// Makes a test of each function, once for each receiver.
macro_rules! with_each_receiver {
    ($($test:ident)*) => {
        mod with_pg_receivewal {
            $(#[test] fn $test() { super::$test(super::Way::PgReceivewal) })*
        }
        mod with_builtin {
            $(#[test] fn $test() { super::$test(super::Way::Builtin) })*
        }
    };
}
pub(crate) use with_each_receiver;

/// A `receive-wal` that runs; killed when dropped.
pub struct Receiving {
    child: Option<Child>,
    output: PathBuf,
}

impl Receiving {
    /// Started, whatever becomes of it.
    pub fn start(tool: Tool, home: &Home) -> Self {
        Self::start_command(tool.command(home, &["receive-wal", "main"]), home)
    }

    pub fn start_command(mut command: std::process::Command, home: &Home) -> Self {
        let output = home.root().join("receive-wal.out");
        let file = File::create(&output).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self {
            child: Some(child),
            output,
        }
    }

    /// What it printed so far, on both streams.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    #[track_caller]
    pub fn wait_until_it_prints(&self, words: &str) {
        wait_for(words, || self.output().contains(words).then_some(()));
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().unwrap();
        child.try_wait().unwrap().is_some()
    }

    /// The `pg_receivewal` that it runs.
    #[track_caller]
    pub fn receiver(&self) -> Pid {
        wait_for("pg_receivewal", || child_of(self.pid()))
    }

    /// Signals it and waits for its end. Returns its exit code, or 128 plus the signal, and its output.
    #[track_caller]
    pub fn end_by(self, signal: Signal) -> Run {
        kill(self.pid(), signal).unwrap();
        self.end()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Run {
        let mut child = self.child.take().unwrap();
        let status = wait_for("the end of receive-wal", || child.try_wait().unwrap());
        Run {
            stdout: self.output(),
            stderr: String::new(),
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap()),
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn child_of(parent: Pid) -> Option<Pid> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).ok()?;
    let child = children.split_whitespace().next()?;
    Some(Pid::from_raw(child.parse().unwrap()))
}

pub fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; whoever inherited it has not looked yet.
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

/// A `receive-wal` of walarch that streams.
#[track_caller]
pub fn streaming(home: &Home) -> Receiving {
    let receiving = Receiving::start(Walarch, home);
    receiving.wait_until_it_prints("starting log streaming at");
    receiving
}

/// Waits until these segments are complete in `streaming`.
#[track_caller]
pub fn wait_for_segments(home: &Home, segments: &[impl AsRef<str>]) {
    for segment in segments {
        let path = home.streaming().join(segment.as_ref());
        wait_for(segment.as_ref(), || path.exists().then_some(()));
    }
}

/// The names of complete segments and history files in `streaming`, without what is partial.
pub fn received(home: &Home) -> Vec<String> {
    let mut names = names(&home.streaming());
    names.retain(|name| !name.ends_with(".partial"));
    names
}

/// Where somebody would go on; without what is hidden because nobody shall.
pub fn partials(home: &Home) -> Vec<String> {
    let mut names = names(&home.streaming());
    names.retain(|name| name.ends_with(".partial") && !name.starts_with('.'));
    names
}

/// What walarch remembers of its receiver.
pub fn state(home: &Home) -> serde_json::Value {
    let text = fs::read_to_string(state_file(home)).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub fn state_file(home: &Home) -> PathBuf {
    home.dir(".walarch-receive-wal.json")
}

/// Why the last run ended.
pub fn last_reason(home: &Home) -> String {
    state(home)["last_exit"]["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The same bytes in the server's `pg_wal` and here.
#[track_caller]
pub fn assert_received(postgres: &Postgres, directory: &Path, name: &str) {
    let theirs = fs::read(postgres.data().join("pg_wal").join(name)).unwrap();
    let ours = fs::read(directory.join(name)).unwrap();
    assert!(theirs == ours, "{name} differs");
}

/// All WAL of a home in one folder: what is archived, and what still waits.
pub fn collect(home: &Home) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in home.listed() {
        let bytes = decode(&home.archived(&name)).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    for name in names(&home.streaming()) {
        // An archived one may not have been removed yet; an empty one holds no place.
        let bytes = fs::read(home.streaming().join(&name)).unwrap();
        if !name.starts_with('.') && !bytes.is_empty() {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
    }
    folder
}

/// The size of a segment after `initdb --wal-segsize=1`.
pub const SMALL_SEGMENT: u64 = 1 << 20;

/// A segment of timeline 1, wherever it is by now, with everything of it that is here.
fn received_bytes(home: &Home, name: &str) -> Option<Vec<u8>> {
    let waiting = [name.to_owned(), format!("{name}.partial")];
    // It may be archived between the two looks.
    let mut looks = waiting.iter().chain(&waiting);
    let waiting = looks.find_map(|name| fs::read(home.streaming().join(name)).ok());
    waiting.or_else(|| decode(&home.archived(name)).ok())
}

/// The server's WAL between these positions is here, byte for byte.
#[track_caller]
pub fn assert_holds(postgres: &Postgres, home: &Home, positions: Range<u64>, what: &str) {
    let mut at = positions.start / SMALL_SEGMENT * SMALL_SEGMENT;
    while at < positions.end {
        let number = at / SMALL_SEGMENT;
        let name = format!("00000001{:08X}{:08X}", number >> 12, number & 0xFFF);
        let ours = received_bytes(home, &name);
        let ours = ours.unwrap_or_else(|| panic!("{what}: {name} is not there"));
        let theirs = fs::read(postgres.data().join("pg_wal").join(&name)).unwrap();
        let size = usize::try_from(SMALL_SEGMENT.min(positions.end - at)).unwrap();
        assert!(
            ours.get(..size) == Some(&theirs[..size]),
            "{what}: {name} differs"
        );
        at += SMALL_SEGMENT;
    }
}

/// Runs `receive-wal` with these options, to its end.
pub fn receive_wal(tool: Tool, home: &Home, options: &[&str]) -> Run {
    let arguments = [&["receive-wal"], options, &["main"]].concat();
    let child = tool
        .command(home, &arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    finish(child, Duration::from_secs(60))
}

/// Barman and walarch, each with a home and a slot of its own on one server.
pub struct Both {
    pub barman: Home,
    pub walarch: Home,
}

impl Both {
    /// The slots are `barman_TEST` and `walarch_TEST`; they are not created.
    pub fn new(postgres: &Postgres, test: &str, more: &[(&'static str, &str)]) -> Self {
        Both {
            barman: home(postgres, &format!("barman_{test}"), more),
            walarch: home(postgres, &format!("walarch_{test}"), more),
        }
    }

    /// Does the same in both homes.
    pub fn each(&self, act: impl Fn(&Home)) {
        act(&self.barman);
        act(&self.walarch);
    }

    /// Runs `receive-wal` by each of them, which must answer with the same exit code and the same lines.
    /// Their own names are made equal before, and walarch may say more behind the first line of an error.
    /// Returns what walarch said.
    #[track_caller]
    pub fn agree(&self, options: &[&str]) -> Run {
        let barman = receive_wal(Barman, &self.barman, options);
        let walarch = receive_wal(Walarch, &self.walarch, options);
        assert_eq!(walarch.code, barman.code, "{barman:?}\n{walarch:?}");
        let theirs = |text| neutral(text, &self.barman);
        let ours = |text| neutral(text, &self.walarch);
        assert_eq!(ours(&walarch.stdout), theirs(&barman.stdout));
        let (ours, theirs) = (ours(&walarch.stderr), theirs(&barman.stderr));
        assert!(
            ours == theirs || !theirs.is_empty() && ours.starts_with(&theirs),
            "walarch:\n{ours}\nBarman:\n{theirs}"
        );
        walarch
    }
}

fn neutral(text: &str, home: &Home) -> String {
    text.replace(home.root().to_str().unwrap(), "ROOT")
        .replace("walarch", "barman")
}
