//! What zstd's threads and the choice of matches must not change, and what they must.

use std::num::NonZeroUsize;

use zstd::zstd_safe::find_frame_compressed_size;

use super::flow::{Output, Roomless};
use super::*;

fn encode_on(threads: usize, encoder: &Encoder, content: &[u8]) -> Vec<u8> {
    let threads = NonZeroUsize::new(threads).unwrap();
    let (size_bytes, mut stored) = (content.len() as u64, Vec::new());
    encoder
        .encode_on_threads(
            threads,
            &mut &content[..],
            size_bytes,
            None,
            &mut Roomless(&mut stored),
        )
        .unwrap();
    stored
}

/// An output that has room, as files that are staged have.
#[derive(Default)]
struct Roomy {
    stored: Vec<u8>,
    room: Vec<u8>,
}

impl Write for Roomy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stored.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Roomy {
    fn room(&mut self, size_bytes: usize) -> Option<&mut [u8]> {
        self.room.resize(size_bytes, 0xEE);
        Some(&mut self.room)
    }

    fn fill(&mut self, filled_bytes: usize) {
        self.stored.extend(&self.room[..filled_bytes]);
    }
}

fn zstd(level: CompressionLevel) -> CodecOptions {
    options(Compression::Zstd, level)
}

#[test]
fn several_threads_write_one_whole_frame() {
    let levels = WORDS.into_iter().chain([CompressionLevel::Number(3)]);
    for options in levels.map(zstd) {
        let encoder = Encoder::with_options(&options).unwrap();
        for size_bytes in [0, 1, 700_000, 1 << 20, (5 << 20) + 3, 16 << 20] {
            let content = wal_like(size_bytes);
            for threads in [1, 2, 64, 2] {
                let stored = encode_on(threads, &encoder, &content);
                // Readers such as Barman stop at the end of the first frame.
                assert_eq!(find_frame_compressed_size(&stored), Ok(stored.len()));
                assert!(decode(&options, &stored).unwrap() == content);
            }
        }
    }
}

#[test]
fn several_threads_cost_next_to_no_size() {
    let content = wal_like(16 << 20);
    for options in WORDS.map(zstd) {
        let encoder = Encoder::with_options(&options).unwrap();
        let alone = encode_on(1, &encoder, &content).len();
        let together = encode_on(4, &encoder, &content).len();
        assert!(together <= alone + alone / 500, "{together}, not {alone}");
    }
}

#[test]
fn threads_that_lost_their_file_do_not_harm_the_next_one() {
    let options = zstd(CompressionLevel::Medium);
    let encoder = Encoder::with_options(&options).unwrap();
    let content = wal_like(8 << 20);
    let threads = NonZeroUsize::new(2).unwrap();
    for _ in 0..3 {
        let mut cut = &content[..6 << 20];
        encoder
            .encode_on_threads(
                threads,
                &mut cut,
                8 << 20,
                None,
                &mut Roomless(&mut Vec::new()),
            )
            .unwrap_err();
        let stored = encode_on(2, &encoder, &content);
        assert!(decode(&options, &stored).unwrap() == content);
    }
}

/// Words of `word_bytes`, each with a few random bytes behind it: longer matches are not in there.
fn words(word_bytes: usize) -> Vec<u8> {
    let dictionary = noise(64 * word_bytes, 5);
    let mut content = Vec::new();
    for choice in noise(4 << 20, 6).chunks_exact(4) {
        let start = usize::from(choice[0] % 64) * word_bytes;
        content.extend(&dictionary[start..start + word_bytes]);
        content.extend(&choice[1..]);
    }
    content.truncate(4 << 20);
    content
}

#[test]
fn medium_finds_the_short_matches_that_low_does_not_look_for() {
    let stored = |level, content: &[u8]| encode(&zstd(level), content).unwrap();
    let short = words(6);
    let (low, medium) = (
        stored(CompressionLevel::Low, &short),
        stored(CompressionLevel::Medium, &short),
    );
    assert!(medium.len() < low.len() / 10 * 9, "{}", medium.len());
}

#[test]
fn what_a_file_becomes_does_not_depend_on_the_one_before() {
    let options = zstd(CompressionLevel::Medium);
    let encoder = Encoder::with_options(&options).unwrap();
    for content in [words(6), words(16), words(6)] {
        let again = encode_on(1, &encoder, &content);
        assert!(again == encode(&options, &content).unwrap());
    }
}

/// Noise, except where samples are taken.
fn misleading() -> Vec<u8> {
    let mut content = noise(16 << 20, 3);
    for stretch in content.chunks_mut(4 << 20) {
        stretch[..64 << 10].fill(0);
    }
    content
}

/// The same with zeros where the second part of two begins, and with a first part that shrinks enough.
fn misleading_with_a_seam(first_noise_bytes: usize) -> Vec<u8> {
    let mut content = misleading();
    let middle = content.len() / 64 * 35;
    content[first_noise_bytes..middle + 64].fill(0);
    content
}

#[test]
fn content_that_shrinks_less_than_its_samples_is_stored_all_the_same() {
    let options = zstd(CompressionLevel::Medium);
    let whole = wal_like(16 << 20);
    let contents = [
        ("no seam", misleading()),
        (
            "the first part has no room",
            misleading_with_a_seam(17 << 19),
        ),
        (
            "the second part has no room",
            misleading_with_a_seam(2 << 20),
        ),
    ];
    for (what, content) in contents {
        for threads in [1, 2] {
            let encoder = Encoder::with_options(&options).unwrap();
            let stored = encode_on(threads, &encoder, &content);
            assert!(stored.len() > 8 << 20, "{what}");
            assert!(decode(&options, &stored).unwrap() == content, "{what}");
            // The next one has its checksum, and whatever else it always has.
            let next = encode_on(threads, &encoder, &whole);
            assert!(next == encode(&options, &whole).unwrap(), "{what}");
        }
    }
}

#[test]
fn what_there_is_room_for_becomes_what_it_becomes_without() {
    let options = zstd(CompressionLevel::Medium);
    let encoder = Encoder::with_options(&options).unwrap();
    let contents = [
        wal_like(16 << 20),
        noise(16 << 20, 9),
        misleading(),
        wal_like(1 << 20),
        Vec::new(),
    ];
    for content in contents {
        let (threads, size_bytes) = (NonZeroUsize::MIN, content.len() as u64);
        let mut roomy = Roomy::default();
        encoder
            .encode_on_threads(threads, &mut &content[..], size_bytes, None, &mut roomy)
            .unwrap();
        assert!(roomy.stored == encode_on(1, &encoder, &content));
        assert!(decode(&options, &roomy.stored).unwrap() == content);
    }
}
