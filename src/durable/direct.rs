//! Writing past the page cache.

use std::fs::File;
use std::io::{self, Write};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What positions, lengths and addresses of direct writes are multiples of: the most that disks and file systems
/// commonly ask for (`open(2)`, `O_DIRECT`).
const BLOCK_SIZE_BYTES: usize = 4096;

/// How much is collected before it is written: most of a compressed segment.
const ROOM_BYTES: usize = 2 * 1024 * 1024;

/// Writes a new file from its beginning on without leaving a copy in the page cache.
///
/// What is archived is not read again soon, and the copy costs a tenth of the CPU time of archiving. What fills no
/// block, and everything where the file system cannot do it, is written as usual. Bytes are durable
/// after [`sync_file`](super::sync_file), either way.
#[derive(Debug)]
pub struct DirectWriter {
    file: File,
    /// The room, and before it what is left over so that it begins at a multiple of a block's size.
    buffer: Vec<u8>,
    start: usize,
    collected_bytes: usize,
}

impl DirectWriter {
    /// For an empty file.
    pub fn new(file: File) -> Self {
        DirectWriter {
            file,
            buffer: Vec::new(),
            start: 0,
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

    /// The part of the room that is free.
    fn free(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            // Fresh zeroed memory costs nothing until it is used.
            self.buffer = vec![0; ROOM_BYTES + BLOCK_SIZE_BYTES];
            let start = self.buffer.as_ptr().align_offset(BLOCK_SIZE_BYTES);
            self.start = start.min(BLOCK_SIZE_BYTES);
        }
        let free = self.start + self.collected_bytes..self.start + ROOM_BYTES;
        self.buffer.get_mut(free).unwrap_or_default()
    }

    fn write_out(&mut self) -> io::Result<()> {
        let collected = self.start..self.start + self.collected_bytes;
        let collected = self.buffer.get(collected).unwrap_or_default();
        let blocks_bytes = collected.len() / BLOCK_SIZE_BYTES * BLOCK_SIZE_BYTES;
        let (blocks, tail) = collected.split_at(blocks_bytes);
        write_blocks(&self.file, blocks)?;
        self.file.write_all(tail)?;
        self.collected_bytes = 0;
        Ok(())
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.free().is_empty() {
            self.write_out()?;
        }
        let count = (&mut *self.free()).write(bytes)?;
        self.collected_bytes += count;
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
        let mut writer = DirectWriter::new(file);
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
            ROOM_BYTES,
            ROOM_BYTES + 1,
            2 * ROOM_BYTES + 3 * BLOCK_SIZE_BYTES + 5,
        ];
        for size_bytes in sizes {
            let path = folder.path().join(size_bytes.to_string());
            let content = content(size_bytes);
            for piece_bytes in [1021 * 1021, 3 * ROOM_BYTES] {
                let file = File::create(&path).unwrap();
                write_in_pieces(file, &content, piece_bytes);
                assert!(fs::read(&path).unwrap() == content, "{size_bytes}");
            }
        }
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
        write_in_pieces(file, &content, ROOM_BYTES);
        assert!(fs::read(&path).unwrap()[7..] == content);
    }
}
