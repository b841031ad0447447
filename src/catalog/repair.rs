//! What a crash may leave at the end of xlogdb.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::{ArchiveContents, WalFileInfo};
use crate::durable;
use crate::wal::WalName;

/// No line is longer than this by far: a name, two numbers and two words.
const LINE_SIZE_MAX_BYTES: u64 = 4096;

/// Cuts off a last line that has no newline, and returns what xlogdb should say of its file.
///
/// The file, if the archive has it, must be listed again: whoever wrote the torn line (Barman,
/// perhaps) may have removed the source already, so that nobody else ever would. A line that was
/// torn inside its name, or of which a power cut has left only zeros, brings back every file whose
/// name begins so; they may be listed already.
pub(super) fn cut_torn_line(
    file: &mut File,
    contents: &dyn ArchiveContents,
) -> io::Result<Vec<WalFileInfo>> {
    let mut size_bytes = file.seek(SeekFrom::End(0))?;
    // The usual case needs the last byte only.
    let last = read(file, size_bytes.saturating_sub(1), size_bytes)?;
    if last.last().is_none_or(|&last| last == b'\n') {
        return Ok(Vec::new());
    }
    let mut torn = Vec::new();
    // A power cut may leave zeros where the end of the file was not written any more.
    while size_bytes > 0 && torn.is_empty() {
        let block_start = size_bytes.saturating_sub(LINE_SIZE_MAX_BYTES);
        let block = read(file, block_start, size_bytes)?;
        let kept = block
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        torn = block.get(..kept).unwrap_or_default().to_vec();
        size_bytes = block_start + kept as u64;
    }
    let torn_start = match torn.iter().rposition(|&byte| byte == b'\n') {
        Some(newline) => newline + 1,
        None if size_bytes == torn.len() as u64 => 0,
        // No line of ours: keep whatever it is, on a line of its own.
        None => return durable::append(file, b"\n").map(|()| Vec::new()),
    };
    let torn = torn.split_off(torn_start);
    tracing::warn!(
        "repairing a torn last line of xlogdb: {:?}",
        String::from_utf8_lossy(&torn)
    );
    durable::truncate(file, size_bytes - torn.len() as u64)?;
    files_of(&torn, contents)
}

/// The archived files that a torn line may have been about.
fn files_of(torn: &[u8], contents: &dyn ArchiveContents) -> io::Result<Vec<WalFileInfo>> {
    let name = torn
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    let Ok(name) = str::from_utf8(name) else {
        return Ok(Vec::new());
    };
    let name_is_whole = name.len() < torn.len();
    if name_is_whole {
        let Ok(name) = WalName::parse(name) else {
            return Ok(Vec::new());
        };
        let found = contents.look_up(&name).map_err(io::Error::other)?;
        return Ok(found.into_iter().collect());
    }
    let mut found = Vec::new();
    let visit = &mut |info: WalFileInfo| {
        found.extend(info.name.as_str().starts_with(name).then_some(info));
        Ok(())
    };
    contents.visit_all(visit).map_err(io::Error::other)?;
    Ok(found)
}

fn read(file: &mut File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(end - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}
