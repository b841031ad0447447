//! Frames of two parts: what everybody reads of them, and what may not be taken for one.

use zstd::zstd_safe::{CCtx, CParameter};

use super::*;
use crate::codec::zstd_parts::{Seam, SeamSearch};

const SIZE_BYTES: usize = 8 << 20;

fn zstd() -> CodecOptions {
    options(Compression::Zstd, CompressionLevel::Medium)
}

fn has_parts(stored: &[u8]) -> bool {
    SeamSearch::new().find_end(stored).is_some()
}

/// What is decoded in memory, if that succeeds, put together from what was handed out.
fn decode_in_memory(stored: &[u8]) -> Option<Vec<u8>> {
    let mut file = FileInMemory::new(stored, SIZE_BYTES)?;
    let mut taken = vec![0; file.content_bytes()];
    let mut take = |start: usize, bytes: &[u8]| {
        taken[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    };
    let is_good = file.decode(&mut &stored[..], &mut take).unwrap();
    is_good.then_some(taken)
}

#[test]
fn a_segment_becomes_one_frame_of_two_parts() {
    let content = wal_like(SIZE_BYTES);
    for level in [
        CompressionLevel::Low,
        CompressionLevel::Medium,
        CompressionLevel::Number(4),
    ] {
        let options = options(Compression::Zstd, level);
        let stored = encode(&options, &content).unwrap();
        assert!(has_parts(&stored), "{level:?}");
        assert!(decode(&options, &stored).unwrap() == content, "{level:?}");
        assert!(decode_in_memory(&stored).unwrap() == content, "{level:?}");
        let frame_bytes = zstd::zstd_safe::find_frame_compressed_size(&stored);
        assert_eq!(frame_bytes, Ok(stored.len()), "{level:?}");
    }
}

#[test]
fn a_seam_is_found_however_the_frame_is_cut_into_pieces() {
    let stored = encode(&zstd(), &wal_like(SIZE_BYTES)).unwrap();
    let end = SeamSearch::new().find_end(&stored).unwrap();
    for size_bytes in [1, 2, 3, 7, 1000, 65_537] {
        let mut search = SeamSearch::new();
        let mut passed_bytes = 0;
        let found = stored.chunks(size_bytes).find_map(|piece| {
            let found = search.find_end(piece).map(|end| passed_bytes + end);
            passed_bytes += piece.len();
            found
        });
        assert_eq!(found, Some(end), "pieces of {size_bytes} bytes");
    }
}

#[test]
fn content_without_a_seam_becomes_an_ordinary_frame() {
    // 251 bytes over and over: nothing is there twice within 8 bytes.
    let content: Vec<u8> = (0..SIZE_BYTES).map(|at| (at % 251) as u8).collect();
    assert!(Seam::find(&content).is_none());
    let stored = encode(&zstd(), &content).unwrap();
    assert!(!has_parts(&stored));
    assert!(decode(&zstd(), &stored).unwrap() == content);
    assert!(decode_in_memory(&stored).unwrap() == content);
}

#[test]
fn a_small_file_and_one_that_does_not_shrink_become_ordinary_frames() {
    for content in [wal_like(4 << 20), noise(SIZE_BYTES, 5)] {
        let stored = encode(&zstd(), &content).unwrap();
        assert!(!has_parts(&stored));
        assert!(decode(&zstd(), &stored).unwrap() == content);
    }
}

/// It is a frame that everybody can read, only not from its middle.
#[test]
fn what_follows_a_seam_and_refers_to_what_was_before_is_left_to_the_ordinary_way() {
    let content = wal_like(SIZE_BYTES);
    let seam = Seam::find(&content).unwrap();
    let (first, second) = seam.parts(&content);
    let before = &content[..content.len() - second.len()];
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(1),
        CParameter::WindowLog(21),
        CParameter::ContentSizeFlag(true),
    ] {
        context.set_parameter(parameter).unwrap();
    }
    let mut stored = vec![0; SIZE_BYTES];
    let first_bytes = context.compress2(&mut stored[..], first).unwrap();
    let frame_bytes = seam.join(&content, &mut stored, first_bytes, |room| {
        context.ref_prefix(before).unwrap();
        context.compress2(room, second).ok()
    });
    stored.truncate(frame_bytes.unwrap());
    assert!(has_parts(&stored));
    assert!(decode(&zstd(), &stored).unwrap() == content);
    assert!(decode_in_memory(&stored).is_none());
}

/// One header is for both.
#[test]
fn parts_that_look_back_differently_far_are_not_joined() {
    let content = wal_like(SIZE_BYTES);
    let seam = Seam::find(&content).unwrap();
    let (first, second) = seam.parts(&content);
    let join = |window_logs: [u32; 2]| {
        let [mut context, mut other] = window_logs.map(|window_log| {
            let mut context = CCtx::create();
            for parameter in [
                CParameter::WindowLog(window_log),
                CParameter::ContentSizeFlag(true),
            ] {
                context.set_parameter(parameter).unwrap();
            }
            context
        });
        let mut stored = vec![0; SIZE_BYTES];
        let first_bytes = context.compress2(&mut stored[..], first).unwrap();
        seam.join(&content, &mut stored, first_bytes, |room| {
            other.compress2(room, second).ok()
        })
    };
    assert!(join([20, 20]).is_some());
    assert!(join([20, 21]).is_none());
}

#[test]
fn a_segment_that_was_cut_is_left_to_the_ordinary_way() {
    let mut content = wal_like(SIZE_BYTES);
    assert!(decode_in_memory(&encode(&zstd(), &content).unwrap()).is_some());
    // A long header, and the size of the segment that begins with it.
    content[..4].copy_from_slice(&[0x10, 0xD1, 2, 0]);
    content[32..36].copy_from_slice(&(16u32 << 20).to_le_bytes());
    let mut stored = vec![0; SIZE_BYTES];
    let mut context = CCtx::create();
    context
        .set_parameter(CParameter::ChecksumFlag(true))
        .unwrap();
    context.set_parameter(CParameter::WindowLog(20)).unwrap();
    let size_bytes = context.compress2(&mut stored[..], &content).unwrap();
    stored.truncate(size_bytes);
    assert!(decode_in_memory(&stored).is_none());
    assert!(decode(&zstd(), &stored).is_err());
}

#[test]
fn a_content_of_no_bytes_is_left_to_the_ordinary_way() {
    let mut stored = encode(&zstd(), &wal_like(SIZE_BYTES)).unwrap();
    stored[6..10].fill(0);
    assert!(FileInMemory::new(&stored, SIZE_BYTES).is_none());
}

/// Nobody writes such a file; it is one all the same.
#[test]
fn a_file_that_fills_all_its_room_may_go_on_behind_it() {
    let empty_block = [0; 3];
    let padded = |size_bytes: usize| {
        let frame = encode(&zstd(), &wal_like(size_bytes)).unwrap();
        let (header, rest) = frame.split_at(10);
        let missing_bytes = size_bytes + (256 << 10) - frame.len();
        let padding = empty_block.repeat(missing_bytes / empty_block.len());
        missing_bytes
            .is_multiple_of(empty_block.len())
            .then(|| [header, &padding, rest].concat())
    };
    let mut stored = (4 << 20..).find_map(padded).unwrap();
    assert!(decode(&zstd(), &stored).is_ok());
    stored.extend(b"garbage");
    assert!(decode_in_memory(&stored).is_none());
}

#[test]
fn no_harmed_frame_of_two_parts_is_taken_for_a_good_one() {
    let content = wal_like(SIZE_BYTES);
    let stored = encode(&zstd(), &content).unwrap();
    let seam_end = SeamSearch::new().find_end(&stored).unwrap();
    let harms = (0..60).map(|step| stored.len() / 60 * step);
    for at in harms
        .chain(seam_end - 40..seam_end + 3)
        .chain([stored.len() - 1])
    {
        let mut harmed = stored.clone();
        harmed[at] ^= 0x11;
        if let Some(decoded) = decode_in_memory(&harmed) {
            assert!(decoded == content, "byte {at}");
        }
        let cut = &stored[..at];
        assert!(at < 10 || decode_in_memory(cut).is_none(), "cut at {at}");
    }
    for more in [&b"\0"[..], &stored] {
        let longer = [&stored[..], more].concat();
        assert!(
            decode_in_memory(&longer).is_none(),
            "{} bytes more",
            more.len()
        );
    }
}

#[test]
fn a_failure_of_whoever_takes_the_content_ends_the_decoding() {
    let stored = encode(&zstd(), &wal_like(SIZE_BYTES)).unwrap();
    for failing in [0, SIZE_BYTES / 4 * 3] {
        let mut file = FileInMemory::new(&stored, SIZE_BYTES).unwrap();
        let mut take =
            |start: usize, bytes: &[u8]| match (start..start + bytes.len()).contains(&failing) {
                true => Err(io::Error::from(io::ErrorKind::StorageFull)),
                false => Ok(()),
            };
        let error = file.decode(&mut &stored[..], &mut take).unwrap_err();
        assert!(matches!(error, CodecError::WriteSink(_)), "{error}");
    }
}

#[test]
fn what_was_read_is_there_for_another_attempt() {
    let content = wal_like(SIZE_BYTES);
    let mut stored = encode(&zstd(), &content).unwrap();
    let last = stored.len() - 1;
    stored[last] ^= 1;
    let mut file = FileInMemory::new(&stored, SIZE_BYTES).unwrap();
    let mut stream = &stored[..];
    assert!(!file.decode(&mut stream, &mut |_, _| Ok(())).unwrap());
    let mut again = Vec::new();
    file.into_read()
        .chain(stream)
        .read_to_end(&mut again)
        .unwrap();
    assert!(again == stored);
}
