//! Barman homes, in which both tools work alike.

use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid, sync};

use crate::probe::{self, Cost};
use crate::{Bench, Result, WALARCH};

/// The two tools that work in such a home.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    Walarch,
    Barman,
}

/// A home with one server, `main`.
pub(crate) struct Home {
    root: PathBuf,
}

impl Home {
    /// Makes an empty home in place of whatever is there. `options` are the server's.
    pub(crate) fn create(root: PathBuf, options: &[&str]) -> Result<Self> {
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for directory in ["base", "errors", "incoming", "meta", "streaming", "wals"] {
            fs::create_dir_all(root.join("main").join(directory))?;
        }
        let user = User::from_uid(geteuid())?
            .ok_or("this user has no name")?
            .name;
        let mut text = String::new();
        let home = root.display();
        writeln!(text, "[barman]\nbarman_home = {home}\nbarman_user = {user}")?;
        writeln!(text, "log_file = {home}/barman.log\n[main]\narchiver = on")?;
        writeln!(text, "backup_method = postgres")?;
        // Archiving needs no server.
        if !options.iter().any(|option| option.starts_with("conninfo")) {
            writeln!(text, "conninfo = host=/nonexistent")?;
            writeln!(text, "streaming_conninfo = host=/nonexistent")?;
        }
        for option in options {
            writeln!(text, "{option}")?;
        }
        let home = Home { root };
        fs::write(home.configuration(), text)?;
        Ok(home)
    }

    /// Runs `get-wal` with standard output into a file.
    pub(crate) fn get(&self, bench: &Bench, tool: Tool, name: &Path, goal: &Path) -> Result<Cost> {
        let program = match tool {
            Tool::Walarch => Path::new(WALARCH),
            Tool::Barman => &bench.barman,
        };
        let configuration = self.configuration();
        let arguments = [Path::new("-c"), &configuration, Path::new("get-wal")];
        let arguments = arguments.into_iter().chain([Path::new("main"), name]);
        probe::measure_into(goal, program, arguments)
    }

    pub(crate) fn configuration(&self) -> PathBuf {
        self.root.join("barman.conf")
    }

    pub(crate) fn incoming(&self) -> PathBuf {
        self.root.join("main/incoming")
    }

    pub(crate) fn streaming(&self) -> PathBuf {
        self.root.join("main/streaming")
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.root.join("main/meta")
    }

    pub(crate) fn wals(&self) -> PathBuf {
        self.root.join("main/wals")
    }

    pub(crate) fn xlogdb(&self) -> PathBuf {
        self.wals().join("main-xlog.db")
    }

    /// Copies segments to `incoming`, which leaves them in the page cache, too.
    pub(crate) fn receive(&self, segments: &[PathBuf]) -> Result<()> {
        for segment in segments {
            let name = segment.file_name().ok_or("a segment without a name")?;
            fs::copy(segment, self.incoming().join(name))?;
        }
        Ok(())
    }

    /// Runs `archive-wal main` on a quiet disk; `path` is a file for walarch to archive directly.
    pub(crate) fn archive(&self, bench: &Bench, tool: Tool, path: Option<&Path>) -> Result<Cost> {
        let mut arguments = vec![Path::new("archive-wal"), Path::new("main")];
        arguments.extend(path);
        self.run(bench, tool, &arguments)
    }

    /// Runs a command that must succeed.
    pub(crate) fn run(&self, bench: &Bench, tool: Tool, command: &[&Path]) -> Result<Cost> {
        let program = match tool {
            Tool::Walarch => Path::new(WALARCH),
            Tool::Barman => &bench.barman,
        };
        let configuration = self.configuration();
        let mut arguments = vec![Path::new("-q"), Path::new("-c"), &configuration];
        arguments.extend(command);
        // What was prepared must not be written while the clock runs.
        sync();
        probe::measure(program, arguments)
    }

    /// Where a segment of this name is stored.
    pub(crate) fn stored_path(&self, segment: &Path) -> Result<PathBuf> {
        let name = segment.file_name().and_then(OsStr::to_str);
        let name = name.ok_or("a segment without a name")?;
        let directory = name.get(..16).ok_or("no name of a segment")?;
        Ok(self.wals().join(directory).join(name))
    }

    /// How many WAL files are stored, and how large they are together.
    pub(crate) fn stored(&self) -> Result<(usize, u64)> {
        let (mut files, mut size_bytes) = (0, 0);
        for directory in fs::read_dir(self.wals())? {
            let directory = directory?.path();
            if !directory.is_dir() {
                continue;
            }
            for entry in fs::read_dir(directory)? {
                files += 1;
                size_bytes += entry?.metadata()?.len();
            }
        }
        Ok((files, size_bytes))
    }

    /// A run that did not do its work has no speed.
    pub(crate) fn expect_stored(&self, files: usize) -> Result<u64> {
        match self.stored()? {
            (stored, size_bytes) if stored == files => Ok(size_bytes),
            (stored, _) => Err(format!("{stored} files are stored, not {files}").into()),
        }
    }
}
