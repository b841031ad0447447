//! Taking files off xlogdb before they are deleted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::ops::ControlFlow;

use super::read::parse;
use super::{ArchiveContents, Catalog, CatalogError, InvalidLine, WalFileInfo};

/// The xlogdb from before [`Catalog::remove`]: nobody else can see it any more.
#[derive(Debug)]
pub struct Removed(File);

impl Removed {
    /// Passes the lines that can be read to `visit`, in their order, until that breaks off.
    pub fn visit(&self, visit: &mut dyn FnMut(WalFileInfo) -> ControlFlow<()>) -> io::Result<()> {
        each_line(&self.0, |line| match parse(line) {
            Ok(info) => Ok(visit(info)),
            Err(_) => Ok(ControlFlow::Continue(())),
        })
    }
}

impl Catalog {
    /// Lists no file any more of which `goes` is true, in one durable step, and returns what xlogdb
    /// was before. Lines that cannot be read stay as they are.
    ///
    /// The caller keeps every archiver of the server away until the files are deleted or
    /// [put back](Self::put_back).
    pub fn remove(
        &self,
        contents: &dyn ArchiveContents,
        goes: &dyn Fn(&WalFileInfo) -> bool,
    ) -> Result<Removed, CatalogError> {
        let _lock = self.lock()?;
        // An xlogdb that is missing or torn is made whole first.
        self.append_locked(Vec::new(), self.state(), contents)?;
        let old = File::open(&self.path).map_err(|e| self.io("read", e))?;
        self.write_anew(|new| self.copy(&old, new, &|line| !line.is_ok_and(|info| goes(&info))))?;
        Ok(Removed(old))
    }

    /// Undoes [`remove`](Self::remove) for the files that `is_there` still finds. They come before
    /// those that were never removed.
    pub fn put_back(
        &self,
        removed: &Removed,
        goes: &dyn Fn(&WalFileInfo) -> bool,
        is_there: &dyn Fn(&WalFileInfo) -> bool,
    ) -> Result<(), CatalogError> {
        let _lock = self.lock()?;
        let now = File::open(&self.path).map_err(|e| self.io("read", e))?;
        self.write_anew(|new| {
            self.copy(&removed.0, new, &|line| {
                line.is_ok_and(|info| goes(&info) && is_there(&info))
            })?;
            // Whoever has rebuilt xlogdb meanwhile has listed them already.
            self.copy(&now, new, &|line| !line.is_ok_and(|info| goes(&info)))
        })
    }

    /// Copies the lines of which `stays` is true, byte for byte.
    fn copy(
        &self,
        from: &File,
        to: &mut dyn Write,
        stays: &dyn Fn(Result<WalFileInfo, InvalidLine>) -> bool,
    ) -> Result<(), CatalogError> {
        each_line(from, |line| {
            if stays(parse(line)) {
                to.write_all(line)?;
            }
            Ok(ControlFlow::Continue(()))
        })
        .map_err(|e| self.io("write a new", e))
    }
}

fn each_line(
    mut file: &File,
    mut visit: impl FnMut(&[u8]) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    file.rewind()?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if visit(&line)?.is_break() {
            break;
        }
        line.clear();
    }
    Ok(())
}
