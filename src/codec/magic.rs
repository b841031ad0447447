//! Tells from the first bytes of a file how it was compressed, with the answers Barman gives.

use crate::config::Compression;

/// How much of a file's beginning [`identify_compression`] and [`is_encrypted`](super::is_encrypted) want to
/// see, in bytes. Less is fine where the file has no more. A `custom_compression_magic` longer than this never matches.
pub const HEAD_SIZE_BYTES: usize = 512;

/// RFC 1952, 2.3.1: ID1, ID2 and the only compression method in use, deflate.
const GZIP: &[u8] = b"\x1f\x8b\x08";
/// The bzip2 signature `BZ` and `h` for Huffman; the block size digit that follows is not looked at.
const BZIP2: &[u8] = b"BZh";
/// The .xz file format, 2.1.1.1: header magic bytes.
const XZ: &[u8] = b"\xfd7zXZ\x00";
/// RFC 8878, 3.1.1: magic number 0xFD2FB528, little-endian.
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// LZ4 frame format: magic number 0x184D2204, little-endian.
const LZ4: &[u8] = b"\x04\x22\x4d\x18";
/// Snappy framing format, 4.1: the stream identifier chunk.
const SNAPPY: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Names the compression of a file that starts with `head`; `None` when no codec's magic is there.
///
/// `custom_magic` is `custom_compression_magic` while `compression = custom`. The order of the questions
/// is that of the names, as in Barman: gzip is never called pigz, and a custom magic goes before
/// everything but bzip2. An empty custom magic matches nothing.
pub fn identify_compression(head: &[u8], custom_magic: Option<&[u8]>) -> Option<Compression> {
    let custom_magic = custom_magic.unwrap_or_default();
    [
        (BZIP2, Compression::Bzip2),
        (custom_magic, Compression::Custom),
        (GZIP, Compression::Gzip),
        (LZ4, Compression::Lz4),
        (SNAPPY, Compression::Snappy),
        (XZ, Compression::Xz),
        (ZSTD, Compression::Zstd),
    ]
    .into_iter()
    .find(|(magic, _)| !magic.is_empty() && head.starts_with(magic))
    .map(|(_, compression)| compression)
}
