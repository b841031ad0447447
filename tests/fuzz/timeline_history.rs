//! The reader of history files, which come from a server by `TIMELINE_HISTORY`, against what PostgreSQL makes of them.
//!
//! Facts: `readTimeLineHistory` in PostgreSQL's `timeline.c`; what `writeTimeLineHistory` there never writes is refused.

#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the modules under test are taken as they are; only a part of each is used"
)]

#[path = "../../src/wal/mod.rs"]
mod wal;

use libfuzzer_sys::fuzz_target;
use wal::TimelineHistory;

fuzz_target!(|input: &[u8]| {
    let Some((timeline, content)) = input.split_first_chunk() else {
        return;
    };
    let timeline = u32::from_be_bytes(*timeline);
    let read = TimelineHistory::parse(timeline, content)
        .ok()
        .map(|history| {
            assert_eq!(history.timeline, timeline);
            let ancestors = history.ancestors.into_iter();
            ancestors
                .map(|at| (at.timeline, at.end.0))
                .collect::<Vec<_>>()
        });
    assert_eq!(read, ancestors(timeline, content));
});

/// Timelines and where they end; `None` if these bytes are no history of this timeline.
fn ancestors(timeline: u32, content: &[u8]) -> Option<Vec<(u32, u64)>> {
    if content.contains(&0) {
        return None;
    }
    let mut ancestors = Vec::new();
    for line in content.split(|byte| *byte == b'\n') {
        let mut fields = line.split(is_blank).filter(|field| !field.is_empty());
        let Some(first) = fields.next() else {
            continue;
        };
        if first[0] == b'#' {
            continue;
        }
        let parent = decimal(first)?;
        let end = position(fields.next()?)?;
        let follows = ancestors.last().is_none_or(|(last, _)| *last < parent);
        if !follows || parent >= timeline {
            return None;
        }
        ancestors.push((parent, end));
    }
    (!ancestors.is_empty()).then_some(ancestors)
}

/// C's `isspace`.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0B | 0x0C)
}

fn decimal(digits: &[u8]) -> Option<u32> {
    let digits = digits.strip_prefix(b"+").unwrap_or(digits);
    let number = digits.iter().try_fold(0_u32, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u32::from(digit - b'0')),
        _ => None,
    })?;
    (!digits.is_empty()).then_some(number)
}

fn position(text: &[u8]) -> Option<u64> {
    let slash = text.iter().position(|byte| *byte == b'/')?;
    Some(hexadecimal(&text[..slash])? << 32 | hexadecimal(&text[slash + 1..])?)
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    });
    number.filter(|_| (1..=8).contains(&digits.len()))
}
