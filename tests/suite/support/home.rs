//! A scratch Barman home: configuration, directories, files put in and read back.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::decode::{decode_with_tools, filter};
use super::tool::{Run, Walarch};
use super::wal::Segment;

/// Stands for the home's root folder in option values and scripts.
const ROOT: &str = "{root}";

/// One root folder that holds everything of a test: `barman.conf`, `walarch.toml`, the Barman home with one
/// directory per server, hook scripts, the log and a GnuPG home.
pub struct Home {
    folder: TempDir,
    servers: Vec<String>,
}

impl Home {
    /// A home with one server, `main`, that takes WAL from `incoming` and stores it as it is.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// A home whose server `main` has these options besides; an option given here replaces the default.
    pub fn with(options: &[(&str, &str)]) -> Self {
        Self::with_servers(&[("main", options)])
    }

    pub fn with_servers(servers: &[(&str, &[(&str, &str)])]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-home.")
            .tempdir()
            .unwrap();
        let home = Self {
            folder,
            servers: servers.iter().map(|(name, _)| (*name).to_owned()).collect(),
        };
        fs::create_dir(home.barman_home()).unwrap();
        for server in &home.servers {
            // As Barman's `check` and `cron` make them.
            for name in ["base", "errors", "incoming", "meta", "streaming", "wals"] {
                fs::create_dir_all(home.barman_home().join(server).join(name)).unwrap();
            }
        }
        home.write_config(servers);
        home
    }

    fn write_config(&self, servers: &[(&str, &[(&str, &str)])]) {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid())
            .unwrap()
            .unwrap()
            .name;
        let mut text = format!(
            "[barman]\nbarman_user = {user}\nbarman_home = {ROOT}/home\nlog_file = {ROOT}/barman.log\n\
             log_level = INFO\nconfiguration_files_directory = {ROOT}/conf.d\n"
        );
        for (server, options) in servers {
            // Nothing listens at these addresses: archiving must not need a reachable PostgreSQL.
            let mut all = BTreeMap::from([
                ("description", *server),
                ("ssh_command", "ssh postgres@postgres.invalid"),
                ("conninfo", "host=/nonexistent user=barman dbname=postgres"),
                (
                    "streaming_conninfo",
                    "host=/nonexistent user=streaming_barman",
                ),
                ("slot_name", "barman"),
                ("backup_options", "concurrent_backup"),
                ("archiver", "on"),
            ]);
            all.extend(options.iter().copied());
            text.push_str(&format!("\n[{server}]\n"));
            for (key, value) in all {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        self.write_config_text(&text);
    }

    /// Replaces `barman.conf`; `{root}` stands for the root folder.
    pub fn write_config_text(&self, text: &str) {
        fs::write(self.config_file(), self.expand(text)).unwrap();
    }

    /// Writes `walarch.toml` beside `barman.conf`.
    pub fn walarch_toml(self, text: &str) -> Self {
        fs::write(self.root().join("walarch.toml"), self.expand(text)).unwrap();
        self
    }

    /// Writes an executable shell script into the root folder.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.root().join(name);
        fs::write(&path, format!("#!/bin/sh\n{}", self.expand(body))).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn expand(&self, text: &str) -> String {
        text.replace(ROOT, self.root().to_str().unwrap())
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn config_file(&self) -> PathBuf {
        self.root().join("barman.conf")
    }

    pub fn gpg_home(&self) -> PathBuf {
        self.root().join("gnupg")
    }

    pub fn barman_home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// A directory of the server `main`, e.g. `incoming`.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.barman_home().join("main").join(name)
    }

    pub fn incoming(&self) -> PathBuf {
        self.dir("incoming")
    }

    pub fn streaming(&self) -> PathBuf {
        self.dir("streaming")
    }

    pub fn wals(&self) -> PathBuf {
        self.dir("wals")
    }

    pub fn errors(&self) -> PathBuf {
        self.dir("errors")
    }

    /// The text of the log file; empty when nothing was logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root().join("barman.log")).unwrap_or_default()
    }

    /// Runs `archive-wal main` by walarch.
    pub fn archive(&self) -> Run {
        self.run(&["archive-wal", "main"])
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Walarch.run(self, arguments)
    }

    /// Makes the GnuPG home with an RSA key for `barman@example.com`, locked with the passphrase `secret`.
    /// (Barman, by file(1), does not know what is encrypted for an elliptic curve.)
    pub fn gpg_key(self) -> Self {
        self.gpg_key_with_passphrase("secret")
    }

    /// The same key with another passphrase; an empty one means that the key is not locked.
    pub fn gpg_key_with_passphrase(self, passphrase: &str) -> Self {
        fs::create_dir(self.gpg_home()).unwrap();
        fs::set_permissions(self.gpg_home(), Permissions::from_mode(0o700)).unwrap();
        // Looking for keys in the network would only make a missing one slow.
        fs::write(self.gpg_home().join("gpg.conf"), "no-auto-key-locate\n").unwrap();
        // Barman asks file(1) what is encrypted. Debian's knows an RSA session key by its length, which is one less when it
        // begins with a zero: each 256th file is "data" to it, and Barman would deliver that as it is stored.
        fs::write(
            self.root().join(".magic"),
            "0\tbeshort\t0x8501\tPGP encrypted session key\n",
        )
        .unwrap();
        let arguments = [
            "--batch",
            "--quiet",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            passphrase,
            "--quick-generate-key",
            "barman@example.com",
            "default",
            "default",
            "never",
        ];
        filter(&self, "gpg", &arguments, Vec::new());
        self
    }

    /// Holds one of the lock files of the home, e.g. `.main-archive-wal.lock`, until it is dropped.
    pub fn hold_lock(&self, name: &str) -> File {
        let path = self.barman_home().join(name);
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.try_lock().unwrap();
        file
    }

    /// Where the archive keeps a WAL file of `main`: history files at the root, all others by group.
    pub fn archived(&self, name: &str) -> PathBuf {
        if name.ends_with(".history") {
            self.wals().join(name)
        } else {
            self.wals().join(&name[..16]).join(name)
        }
    }

    /// Puts segments into `incoming` and returns name and content of each.
    pub fn incoming_segments(&self, numbers: impl IntoIterator<Item = u64>) -> Files {
        put_segments(&self.incoming(), numbers)
    }

    /// Puts segments into `streaming` and returns name and content of each.
    pub fn streaming_segments(&self, numbers: impl IntoIterator<Item = u64>) -> Files {
        put_segments(&self.streaming(), numbers)
    }

    pub fn xlogdb_file(&self) -> PathBuf {
        self.wals().join("main-xlog.db")
    }

    /// The lines of the xlogdb of `main`; none when there is no file.
    pub fn xlogdb(&self) -> Vec<XlogdbLine> {
        let text = fs::read_to_string(self.xlogdb_file()).unwrap_or_default();
        text.lines().map(XlogdbLine::parse).collect()
    }

    /// The names in the xlogdb of `main`, in its order.
    pub fn listed(&self) -> Vec<String> {
        self.xlogdb().into_iter().map(|line| line.name).collect()
    }

    /// The file is listed, and the standard tools find these bytes in the archive.
    #[track_caller]
    pub fn assert_archived(&self, name: &str, bytes: &[u8]) {
        let stored = decode_with_tools(self, &self.archived(name));
        assert!(
            stored == bytes,
            "{name}: {} bytes in, {} bytes out",
            bytes.len(),
            stored.len()
        );
        assert!(
            self.listed().contains(&name.to_owned()),
            "{name} is not in the xlogdb"
        );
    }

    /// A second home, equal down to the modification times; only the root folder's name in
    /// configuration, scripts and links differs.
    pub fn copy(&self) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-home.")
            .tempdir()
            .unwrap();
        let (from, to) = (
            self.root().to_str().unwrap(),
            folder.path().to_str().unwrap(),
        );
        copy_tree(self.root(), folder.path(), from, to);
        Self {
            folder,
            servers: self.servers.clone(),
        }
    }
}

/// Names with contents.
pub type Files = BTreeMap<String, Vec<u8>>;

fn put_segments(dir: &Path, numbers: impl IntoIterator<Item = u64>) -> Files {
    numbers
        .into_iter()
        .map(|number| {
            let segment = Segment::small(number);
            let bytes = segment.bytes();
            put(dir, &segment.name(), &bytes);
            (segment.name(), bytes)
        })
        .collect()
}

/// A fixed time with a fraction that no float can hold, distinct per name.
pub fn time_of(name: &str) -> SystemTime {
    let offset = name
        .bytes()
        .fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
    SystemTime::UNIX_EPOCH + Duration::new(1_750_000_000 + offset % 100_000, 123_456_789)
}

/// Writes a file with a mode and a time of its own, as nothing would leave them by chance.
pub fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    put_at(dir, name, bytes, time_of(name), 0o640)
}

pub fn put_at(dir: &Path, name: &str, bytes: &[u8], time: SystemTime, mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    path
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every file and directory below, as paths relative to `root`, sorted.
pub fn tree(root: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<PathBuf>) {
        for name in names(dir) {
            let path = dir.join(name);
            found.push(path.strip_prefix(root).unwrap().to_owned());
            if path.symlink_metadata().unwrap().is_dir() {
                walk(&path, root, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found
}

/// One line of the xlogdb.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct XlogdbLine {
    pub name: String,
    pub size_bytes: u64,
    /// As written, because its digits are a contract.
    pub time: String,
    pub compression: String,
    pub encryption: String,
}

impl XlogdbLine {
    #[track_caller]
    pub fn parse(line: &str) -> Self {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, size, time, compression, encryption] = columns[..] else {
            panic!("not five columns in the xlogdb: {line:?}");
        };
        Self {
            name: name.to_owned(),
            size_bytes: size.parse().unwrap_or_else(|_| panic!("no size: {line:?}")),
            time: time.to_owned(),
            compression: compression.to_owned(),
            encryption: encryption.to_owned(),
        }
    }
}

fn copy_tree(from: &Path, to: &Path, old_root: &str, new_root: &str) {
    for name in names(from) {
        let (source, target) = (from.join(&name), to.join(&name));
        let metadata = source.symlink_metadata().unwrap();
        if metadata.is_symlink() {
            let link = fs::read_link(&source).unwrap();
            symlink(link.to_str().unwrap().replace(old_root, new_root), &target).unwrap();
            continue;
        }
        if metadata.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&source, &target, old_root, new_root);
        } else if metadata.is_file() {
            fs::copy(&source, &target).unwrap();
            // Configuration and scripts lie in the root folder and name it.
            if from == Path::new(old_root)
                && let Ok(text) = fs::read_to_string(&target)
            {
                fs::write(&target, text.replace(old_root, new_root)).unwrap();
            }
        } else {
            continue; // sockets of gpg-agent
        }
        fs::set_permissions(&target, metadata.permissions()).unwrap();
        let times = FileTimes::new()
            .set_accessed(metadata.accessed().unwrap())
            .set_modified(metadata.modified().unwrap());
        File::open(&target).unwrap().set_times(times).unwrap();
    }
}

/// Mode bits without the file type.
pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}
