//! Writing past the page cache.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What positions, lengths and addresses of direct writes are multiples of: the most that disks and file systems
/// commonly ask for (`open(2)`, `O_DIRECT`).
const BLOCK_SIZE_BYTES: usize = 4096;

/// How much is collected before it is written, unless the room is filled directly.
const COLLECTED_MAX_BYTES: usize = 1024 * 1024;

/// The size of a room: only what is put there becomes memory.
const ROOM_BYTES: usize = 8 * 1024 * 1024;

/// Memory for direct writes, used again for the next file: fresh memory costs more than what is put into it.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<Vec<Memory>>);

#[derive(Debug)]
struct Memory {
    /// The room, and before it what is left over so that it begins at a multiple of a block's size.
    bytes: Vec<u8>,
    start: usize,
}

/// Goes back when it is dropped.
#[derive(Debug)]
struct Room {
    rooms: Arc<Rooms>,
    memory: Option<Memory>,
}

impl Room {
    fn take(rooms: &Arc<Rooms>) -> Self {
        let idle = rooms.shelf().pop();
        Room {
            rooms: Arc::clone(rooms),
            memory: Some(idle.unwrap_or_else(|| {
                let bytes = vec![0; ROOM_BYTES + BLOCK_SIZE_BYTES];
                let start = bytes.as_ptr().align_offset(BLOCK_SIZE_BYTES);
                Memory {
                    start: start.min(BLOCK_SIZE_BYTES),
                    bytes,
                }
            })),
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let memory = self.memory.as_mut();
        let room = memory.and_then(|memory| {
            let end = memory.start + ROOM_BYTES;
            memory.bytes.get_mut(memory.start..end)
        });
        room.unwrap_or_default()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.rooms.shelf().extend(self.memory.take());
    }
}

impl Rooms {
    fn shelf(&self) -> MutexGuard<'_, Vec<Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a new file from its beginning on without leaving a copy in the page cache.
///
/// What is archived is not read again soon, and the copy costs a tenth of the CPU time of archiving. What fills no
/// block, and everything where the file system cannot do it, is written as usual. Bytes are durable
/// after [`sync_file`](super::sync_file), either way.
#[derive(Debug)]
pub struct DirectWriter {
    file: File,
    rooms: Arc<Rooms>,
    room: Option<Room>,
    collected_bytes: usize,
}

impl DirectWriter {
    /// For an empty file. Memory comes from `rooms` with the first byte.
    pub fn new(file: File, rooms: &Arc<Rooms>) -> Self {
        DirectWriter {
            file,
            rooms: Arc::clone(rooms),
            room: None,
            collected_bytes: 0,
        }
    }

    /// Writes what is left, and returns the file.
    ///
    /// # Errors
    ///
    /// Those of `write(2)`.
    pub fn finish(mut self) -> io::Result<File> {
        self.write_out()?;
        Ok(self.file)
    }

    /// `size_bytes` of memory for what is written next, unless that is more than there is.
    pub fn room(&mut self, size_bytes: usize) -> Option<&mut [u8]> {
        let end = self.collected_bytes.checked_add(size_bytes)?;
        let room = self.room.get_or_insert_with(|| Room::take(&self.rooms));
        room.bytes().get_mut(self.collected_bytes..end)
    }

    /// Takes the first `filled_bytes` of the room as written.
    pub fn fill(&mut self, filled_bytes: usize) {
        self.collected_bytes += filled_bytes;
    }

    fn write_out(&mut self) -> io::Result<()> {
        if let Some(room) = &mut self.room {
            let collected = room.bytes().get(..self.collected_bytes);
            let collected = collected.ok_or(io::ErrorKind::InvalidInput)?;
            let blocks_bytes = collected.len() / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES;
            let (blocks, tail) = collected.split_at(blocks_bytes);
            write_blocks(&self.file, blocks)?;
            self.file.write_all(tail)?;
        }
        self.collected_bytes = 0;
        Ok(())
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.collected_bytes >= COLLECTED_MAX_BYTES {
            self.write_out()?;
        }
        let count = bytes.len().min(COLLECTED_MAX_BYTES - self.collected_bytes);
        let (wanted, _) = bytes.split_at(count);
        let room = self.room(count).ok_or(io::ErrorKind::OutOfMemory)?;
        room.copy_from_slice(wanted);
        self.fill(count);
        Ok(count)
    }

    /// Does nothing: a direct write of half a block is not possible.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_blocks(mut file: &File, mut blocks: &[u8]) -> io::Result<()> {
    if !blocks.is_empty() && set_direct(file, true) {
        while !blocks.is_empty() {
            match file.write(blocks) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => blocks = blocks.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The file system wants larger blocks, or the last write ended inside of one.
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => break,
                Err(error) => return Err(error),
            }
        }
        set_direct(file, false);
    }
    file.write_all(blocks)
}

/// Says whether the file system knows such writes.
fn set_direct(file: &File, is_direct: bool) -> bool {
    let flags = match is_direct {
        true => OFlag::O_DIRECT,
        false => OFlag::empty(),
    };
    fcntl(file, FcntlArg::F_SETFL(flags)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use tempfile::TempDir;

    use super::*;

    fn content(size_bytes: usize) -> Vec<u8> {
        (0..size_bytes).map(|index| (index % 251) as u8).collect()
    }

    fn write_in_pieces(file: File, content: &[u8], piece_bytes: usize) -> File {
        let mut writer = DirectWriter::new(file, &Arc::default());
        for piece in content.chunks(piece_bytes) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn files_of_any_size_are_what_was_written() {
        let folder = TempDir::new().unwrap();
        let sizes = [
            0,
            1,
            BLOCK_SIZE_BYTES - 1,
            BLOCK_SIZE_BYTES,
            BLOCK_SIZE_BYTES + 1,
            COLLECTED_MAX_BYTES,
            COLLECTED_MAX_BYTES + 1,
            2 * COLLECTED_MAX_BYTES + 3 * BLOCK_SIZE_BYTES + 5,
        ];
        for size_bytes in sizes {
            let path = folder.path().join(size_bytes.to_string());
            let content = content(size_bytes);
            for piece_bytes in [1021 * 1021, 3 * COLLECTED_MAX_BYTES] {
                let file = File::create(&path).unwrap();
                write_in_pieces(file, &content, piece_bytes);
                assert!(fs::read(&path).unwrap() == content, "{size_bytes}");
            }
        }
    }

    #[test]
    fn what_is_put_into_the_room_is_written_between_the_rest() {
        let folder = TempDir::new().unwrap();
        let rooms = Arc::default();
        let sizes = [3, BLOCK_SIZE_BYTES, COLLECTED_MAX_BYTES + 5, ROOM_BYTES];
        for size_bytes in sizes {
            let path = folder.path().join(size_bytes.to_string());
            let content = content(size_bytes);
            let mut writer = DirectWriter::new(File::create(&path).unwrap(), &rooms);
            assert!(writer.room(ROOM_BYTES + 1).is_none());
            let room = writer.room(ROOM_BYTES).unwrap();
            room[..size_bytes].copy_from_slice(&content);
            writer.fill(size_bytes);
            writer.write_all(b"behind").unwrap();
            assert!(writer.room(ROOM_BYTES).is_none(), "it is not all free");
            let room = writer.room(4).unwrap();
            room.copy_from_slice(b"last");
            writer.fill(4);
            writer.finish().unwrap();
            let expected = [&content[..], b"behindlast"].concat();
            assert!(fs::read(&path).unwrap() == expected, "{size_bytes}");
        }
        assert_eq!(rooms.shelf().len(), 1, "the memory is used again");
    }

    /// A socket is no file, but refuses direct writes as such a file system does.
    #[test]
    fn where_direct_writes_are_unknown_bytes_are_written_as_usual() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let content = content(BLOCK_SIZE_BYTES + 7);
        let file = File::from(OwnedFd::from(writer));
        assert!(!set_direct(&file, true));
        drop(write_in_pieces(file, &content, 100));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == content);
    }

    #[test]
    fn writing_goes_on_where_a_short_write_ended_inside_a_block() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"seven b").unwrap();
        let content = content(3 * BLOCK_SIZE_BYTES + 1);
        write_in_pieces(file, &content, COLLECTED_MAX_BYTES);
        assert!(fs::read(&path).unwrap()[7..] == content);
    }
}
