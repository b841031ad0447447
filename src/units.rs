//! Sizes and times in words, as Barman prints them.

use std::time::Duration;

/// The units of [`pretty_size`], each 1024 times the one before.
const SIZE_UNITS: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// A size in the largest unit of which it has at least one: `512 B`, `16.0 MiB`.
pub fn pretty_size(size_bytes: u64) -> String {
    let mut size = size_bytes as f64;
    let mut units = SIZE_UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    match size_bytes {
        0..1024 => format!("{size_bytes} {unit}"),
        _ => format!("{size:.1} {unit}"),
    }
}

/// Reads a size: a number and a unit, such as `10 GiB` (1024 to a step), `500MB` (1000 to a step) or
/// `4096`; a unit in any case.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let invalid = || format!("\"{text}\" is no size, such as 10 GiB or 500MB");
    let text = text.trim();
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    let unit = unit.trim().to_lowercase();
    let (steps, base) = match unit.strip_suffix("ib") {
        Some(prefix) => (prefix, 1024),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000),
    };
    let power = match steps {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    // A bare letter could mean either.
    if power > 0 && !unit.ends_with('b') {
        return Err(invalid());
    }
    number
        .checked_mul(u64::pow(base, power))
        .ok_or_else(|| format!("{text} is too large"))
}

/// A time in all units of which it has at least one: `1 day, 2 hours, 5 seconds`.
pub fn pretty_interval(interval: Duration) -> String {
    let seconds = interval.as_secs();
    if seconds == 0 {
        return "less than one second".to_owned();
    }
    let parts = [
        (seconds / 86_400, "day"),
        (seconds / 3600 % 24, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
    ];
    let words: Vec<String> = parts
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, unit)| match count {
            1 => format!("1 {unit}"),
            _ => format!("{count} {unit}s"),
        })
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_barman_writes_them() {
        for (size_bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (16 << 20, "16.0 MiB"),
            (1536 << 20, "1.5 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(pretty_size(size_bytes), text);
        }
    }

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        for (text, size_bytes) in [
            ("0", 0),
            ("512 B", 512),
            ("500MB", 500_000_000),
            (" 10 GiB ", 10 << 30),
            ("1 tib", 1 << 40),
            ("3kb", 3000),
        ] {
            assert_eq!(parse_size(text), Ok(size_bytes), "{text}");
        }
        for bad in [
            "",
            "GiB",
            "-1 MB",
            "1.5 GB",
            "10 G",
            "1 ib",
            "5 apples",
            "99999999 PiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_read_as_barman_writes_them() {
        for (seconds, text) in [
            (0, "less than one second"),
            (1, "1 second"),
            (61, "1 minute, 1 second"),
            (7200, "2 hours"),
            (2 * 86_400 + 3600 + 2, "2 days, 1 hour, 2 seconds"),
        ] {
            assert_eq!(pretty_interval(Duration::from_secs(seconds)), text);
        }
    }
}
