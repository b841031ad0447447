//! The file that is written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::durable;
use crate::receiver::stream_error::FileError;
use crate::wal::{Lsn, SegmentSize};

/// Permissions of a new file, less the umask, as `pg_receivewal` creates its files.
const FILE_MODE: u32 = 0o600;

/// How far zeros are written ahead of WAL that commits wait for. To make bytes durable in a place that
/// was allocated and never written to, a file system must also make durable that they are there, which
/// cost a sixth of pgbench's transactions on ext4. Few at a time: a commit waits for the zeros of its flush as well.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// How many bytes of a segment tell whether anything was written to it: none of WAL begins with so
/// many zeros.
const PROBE_SIZE_BYTES: usize = 8;

/// A file that WAL is written to, of the full size of a segment from before its first byte.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// The position of its first byte.
    pub(super) start: Lsn,
    size_bytes: u64,
    /// It has a name that nobody is to see yet.
    pub(super) is_ahead: bool,
    /// The name of the file outlasts a crash as well.
    pub(super) name_is_durable: bool,
    /// Before this offset bytes have been written to the file, whatever they were. The end of the
    /// segment where that is not known: what an earlier run received may be nowhere else.
    touched: u64,
}

impl OpenSegment {
    /// Opens the file, or creates it, and makes room for all of the segment. What it holds stays.
    pub(super) fn open(
        path: PathBuf,
        start: Lsn,
        segment_size: SegmentSize,
        is_ahead: bool,
    ) -> Result<Self, FileError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(FileError::repeatable("create", &path))?;
        let metadata = file.metadata().map_err(FileError::of("look at", &path))?;
        let size_bytes = segment_size.bytes();
        durable::allocate(&file, 0..size_bytes)
            .map_err(FileError::repeatable("make room for", &path))?;
        Ok(OpenSegment {
            file,
            path,
            start,
            size_bytes,
            is_ahead,
            name_is_durable: false,
            touched: match metadata.len() {
                0 => 0,
                _ => size_bytes,
            },
        })
    }

    /// Writes what of this fits in from this offset on, or a part of that. Returns how much.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<u64, FileError> {
        let room = usize::try_from(self.size_bytes - offset).unwrap_or(usize::MAX);
        let fitting = bytes.get(..room).unwrap_or(bytes);
        match self.file.write_at(fitting, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                Err(FileError::of("write to", &self.path)(error))
            }
            Ok(size_bytes) => Ok(size_bytes as u64),
            Err(error) => Err(FileError::repeatable("write to", &self.path)(error)),
        }
    }

    /// Where everything becomes durable at once, the places that WAL comes to after this offset are to
    /// have been written to before.
    pub(super) fn write_zeros_ahead(&mut self, offset: u64) -> Result<(), FileError> {
        if offset <= self.touched || offset == self.size_bytes {
            return Ok(());
        }
        let goal = offset.next_multiple_of(ZEROS.len() as u64);
        let size_bytes = usize::try_from(goal - offset).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..size_bytes).unwrap_or_default();
        self.file
            .write_all_at(zeros, offset)
            .map_err(FileError::repeatable("write to", &self.path))?;
        self.touched = goal;
        Ok(())
    }

    /// Whether nobody has written WAL to it, in this run or an earlier one.
    pub(super) fn is_untouched(&self) -> Result<bool, FileError> {
        let mut probe = [0; PROBE_SIZE_BYTES];
        self.file
            .read_exact_at(&mut probe, 0)
            .map_err(FileError::of("read", &self.path))?;
        Ok(probe == [0; PROBE_SIZE_BYTES])
    }
}
