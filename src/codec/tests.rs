//! Properties every codec has to have, and what each format notices when its bytes are harmed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;

use super::*;
use crate::config::CompressionLevel;

mod zstd_frames;

const IN_PROCESS: [Compression; 8] = [
    Compression::Gzip,
    Compression::PyGzip,
    Compression::Bzip2,
    Compression::PyBzip2,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4,
    Compression::Snappy,
];

const WORDS: [CompressionLevel; 3] = [
    CompressionLevel::Low,
    CompressionLevel::Medium,
    CompressionLevel::High,
];

fn options(compression: Compression, level: CompressionLevel) -> CodecOptions {
    CodecOptions {
        compression: Some(compression),
        compression_level: level,
        ..CodecOptions::default()
    }
}

fn custom(compress: &str, decompress: &str) -> CodecOptions {
    CodecOptions {
        compression: Some(Compression::Custom),
        custom_compression_filter: Some(compress.to_owned()),
        custom_decompression_filter: Some(decompress.to_owned()),
        ..CodecOptions::default()
    }
}

fn encode(options: &CodecOptions, content: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut stored = Vec::new();
    Encoder::with_options(options)?.encode(
        &mut &content[..],
        content.len() as u64,
        None,
        &mut stored,
    )?;
    Ok(stored)
}

fn decode(options: &CodecOptions, stored: &[u8]) -> Result<Vec<u8>, CodecError> {
    let encoding = Encoding {
        compression: options.compression,
        encryption: options.encryption,
    };
    let stored = Box::new(Cursor::new(stored.to_vec()));
    let mut reader = Decoder::with_options(options.clone()).decode(stored, &encoding)?;
    let mut content = Vec::new();
    reader
        .read_to_end(&mut content)
        .map_err(CodecError::from_read)?;
    Ok(content)
}

/// Bytes of a fixed pseudo-random sequence (xorshift64*).
fn noise(size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

/// Something that compresses like WAL: 8 KiB pages with headers, repeated and random parts, a zero tail.
/// The first page states a segment size of `size_bytes` when that is a valid one.
fn wal_like(size_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_bytes + 8192);
    let random = noise(size_bytes / 8 + 8192, 7);
    for page in 0..size_bytes.div_ceil(8192) {
        let info: u8 = if page == 0 { 2 } else { 0 };
        let start = bytes.len();
        bytes.extend_from_slice(&[0x10, 0xD1, info, 0, 1, 0, 0, 0]);
        bytes.extend_from_slice(&(page as u64 * 8192).to_le_bytes());
        bytes.resize(start + 32, 0);
        bytes.extend_from_slice(&(size_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&8192_u32.to_le_bytes());
        while bytes.len() < start + 8192 && page * 8192 < size_bytes / 4 * 3 {
            let at = (bytes.len() * 7 / 64) % (random.len() - 64);
            bytes.extend_from_slice(&random[at..at + 12]);
            bytes.extend_from_slice(b"\0\0\0\0heap insert off\0\0\x01\x02");
        }
        bytes.resize(start + 8192, 0);
    }
    bytes.truncate(size_bytes);
    bytes
}

fn contents() -> Vec<Vec<u8>> {
    let mut contents = vec![Vec::new(), vec![b'x']];
    for size_bytes in [8192, 65536, 1 << 20, (1 << 20) + 1] {
        contents.push(noise(size_bytes, size_bytes as u64));
        contents.push(wal_like(size_bytes));
    }
    contents.push(wal_like(3 << 20));
    contents
}

#[test]
fn every_codec_gives_back_what_it_got() {
    for compression in IN_PROCESS {
        for level in WORDS {
            let options = options(compression, level);
            for content in contents() {
                let stored = encode(&options, &content).unwrap();
                let size_bytes = content.len();
                assert!(
                    decode(&options, &stored).unwrap() == content,
                    "{compression} {level:?}, {size_bytes} bytes"
                );
            }
        }
    }
}

#[test]
fn every_number_in_and_out_of_range_works() {
    let content = wal_like(200_000);
    for compression in IN_PROCESS {
        for number in [-100, -22, -1, 0, 1, 2, 3, 9, 12, 16, 19, 22, i64::MAX] {
            let options = options(compression, CompressionLevel::Number(number));
            let stored = encode(&options, &content).unwrap();
            assert!(
                decode(&options, &stored).unwrap() == content,
                "{compression} {number}"
            );
        }
    }
}

#[test]
fn equal_sources_give_equal_files() {
    let content = wal_like(300_000);
    for compression in IN_PROCESS {
        let encoder =
            Encoder::with_options(&options(compression, CompressionLevel::Medium)).unwrap();
        let run = || {
            let mut stored = Vec::new();
            let size_bytes = content.len() as u64;
            encoder
                .encode(&mut &content[..], size_bytes, None, &mut stored)
                .unwrap();
            stored
        };
        let first = run();
        // The second run reuses buffers and contexts of the first.
        assert!(first == run(), "{compression}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let segment = wal_like(1 << 20);
    for compression in IN_PROCESS {
        let options = options(compression, CompressionLevel::Low);
        for content in [
            Vec::new(),
            vec![b'x'; 40],
            noise(150_000, 3),
            segment.clone(),
        ] {
            let stored = encode(&options, &content).unwrap();
            let tail = stored.len().saturating_sub(40)..stored.len();
            let spread = (0..stored.len()).step_by(stored.len() / 60 + 1);
            for kept_bytes in (0..40.min(stored.len())).chain(spread).chain(tail) {
                let is_chunk_boundary = compression == Compression::Snappy
                    && content.len() == 150_000
                    && snappy_chunk_ends(&stored).contains(&kept_bytes);
                let result = decode(&options, &stored[..kept_bytes]);
                let total_bytes = stored.len();
                assert!(
                    matches!(result, Err(CodecError::Damaged { .. })) || is_chunk_boundary,
                    "{compression}: {kept_bytes} of {total_bytes} bytes gave {:?}",
                    result.map(|content| content.len())
                );
            }
        }
    }
}

/// Where the chunks of a Snappy stream end; all but the first end a valid stream, too.
fn snappy_chunk_ends(stored: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < stored.len() {
        let size = u32::from_le_bytes([stored[at + 1], stored[at + 2], stored[at + 3], 0]);
        at += 4 + size as usize;
        ends.push(at);
    }
    ends.remove(0);
    ends
}

#[test]
fn a_snappy_segment_cut_between_chunks_is_an_error() {
    let options = options(Compression::Snappy, CompressionLevel::Medium);
    let stored = encode(&options, &wal_like(1 << 20)).unwrap();
    let ends = snappy_chunk_ends(&stored);
    assert_eq!(ends.len(), 16);
    for &kept_bytes in &ends[..15] {
        let error = decode(&options, &stored[..kept_bytes]).unwrap_err();
        assert!(error.is_damage(), "{error}");
    }
    decode(&options, &stored).unwrap();
}

#[test]
fn a_gzip_segment_cut_between_members_is_an_error() {
    let options = options(Compression::Gzip, CompressionLevel::Low);
    let stored = encode(&options, &wal_like(16 << 20)).unwrap();
    let second_member = 1 + stored[1..]
        .windows(4)
        .rposition(|bytes| bytes == b"\x1f\x8b\x08\0")
        .unwrap();
    let error = decode(&options, &stored[..second_member]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("8388608 bytes of a WAL segment of 16777216"),
        "{error}"
    );
    decode(&options, &stored).unwrap();
}

#[test]
fn an_altered_byte_is_an_error() {
    for content in [noise(100_000, 9), wal_like(300_000)] {
        for compression in IN_PROCESS {
            let options = options(compression, CompressionLevel::Medium);
            let stored = encode(&options, &content).unwrap();
            for at in (0..stored.len()).step_by(stored.len() / 120 + 1) {
                let mut harmed = stored.clone();
                harmed[at] ^= 0x10;
                // Some header bits carry nothing: a flip there may be harmless, but never gives other content.
                match decode(&options, &harmed) {
                    Ok(result) => assert!(result == content, "{compression}: byte {at}"),
                    Err(error) => assert!(error.is_damage(), "{compression}: byte {at}: {error}"),
                }
            }
        }
    }
}

#[test]
fn garbage_behind_the_end_is_an_error() {
    for compression in IN_PROCESS {
        let options = options(compression, CompressionLevel::Low);
        let stored = encode(&options, &wal_like(100_000)).unwrap();
        for garbage in [&b"\0"[..], b"x", b"garbage behind the end", &[0; 513]] {
            let longer = [&stored[..], garbage].concat();
            let error = decode(&options, &longer).unwrap_err();
            let length = garbage.len();
            assert!(error.is_damage(), "{compression}, {length} bytes: {error}");
        }
    }
}

#[test]
fn files_one_after_the_other_are_read_as_one() {
    let (first, second) = (wal_like(100_000), noise(70_000, 4));
    for compression in IN_PROCESS {
        let options = options(compression, CompressionLevel::Low);
        let both = [
            encode(&options, &first).unwrap(),
            encode(&options, &second).unwrap(),
        ];
        let content = decode(&options, &both.concat()).unwrap();
        assert!(
            content == [&first[..], &second[..]].concat(),
            "{compression}"
        );
    }
}

#[test]
fn skippable_lz4_frames_are_skipped() {
    let options = options(Compression::Lz4, CompressionLevel::Low);
    let stored = encode(&options, b"content").unwrap();
    let skippable = b"\x5A\x2A\x4D\x18\x05\0\0\0skip!";
    let around = [&skippable[..], &stored, skippable].concat();
    assert_eq!(decode(&options, &around).unwrap(), b"content");
    assert!(decode(&options, &around[..around.len() - 1]).is_err());
}

#[test]
fn foreign_bytes_are_damage_for_every_codec() {
    for compression in IN_PROCESS {
        let options = options(compression, CompressionLevel::Low);
        for stored in [&b""[..], b"x", &wal_like(8192), &noise(5000, 5)] {
            let error = decode(&options, stored).unwrap_err();
            assert!(error.is_damage(), "{compression}: {error}");
        }
    }
}

/// Gives its bytes in small pieces, with interruptions, then `errno` instead of an end.
struct FailingReader(Vec<u8>, usize, i32);

impl Read for FailingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.0.is_empty() {
            return Err(io::Error::from_raw_os_error(self.2));
        }
        let count = buffer.len().min(self.0.len()).min(7000);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}

/// Takes `0` bytes, then fails with `1`.
struct FailingWriter(usize, i32);

impl Write for FailingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        match count {
            0 if !bytes.is_empty() => Err(io::Error::from_raw_os_error(self.1)),
            _ => Ok(count),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn all_ways() -> Vec<CodecOptions> {
    let mut ways: Vec<_> = IN_PROCESS
        .map(|compression| options(compression, CompressionLevel::Low))
        .to_vec();
    ways.push(CodecOptions::default());
    ways.push(custom("cat", "cat"));
    ways
}

#[test]
fn a_read_error_arrives_as_it_was_and_leaves_no_complete_file() {
    for options in all_ways() {
        let mut stored = Vec::new();
        let mut source = FailingReader(noise(3_000_000, 1), 0, EIO);
        let encoder = Encoder::with_options(&options).unwrap();
        let error = encoder.encode(&mut source, 16 << 20, None, &mut stored);
        match error.unwrap_err() {
            CodecError::ReadSource(error) => assert_eq!(error.raw_os_error(), Some(EIO)),
            other => panic!("{options:?}: {other:?}"),
        }
        // Without compression there is no form that could be complete or not.
        let has_form = IN_PROCESS.contains(&options.compression.unwrap_or(Compression::Custom));
        if has_form && options.compression != Some(Compression::Snappy) {
            assert!(decode(&options, &stored).is_err(), "{options:?}");
        }
    }
}

#[test]
fn a_write_error_arrives_as_it_was() {
    for options in all_ways() {
        for room_bytes in [0, 5, 100_000] {
            let content = noise(3_000_000, 1);
            let mut sink = FailingWriter(room_bytes, ENOSPC);
            let encoder = Encoder::with_options(&options).unwrap();
            let error = encoder.encode(&mut &content[..], 3_000_000, None, &mut sink);
            match error.unwrap_err() {
                CodecError::WriteSink(error) => assert_eq!(error.raw_os_error(), Some(ENOSPC)),
                other => panic!("{options:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_full_disk_at_the_last_byte_is_not_lost() {
    for compression in IN_PROCESS {
        let options = options(compression, CompressionLevel::Low);
        let content = wal_like(100_000);
        let stored_bytes = encode(&options, &content).unwrap().len();
        let mut sink = FailingWriter(stored_bytes - 1, ENOSPC);
        let encoder = Encoder::with_options(&options).unwrap();
        let error = encoder.encode(&mut &content[..], 100_000, None, &mut sink);
        assert!(
            matches!(error.unwrap_err(), CodecError::WriteSink(_)),
            "{compression}"
        );
    }
}

#[test]
fn an_encoder_goes_on_after_a_failed_file() {
    let content = wal_like(3_000_000);
    for options in all_ways() {
        let encoder = Encoder::with_options(&options).unwrap();
        let mut source = FailingReader(noise(3_000_000, 1), 0, EIO);
        encoder
            .encode(&mut source, 16 << 20, None, &mut Vec::new())
            .unwrap_err();
        encoder
            .encode(
                &mut &content[..],
                3_000_000,
                None,
                &mut FailingWriter(50, ENOSPC),
            )
            .unwrap_err();
        let mut stored = Vec::new();
        encoder
            .encode(&mut &content[..], 3_000_000, None, &mut stored)
            .unwrap();
        assert!(decode(&options, &stored).unwrap() == content, "{options:?}");
    }
}

#[test]
fn many_threads_share_an_encoder() {
    let contents = [wal_like(3_000_000), noise(9_000_000, 6), wal_like(1 << 20)];
    for compression in [Compression::Zstd, Compression::Gzip] {
        let options = options(compression, CompressionLevel::Medium);
        let encoder = Encoder::with_options(&options).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..6 {
                let content = &contents[worker % 3];
                let (encoder, options) = (&encoder, &options);
                scope.spawn(move || {
                    for _ in 0..3 {
                        let mut stored = Vec::new();
                        let size_bytes = content.len() as u64;
                        encoder
                            .encode(&mut &content[..], size_bytes, None, &mut stored)
                            .unwrap();
                        assert!(decode(options, &stored).unwrap() == *content);
                    }
                });
            }
        });
    }
}

#[test]
fn a_read_error_while_decoding_arrives_as_it_was() {
    for options in all_ways() {
        let mut stored = encode(&options, &noise(1_000_000, 2)).unwrap();
        stored.truncate(500_000);
        let reader = Box::new(FailingReader(stored, 0, EIO));
        let encoding = Encoding {
            compression: options.compression,
            encryption: None,
        };
        let mut clear = Decoder::with_options(options.clone())
            .decode(reader, &encoding)
            .unwrap();
        // An identity hands the reader through, interruptions included; `read_to_end` takes them.
        let error = clear.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO), "{options:?}");
        assert!(matches!(
            CodecError::from_read(error),
            CodecError::ReadSource(_)
        ));
    }
}

#[test]
fn a_source_of_another_size_is_an_error() {
    for options in all_ways() {
        for announced_bytes in [0, 99_999, 100_001, 3 << 20] {
            let content = wal_like(100_000);
            let encoder = Encoder::with_options(&options).unwrap();
            let result = encoder.encode(&mut &content[..], announced_bytes, None, &mut Vec::new());
            assert!(
                matches!(result, Err(CodecError::SourceSize { .. })),
                "{options:?} {announced_bytes}: {result:?}"
            );
        }
    }
}

#[test]
fn what_is_compressed_already_is_stored_as_it_is() {
    let encoder =
        Encoder::with_options(&options(Compression::Zstd, CompressionLevel::Low)).unwrap();
    let mut stored = Vec::new();
    let encoding = encoder
        .encode(
            &mut &b"as it is"[..],
            8,
            Some(Compression::Gzip),
            &mut stored,
        )
        .unwrap();
    assert_eq!(stored, b"as it is");
    assert_eq!(encoding.compression, Some(Compression::Gzip));
    assert!(encoder.is_identity(Some(Compression::Gzip)));
    assert!(!encoder.is_identity(None));
    let plain = Encoder::with_options(&CodecOptions::default()).unwrap();
    assert!(plain.is_identity(None));
    assert_eq!(plain.encoding(None), Encoding::default());
}

#[test]
fn a_pipeline_is_a_filter_like_any_other() {
    let options = custom("tr a-m n-z | tr n-z A-M", "cat | tr A-M a-m");
    let content = b"abc".repeat(500_000);
    let stored = encode(&options, &content).unwrap();
    assert!(stored == b"ABC".repeat(500_000));
    assert!(decode(&options, &stored).unwrap() == content);
}

#[test]
fn a_failing_filter_is_an_error_with_its_own_words() {
    for (filter, words) in [
        ("echo no luck >&2; exit 3", "exited with status 3: no luck"),
        ("cat; echo late >&2; exit 1", "exited with status 1: late"),
        ("kill -9 $$", "was killed by signal 9"),
        ("exit 0", "ended before it had read all of its input"),
        ("cat > /dev/null", "wrote nothing to its standard output"),
        ("no-such-command-here", "exited with status 127"),
    ] {
        let options = custom(filter, "cat");
        let error = encode(&options, &wal_like(4 << 20)).unwrap_err();
        assert!(
            matches!(error, CodecError::CommandFailed { .. }),
            "{filter}: {error:?}"
        );
        assert!(error.to_string().contains(words), "{filter}: {error}");
    }
}

#[test]
fn a_failing_decompression_filter_never_looks_like_the_end() {
    for (filter, words) in [
        ("head -c 1000; exit 3", "exited with status 3"),
        ("cat; echo late >&2; exit 1", "exited with status 1: late"),
        ("kill -9 $$", "was killed by signal 9"),
        ("cat > /dev/null", "wrote nothing to its standard output"),
    ] {
        let error = decode(&custom("cat", filter), &wal_like(4 << 20)).unwrap_err();
        assert!(
            matches!(error, CodecError::CommandFailed { .. }),
            "{filter}: {error:?}"
        );
        assert!(error.to_string().contains(words), "{filter}: {error}");
    }
}

#[test]
fn a_filter_that_talks_a_lot_does_not_block() {
    let chatter = "i=0; while [ $i -lt 3000 ]; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; i=$((i+1)); done; cat";
    let content = noise(5_000_000, 8);
    let stored = encode(&custom(chatter, "cat"), &content).unwrap();
    assert!(stored == content);
    assert!(decode(&custom("cat", chatter), &content).unwrap() == content);
}

#[test]
fn a_decoder_that_is_dropped_early_ends_its_command() {
    let options = custom("cat", "sleep 1000 | sleep 1000");
    let encoding = Encoding {
        compression: Some(Compression::Custom),
        encryption: None,
    };
    let started = std::time::Instant::now();
    let reader = Decoder::with_options(options)
        .decode(Box::new(io::repeat(1)), &encoding)
        .unwrap();
    drop(reader);
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    let refused = |options: &CodecOptions| match Encoder::with_options(options) {
        Err(error @ CodecError::Configuration { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let mut options = custom("cat", "cat");
    options.custom_compression_filter = None;
    assert!(refused(&options).contains("custom_compression_filter is not set\nHINT: "));
    let mut options = custom("cat", "cat");
    options.custom_decompression_filter = Some(" ".to_owned());
    assert!(refused(&options).contains("custom_decompression_filter is not set\nHINT: "));
    let options = CodecOptions {
        encryption: Some(Encryption::Gpg),
        ..CodecOptions::default()
    };
    assert!(refused(&options).contains("encryption_key_id is not set\nHINT: "));
}

#[test]
fn a_program_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("pigz");
    std::fs::write(&script, "not executable").unwrap();
    let mut options = options(Compression::Pigz, CompressionLevel::Number(77));
    options.path_prefix = Some(directory.path().to_str().unwrap().to_owned());
    let encoder = Encoder::with_options(&options).unwrap();
    assert_eq!(
        encoder.level_notice(),
        Some("Compression level 77 out of range for pigz, using 9 instead")
    );
    std::fs::write(&script, "#!/bin/sh\necho \"$@\"; exec cat").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let stored = encode(&options, b"content").unwrap();
    assert_eq!(stored, b"-c -9\ncontent");
}

#[test]
fn passphrase_command_failures_do_not_repeat_what_it_wrote() {
    for (line, reason) in [
        (
            "echo secret; echo secret >&2; exit 4",
            "exited with status 4",
        ),
        ("true", "wrote an empty passphrase"),
        ("echo", "wrote an empty passphrase"),
        ("yes secret", "exited with status"),
    ] {
        let options = CodecOptions {
            encryption: Some(Encryption::Gpg),
            encryption_passphrase_command: Some(line.to_owned()),
            ..CodecOptions::default()
        };
        let error = decode(&options, b"x").unwrap_err();
        assert!(
            matches!(error, CodecError::PassphraseCommand { .. }),
            "{error:?}"
        );
        let message = format!("{error} {error:?}");
        assert!(!message.contains("secret"), "{message}");
        if line != "yes secret" {
            assert!(message.contains(reason), "{message}");
        }
    }
}

#[test]
fn a_raw_wal_page_is_never_taken_for_anything_else() {
    let random = noise(1 << 20, 11);
    for magic_high in [0xD0, 0xD1] {
        for magic_low in 0..=255_u8 {
            for info in 0..16_u8 {
                let at = (usize::from(magic_low) * 16 + usize::from(info)) * 64;
                let rest = &random[at..at + 60];
                let little = [&[magic_low, magic_high, info, 0], rest].concat();
                let big = [&[magic_high, magic_low, 0, info], rest].concat();
                for page in [little, big] {
                    assert!(!is_encrypted(&page), "{page:x?}");
                    assert_eq!(identify_compression(&page, None), None, "{page:x?}");
                }
            }
        }
    }
}

#[test]
fn compressed_files_are_not_taken_for_encrypted_ones() {
    for compression in IN_PROCESS {
        for content in contents() {
            let stored = encode(&options(compression, CompressionLevel::Low), &content).unwrap();
            let head = &stored[..stored.len().min(HEAD_SIZE_BYTES)];
            assert!(!is_encrypted(head), "{compression}");
            let identified = identify_compression(head, None).unwrap();
            assert!(
                compression.name().ends_with(identified.name()),
                "{compression}"
            );
        }
    }
}

#[test]
fn what_to_try_follows_the_configuration() {
    use Compression::{Custom, Gzip};
    let gzip = b"\x1f\x8b\x08\0";
    let page = wal_like(8192);
    let try_for = |options: &CodecOptions, head: &[u8]| {
        Decoder::with_options(options.clone()).compressions_to_try(head)
    };
    let plain = CodecOptions::default();
    assert_eq!(try_for(&plain, gzip), [Some(Gzip)]);
    assert_eq!(try_for(&plain, b"anything"), [None]);
    let mut options = custom("cat", "cat");
    assert_eq!(try_for(&options, gzip), [Some(Custom), Some(Gzip)]);
    assert_eq!(try_for(&options, b"anything"), [Some(Custom)]);
    assert_eq!(try_for(&options, &page), [None]);
    options.custom_compression_magic = Some(b"any".to_vec());
    assert_eq!(try_for(&options, b"anything"), [Some(Custom)]);
    assert_eq!(try_for(&options, b"else"), [None]);
    // The magic counts while the codec is configured, the filter always.
    options.compression = None;
    assert_eq!(try_for(&options, b"anything"), [None]);
    assert_eq!(try_for(&options, gzip), [Some(Custom), Some(Gzip)]);
}

#[test]
fn a_peeked_head_is_put_back() {
    for size_bytes in [0, 10, HEAD_SIZE_BYTES, 100_000] {
        let content = noise(size_bytes, 13);
        let (head, mut whole) = peek_head(Box::new(Cursor::new(content.clone()))).unwrap();
        assert!(head == content[..size_bytes.min(HEAD_SIZE_BYTES)]);
        let mut again = Vec::new();
        whole.read_to_end(&mut again).unwrap();
        assert!(again == content);
    }
}

/// Packet headers as RFC 9580 and gpg write them; the real gpg is asked in the interoperability tests.
#[test]
fn the_first_packet_decides_about_encryption() {
    let key_id = [1, 2, 3, 4, 5, 6, 7, 8];
    let session_key = |header: &[u8], algorithm: u8, bits: u16| {
        [
            header,
            &[3],
            &key_id,
            &[algorithm],
            &bits.to_be_bytes(),
            &[0x5a; 300],
        ]
        .concat()
    };
    for head in [
        session_key(&[0x85, 0x01, 0x0c], 1, 2047),
        session_key(&[0x84, 0x5e], 18, 263),
        session_key(&[0xc1, 0xc0, 0x4c], 1, 2048),
        session_key(&[0xc1, 0x5e], 25, 0),
        b"\xc1\x57\x06\x15\x04aaaaaaaaaaaaaaaaaaaa\x19rest of it".to_vec(),
        b"\x8c\x0d\x04\x09\x03\x0212345678\xffrest of it".to_vec(),
        b"\xc3\x04\x04\x09\x00\x02\xd2".to_vec(),
        b"\xc3\x1d\x06\x1a\x07\x02\x0b\x03\x08salt".to_vec(),
        b"\xd2\xed\x01\x1e\xbc".to_vec(),
        b"\xd2\x2d\x02\x07\x02\x06salt".to_vec(),
        b"\xd4\x4a\x01\x07\x02\x0e".to_vec(),
        [&b"\xc9\xff\0\0\x10\0"[..], &[7; 400]].concat(),
        b"-----BEGIN PGP MESSAGE-----\n\nhQ".to_vec(),
    ] {
        assert!(is_encrypted(&head), "{head:x?}");
    }
    for head in [
        Vec::new(),
        vec![0x85],
        // The number does not fill the packet; no known algorithm; another version; a key, not a message.
        session_key(&[0x85, 0x01, 0x0c], 1, 1024),
        session_key(&[0x84, 0x5e], 99, 263),
        [&[0x84, 0x5e, 2][..], &key_id, &[18, 1, 7, 4]].concat(),
        session_key(&[0x99, 0x01, 0x0c], 1, 2047),
        b"\xa3\x01\xcd".to_vec(),
        b"-----BEGIN PGP SIGNATURE-----".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
    ] {
        assert!(!is_encrypted(&head), "{head:x?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_survive(content in proptest::collection::vec(any::<u8>(), 0..20_000), which in 0..8_usize) {
        let options = options(IN_PROCESS[which], CompressionLevel::Low);
        let stored = encode(&options, &content).unwrap();
        prop_assert!(decode(&options, &stored).unwrap() == content);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(stored in proptest::collection::vec(any::<u8>(), 0..2000), which in 0..8_usize) {
        let options = options(IN_PROCESS[which], CompressionLevel::Low);
        let magic = encode(&options, b"x").unwrap();
        let _ = decode(&options, &stored);
        let _ = decode(&options, &[&magic[..6], &stored].concat());
    }

    #[test]
    fn no_bytes_make_detection_panic(head in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = is_encrypted(&head);
        let _ = identify_compression(&head, Some(&[1, 2]));
    }
}
