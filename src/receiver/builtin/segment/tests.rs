//! The files of a receiver, looked at after each step.

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
