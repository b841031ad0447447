//! Files that take much memory to decode.

use super::*;

/// A frame that does not say how much is in it, so that a reader must be prepared for the whole window.
fn with_window(log: u32, content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_takes_too_much_memory_is_refused_and_not_called_damaged() {
    let content = wal_like(100_000);
    let read = |decoder: Decoder, log: u32| {
        let stored = Box::new(io::Cursor::new(with_window(log, &content)));
        let encoding = Encoding {
            compression: Some(Compression::Zstd),
            encryption: None,
        };
        let mut clear = Vec::new();
        let mut reader = decoder.decode(stored, &encoding).unwrap();
        match reader.read_to_end(&mut clear) {
            Ok(_) => assert!(clear == content),
            Err(error) => return Err(CodecError::from_read(error)),
        }
        Ok(())
    };
    let usual = || Decoder::with_options(options(Compression::Zstd, CompressionLevel::Medium));
    for (decoder, log) in [(usual(), 27), (usual().sparing(), 25)] {
        read(decoder, log).unwrap();
    }
    for (decoder, log) in [(usual(), 28), (usual().sparing(), 26)] {
        let error = read(decoder, log).unwrap_err();
        assert!(matches!(error, CodecError::Codec { .. }), "{error}");
    }
}

#[test]
fn the_same_holds_for_xz() {
    let content = wal_like(100_000);
    let mut large = xz2::stream::LzmaOptions::new_preset(0).unwrap();
    large.dict_size(64 << 20);
    let mut filters = xz2::stream::Filters::new();
    filters.lzma2(&large);
    let stream =
        xz2::stream::Stream::new_stream_encoder(&filters, xz2::stream::Check::Crc64).unwrap();
    let mut stored = Vec::new();
    xz2::bufread::XzEncoder::new_stream(&content[..], stream)
        .read_to_end(&mut stored)
        .unwrap();
    let encoding = Encoding {
        compression: Some(Compression::Xz),
        encryption: None,
    };
    let read = |decoder: Decoder| {
        let stored = Box::new(io::Cursor::new(stored.clone()));
        let mut clear = Vec::new();
        let mut reader = decoder.decode(stored, &encoding).unwrap();
        reader.read_to_end(&mut clear).map(|_| clear)
    };
    let usual = || Decoder::with_options(options(Compression::Xz, CompressionLevel::Medium));
    assert!(read(usual()).unwrap() == content);
    let error = CodecError::from_read(read(usual().sparing()).unwrap_err());
    assert!(matches!(error, CodecError::Codec { .. }), "{error}");
}
