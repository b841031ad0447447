//! Processes that a command has left behind in a home.

use std::fs::{self, File};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::home::{Home, names, tree};
use super::tool::wait_for;

/// The processes whose command line names something in the home, with that command line.
pub fn running_in(home: &Home) -> Vec<(Pid, String)> {
    let root = format!("{}/", home.root().to_str().unwrap());
    let processes = names(Path::new("/proc"));
    processes
        .iter()
        .filter_map(|name| {
            let pid: i32 = name.parse().ok()?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&root).then(|| (Pid::from_raw(pid), line))
        })
        .collect()
}

/// Waits until nothing runs and no lock is held: the home may go.
#[track_caller]
pub fn settle(home: &Home) {
    let is_free = |path: &Path| {
        let file = File::open(home.barman_home().join(path));
        file.is_ok_and(|file| file.try_lock().is_ok())
    };
    wait_for("the started processes", || {
        let files = tree(&home.barman_home());
        let mut locks = files.iter().filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "lock")
        });
        (running_in(home).is_empty() && locks.all(|path| is_free(path))).then_some(())
    });
}

/// Kills everything, without a chance to say or save anything.
pub fn kill_all(home: &Home) {
    wait_for("the end of what was killed", || {
        let running = running_in(home);
        for (pid, _) in &running {
            // It may have ended meanwhile.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        running.is_empty().then_some(())
    });
}
