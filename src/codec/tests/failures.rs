//! Errors of either end arrive as they were, and leave nothing that looks complete.

use super::*;

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
