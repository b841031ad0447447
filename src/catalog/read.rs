//! Reading xlogdb from one end to the other, without standing in anybody's way.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use super::{ArchiveContents, Catalog, CatalogError, InvalidLine, WalFileInfo};
use crate::durable::{self, SharedLock};

/// How long a writer is given to finish. One that takes longer holds the lock while its hooks run, as
/// Barman does, and writes nothing meanwhile.
const WRITER_PATIENCE: Duration = Duration::from_millis(500);

/// How much is read at a time, and so held in memory.
const BLOCK_SIZE_BYTES: usize = 1 << 20;

impl Catalog {
    /// Passes every line to `visit`, in the order of the file, until that breaks off.
    ///
    /// The file is read block by block. The lock is held while one is read and never while `visit`
    /// runs, which may wait for a person to press a key. A file that is replaced meanwhile is read
    /// to its end as it was. Where there is no xlogdb, none is made: the archive itself is listed.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Rewritten`] when somebody (Barman's `delete`) changed in place what was read
    /// already; the errors of the file system; those of `contents`, in place of a missing file.
    pub fn visit(
        &self,
        contents: &dyn ArchiveContents,
        visit: &mut dyn FnMut(Result<WalFileInfo, InvalidLine>) -> ControlFlow<()>,
    ) -> Result<(), CatalogError> {
        let Some((_, file)) = self.open_to_read()? else {
            return self.visit_contents(contents, visit);
        };
        let mut blocks = Blocks {
            file,
            offset: 0,
            last_line: Vec::new(),
        };
        loop {
            let lock = self.share_lock()?;
            let block = match blocks.next() {
                Ok(Some(block)) => block,
                Ok(None) => {
                    let path = self.path.clone();
                    return Err(CatalogError::Rewritten { path });
                }
                Err(error) => return Err(self.io("read", error)),
            };
            drop(lock);
            if block.is_empty() {
                return Ok(());
            }
            for line in block.split_inclusive(|&byte| byte == b'\n') {
                if visit(parse(line)).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// xlogdb, under its old name if need be.
    pub(super) fn open_to_read(&self) -> Result<Option<(PathBuf, File)>, CatalogError> {
        for path in [Some(&self.path), self.legacy_path.as_ref()]
            .into_iter()
            .flatten()
        {
            match File::open(path) {
                Ok(file) => return Ok(Some((path.clone(), file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Self::io_at("open", path, error)),
            }
        }
        Ok(None)
    }

    /// Keeps writers away; one that would keep us waiting is not waited for.
    pub(super) fn share_lock(&self) -> Result<Option<SharedLock>, CatalogError> {
        durable::share_lock(&self.lock_path, WRITER_PATIENCE)
            .map_err(|e| Self::io_at("lock", &self.lock_path, e))
    }

    fn visit_contents(
        &self,
        contents: &dyn ArchiveContents,
        visit: &mut dyn FnMut(Result<WalFileInfo, InvalidLine>) -> ControlFlow<()>,
    ) -> Result<(), CatalogError> {
        let mut broken_off = false;
        let visited = contents.visit_all(&mut |info| {
            broken_off = visit(Ok(info)).is_break();
            match broken_off {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => Ok(()),
            }
        });
        match visited {
            Err(source) if !broken_off => Err(CatalogError::Contents {
                path: self.path.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }
}

/// What one line says. A last line without its newline is torn, and may have lost digits.
pub(super) fn parse(line: &[u8]) -> Result<WalFileInfo, InvalidLine> {
    let text = String::from_utf8_lossy(line);
    match text.strip_suffix('\n') {
        Some(whole) => whole.parse(),
        None => Err(InvalidLine(text.into_owned())),
    }
}

/// Reads a file in blocks of whole lines, and notices if what it has read changes.
struct Blocks {
    file: File,
    offset: u64,
    last_line: Vec<u8>,
}

impl Blocks {
    /// The next lines; none at the end of the file. `None` if the file was rewritten.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let start = self.offset - self.last_line.len() as u64;
        let mut block = vec![0; self.last_line.len() + BLOCK_SIZE_BYTES];
        let size = read_at(&self.file, &mut block, start)?;
        block.truncate(size);
        let Some(block) = block.strip_prefix(self.last_line.as_slice()) else {
            return Ok(None);
        };
        let whole = block.iter().rposition(|&byte| byte == b'\n');
        let whole = whole.map_or(block.len(), |newline| newline + 1);
        let block = block.get(..whole).unwrap_or_default().to_vec();
        self.offset += block.len() as u64;
        let last = block.split_inclusive(|&byte| byte == b'\n').next_back();
        self.last_line = last.unwrap_or_default().to_vec();
        Ok(Some(block))
    }
}

fn read_at(file: &File, buffer: &mut [u8], start: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, start + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::wal::WalName;

    /// No test here lets xlogdb be missing.
    struct Nothing;

    impl ArchiveContents for Nothing {
        fn look_up(
            &self,
            _: &WalName,
        ) -> Result<Option<WalFileInfo>, Box<dyn Error + Send + Sync>> {
            Ok(None)
        }

        fn visit_all(
            &self,
            _: &mut dyn FnMut(WalFileInfo) -> io::Result<()>,
        ) -> Result<(), Box<dyn Error + Send + Sync>> {
            Err("asked".into())
        }
    }

    fn catalog(folder: &Path, lines: usize) -> Catalog {
        let catalog = Catalog::new("main", folder, folder, None);
        let text: String = (0..lines)
            .map(|number| format!("0000000100000000{number:08X}\t1\t1.0\tNone\tNone\n"))
            .collect();
        fs::write(catalog.path(), text).unwrap();
        catalog
    }

    #[test]
    fn every_line_of_a_long_file_comes_once_and_in_order() {
        let folder = TempDir::new().unwrap();
        let catalog = catalog(folder.path(), 60_000);
        assert!(fs::metadata(catalog.path()).unwrap().len() > 2 * BLOCK_SIZE_BYTES as u64);
        let mut expected = 0;
        let visited = catalog.visit(&Nothing, &mut |line| {
            let name = line.unwrap().name;
            assert_eq!(name.as_str(), format!("0000000100000000{expected:08X}"));
            expected += 1;
            ControlFlow::Continue(())
        });
        visited.unwrap();
        assert_eq!(expected, 60_000);
    }

    #[test]
    fn a_torn_last_line_is_no_line() {
        let folder = TempDir::new().unwrap();
        let catalog = catalog(folder.path(), 1);
        let text = fs::read_to_string(catalog.path()).unwrap();
        fs::write(catalog.path(), format!("{text}{}", text.trim_end())).unwrap();
        let mut whole = Vec::new();
        let visited = catalog.visit(&Nothing, &mut |line| {
            whole.push(line.is_ok());
            ControlFlow::Continue(())
        });
        visited.unwrap();
        assert_eq!(whole, [true, false]);
    }

    #[test]
    fn rewriting_in_place_is_noticed() {
        let folder = TempDir::new().unwrap();
        let catalog = catalog(folder.path(), 60_000);
        let text = fs::read_to_string(catalog.path()).unwrap();
        let mut seen = 0;
        let visited = catalog.visit(&Nothing, &mut |_| {
            seen += 1;
            if seen == 1 {
                // As Barman's delete does it, without the first two lines.
                let rest = text.splitn(3, '\n').last().unwrap();
                fs::write(catalog.path(), rest).unwrap();
            }
            ControlFlow::Continue(())
        });
        assert!(matches!(visited, Err(CatalogError::Rewritten { .. })));
    }

    #[test]
    fn without_a_file_the_archive_is_asked() {
        let folder = TempDir::new().unwrap();
        let catalog = Catalog::new("main", folder.path(), folder.path(), None);
        let visited = catalog.visit(&Nothing, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(visited, Err(CatalogError::Contents { .. })));
        assert!(!catalog.path().exists());
    }
}
