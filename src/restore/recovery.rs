//! What PostgreSQL's `restore_command` does: one file, now, and others ahead of time.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::outlet::FileOutlet;
use super::spool::{Position, Spool};
use super::{RestoreError, WalSource};
use crate::wal::{LONG_HEADER_SIZE_BYTES, LongPageHeader, SegmentSize, WalKind, WalName};

/// How often a segment that is on its way is looked for.
const LOOK: Duration = Duration::from_millis(1);

/// The names under which PostgreSQL asks for files during recovery. It reads them at once, and removes what it finds
/// there before it asks again, so they need not survive a crash (`RestoreArchivedFile` in its `xlogarchive.c`).
const PASSING_NAMES: [&str; 2] = ["RECOVERYXLOG", "RECOVERYHISTORY"];

/// Fetching ahead, for a recovery.
pub struct Ahead<'a> {
    /// Where segments wait.
    pub spool: &'a Spool,
    /// How long a segment that is on its way is waited for.
    pub patience: Duration,
    /// Starts the process that fetches ahead.
    pub start: &'a dyn Fn() -> io::Result<()>,
}

/// An outlet for the path that PostgreSQL gave.
pub fn outlet_for(goal: &Path) -> FileOutlet {
    let name = goal.file_name().unwrap_or_default();
    match PASSING_NAMES.iter().any(|passing| name == *passing) {
        true => FileOutlet::volatile(goal),
        false => FileOutlet::durable(goal),
    }
}

/// Delivers a file from the spool or from the source, and lets others be fetched ahead.
///
/// Trouble with the spool is passed to `warn`, and the file comes from the source.
pub fn restore(
    source: &dyn WalSource,
    name: &WalName,
    partial: bool,
    goal: &Path,
    outlet: &mut FileOutlet,
    ahead: Option<&Ahead<'_>>,
    warn: &mut dyn FnMut(&str),
) -> Result<(), RestoreError> {
    let ahead = ahead.filter(|_| !partial);
    let mut delivered = None;
    if let Some(ahead) = ahead.filter(|_| name.kind() == WalKind::Segment) {
        match ahead.deliver(name, outlet) {
            Ok(true) => delivered = Some(ahead.go_on_from(name)),
            Ok(false) => {}
            Err(error) => warn(&format!("the spool is of no use: {error}")),
        }
    }
    let gone_on = match (delivered, ahead) {
        (Some(gone_on), _) => gone_on,
        (None, ahead) => {
            source.fetch(name, partial, outlet)?;
            ahead.map_or(Ok(()), |ahead| ahead.go_on_behind(name, goal))
        }
    };
    // The file has its name by now, and nothing can take that back: it is delivered.
    if let Err(error) = gone_on {
        warn(&format!("nothing is fetched ahead: {error}"));
    }
    Ok(())
}

impl Ahead<'_> {
    /// False when the segment is neither here nor on its way.
    fn deliver(&self, name: &WalName, outlet: &mut FileOutlet) -> io::Result<bool> {
        self.wait_for(name);
        self.spool.deliver(name, outlet)
    }

    /// Fetches what comes behind a segment that was just delivered from the spool: not before, because what lies behind
    /// the position is removed.
    fn go_on_from(&self, name: &WalName) -> io::Result<()> {
        let Some(position) = self.spool.position() else {
            return Ok(());
        };
        let segment_size = position.segment_size;
        let name = name.clone();
        self.go_on(&Position { name, segment_size })
    }

    /// Waits while the segment is on its way: asking for it once more would be no faster.
    fn wait_for(&self, name: &WalName) {
        let deadline = Instant::now() + self.patience;
        while self.spool.is_on_its_way(name)
            && self.spool.is_being_filled()
            && Instant::now() < deadline
        {
            thread::sleep(LOOK);
        }
    }

    /// Fetches what comes behind a file that was just delivered.
    fn go_on_behind(&self, name: &WalName, delivered: &Path) -> io::Result<()> {
        match name.kind() {
            WalKind::History => self.spool.note_history(name, &fs::read(delivered)?),
            WalKind::Segment => match segment_size_of(delivered)? {
                Some(segment_size) => {
                    let name = name.clone();
                    self.go_on(&Position { name, segment_size })
                }
                // Of a PostgreSQL that we do not know.
                None => Ok(()),
            },
            WalKind::Partial | WalKind::BackupLabel => Ok(()),
        }
    }

    fn go_on(&self, position: &Position) -> io::Result<()> {
        self.spool.set_position(position)?;
        match self.spool.is_being_filled() {
            true => Ok(()),
            false => (self.start)(),
        }
    }
}

fn segment_size_of(path: &Path) -> io::Result<Option<SegmentSize>> {
    let mut head = Vec::with_capacity(LONG_HEADER_SIZE_BYTES);
    File::open(path)?
        .take(LONG_HEADER_SIZE_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok(LongPageHeader::parse(&head)
        .and_then(|header| SegmentSize::new(header.segment_size_bytes.into()).ok()))
}

/// The data directory that a path given by PostgreSQL leads into: `DATA/pg_wal/NAME`, in most cases relative to the
/// directory in which the command runs.
pub fn data_directory(goal: &Path) -> io::Result<PathBuf> {
    let inside = goal
        .parent()
        .and_then(Path::parent)
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    inside.canonicalize()
}

/// The identity of the cluster in a data directory; `None` where there is none. It begins its `global/pg_control`
/// (`ControlFileData` in PostgreSQL's `pg_control.h`), in the machine's byte order.
pub fn cluster_identifier(data_directory: &Path) -> Option<u64> {
    let mut first = [0; 8];
    let mut file = File::open(data_directory.join("global/pg_control")).ok()?;
    file.read_exact(&mut first).ok()?;
    Some(u64::from_ne_bytes(first)).filter(|identifier| *identifier != 0)
}

/// Whether this process works for pg_rewind, which reads WAL backwards: what comes behind is of no use to it.
pub fn works_for_pg_rewind() -> bool {
    let mut process = std::os::unix::process::parent_id();
    for _ in 0..ANCESTORS_MAX {
        let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else {
            return false;
        };
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))
        };
        if field("Name") == Some("pg_rewind") {
            return true;
        }
        match field("PPid").and_then(|parent| parent.parse().ok()) {
            Some(parent) if parent > 1 => process = parent,
            _ => return false,
        }
    }
    false
}

/// pg_rewind, the shell that it starts, and perhaps a script or two.
const ANCESTORS_MAX: usize = 6;
