//! What is in a tar stream, read with bounded memory from whoever sent it.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use tar::{Entry, EntryType, PaxExtensions};

use super::receive_error::ReceiveError;
use crate::printable;

/// No WAL file is larger: a segment has at most 1 GiB, and no codec doubles what it cannot shrink.
pub(super) const FILE_SIZE_MAX_BYTES: u64 = 2 << 30;

/// How much is printed of a text that a stranger chose.
const PRINTED_SIZE_MAX: usize = 256;

/// How long an extended header may be: names and times, nothing else is of interest.
const EXTENSION_SIZE_MAX_BYTES: u64 = 64 << 10;

/// One regular file of a stream.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name, without `./` before it.
    pub(super) name: String,
    /// Its size.
    pub(super) size_bytes: u64,
    /// When it was last changed; `None` for a time that no clock shows.
    pub(super) modified: Option<SystemTime>,
}

/// What the headers before a member's own say of it.
#[derive(Default)]
struct Extensions {
    name: Option<String>,
    modified: Option<SystemTime>,
}

/// Passes every file of the stream to `visit`, with its bytes, in their order. Everything that is not a regular file at
/// the top is refused. Stops at the archive's end, or where the stream ends between two members.
///
/// The archive is read header by header: the crate's own handling of extended headers would take as much memory as
/// the stream says.
pub(super) fn for_each_member(
    stream: &mut dyn Read,
    visit: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), ReceiveError>,
) -> Result<(), ReceiveError> {
    let mut archive = tar::Archive::new(stream);
    let entries = archive.entries().map_err(ReceiveError::Stream)?.raw(true);
    let mut extensions = Extensions::default();
    for entry in entries {
        let mut entry = entry.map_err(ReceiveError::Stream)?;
        match entry.header().entry_type() {
            EntryType::XHeader => extensions.read_pax(&mut entry)?,
            EntryType::GNULongName => extensions.name = Some(long_name(&mut entry)?),
            // Defaults for the whole archive, and the goal of a link: nothing that concerns a file.
            EntryType::XGlobalHeader | EntryType::GNULongLink => drop(extension(&mut entry)?),
            _ => {
                let member = member(&entry, std::mem::take(&mut extensions))?;
                visit(&member, &mut entry)?;
            }
        }
    }
    Ok(())
}

impl Extensions {
    fn read_pax(&mut self, entry: &mut Entry<'_, &mut dyn Read>) -> Result<(), ReceiveError> {
        let bytes = extension(entry)?;
        for record in PaxExtensions::new(&bytes) {
            let record = record.map_err(ReceiveError::Stream)?;
            match record.key_bytes() {
                b"path" => self.name = Some(text(record.value_bytes())),
                b"mtime" => self.modified = record.value().ok().and_then(time),
                _ => {}
            }
        }
        Ok(())
    }
}

fn long_name(entry: &mut Entry<'_, &mut dyn Read>) -> Result<String, ReceiveError> {
    let bytes = extension(entry)?;
    Ok(text(
        bytes.split(|byte| *byte == 0).next().unwrap_or_default(),
    ))
}

/// The bytes of an extended header.
fn extension(entry: &mut Entry<'_, &mut dyn Read>) -> Result<Vec<u8>, ReceiveError> {
    let size_bytes = entry.header().entry_size().map_err(ReceiveError::Stream)?;
    if size_bytes > EXTENSION_SIZE_MAX_BYTES {
        let text = format!("an extended header of {size_bytes} bytes");
        let error = io::Error::new(io::ErrorKind::InvalidData, text);
        return Err(ReceiveError::Stream(error));
    }
    read_whole(entry, size_bytes)
}

/// Everything that a small member holds.
pub(super) fn read_whole(source: &mut dyn Read, size_bytes: u64) -> Result<Vec<u8>, ReceiveError> {
    let mut bytes = Vec::new();
    let read = source.take(size_bytes).read_to_end(&mut bytes);
    match read.map_err(ReceiveError::Stream)? as u64 {
        count if count == size_bytes => Ok(bytes),
        _ => Err(ReceiveError::Stream(cut_short())),
    }
}

/// The stream ended where more was promised.
pub(super) fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of data")
}

fn member(
    entry: &Entry<'_, &mut dyn Read>,
    extensions: Extensions,
) -> Result<Member, ReceiveError> {
    let header = entry.header();
    let name = extensions
        .name
        .unwrap_or_else(|| text(&header.path_bytes()));
    let name = printable(name.strip_prefix("./").unwrap_or(&name));
    let is_file = matches!(
        header.entry_type(),
        EntryType::Regular | EntryType::Continuous
    );
    // The oldest tar has no type for directories.
    if !is_file || name.ends_with('/') {
        let kind = header.as_bytes().get(156).copied().unwrap_or_default();
        return Err(ReceiveError::UnsupportedType { kind, name });
    }
    if name.contains('/') {
        return Err(ReceiveError::UnsupportedName { name });
    }
    let in_header = || {
        let seconds = header.mtime().ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    Ok(Member {
        name,
        size_bytes: header.entry_size().map_err(ReceiveError::Stream)?,
        modified: extensions.modified.or_else(in_header),
    })
}

/// A text from the stream as it can stand in a log and on a terminal; that of a WAL file's name is the same.
pub(super) fn printable(text: &str) -> String {
    let end = text.char_indices().nth(PRINTED_SIZE_MAX);
    let printed = end.and_then(|(end, _)| text.get(..end)).unwrap_or(text);
    printable::printable(printed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A time of a pax header: seconds since 1970 with a fraction of any length (pax in POSIX.1-2017).
fn time(text: &str) -> Option<SystemTime> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let since_1970 = Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_fraction() {
        let at = |seconds, nanoseconds| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
        };
        assert_eq!(time("1750000000.123456789"), at(1_750_000_000, 123_456_789));
        assert_eq!(time("1750000000.5"), at(1_750_000_000, 500_000_000));
        assert_eq!(time("1750000000"), at(1_750_000_000, 0));
        for bad in ["", "-1.5", "1.x", "99999999999999999999", "nan"] {
            assert_eq!(time(bad), None, "{bad:?}");
        }
    }
}
