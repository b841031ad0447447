//! The size a WAL segment states in its first page: the last resort against files that were cut where their format
//! cannot tell.

/// A cut that leaves well-formed data lies between chunks, members or frames; all writers make them hold a multiple
/// of this. (Snappy framing format, 4.2: no chunk holds more than 64 KiB.)
const CUT_UNIT_BYTES: u64 = 65536;

/// Watches decoded content go by.
#[derive(Default)]
pub(super) struct SegmentSize {
    first_bytes: Vec<u8>,
    content_bytes: u64,
}

impl SegmentSize {
    pub(super) fn watch(&mut self, content: &[u8]) {
        let missing_bytes = LONG_HEADER_SIZE_BYTES.saturating_sub(self.first_bytes.len());
        self.first_bytes.extend(content.iter().take(missing_bytes));
        self.content_bytes += content.len() as u64;
    }

    /// At the end of the content: what is wrong when a WAL segment stops at a place where a cut could lie.
    ///
    /// A segment that was short before it was archived, and by such an amount, is refused with it. PostgreSQL
    /// would not take it either.
    pub(super) fn complaint(&self) -> Option<String> {
        let stated_bytes = stated_segment_size_bytes(&self.first_bytes)?;
        let is_cut =
            self.content_bytes < stated_bytes && self.content_bytes.is_multiple_of(CUT_UNIT_BYTES);
        is_cut.then(|| {
            format!(
                "it has {} bytes of a WAL segment of {stated_bytes}",
                self.content_bytes
            )
        })
    }
}

/// PostgreSQL's `XLogLongPageHeaderData`.
const LONG_HEADER_SIZE_BYTES: usize = 40;

/// `xlp_seg_size` of the long header on a segment's first page, when that is what `content` starts with.
fn stated_segment_size_bytes(content: &[u8]) -> Option<u64> {
    let magic: [u8; 2] = *content.first_chunk()?;
    let info: [u8; 2] = *content.get(2..)?.first_chunk()?;
    let size: [u8; 4] = *content.get(32..)?.first_chunk()?;
    // In the byte order of the server; the high byte of xlp_magic is 0xD0 or 0xD1 in every release.
    let (info, size) = match magic {
        [_, 0xD0 | 0xD1] => (u16::from_le_bytes(info), u32::from_le_bytes(size)),
        [0xD0 | 0xD1, _] => (u16::from_be_bytes(info), u32::from_be_bytes(size)),
        _ => return None,
    };
    const LONG_HEADER: u16 = 0x0002;
    let is_size_valid = size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size);
    (info & LONG_HEADER != 0 && is_size_valid).then_some(u64::from(size))
}
