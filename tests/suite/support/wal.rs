//! WAL files made from nothing: well-formed segments with the page headers that PostgreSQL 15 writes,
//! history files and backup labels. The header writer is the tests' own, so that a mistake in walarch's
//! reader cannot hide here.

/// `XLOG_PAGE_MAGIC` of PostgreSQL 15.
pub const MAGIC_15: u16 = 0xD110;
pub const SYSTEM_ID: u64 = 7_123_456_789_012_345_678;
pub const MIB: u64 = 1 << 20;

const PAGE: usize = 8192;
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
const XLP_LONG_HEADER: u16 = 0x0002;

/// What stands between the page headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filler {
    /// What a segment switch leaves behind: a few records, then zeros.
    Switched,
    /// Compresses about as well as the WAL of a busy database.
    Records,
    /// Does not compress.
    Noise,
}

#[derive(Clone, Debug)]
pub struct Segment {
    pub timeline: u32,
    /// The number of the segment on its timeline: LSN divided by the segment size.
    pub number: u64,
    pub size: u64,
    pub system_id: u64,
    pub magic: u16,
    pub filler: Filler,
    pub seed: u64,
}

impl Segment {
    /// A segment of 1 MiB, the smallest that PostgreSQL knows.
    pub fn small(number: u64) -> Self {
        Self::of_size(MIB, number)
    }

    pub fn of_size(size: u64, number: u64) -> Self {
        assert!(size.is_power_of_two() && (MIB..=1024 * MIB).contains(&size));
        Self {
            timeline: 1,
            number,
            size,
            system_id: SYSTEM_ID,
            magic: MAGIC_15,
            filler: Filler::Records,
            seed: number,
        }
    }

    pub fn timeline(self, timeline: u32) -> Self {
        Self { timeline, ..self }
    }

    pub fn filler(self, filler: Filler) -> Self {
        Self { filler, ..self }
    }

    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    pub fn system_id(self, system_id: u64) -> Self {
        Self { system_id, ..self }
    }

    pub fn magic(self, magic: u16) -> Self {
        Self { magic, ..self }
    }

    pub fn name(&self) -> String {
        let per_log = (1u64 << 32) / self.size;
        let (log, segment) = (self.number / per_log, self.number % per_log);
        format!("{:08X}{log:08X}{segment:08X}", self.timeline)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size).unwrap()];
        self.fill(&mut bytes);
        let start = self.number * self.size;
        for (index, page) in bytes.chunks_exact_mut(PAGE).enumerate() {
            if self.filler == Filler::Switched && index > 2 {
                break;
            }
            let address = start + (index * PAGE) as u64;
            let info = if index == 0 { XLP_LONG_HEADER } else { 0 };
            page[0..2].copy_from_slice(&self.magic.to_le_bytes());
            page[2..4].copy_from_slice(&info.to_le_bytes());
            page[4..8].copy_from_slice(&self.timeline.to_le_bytes());
            page[8..16].copy_from_slice(&address.to_le_bytes());
            page[16..SHORT_HEADER].fill(0); // xlp_rem_len and padding
            if index == 0 {
                page[24..32].copy_from_slice(&self.system_id.to_le_bytes());
                page[32..36].copy_from_slice(&u32::try_from(self.size).unwrap().to_le_bytes());
                page[36..LONG_HEADER].copy_from_slice(&(PAGE as u32).to_le_bytes());
            }
        }
        bytes
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut random = Random(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        match self.filler {
            Filler::Switched => random.fill(&mut bytes[..2 * PAGE]),
            Filler::Noise => random.fill(bytes),
            // A third is noise, the rest repeats: general-purpose codecs shrink it to about 40 %.
            Filler::Records => {
                for record in bytes.chunks_mut(96) {
                    let noise = record.len().min(32);
                    random.fill(&mut record[..noise]);
                    record[noise..].fill(self.seed as u8);
                }
            }
        }
    }
}

/// xorshift64*: the bytes depend on the seed alone, whatever other packages do.
struct Random(u64);

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The content of `0000000N.history`, of a timeline that left its parent at the given address.
pub fn history(timeline: u32) -> (String, Vec<u8>) {
    let lines: String = (1..timeline)
        .map(|parent| {
            format!(
                "{parent}\t0/{:X}\tno recovery target specified\n",
                parent << 24
            )
        })
        .collect();
    (format!("{timeline:08X}.history"), lines.into_bytes())
}

/// A backup label of the segment, as `pg_backup_stop` leaves it in the archive.
pub fn backup_label(segment: &Segment) -> (String, Vec<u8>) {
    let start = segment.number * segment.size + 0x28;
    let lsn = format!("{:X}/{:X}", start >> 32, start & 0xFFFF_FFFF);
    let label = format!(
        "START WAL LOCATION: {lsn} (file {0})\nSTOP WAL LOCATION: {lsn} (file {0})\n\
         CHECKPOINT LOCATION: {lsn}\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
         START TIME: 2026-01-02 03:04:05 UTC\nLABEL: nightly\nSTART TIMELINE: {1}\n\
         STOP TIME: 2026-01-02 03:05:05 UTC\nSTOP TIMELINE: {1}\n",
        segment.name(),
        segment.timeline
    );
    (
        format!("{}.00000028.backup", segment.name()),
        label.into_bytes(),
    )
}
