//! The files that WAL is written to.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::finish::{Finished, Finisher, FullSegment};
use super::open_segment::OpenSegment;
use crate::durable;
use crate::receiver::meter::Meter;
use crate::receiver::stream_error::FileError;
use crate::wal::{Lsn, SegmentSize, WalName};

/// The name of a segment that is received while the one before it becomes durable. Hidden, so that
/// nobody takes it for the place to go on at.
const AHEAD: &str = ".ahead.partial";

/// The segments of one timeline, written from a segment's beginning on.
///
/// A segment is called `NAME.partial` and has its full size from before its first byte until all of
/// it is durable; then it gets its name. There is only one such file at a time: whoever goes on
/// later, this receiver or another one, begins again where that file begins.
#[derive(Debug)]
pub(super) struct SegmentFiles<'d> {
    directory: &'d Path,
    timeline: u32,
    segment_size: SegmentSize,
    open: Option<OpenSegment>,
    /// What becomes durable beside the writing; `None` if everything does at once.
    finisher: Option<Finisher>,
    written: Lsn,
    flushed: Lsn,
    /// Where segments end that nobody was told of yet.
    completed: VecDeque<Lsn>,
    meter: &'d Meter,
}

impl<'d> SegmentFiles<'d> {
    /// Everything before `start`, which is where a segment begins, is in `directory` or was never
    /// wanted. With `is_ahead` a segment may be received while the one before it becomes durable.
    pub(super) fn begin(
        directory: &'d Path,
        timeline: u32,
        start: Lsn,
        segment_size: SegmentSize,
        is_ahead: bool,
        meter: &'d Meter,
    ) -> Result<Self, FileError> {
        let ahead = directory.join(AHEAD);
        durable::remove(&ahead).map_err(FileError::of("remove", &ahead))?;
        // The last receiver may have been killed after it had given a segment its name, and before
        // that was durable. What is said to be flushed from now on includes that segment.
        durable::sync_directory(directory).map_err(FileError::of("synchronise", directory))?;
        Ok(SegmentFiles {
            directory,
            timeline,
            segment_size,
            open: None,
            finisher: is_ahead.then(|| Finisher::start(directory)).transpose()?,
            written: start,
            flushed: start,
            completed: VecDeque::new(),
            meter,
        })
    }

    /// The position after the last byte that was written.
    pub(super) fn written(&self) -> Lsn {
        self.written
    }

    /// The position after the last byte that would be found if this process were killed now: what is
    /// received ahead would not.
    pub(super) fn kept(&self) -> Lsn {
        let ahead = self.open.as_ref().filter(|segment| segment.is_ahead);
        ahead.map_or(self.written, |segment| segment.start)
    }

    /// The position after the last byte that outlasts a crash, as far as that has been seen.
    pub(super) fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Whether [`SegmentFiles::settle`] will soon see a segment become durable.
    pub(super) fn is_finishing(&self) -> bool {
        self.finisher.as_ref().is_some_and(Finisher::is_busy)
    }

    /// Where the oldest segment ends that has become complete and was not taken yet. None is told
    /// before the partial one behind it is there: until then the complete one is what says where to
    /// go on, and is not archived.
    pub(super) fn take_completed(&mut self) -> Option<Lsn> {
        self.open.as_ref().filter(|segment| !segment.is_ahead)?;
        self.completed.pop_front()
    }

    /// Writes what of `bytes`, which begin at `start`, is not written yet. After an error the same may
    /// be repeated: it goes on where it stopped.
    ///
    /// Afterwards the file is open that the next byte goes to. `start` is at most
    /// [`SegmentFiles::written`].
    pub(super) fn write(&mut self, start: Lsn, bytes: &[u8]) -> Result<(), FileError> {
        loop {
            self.complete()?;
            if self.open.is_none() {
                self.open = Some(self.open_segment()?);
            }
            let done = self.written.0.saturating_sub(start.0);
            let rest = usize::try_from(done)
                .ok()
                .and_then(|done| bytes.get(done..));
            match rest {
                None | Some([]) => return Ok(()),
                Some(rest) => self.write_some(rest)?,
            }
        }
    }

    /// Writes what of this fits into the segment, or a part of that.
    fn write_some(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let Some(segment) = &mut self.open else {
            return Ok(());
        };
        let offset = self.written.0 - segment.start.0;
        let size_bytes = segment.write(bytes, offset)?;
        self.written = Lsn(self.written.0 + size_bytes);
        self.meter.written(self.written, size_bytes);
        if self.finisher.is_none() {
            segment.write_zeros_ahead(offset + size_bytes)?;
        }
        Ok(())
    }

    /// Makes everything durable that was written.
    ///
    /// After a failure the system may take lost pages for written ones: all of the segment must be
    /// received again.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        self.settle(true)?;
        let Some(segment) = self.open.as_mut() else {
            return Ok(());
        };
        if self.flushed < self.written {
            let began = Instant::now();
            durable::sync_data(&segment.file)
                .map_err(FileError::of("synchronise", &segment.path))?;
            if !segment.name_is_durable {
                durable::sync_directory(self.directory)
                    .map_err(FileError::of("synchronise", self.directory))?;
                segment.name_is_durable = true;
            }
            self.flushed = self.written;
            self.meter.flushed(self.flushed, began.elapsed());
        }
        Ok(())
    }

    /// If the open segment is full: has it made durable and given its name, at once or beside what
    /// follows.
    fn complete(&mut self) -> Result<(), FileError> {
        let is_full =
            |segment: &OpenSegment| self.written.0 - segment.start.0 == self.segment_size.bytes();
        if !self.open.as_ref().is_some_and(is_full) {
            return Ok(());
        }
        self.settle(true)?;
        let Some(segment) = self.open.take() else {
            return Ok(());
        };
        let name = WalName::of_segment(self.timeline, segment.start, self.segment_size);
        let full = FullSegment {
            file: segment.file,
            path: segment.path,
            goal: self.directory.join(name.as_str()),
            directory: self.directory.to_owned(),
            end: self.written,
        };
        match &mut self.finisher {
            Some(finisher) => finisher.begin(full),
            None => {
                let finished = full.finish()?;
                self.note(finished);
            }
        }
        Ok(())
    }

    /// Sees whether the segment is durable that was becoming so, or waits until it is.
    pub(super) fn settle(&mut self, wait: bool) -> Result<(), FileError> {
        let finished = self.finisher.as_mut();
        let Some(finished) = finished.and_then(|finisher| finisher.finished(wait)) else {
            return Ok(());
        };
        let finished = finished?;
        if let Some(segment) = self.open.as_mut().filter(|segment| segment.is_ahead) {
            let path = partial_path(
                self.directory,
                self.timeline,
                segment.start,
                self.segment_size,
            );
            durable::move_file(&segment.path, &path, false)
                .map_err(FileError::of("rename", &segment.path))?;
            segment.path = path;
            segment.is_ahead = false;
        }
        self.note(finished);
        Ok(())
    }

    fn note(&mut self, finished: Finished) {
        self.flushed = finished.end;
        self.meter.flushed(finished.end, finished.took);
        self.completed.push_back(finished.end);
    }

    fn open_segment(&self) -> Result<OpenSegment, FileError> {
        let start = self.written;
        let is_ahead = self.is_finishing();
        let path = match is_ahead {
            true => self.directory.join(AHEAD),
            false => partial_path(self.directory, self.timeline, start, self.segment_size),
        };
        OpenSegment::open(path, start, self.segment_size, is_ahead)
    }

    /// The timeline has ended: what is here of it is made durable, and a file that waits for WAL which
    /// will never come is removed.
    pub(super) fn end_timeline(mut self) -> Result<(), FileError> {
        self.flush()?;
        let Some(segment) = &self.open else {
            return Ok(());
        };
        if segment.is_untouched()? {
            durable::remove(&segment.path).map_err(FileError::of("remove", &segment.path))?;
            durable::sync_directory(self.directory)
                .map_err(FileError::of("synchronise", self.directory))?;
        }
        Ok(())
    }
}

fn partial_path(directory: &Path, timeline: u32, start: Lsn, segment_size: SegmentSize) -> PathBuf {
    let name = WalName::of_segment(timeline, start, segment_size);
    directory.join(format!("{name}.partial"))
}

#[cfg(test)]
mod tests;
