//! Every codec gives back what it got, and notices when its bytes are harmed.

use super::*;

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

/// It goes piece by piece where another one takes a segment as a whole.
#[test]
fn a_sparing_encoder_writes_what_everybody_reads() {
    let content = wal_like(3_500_000);
    for compression in IN_PROCESS {
        let options = options(compression, CompressionLevel::Medium);
        let encoder = Encoder::with_options(&options).unwrap().sparing();
        let mut stored = Vec::new();
        let size_bytes = content.len() as u64;
        encoder
            .encode(&mut &content[..], size_bytes, None, &mut stored)
            .unwrap();
        assert!(
            decode(&options, &stored).unwrap() == content,
            "{compression}"
        );
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
