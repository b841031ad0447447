//! The files that WAL is written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::durable::{self, Publication};
use crate::receiver::meter::Meter;
use crate::receiver::stream_error::FileError;
use crate::wal::{Lsn, SegmentSize, WalName};

/// Permissions of a new file, less the umask, as `pg_receivewal` creates its files.
const FILE_MODE: u32 = 0o600;

/// How many bytes of a segment tell whether anything was written to it: none of WAL begins with so
/// many zeros.
const PROBE_SIZE_BYTES: usize = 8;

/// The segments of one timeline, written from a segment's beginning on.
///
/// A segment is called `NAME.partial` and has its full size from before its first byte until all of
/// it is durable; then it gets its name. There is only one such file at a time, the newest: whoever
/// goes on later, this receiver or another one, begins again where that file begins.
#[derive(Debug)]
pub(super) struct SegmentFiles<'d> {
    directory: &'d Path,
    timeline: u32,
    segment_size: SegmentSize,
    open: Option<OpenSegment>,
    written: Lsn,
    flushed: Lsn,
    /// Where a segment ends that has got its name and that nobody was told of yet: the file behind it
    /// is to be there first, or it is the one that says where to go on, and is not archived.
    completed: Option<Lsn>,
    meter: &'d Meter,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    path: PathBuf,
    start: Lsn,
    /// The name of the file outlasts a crash as well.
    name_is_durable: bool,
}

impl<'d> SegmentFiles<'d> {
    /// Everything before `start`, which is where a segment begins, is in `directory` or was never
    /// wanted.
    pub(super) fn begin(
        directory: &'d Path,
        timeline: u32,
        start: Lsn,
        segment_size: SegmentSize,
        meter: &'d Meter,
    ) -> Result<Self, FileError> {
        // The last receiver may have been killed after it had given a segment its name, and before
        // that was durable. What is said to be flushed from now on includes that segment.
        durable::sync_directory(directory).map_err(failed("synchronise", directory))?;
        Ok(SegmentFiles {
            directory,
            timeline,
            segment_size,
            open: None,
            written: start,
            flushed: start,
            completed: None,
            meter,
        })
    }

    /// The position after the last byte that was written.
    pub(super) fn written(&self) -> Lsn {
        self.written
    }

    /// The position after the last byte that outlasts a crash.
    pub(super) fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Opens the file that the next byte goes to, if it is not open yet.
    fn prepare(&mut self) -> Result<(), FileError> {
        if self.open.is_none() {
            self.open = Some(self.open_segment(self.written)?);
        }
        Ok(())
    }

    /// Writes what of `bytes`, which begin at `start`, is not written yet, and tells of each segment
    /// that becomes complete. After an error the same may be repeated: it goes on where it stopped.
    ///
    /// Afterwards the file is open that the next byte goes to. `start` is at most
    /// [`SegmentFiles::written`].
    pub(super) fn write(
        &mut self,
        start: Lsn,
        bytes: &[u8],
        on_complete: &mut dyn FnMut(Lsn),
    ) -> Result<(), FileError> {
        loop {
            self.complete()?;
            self.prepare()?;
            if let Some(end) = self.completed.take() {
                self.meter.segment_completed();
                on_complete(end);
            }
            let done =
                usize::try_from(self.written.0.saturating_sub(start.0)).unwrap_or(usize::MAX);
            let rest = bytes.get(done..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            self.write_some(rest)?;
        }
    }

    /// Writes what of this fits into the segment, or a part of that.
    fn write_some(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let Some(segment) = &self.open else {
            return Ok(());
        };
        let offset = self.written.0 - segment.start.0;
        let room = usize::try_from(self.segment_size.bytes() - offset).unwrap_or(usize::MAX);
        let fitting = bytes.get(..room).unwrap_or(bytes);
        let size_bytes = match segment.file.write_at(fitting, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(repeatable("write to", &segment.path)(error));
            }
            other => other.map_err(repeatable("write to", &segment.path))?,
        };
        self.written = Lsn(self.written.0 + size_bytes as u64);
        self.meter.written(self.written, size_bytes as u64);
        Ok(())
    }

    /// Makes everything durable that was written.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        let Some(segment) = self.open.as_mut() else {
            return Ok(());
        };
        if self.flushed < self.written {
            let began = Instant::now();
            // After a failure the system may take lost pages for written ones: all of the segment
            // must be received again.
            durable::sync_data(&segment.file).map_err(failed("synchronise", &segment.path))?;
            if !segment.name_is_durable {
                durable::sync_directory(self.directory)
                    .map_err(failed("synchronise", self.directory))?;
                segment.name_is_durable = true;
            }
            self.flushed = self.written;
            self.meter.flushed(self.flushed, began.elapsed());
        }
        Ok(())
    }

    /// If the open segment is full: makes it durable and gives it its name.
    fn complete(&mut self) -> Result<(), FileError> {
        let size_bytes = self.segment_size.bytes();
        let written = self.written;
        let is_full = |segment: &OpenSegment| written.0 - segment.start.0 == size_bytes;
        let Some(segment) = self.open.as_ref().filter(|segment| is_full(segment)) else {
            return Ok(());
        };
        let began = Instant::now();
        if self.flushed < written {
            durable::sync_data(&segment.file).map_err(failed("synchronise", &segment.path))?;
        }
        let name = WalName::of_segment(self.timeline, segment.start, self.segment_size);
        let path = self.directory.join(name.as_str());
        match durable::publish_file(&segment.path, &path) {
            Ok(Publication::Created) => {}
            Ok(Publication::AlreadyExists) => {
                let error = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(failed("create", &path)(error));
            }
            Err(error) => return Err(repeatable("rename", &segment.path)(error)),
        }
        self.open = None;
        durable::sync_directory(self.directory).map_err(failed("synchronise", self.directory))?;
        self.flushed = written;
        self.meter.flushed(written, began.elapsed());
        self.completed = Some(written);
        Ok(())
    }

    fn open_segment(&self, start: Lsn) -> Result<OpenSegment, FileError> {
        let name = WalName::of_segment(self.timeline, start, self.segment_size);
        let path = self.directory.join(format!("{name}.partial"));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(repeatable("create", &path))?;
        durable::allocate(&file, self.segment_size.bytes())
            .map_err(repeatable("make room for", &path))?;
        Ok(OpenSegment {
            file,
            path,
            start,
            name_is_durable: false,
        })
    }

    /// The timeline has ended: what is here of it is made durable, and a file that waits for WAL which
    /// will never come is removed.
    pub(super) fn end_timeline(mut self) -> Result<(), FileError> {
        self.flush()?;
        let Some(segment) = &self.open else {
            return Ok(());
        };
        let mut probe = [0; PROBE_SIZE_BYTES];
        let read = segment.file.read_exact_at(&mut probe, 0);
        read.map_err(failed("read", &segment.path))?;
        if probe == [0; PROBE_SIZE_BYTES] {
            durable::remove(&segment.path).map_err(failed("remove", &segment.path))?;
            durable::sync_directory(self.directory)
                .map_err(failed("synchronise", self.directory))?;
        }
        Ok(())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    error(action, path, false)
}

fn repeatable(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    error(action, path, true)
}

fn error(
    action: &'static str,
    path: &Path,
    may_be_repeated: bool,
) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError {
        action,
        path,
        source,
        may_be_repeated,
    }
}
