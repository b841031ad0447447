//! Complete segments: made durable, and given their names.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::durable::{self, Publication};
use crate::receiver::stream_error::FileError;
use crate::wal::Lsn;

/// A segment of which every byte is written.
#[derive(Debug)]
pub(super) struct FullSegment {
    pub(super) file: File,
    /// Where it is,
    pub(super) path: PathBuf,
    /// and where it shall be.
    pub(super) goal: PathBuf,
    pub(super) directory: PathBuf,
    /// The position after its last byte.
    pub(super) end: Lsn,
}

/// A segment that is durable under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) end: Lsn,
    /// How long that took.
    pub(super) took: Duration,
}

impl FullSegment {
    /// Makes it durable and gives it its name, durably.
    pub(super) fn finish(self) -> Result<Finished, FileError> {
        let began = Instant::now();
        durable::sync_data(&self.file).map_err(FileError::of("synchronise", &self.path))?;
        match durable::publish_file(&self.path, &self.goal) {
            Ok(Publication::Created) => {}
            Ok(Publication::AlreadyExists) => {
                let error = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(FileError::of("create", &self.goal)(error));
            }
            Err(error) => return Err(FileError::of("rename", &self.path)(error)),
        }
        durable::sync_directory(&self.directory)
            .map_err(FileError::of("synchronise", &self.directory))?;
        Ok(Finished {
            end: self.end,
            took: began.elapsed(),
        })
    }
}

/// A thread that finishes a segment while the next one is received: one at a time, so that they get
/// their names in their order. Dropping it waits for the one at hand.
#[derive(Debug)]
pub(super) struct Finisher {
    work: Option<Sender<FullSegment>>,
    done: Receiver<Result<Finished, FileError>>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl Finisher {
    /// Starts the thread; `directory` is named where that fails.
    pub(super) fn start(directory: &Path) -> Result<Self, FileError> {
        let (work, segments) = mpsc::channel::<FullSegment>();
        let (sender, done) = mpsc::channel();
        let finish_all = move || {
            for segment in segments {
                // Nobody listens any more after an error elsewhere.
                let _ = sender.send(segment.finish());
            }
        };
        let thread = thread::Builder::new()
            .name("finish".to_owned())
            .spawn(finish_all)
            .map_err(FileError::of("start a thread for", directory))?;
        Ok(Finisher {
            work: Some(work),
            done,
            thread: Some(thread),
            is_busy: false,
        })
    }

    /// Whether a segment is at hand.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Begins to finish a segment; none may be at hand.
    pub(super) fn begin(&mut self, segment: FullSegment) {
        // Should the thread have died, `finished` says so.
        self.is_busy = true;
        if let Some(work) = &self.work {
            let _ = work.send(segment);
        }
    }

    /// The segment at hand if it is finished, or when it is if `wait` is true.
    pub(super) fn finished(&mut self, wait: bool) -> Option<Result<Finished, FileError>> {
        if !self.is_busy {
            return None;
        }
        let finished = match wait {
            true => self.done.recv().ok(),
            false => match self.done.try_recv() {
                Err(mpsc::TryRecvError::Empty) => return None,
                other => other.ok(),
            },
        };
        self.is_busy = false;
        Some(finished.unwrap_or_else(|| {
            let error = io::Error::other("the thread that does it has ended");
            Err(FileError::of("finish", Path::new("a segment"))(error))
        }))
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell that `finished` does not tell.
            let _ = thread.join();
        }
    }
}
