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
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const SIZE: u64 = 1 << 20;

    struct Streaming {
        folder: TempDir,
        meter: Meter,
    }

    impl Streaming {
        fn new() -> Self {
            Streaming {
                folder: TempDir::new().unwrap(),
                meter: Meter::new("builtin"),
            }
        }

        fn begin(&self, start: u64, is_ahead: bool) -> SegmentFiles<'_> {
            let size = SegmentSize::new(SIZE).unwrap();
            SegmentFiles::begin(
                self.folder.path(),
                1,
                Lsn(start),
                size,
                is_ahead,
                &self.meter,
            )
            .unwrap()
        }

        /// The names, with what the files begin with.
        fn files(&self) -> Vec<(String, u8)> {
            let entries = fs::read_dir(self.folder.path()).unwrap();
            let mut files: Vec<_> = entries
                .map(|entry| {
                    let path = entry.unwrap().path();
                    let bytes = fs::read(&path).unwrap();
                    assert_eq!(bytes.len() as u64, SIZE, "{path:?}");
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    (name, bytes[0])
                })
                .collect();
            files.sort();
            files
        }
    }

    fn file(name: &str, first: u8) -> (String, u8) {
        (name.to_owned(), first)
    }

    const ONE: &str = "000000010000000000000001";
    const TWO: &str = "000000010000000000000002";
    const THREE_PARTIAL: &str = "000000010000000000000003.partial";

    #[test]
    fn wal_across_segments_is_cut_into_files_and_the_next_one_is_there_before_it_is_told() {
        for is_ahead in [false, true] {
            let streaming = Streaming::new();
            let mut files = streaming.begin(SIZE, is_ahead);
            let wal = [vec![1; SIZE as usize], vec![2; SIZE as usize], vec![3]].concat();
            files.write(Lsn(SIZE), &wal).unwrap();
            assert_eq!(files.written(), Lsn(3 * SIZE + 1));
            assert!(files.flushed() <= Lsn(3 * SIZE));
            files.flush().unwrap();
            assert_eq!(files.flushed(), Lsn(3 * SIZE + 1));
            assert_eq!(files.take_completed(), Some(Lsn(2 * SIZE)));
            assert_eq!(files.take_completed(), Some(Lsn(3 * SIZE)));
            assert_eq!(files.take_completed(), None);
            let expected = [file(ONE, 1), file(TWO, 2), file(THREE_PARTIAL, 3)];
            assert_eq!(streaming.files(), expected);
        }
    }

    #[test]
    fn a_write_that_is_repeated_goes_on_where_it_stopped() {
        let streaming = Streaming::new();
        let mut files = streaming.begin(SIZE, false);
        files.write(Lsn(SIZE), &[1, 1]).unwrap();
        files.write(Lsn(SIZE), &[9, 9, 1]).unwrap();
        assert_eq!(files.written(), Lsn(SIZE + 3));
        files.flush().unwrap();
        let path = streaming.folder.path().join(format!("{ONE}.partial"));
        assert!(fs::read(path).unwrap().starts_with(&[1, 1, 1, 0]));
    }

    #[test]
    fn zeros_ahead_never_touch_what_an_earlier_run_received() {
        let streaming = Streaming::new();
        let path = streaming.folder.path().join(format!("{ONE}.partial"));
        let mut files = streaming.begin(SIZE, false);
        files.write(Lsn(SIZE), &[1; 5000]).unwrap();
        drop(files);
        let mut files = streaming.begin(SIZE, false);
        files.write(Lsn(SIZE), &[1; 10]).unwrap();
        files.flush().unwrap();
        let bytes = fs::read(path).unwrap();
        assert!(bytes[..5000].iter().all(|byte| *byte == 1));
        assert!(bytes[5000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn until_a_segment_is_durable_it_is_the_one_that_says_where_to_go_on() {
        let streaming = Streaming::new();
        let mut files = streaming.begin(SIZE, true);
        files.write(Lsn(SIZE), &vec![1; SIZE as usize]).unwrap();
        // Opened before anybody looked whether the first one is finished.
        let names: Vec<_> = streaming
            .files()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(names.contains(&AHEAD.to_owned()), "{names:?}");
        assert!(!names.contains(&format!("{TWO}.partial")), "{names:?}");
        assert_eq!(files.take_completed(), None);
        assert_eq!(files.kept(), Lsn(2 * SIZE));
        files.settle(true).unwrap();
        assert_eq!(files.take_completed(), Some(Lsn(2 * SIZE)));
        assert_eq!(files.kept(), files.written());
        let expected = [file(ONE, 1), file(&format!("{TWO}.partial"), 0)];
        assert_eq!(streaming.files(), expected);
    }

    #[test]
    fn what_a_killed_receiver_had_begun_ahead_is_received_again() {
        let streaming = Streaming::new();
        fs::write(streaming.folder.path().join(AHEAD), b"left").unwrap();
        let mut files = streaming.begin(SIZE, true);
        files.write(Lsn(SIZE), &[1]).unwrap();
        assert_eq!(streaming.files(), [file(&format!("{ONE}.partial"), 1)]);
    }

    #[test]
    fn a_complete_segment_is_never_replaced() {
        let streaming = Streaming::new();
        fs::write(streaming.folder.path().join(ONE), b"there").unwrap();
        let mut files = streaming.begin(SIZE, false);
        let error = files.write(Lsn(SIZE), &vec![1; SIZE as usize]).unwrap_err();
        assert!(error.to_string().contains(ONE), "{error}");
        assert_eq!(
            fs::read(streaming.folder.path().join(ONE)).unwrap(),
            b"there"
        );
        assert_eq!(files.flushed(), Lsn(SIZE));
    }

    #[test]
    fn at_the_end_of_a_timeline_only_a_file_without_wal_goes() {
        let streaming = Streaming::new();
        let mut files = streaming.begin(SIZE, true);
        files.write(Lsn(SIZE), &vec![1; SIZE as usize]).unwrap();
        files.end_timeline().unwrap();
        assert_eq!(streaming.files(), [file(ONE, 1)]);

        // What an earlier run received may be nowhere else.
        let mut files = streaming.begin(2 * SIZE, false);
        files.write(Lsn(2 * SIZE), &[2]).unwrap();
        drop(files);
        let mut files = streaming.begin(2 * SIZE, false);
        files.write(Lsn(2 * SIZE), &[]).unwrap();
        files.end_timeline().unwrap();
        let partial = file(&format!("{TWO}.partial"), 2);
        assert_eq!(streaming.files(), [file(ONE, 1), partial]);
    }
}
