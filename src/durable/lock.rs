//! Barman's lock files: `flock(2)`, mode 0600, the holder's process number in the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

/// How often a busy lock is asked again before it counts as held: every start of Barman holds each
/// free lock for an instant, to see whether it is held.
const PROBE_RETRIES: u32 = 5;

/// The pause between two such attempts.
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// How often a lock file may vanish under us before we call that an error.
const VANISHED_MAX: u32 = 100;

/// What to do when another process holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Report it, after a moment that outlasts the probes of other processes.
    Never,
    /// Wait for no longer than this, then report it.
    AtMost(Duration),
    /// Wait for as long as it takes.
    Forever,
}

/// A held lock. Dropping it releases it; the file stays, as Barman expects.
#[derive(Debug)]
pub struct LockFile {
    _held: Flock<File>,
}

impl LockFile {
    /// Takes the lock and writes our process number into its file, creating that if needed.
    ///
    /// Returns `None` when somebody else holds it for longer than was to be waited. A lock file
    /// that was unlinked while we waited (Barman's cron removes idle ones) protects nothing: the
    /// new file is opened and locked instead.
    pub fn acquire(path: &Path, wait: Wait) -> io::Result<Option<Self>> {
        for _ in 0..VANISHED_MAX {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            let Some(mut held) = lock(file, wait)? else {
                return Ok(None);
            };
            if !is_current(&held, path)? {
                continue;
            }
            let owner = format!("{}\n", std::process::id());
            held.rewind()?;
            held.write_all(owner.as_bytes())?;
            held.set_len(owner.len() as u64)?;
            return Ok(Some(LockFile { _held: held }));
        }
        Err(io::Error::other(
            "the lock file is removed as often as it is created",
        ))
    }
}

/// The process that holds a lock, from the lock file. `None` if nobody holds it.
///
/// The lock is asked for in its shared form and given back at once, so that two who look do not
/// find each other. An error means that the file cannot be read, or that it holds no process number
/// although the lock is held.
pub fn lock_holder(path: &Path) -> io::Result<Option<Pid>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_free) => return Ok(None),
        Err((file, Errno::EWOULDBLOCK)) => file,
        Err((_, errno)) => return Err(errno.into()),
    };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(Some(Pid::from_raw(pid))),
        _ => Err(io::Error::other("it holds no process number")),
    }
}

/// A lock held in its shared form: it keeps writers away, not other readers.
#[derive(Debug)]
pub struct SharedLock {
    _held: Flock<File>,
}

/// Takes a lock in its shared form without writing into its file or creating that.
///
/// `None` if there is no such file, so that nobody can hold it, or if somebody holds it for longer
/// than `patience`.
pub fn share_lock(path: &Path, patience: Duration) -> io::Result<Option<SharedLock>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let start = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(held) => return Ok(Some(SharedLock { _held: held })),
            Err((_, Errno::EWOULDBLOCK)) if start.elapsed() >= patience => return Ok(None),
            Err((unlocked, Errno::EWOULDBLOCK | Errno::EINTR)) => {
                thread::sleep(PROBE_PAUSE);
                file = unlocked;
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// Removes a lock file that nobody holds. Returns whether it is gone.
///
/// It is removed while we hold the lock ourselves, and only if it is still the file under that name:
/// who waits for it in [`LockFile::acquire`] notices, and takes the next one.
pub fn remove_idle_lock(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => {
            let ours = is_current(&held, path)?;
            if ours {
                super::remove(path)?;
            }
            Ok(ours)
        }
        Err((_, Errno::EWOULDBLOCK)) => Ok(false),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn lock(file: File, wait: Wait) -> io::Result<Option<Flock<File>>> {
    let (mode, patience) = match wait {
        Wait::Never => (FlockArg::LockExclusiveNonblock, PROBE_PAUSE * PROBE_RETRIES),
        Wait::AtMost(patience) => (FlockArg::LockExclusiveNonblock, patience),
        Wait::Forever => (FlockArg::LockExclusive, Duration::MAX),
    };
    let mut file = file;
    let start = Instant::now();
    loop {
        match Flock::lock(file, mode) {
            Ok(held) => return Ok(Some(held)),
            Err((unlocked, Errno::EINTR)) => file = unlocked,
            Err((_, Errno::EWOULDBLOCK)) if start.elapsed() >= patience => return Ok(None),
            Err((unlocked, Errno::EWOULDBLOCK)) => {
                thread::sleep(PROBE_PAUSE);
                file = unlocked;
            }
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// Whether the file we hold is still the one under that name.
fn is_current(held: &File, path: &Path) -> io::Result<bool> {
    let ours = held.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_an_idle_lock_file_is_removed() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(".main-cron.lock");
        assert!(remove_idle_lock(&path).unwrap(), "there is none");
        let lock = LockFile::acquire(&path, Wait::Never).unwrap();
        assert!(!remove_idle_lock(&path).unwrap());
        assert!(path.exists());
        drop(lock);
        assert!(remove_idle_lock(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_is_waited_for_no_longer_than_was_said() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(".main-archive-wal.lock");
        let lock = LockFile::acquire(&path, Wait::Never).unwrap();
        let patience = Duration::from_millis(300);
        let start = Instant::now();
        let busy = LockFile::acquire(&path, Wait::AtMost(patience)).unwrap();
        assert!(busy.is_none() && start.elapsed() >= patience);
        let releasing = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(lock);
        });
        let patience = Wait::AtMost(Duration::from_secs(60));
        assert!(LockFile::acquire(&path, patience).unwrap().is_some());
        releasing.join().unwrap();
    }

    #[test]
    fn two_never_hold_a_lock_though_its_file_is_removed_all_the_time() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(".main-cron.lock");
        let inside = AtomicBool::new(false);
        let take_turns = || {
            for _ in 0..300 {
                let lock = LockFile::acquire(&path, Wait::Forever).unwrap();
                assert!(!inside.swap(true, Ordering::SeqCst), "two hold it");
                thread::yield_now();
                inside.store(false, Ordering::SeqCst);
                drop(lock);
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(take_turns)).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                remove_idle_lock(&path).unwrap();
            }
        });
    }
}
