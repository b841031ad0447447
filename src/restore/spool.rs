//! Segments that were fetched ahead, until PostgreSQL asks for them.
//!
//! One directory for each recovery: who restores which server from where into which data directory. Nobody else may
//! write to it. It lasts until the machine is started anew, because what is in it was never made durable.

mod sweep;

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

use super::outlet::{FileOutlet, Outlet};
use super::plan::TimelinePath;
use crate::durable::{self, LockFile, Wait, lock_holder};
use crate::wal::{
    LONG_HEADER_SIZE_BYTES, LongPageHeader, SegmentSize, TimelineHistory, WalKind, WalName,
    find_fault,
};

/// What was fetched longer ago is fetched again: the archive may be another one by now.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// Changes with every start of the system (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const LOCK: &str = ".lock";
const POSITION: &str = ".position";
const SESSION: &str = ".session";

/// The spool of one recovery.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    system_identifier: Option<u64>,
}

/// What a look at a spooled segment found.
enum Spooled {
    Absent,
    /// It was removed.
    Useless,
    Good(File),
}

/// How far PostgreSQL has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The segment that it got last.
    pub(super) name: WalName,
    pub(super) segment_size: SegmentSize,
}

impl Spool {
    /// The spool in `root` that belongs to `identity`, a text that tells this recovery from every other one; `server`
    /// is for people. Whatever is there from another recovery or an earlier start of the system is removed.
    ///
    /// `system_identifier` is that of the cluster that is recovered, if it is known.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, or it, or `root`, belongs to or can be changed by somebody else.
    pub fn open(
        root: &Path,
        server: &str,
        identity: &str,
        system_identifier: Option<u64>,
    ) -> io::Result<Self> {
        let mut hasher = DefaultHasher::new();
        identity.hash(&mut hasher);
        let readable: String = server
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(64)
            .collect();
        let directory = root.join(format!("{readable}-{:016x}", hasher.finish()));
        if !root.is_dir() {
            create_private(root)?;
        }
        check_root(root)?;
        let is_new = match create_private(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            other => other.map(|()| true)?,
        };
        check_private(&directory)?;
        let spool = Spool {
            directory,
            system_identifier,
        };
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let session = format!("{identity}\n{system_identifier:?}\n{boot}");
        let known = fs::read_to_string(spool.path(SESSION)).unwrap_or_default();
        if known != session {
            spool.clear()?;
            write_small(&spool.path(SESSION), session.as_bytes())?;
        }
        if is_new {
            sweep::sweep(root);
        }
        Ok(spool)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where a segment is, or would be.
    pub(super) fn segment(&self, name: &WalName) -> PathBuf {
        self.path(name.as_str())
    }

    /// Delivers a segment that was fetched ahead, and forgets it. False when there is no good one.
    pub(super) fn deliver(&self, name: &WalName, outlet: &mut FileOutlet) -> io::Result<bool> {
        let path = self.segment(name);
        let Spooled::Good(file) = self.look_at(name, &path)? else {
            return Ok(false);
        };
        outlet.take_over(&path, file)?;
        Ok(true)
    }

    /// Whether a segment that could be delivered is here.
    pub(super) fn holds(&self, name: &WalName) -> bool {
        let found = self.look_at(name, &self.segment(name));
        found.is_ok_and(|found| matches!(found, Spooled::Good(_)))
    }

    /// Whether a segment that was just fetched can be delivered from here, or was already.
    pub(super) fn accepts(&self, name: &WalName) -> bool {
        let found = self.look_at(name, &self.segment(name));
        found.is_ok_and(|found| !matches!(found, Spooled::Useless))
    }

    /// Opens a spooled segment and looks at it; one that is not good is removed.
    fn look_at(&self, name: &WalName, path: &Path) -> io::Result<Spooled> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Spooled::Absent),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let mut head = Vec::with_capacity(LONG_HEADER_SIZE_BYTES);
        (&mut file)
            .take(LONG_HEADER_SIZE_BYTES as u64)
            .read_to_end(&mut head)?;
        let is_fresh = metadata
            .modified()
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age < AGE_MAX));
        let is_ours = metadata.is_file() && metadata.uid() == geteuid().as_raw();
        let is_segment = LongPageHeader::parse(&head).is_some()
            && find_fault(name, metadata.len(), &head, self.system_identifier).is_none();
        if is_fresh && is_ours && is_segment {
            return Ok(Spooled::Good(file));
        }
        tracing::warn!("{} is of no use: removed", path.display());
        durable::remove(path)?;
        Ok(Spooled::Useless)
    }

    /// Remembers what PostgreSQL got last.
    pub(super) fn set_position(&self, position: &Position) -> io::Result<()> {
        let text = format!("{} {}\n", position.name, position.segment_size.bytes());
        write_small(&self.path(POSITION), text.as_bytes())
    }

    /// `None` before the first segment.
    pub(super) fn position(&self) -> Option<Position> {
        let text = fs::read_to_string(self.path(POSITION)).ok()?;
        let (name, size_bytes) = text.trim_end().split_once(' ')?;
        Some(Position {
            name: WalName::parse(name).ok()?,
            segment_size: SegmentSize::new(size_bytes.parse().ok()?).ok()?,
        })
    }

    /// Keeps a history that PostgreSQL got, to plan by. It is never delivered from here.
    pub(super) fn note_history(&self, name: &WalName, text: &[u8]) -> io::Result<()> {
        write_small(&self.path(name.as_str()), text)
    }

    /// The way of the youngest timeline whose history PostgreSQL got.
    pub(super) fn timeline_path(&self) -> io::Result<TimelinePath> {
        let mut names = self.names(WalKind::History)?;
        names.sort_unstable();
        let Some(youngest) = names.pop() else {
            return Ok(TimelinePath::default());
        };
        let content = fs::read(self.path(youngest.as_str()))?;
        let history = TimelineHistory::parse(youngest.timeline(), &content);
        Ok(history.map_or_else(
            |_| TimelinePath::default(),
            |history| TimelinePath::from_history(&history),
        ))
    }

    /// The spooled segments.
    pub(super) fn segments(&self) -> io::Result<Vec<WalName>> {
        self.names(WalKind::Segment)
    }

    fn names(&self, kind: WalKind) -> io::Result<Vec<WalName>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| WalName::parse(name).ok());
            names.extend(name.filter(|name| name.kind() == kind));
        }
        Ok(names)
    }

    pub(super) fn remove(&self, name: &WalName) -> io::Result<()> {
        durable::remove(&self.segment(name))
    }

    /// Makes this process the one that fetches ahead. `None` when there is one already.
    pub(super) fn lock(&self) -> io::Result<Option<LockFile>> {
        LockFile::acquire(&self.path(LOCK), Wait::Never)
    }

    /// Whether some process fetches ahead.
    pub(super) fn is_being_filled(&self) -> bool {
        lock_holder(&self.path(LOCK)).is_ok_and(|holder| holder.is_some())
    }

    /// Whether the segment is on its way here.
    pub(super) fn is_on_its_way(&self, name: &WalName) -> bool {
        FileOutlet::volatile(&self.segment(name)).is_begun()
    }

    /// How much has arrived: complete segments and parts of others.
    pub(super) fn size_bytes(&self) -> u64 {
        let entries = fs::read_dir(&self.directory).into_iter().flatten();
        let sizes = entries.map(|entry| entry.and_then(|entry| entry.metadata()));
        sizes.flatten().map(|metadata| metadata.len()).sum()
    }

    /// Removes what killed processes left half-way. Only for the one that holds the lock.
    pub(super) fn remove_leftovers(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().ends_with(b".tmp") {
                durable::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes everything but the lock.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_name() != LOCK {
                durable::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Nothing in a spool needs to survive a crash.
fn write_small(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut outlet = FileOutlet::private(path);
    outlet.begin()?;
    io::Write::write_all(&mut outlet, bytes)?;
    outlet.finish()
}

fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Whoever could put files here could put them into the cluster.
fn check_private(directory: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(directory)?;
    let is_ours = metadata.is_dir() && metadata.uid() == geteuid().as_raw();
    if is_ours && metadata.mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(foreign())
}

/// Whoever may rename a spool can put another one in its place, between a look at it and its use. The sticky bit keeps
/// others away from what is ours (inode(7)).
fn check_root(root: &Path) -> io::Result<()> {
    let metadata = fs::metadata(root)?;
    let is_trusted = metadata.uid() == geteuid().as_raw() || metadata.uid() == 0;
    if is_trusted && (metadata.mode() & OTHERS_WRITE == 0 || metadata.mode() & STICKY != 0) {
        return Ok(());
    }
    Err(foreign())
}

/// The group and everybody (inode(7)).
const OTHERS_WRITE: u32 = 0o022;

/// `S_ISVTX` (inode(7)).
const STICKY: u32 = 0o1000;

fn foreign() -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it belongs to, or can be changed by, somebody else\n\
         HINT: name another one with --spool-dir, or forbid the others to write to it (chmod go-w)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    /// A segment of 1 MiB, the second one of timeline 1, as far as anybody looks at it.
    fn write_segment(path: &Path, modified: SystemTime) {
        let mut page = vec![0x10, 0xD1, 0x02, 0x00, 1, 0, 0, 0];
        page.extend((2u64 << 20).to_le_bytes());
        page.extend([0; 8]);
        page.extend(7u64.to_le_bytes());
        page.extend((1u32 << 20).to_le_bytes());
        page.extend(8192u32.to_le_bytes());
        page.resize(1 << 20, 0);
        fs::write(path, page).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(modified).unwrap();
    }

    #[test]
    fn a_segment_is_accepted_once_it_is_here_or_was_delivered() {
        let root = tempfile::tempdir().unwrap();
        let spool = Spool::open(root.path(), "main", "a test", Some(7)).unwrap();
        let name = WalName::parse("000000010000000000000002").unwrap();
        let path = spool.segment(&name);
        // It was taken away already.
        assert!(spool.accepts(&name) && !spool.holds(&name));
        let (now, an_hour) = (SystemTime::now(), AGE_MAX);
        write_segment(&path, now);
        assert!(spool.accepts(&name) && spool.holds(&name));
        // Of long ago, and of a clock that is ahead of ours.
        for modified in [now - 2 * an_hour, now + an_hour] {
            write_segment(&path, modified);
            assert!(!spool.accepts(&name));
            assert!(!path.exists());
        }
    }
}
