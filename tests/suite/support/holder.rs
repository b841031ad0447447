//! Processes that hold a lock as a running task does.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::home::Home;
use super::tool::wait_for;

/// A process that holds a lock file of the home and does nothing else. Ended when dropped.
pub struct Holder {
    pub pid: u32,
    waiting: Option<JoinHandle<Option<i32>>>,
}

impl Holder {
    /// Holds e.g. `.main-receive-wal.lock`, and ends at any signal.
    pub fn start(home: &Home, lock: &str) -> Self {
        Self::run(home, lock, "")
    }

    /// The same, but deaf to the signal that asks it to end.
    pub fn deaf(home: &Home, lock: &str) -> Self {
        Self::run(home, lock, "trap '' INT; ")
    }

    fn run(home: &Home, lock: &str, preparation: &str) -> Self {
        let path = home.barman_home().join(lock);
        let script = format!(
            "{preparation}echo $$ > {lock}.new && mv {lock}.new {lock} && \
             exec flock --no-fork {lock} sleep 600",
            lock = path.display()
        );
        let child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let pid = child.id();
        let holder = Self {
            pid,
            waiting: Some(thread::spawn(|| ended_by(child))),
        };
        wait_for("the lock", || {
            let file = fs::File::open(&path).ok()?;
            file.try_lock().is_err().then_some(())
        });
        holder
    }

    /// The signal that ended the process.
    pub fn ended_by(mut self) -> Option<i32> {
        self.waiting.take().unwrap().join().unwrap()
    }
}

fn ended_by(mut child: Child) -> Option<i32> {
    child.wait().unwrap().signal()
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            // It may have ended, and been waited for, already.
            if !waiting.is_finished() {
                let _ = kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL);
            }
            let _ = waiting.join();
        }
    }
}
