//! What `compression_level` means for each codec.
//!
//! A number is the codec's own number, clamped to the range Barman clamps it to. A word aims at two things at once:
//! never slower and never larger than what Barman does for the same word.
//!
//! Measured with `cargo bench --bench levels` on segments of PostgreSQL 15: a bulk load, index builds, and pgbench with
//! full-page images. "Faster" is Barman's CPU time divided by ours for reading a file, compressing
//! it and writing the result; "size" compares the results. One thread, medians, +-5 %.
//!
//! | codec, word | Barman | here | faster: bulk, index, OLTP | size: bulk, index, OLTP |
//! |---|---|---|---|---|
//! | gzip low | zlib 1 | libdeflate 1 | 1.75, 1.93, 1.33 | -6.1 %, -5.8 %, -6.2 % |
//! | gzip medium | zlib 6 | libdeflate 7, in part 6 | 1.68, 2.2, 1.97 | -0.7 %, -0.2 %, -0.6 % |
//! | gzip high | zlib 9 | libdeflate 9 or 10 | 2.30, 2.11, 3.19 | -2.8 %, -3.7 %, -1.2 % |
//! | bzip2 low | 1 | 1 | 1.11, 1.12, 1.14 | equal |
//! | bzip2 medium | 5 | 5 | 1.07, 1.12, 1.11 | equal |
//! | bzip2 high | 9 | 9 | 1.09, 1.05, 1.13 | equal |
//! | xz low | 1 | tuned | 1.21, 1.67, 1.63 | -1.3 %, -0.0 %, -0.6 % |
//! | xz medium | 3 | tuned | 1.31, 2.79, 1.06 | -11.9 %, -10.9 %, -15.8 % |
//! | xz high | 5 | tuned | 1.69, 1.77, 1.27 | -1.6 %, -0.6 %, -0.2 % |
//! | zstd low | 1 | 1, tuned | 1.04, 1.05, 0.97 | +0.0 %, +0.0 %, -0.3 % |
//! | zstd medium | 4 | 1, tuned | 1.9, 2.1, 1.5 | -2.0 %, -1.9 %, -0.1 % |
//! | zstd high | 9 | 9 | 1.01, 1.04, 1.04 | equal |
//! | lz4 low | 0 | 0 | 1.06, 1.10, 0.98 | -0.0 %, -0.0 %, -0.1 % |
//! | lz4 medium | 6 | 6 | 1.19, 1.15, 1.04 | -0.1 %, -0.0 %, -0.1 % |
//! | lz4 high | 10 | 10 | 1.17, 1.11, 1.10 | -0.0 %, -0.0 %, -0.1 % |
//! | pigz (a command) | 1, 6, 9 | 1, 6, 9 | 0.90 to 1.00 | equal |
//! | snappy | | | 1.08, 1.07, 1.09 | equal |
//!
//! Since then zstd writes a segment in two parts, which costs 0.005 % (bulk) to 0.12 % (OLTP) of the size and no time:
//! see `zstd_parts`.
//!
//! Two differences cost time and are there on purpose. zstd and lz4 files carry a checksum of their content, which
//! Barman's do not: 4 % of the fastest level's time buys that damage is noticed. And pigz gets its
//! input through a pipe.

use xz2::stream::{Check, Filters, LzmaOptions, MatchFinder, Mode, Stream};
use zstd::zstd_safe::CParameter;

use crate::config::{Compression, CompressionLevel};

/// A codec with everything decided that `compression_level` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// gzip by zlib-rs.
    Gzip {
        level: u32,
    },
    /// gzip by libdeflate.
    Deflate(DeflateSetting),
    Bzip2 {
        level: u32,
    },
    Xz(XzSetting),
    Zstd(ZstdSetting),
    Lz4 {
        level: u32,
    },
    Snappy,
    Pigz {
        level: u32,
    },
    Custom,
}

/// How to run libdeflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeflateSetting {
    /// One of libdeflate's levels, 1 to 12.
    Level(i32),
    /// Level 7, but 6 for every second member of what compresses badly (a ratio up to 3, such as index builds): there
    /// 7 takes nearly twice the time, and 6 alone would be 0.1 % larger than zlib at 6.
    Medium,
    /// Level 10 for what compresses badly, 9 for what compresses well. 10 is 4 % smaller and takes the same time for
    /// everything; zlib at 9 takes the more the worse something compresses. So 10 is the faster of the
    /// two up to a ratio of about 5; above, 9 is, and what 10 would gain is little.
    High,
}

/// How to run the xz encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum XzSetting {
    /// One of liblzma's presets.
    Preset(u32),
    /// Made for WAL: see [`XzSetting::stream`].
    Low,
    Medium,
    High,
}

/// How to run the zstd encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZstdSetting {
    /// One of libzstd's levels.
    Level(i32),
    /// Made for WAL: see [`ZstdSetting::parameters`].
    Low,
    Medium,
}

/// The setting for a configured codec, and Barman's sentence about a number out of range.
pub(super) fn resolve(
    compression: Compression,
    level: CompressionLevel,
) -> (Setting, Option<String>) {
    match level {
        CompressionLevel::Low => (word(compression, Words::LOW), None),
        CompressionLevel::Medium => (word(compression, Words::MEDIUM), None),
        CompressionLevel::High => (word(compression, Words::HIGH), None),
        CompressionLevel::Number(wanted) => {
            let Some((min, max)) = range(compression) else {
                return (number(compression, 0), None);
            };
            let used = wanted.clamp(i64::from(min), i64::from(max));
            let notice = (used != wanted).then(|| {
                format!(
                    "Compression level {wanted} out of range for {compression}, using {used} instead"
                )
            });
            let used = i32::try_from(used).unwrap_or(max);
            (number(compression, used), notice)
        }
    }
}

/// What one word stands for.
struct Words {
    deflate: DeflateSetting,
    pigz: u32,
    bzip2: u32,
    xz: XzSetting,
    zstd: ZstdSetting,
    lz4: u32,
}

impl Words {
    const LOW: Words = Words {
        deflate: DeflateSetting::Level(1),
        pigz: 1,
        bzip2: 1,
        xz: XzSetting::Low,
        zstd: ZstdSetting::Low,
        lz4: 0,
    };
    const MEDIUM: Words = Words {
        deflate: DeflateSetting::Medium,
        pigz: 6,
        bzip2: 5,
        xz: XzSetting::Medium,
        zstd: ZstdSetting::Medium,
        lz4: 6,
    };
    const HIGH: Words = Words {
        deflate: DeflateSetting::High,
        pigz: 9,
        bzip2: 9,
        xz: XzSetting::High,
        zstd: ZstdSetting::Level(9),
        lz4: 10,
    };
}

fn word(compression: Compression, words: Words) -> Setting {
    match compression {
        Compression::Gzip | Compression::PyGzip => Setting::Deflate(words.deflate),
        Compression::Pigz => Setting::Pigz { level: words.pigz },
        Compression::Bzip2 | Compression::PyBzip2 => Setting::Bzip2 { level: words.bzip2 },
        Compression::Xz => Setting::Xz(words.xz),
        Compression::Zstd => Setting::Zstd(words.zstd),
        Compression::Lz4 => Setting::Lz4 { level: words.lz4 },
        Compression::Snappy => Setting::Snappy,
        Compression::Custom => Setting::Custom,
    }
}

/// The lowest and the highest number Barman accepts, where there are numbers at all.
fn range(compression: Compression) -> Option<(i32, i32)> {
    match compression {
        Compression::Gzip
        | Compression::PyGzip
        | Compression::Pigz
        | Compression::Bzip2
        | Compression::PyBzip2
        | Compression::Xz => Some((1, 9)),
        Compression::Zstd => Some((-22, 22)),
        Compression::Lz4 => Some((0, 16)),
        Compression::Snappy | Compression::Custom => None,
    }
}

fn number(compression: Compression, number: i32) -> Setting {
    let level = number.unsigned_abs();
    match compression {
        Compression::Gzip | Compression::PyGzip => Setting::Gzip { level },
        Compression::Pigz => Setting::Pigz { level },
        Compression::Bzip2 | Compression::PyBzip2 => Setting::Bzip2 { level },
        Compression::Xz => Setting::Xz(XzSetting::Preset(level)),
        Compression::Zstd => Setting::Zstd(ZstdSetting::Level(number)),
        Compression::Lz4 => Setting::Lz4 { level },
        Compression::Snappy => Setting::Snappy,
        Compression::Custom => Setting::Custom,
    }
}

impl ZstdSetting {
    /// libzstd's parameters.
    ///
    /// Low is level 1 with a window of 2 MiB instead of 512 KiB, a quarter of a percent for full-page images.
    ///
    /// Medium looks for matches from 5 bytes on instead of 7. Short matches are what small updates with full-page
    /// images consist of, which level 1 alone leaves up to 10 % larger. Levels 3 and 4 find them, too, but with a
    /// second search that costs more than it gains on bulk loads, index builds and OLTP alike. A table half the size is
    /// 2 % faster, but leaves OLTP larger than Barman's.
    pub(super) fn parameters(self) -> Vec<CParameter> {
        // 0 is the level's own value.
        let (level, min_match, window_log) = match self {
            ZstdSetting::Level(level) => (level, 0, 0),
            ZstdSetting::Low => (1, 0, 21),
            ZstdSetting::Medium => (1, 5, 21),
        };
        vec![
            CParameter::CompressionLevel(level),
            CParameter::MinMatch(min_match),
            CParameter::WindowLog(window_log),
        ]
    }

    /// Whether the tables are small, so that memory is left for a whole segment.
    pub(super) fn is_light(self) -> bool {
        match self {
            ZstdSetting::Level(level) => level <= 4,
            ZstdSetting::Low | ZstdSetting::Medium => true,
        }
    }
}

impl XzSetting {
    /// An encoder for a source of `source_size_bytes`.
    ///
    /// The words start from Barman's presets 1, 3 and 5 and change three things. WAL pages are aligned to eight bytes
    /// and their literals depend on the byte before, so more position and context bits make the
    /// output smaller. A smaller dictionary fits the processor's cache, which is worth a third of the time.
    /// And for medium, `normal` mode with a short search finds more than the preset's `fast` mode with a
    /// long one. Memory is 5, 5 and 12 MiB instead of 9, 32 and 94.
    ///
    /// No dictionary is larger than the source: the rest of it could not be used, but would be allocated, eleven
    /// times over.
    pub(super) fn stream(self, source_size_bytes: u64) -> Result<Stream, xz2::stream::Error> {
        const KIB: u32 = 1024;
        let (preset, dictionary_size_bytes) = match self {
            XzSetting::Preset(preset) => (preset, preset_dictionary_size_bytes(preset)),
            XzSetting::Low => (1, 512 * KIB),
            XzSetting::Medium => (3, 512 * KIB),
            XzSetting::High => (5, 1024 * KIB),
        };
        let useful_size_bytes = source_size_bytes.next_power_of_two().max(4096);
        let useful_size_bytes = u32::try_from(useful_size_bytes).unwrap_or(u32::MAX);
        let mut options = LzmaOptions::new_preset(preset)?;
        options.dict_size(dictionary_size_bytes.min(useful_size_bytes));
        if !matches!(self, XzSetting::Preset(_)) {
            options.literal_context_bits(4).position_bits(3);
        }
        if self == XzSetting::Medium {
            options
                .mode(Mode::Normal)
                .match_finder(MatchFinder::HashChain4)
                .depth(6)
                .nice_len(32);
        }
        let mut filters = Filters::new();
        filters.lzma2(&options);
        Stream::new_stream_encoder(&filters, Check::Crc64)
    }
}

/// The dictionary sizes in xz's manual, under `-0 ... -9`.
fn preset_dictionary_size_bytes(preset: u32) -> u32 {
    const MIB: u32 = 1024 * 1024;
    match preset {
        0 => MIB / 4,
        1 => MIB,
        2 => 2 * MIB,
        3 | 4 => 4 * MIB,
        5 | 6 => 8 * MIB,
        7 => 16 * MIB,
        8 => 32 * MIB,
        _ => 64 * MIB,
    }
}
