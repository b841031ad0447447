//! Processes that outlive the command that starts them.

use std::env;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd;

/// How `cron` starts processes.
pub(super) struct Launcher<'a> {
    pub(super) config: &'a Path,
    /// `--log-level`, which goes on to them.
    pub(super) log_level: Option<&'a str>,
    /// Whether their output goes where ours goes.
    pub(super) keep_descriptors: bool,
}

impl Launcher<'_> {
    /// Starts `walarch TASK SERVER` and does not wait for it: when we end, it goes on.
    pub(super) fn start(&self, task: &str, server_name: &str) -> io::Result<()> {
        let mut command = Command::new(program()?);
        command
            .arg("-c")
            .arg(self.config)
            .args(["-q", "--detached"]);
        if let Some(level) = self.log_level {
            command.args(["--log-level", level]);
        }
        command.args([task, server_name]).stdin(Stdio::null());
        if !self.keep_descriptors {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        tracing::debug!("starting {command:?}");
        let child = command.spawn()?;
        tracing::debug!("started process {}", child.id());
        Ok(())
    }
}

/// Our own program. After an upgrade the file that we run from may have no name any more, but it
/// can still be started.
pub(super) fn program() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(if program.exists() {
        program
    } else {
        "/proc/self/exe".into()
    })
}

/// Makes this process independent of who started it: it gets a session of its own, so that no
/// terminal and no shell sends it signals, and none of the files that its starter had open, such as
/// the lock of a `flock` command around `walarch cron` or around a `restore_command`.
///
/// Must be called before anything is opened.
pub(super) fn detach() -> io::Result<()> {
    for descriptor in open_descriptors()? {
        if descriptor > 2 {
            // The directory that was just read is among them, and closed already.
            let _ = unistd::close(descriptor);
        }
    }
    unistd::setsid()?;
    Ok(())
}

fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let numbers = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers.collect())
}
