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
/// perhaps) may have removed the source already, so that nobody else ever would.
pub(super) fn cut_torn_line(
    file: &mut File,
    contents: &dyn ArchiveContents,
) -> io::Result<Option<WalFileInfo>> {
    let size_bytes = file.seek(SeekFrom::End(0))?;
    // The usual case needs the last byte only.
    let last = read_from(file, size_bytes.saturating_sub(1))?;
    if last.last().is_none_or(|&last| last == b'\n') {
        return Ok(None);
    }
    let tail_start = size_bytes.saturating_sub(LINE_SIZE_MAX_BYTES);
    let tail = read_from(file, tail_start)?;
    let torn_start = match tail.iter().rposition(|&byte| byte == b'\n') {
        Some(newline) => newline + 1,
        None if tail_start == 0 => 0,
        // No line of ours: keep whatever it is, on a line of its own.
        None => return durable::append(file, b"\n").map(|()| None),
    };
    let torn = tail.get(torn_start..).unwrap_or_default();
    tracing::warn!(
        "repairing a torn last line of xlogdb: {:?}",
        String::from_utf8_lossy(torn)
    );
    durable::truncate(file, tail_start + torn_start as u64)?;

    let name = torn
        .split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default();
    match str::from_utf8(name)
        .ok()
        .and_then(|name| WalName::parse(name).ok())
    {
        Some(name) => contents.look_up(&name).map_err(io::Error::other),
        None => Ok(None),
    }
}

fn read_from(file: &mut File, position: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(position))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
