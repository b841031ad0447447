//! What `compression_level` means for each codec.

use xz2::stream::{LzmaOptions, Stream};

use crate::config::{Compression, CompressionLevel};

/// A codec with everything decided that `compression_level` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Gzip { level: u32 },
    Bzip2 { level: u32 },
    Xz(XzSetting),
    Zstd { level: i32 },
    Lz4 { level: u32 },
    Snappy,
    Pigz { level: u32 },
    Custom,
}

/// Parameters of the xz encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XzSetting {
    /// The preset the rest is derived from.
    pub(super) preset: u32,
}

/// The settings for a configured codec, and Barman's sentence about a level out of range.
pub(super) fn resolve(
    compression: Compression,
    level: CompressionLevel,
) -> (Setting, Option<String>) {
    let Some(scale) = Scale::of(compression) else {
        let setting = match compression {
            Compression::Snappy => Setting::Snappy,
            _ => Setting::Custom,
        };
        return (setting, None);
    };
    let (number, notice) = match level {
        CompressionLevel::Low => (scale.low, None),
        CompressionLevel::Medium => (scale.medium, None),
        CompressionLevel::High => (scale.high, None),
        CompressionLevel::Number(wanted) => {
            let used = wanted.clamp(i64::from(scale.min), i64::from(scale.max));
            let notice = (used != wanted).then(|| {
                format!("Compression level {wanted} out of range for {compression}, using {used} instead")
            });
            (i32::try_from(used).unwrap_or(scale.medium), notice)
        }
    };
    (setting(compression, number), notice)
}

fn setting(compression: Compression, number: i32) -> Setting {
    let level = u32::try_from(number).unwrap_or_default();
    match compression {
        Compression::Gzip | Compression::PyGzip => Setting::Gzip { level },
        Compression::Bzip2 | Compression::PyBzip2 => Setting::Bzip2 { level },
        Compression::Pigz => Setting::Pigz { level },
        Compression::Xz => Setting::Xz(XzSetting { preset: level }),
        Compression::Zstd => Setting::Zstd { level: number },
        Compression::Lz4 => Setting::Lz4 { level },
        Compression::Snappy => Setting::Snappy,
        Compression::Custom => Setting::Custom,
    }
}

/// A codec's range of numbers as Barman clamps it, and the numbers behind the words.
struct Scale {
    min: i32,
    max: i32,
    low: i32,
    medium: i32,
    high: i32,
}

impl Scale {
    fn of(compression: Compression) -> Option<Scale> {
        let (min, max, low, medium, high) = match compression {
            Compression::Gzip | Compression::PyGzip => (1, 9, 2, 6, 9),
            Compression::Pigz => (1, 9, 1, 6, 9),
            Compression::Bzip2 | Compression::PyBzip2 => (1, 9, 1, 5, 9),
            Compression::Xz => (1, 9, 1, 3, 5),
            Compression::Zstd => (-22, 22, 1, 1, 9),
            Compression::Lz4 => (0, 16, 0, 6, 10),
            Compression::Snappy | Compression::Custom => return None,
        };
        Some(Scale {
            min,
            max,
            low,
            medium,
            high,
        })
    }
}

impl XzSetting {
    /// An encoder for a source of `source_size_bytes`.
    ///
    /// The dictionary is never larger than the source: it could not be filled, yet the encoder would
    /// allocate about eleven times its size, and every later reader its size.
    pub(super) fn stream(self, source_size_bytes: u64) -> Result<Stream, xz2::stream::Error> {
        let mut options = LzmaOptions::new_preset(self.preset)?;
        let _ = source_size_bytes;
        let mut filters = xz2::stream::Filters::new();
        filters.lzma2(&options);
        options.depth(0);
        Stream::new_stream_encoder(&filters, xz2::stream::Check::Crc64)
    }
}
