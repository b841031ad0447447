//! What the text of an option means, option kind by option kind.
//!
//! The accepted spellings and the sentences about refused ones are Barman 3.19's.

use std::time::Duration;

use serde_json::json;

use super::ini::is_python_space;
use super::server::Compression;

/// The kind of an option: how its text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true|t|yes|1|on` or `false|f|no|0|off`, in any case.
    Bool,
    /// A decimal number.
    Number,
    /// `N hours|days|weeks|months`; a month has 31 days.
    Interval,
    /// The name of a compression, see [`Compression`].
    Compression,
    /// `low`, `medium`, `high` or a number.
    CompressionLevel,
    /// `none` or `gpg`.
    Encryption,
    /// A replication slot: lower-case letters, digits and `_`.
    SlotName,
    /// `manual` or `auto`.
    CreateSlot,
    /// A path, or the URL of a bucket that Barman can use.
    Location,
    /// One of Amazon's two server-side encryptions.
    AwsEncryption,
    /// An option of base backups: accepted, never judged.
    BaseBackup,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Unset.
    None,
    /// A switch.
    Bool(bool),
    /// A number.
    Number(i64),
    /// Text.
    Text(String),
    /// A length of time.
    Interval(Duration),
}

impl Value {
    /// The value as Barman's console prints it.
    pub fn console(&self) -> String {
        match self {
            Value::None => "None".to_owned(),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Interval(interval) => python_timedelta(*interval),
        }
    }

    /// The value as Barman's JSON output has it.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Value::None => serde_json::Value::Null,
            Value::Bool(value) => json!(value),
            Value::Number(number) => json!(number),
            Value::Text(_) | Value::Interval(_) => json!(self.console()),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        *self == Value::Bool(true)
    }

    pub(super) fn number(&self) -> Option<i64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl Kind {
    /// Reads the text of an option: `Ok(None)` means "as if it were not written here".
    ///
    /// # Errors
    ///
    /// The reason as Barman words it, when the text is no value of this kind.
    pub fn parse(self, text: &str) -> Result<Option<Value>, String> {
        match self {
            Kind::Text | Kind::BaseBackup => Ok(Some(Value::Text(text.to_owned()))),
            Kind::Bool => parse_bool(text).map(|value| Some(Value::Bool(value))),
            Kind::Number => parse_number(text).map(|value| Some(Value::Number(value))),
            Kind::Interval => parse_interval(text),
            Kind::Compression => parse_compression(text),
            Kind::CompressionLevel => parse_level(text),
            Kind::Encryption => match text.to_lowercase().as_str() {
                // Barman takes this `none` for "not set here": the value of [barman] then holds.
                "none" => Ok(None),
                "gpg" => Ok(Some(Value::Text("gpg".to_owned()))),
                other => Err(format!(
                    "Invalid encryption value '{other}'. Allowed values are: none, gpg."
                )),
            },
            Kind::SlotName => parse_slot_name(text),
            Kind::CreateSlot => match text.to_lowercase().as_str() {
                known @ ("manual" | "auto") => Ok(Some(Value::Text(known.to_owned()))),
                _ => Err("Invalid value (use 'manual' or 'auto')".to_owned()),
            },
            Kind::Location => {
                if text.contains("://") && !is_cloud_url(text) {
                    return Err("The URL is not compatible with any of the supported \
                                cloud providers"
                        .to_owned());
                }
                Ok(Some(Value::Text(text.to_owned())))
            }
            Kind::AwsEncryption => match text {
                "AES256" | "aws:kms" => Ok(Some(Value::Text(text.to_owned()))),
                _ => Err(format!(
                    "Invalid value '{text}' (must be one in: ['AES256', 'aws:kms'])"
                )),
            },
        }
    }

    /// What may be written, for the reference.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Kind::Text | Kind::BaseBackup => "text",
            Kind::Bool => "on, off",
            Kind::Number => "number",
            Kind::Interval => "N hours, days, weeks or months",
            Kind::Compression => {
                "none, gzip, bzip2, pygzip, pybzip2, pigz, xz, zstd, lz4, snappy, custom"
            }
            Kind::CompressionLevel => "low, medium, high, number",
            Kind::Encryption => "none, gpg",
            Kind::SlotName => "slot name",
            Kind::CreateSlot => "manual, auto",
            Kind::Location => "path or bucket URL",
            Kind::AwsEncryption => "AES256, aws:kms",
        }
    }
}

/// Reads a switch.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "t" | "yes" | "1" | "on" => Ok(true),
        "false" | "f" | "no" | "0" | "off" => Ok(false),
        _ => Err(
            "Invalid boolean representation (must be one in: true|t|yes|1|on | false|f|no|0|off)"
                .to_owned(),
        ),
    }
}

/// Reads what Python's `int()` reads, in ASCII digits; beyond 64 bits the nearest number is taken.
fn parse_number(text: &str) -> Result<i64, String> {
    let invalid = || {
        format!(
            "invalid literal for int() with base 10: {}",
            python_repr(text)
        )
    };
    let trimmed = text.trim_matches(is_python_space);
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    // Single underscores may separate digits.
    let groups_are_digits = digits
        .split('_')
        .all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !groups_are_digits {
        return Err(invalid());
    }
    let sign = if negative { "-" } else { "" };
    let plain = format!("{sign}{}", digits.replace('_', ""));
    Ok(plain
        .parse()
        .unwrap_or(if negative { i64::MIN } else { i64::MAX }))
}

fn parse_interval(text: &str) -> Result<Option<Value>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || format!("Invalid value for a time interval {text}");
    let trimmed = text.trim_matches(is_python_space);
    let (digits, unit) = trimmed.split_once(is_python_space).ok_or_else(invalid)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let unit = unit.trim_matches(is_python_space).to_lowercase();
    let hours = match unit.strip_suffix('s').unwrap_or(&unit) {
        "hour" => 1,
        "day" => 24,
        "week" => 7 * 24,
        "month" => 31 * 24,
        _ => return Err(invalid()),
    };
    let seconds = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(hours * 3600))
        // Python's own limit, 999999999 days.
        .filter(|seconds| *seconds < 1_000_000_000 * 86_400)
        .ok_or("the interval is too long")?;
    Ok(Some(Value::Interval(Duration::from_secs(seconds))))
}

/// Reads an age as the options of `barman.conf` are written: `7 DAYS`, `4 WEEKS`.
///
/// # Errors
///
/// The reason as Barman words it.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    match parse_interval(text)? {
        Some(Value::Interval(age)) => Ok(age),
        _ => Err("an age is needed, such as 7 DAYS".to_owned()),
    }
}

fn parse_compression(text: &str) -> Result<Option<Value>, String> {
    let name = text.to_lowercase();
    if name.is_empty() || name.parse::<Compression>().is_ok() {
        return Ok(Some(Value::Text(name)));
    }
    if name == "none" {
        // Barman refuses this word unless it is spelled `None`. What it means is plain, and so is
        // what Barman does after its warning when nothing is set in [barman].
        return Ok(Some(Value::Text(String::new())));
    }
    let names: Vec<&str> = Compression::ALL.iter().map(|c| c.name()).collect();
    Err(format!(
        "Invalid value: '{name}' (must be one in: {})",
        names.join(", ")
    ))
}

fn parse_level(text: &str) -> Result<Option<Value>, String> {
    let level = text.to_lowercase();
    let digits = level.trim_start_matches('-');
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return parse_number(&level).map(|number| Some(Value::Number(number)));
    }
    match level.as_str() {
        "" | "low" | "medium" | "high" => Ok(Some(Value::Text(level))),
        _ => Err(format!(
            "Invalid value: '{level}' (must be one in [low, medium, high] or an acceptable integer)"
        )),
    }
}

fn parse_slot_name(text: &str) -> Result<Option<Value>, String> {
    let name = text.to_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(
            "Replication slot names may only contain lower case letters, numbers, \
                    and the underscore character."
                .to_owned(),
        );
    }
    Ok(Some(Value::Text(name)))
}

/// Whether Barman keeps WAL at this address in an object store: S3, Google Cloud Storage or Azure.
pub(super) fn is_cloud_url(url: &str) -> bool {
    const GOOGLE_CONSOLE: &str = "https://console.cloud.google.com/storage/browser/";
    const AZURE_DOMAIN: &str = "blob.core.windows.net";
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    if let Some(bucket) = url
        .strip_prefix(GOOGLE_CONSOLE)
        .or_else(|| url.strip_prefix("gs://"))
    {
        return !host(bucket).0.is_empty();
    }
    let (host, path) = host(rest);
    (scheme.eq_ignore_ascii_case("s3") && !host.is_empty())
        || (host.ends_with(AZURE_DOMAIN) && path.starts_with('/'))
}

/// Splits what follows `scheme://` into host and the rest.
fn host(rest: &str) -> (&str, &str) {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.split_at(end)
}

/// A length of time as Python prints it: `7 days, 0:00:00`.
fn python_timedelta(interval: Duration) -> String {
    let seconds = interval.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{}:{:02}:{:02}", rest / 3600, rest % 3600 / 60, rest % 60);
    match days {
        0 => clock,
        1 => format!("1 day, {clock}"),
        _ => format!("{days} days, {clock}"),
    }
}

/// A text as Python's `repr` shows it, for the characters that occur in option values.
fn python_repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: Kind, text: &str) -> String {
        match kind.parse(text) {
            Ok(Some(value)) => value.console(),
            Ok(None) => "(unset)".to_owned(),
            Err(reason) => format!("! {reason}"),
        }
    }

    #[test]
    fn numbers_are_pythons() {
        for (text, expected) in [
            ("5", "5"),
            (" +1_000 ", "1000"),
            ("-3", "-3"),
            ("99999999999999999999", "9223372036854775807"),
            ("", "! invalid literal for int() with base 10: ''"),
            ("1__0", "! invalid literal for int() with base 10: '1__0'"),
            ("it's", "! invalid literal for int() with base 10: \"it's\""),
        ] {
            assert_eq!(shown(Kind::Number, text), expected);
        }
    }

    #[test]
    fn intervals_print_as_pythons_timedelta() {
        for (text, expected) in [
            ("1 day", "1 day, 0:00:00"),
            ("2  WEEKS ", "14 days, 0:00:00"),
            ("1 month", "31 days, 0:00:00"),
            ("25 hours", "1 day, 1:00:00"),
            ("", "(unset)"),
            ("5", "! Invalid value for a time interval 5"),
            ("5 dayss", "! Invalid value for a time interval 5 dayss"),
        ] {
            assert_eq!(shown(Kind::Interval, text), expected);
        }
    }

    #[test]
    fn levels_and_compressions() {
        assert_eq!(shown(Kind::CompressionLevel, "HIGH"), "high");
        assert_eq!(shown(Kind::CompressionLevel, "-7"), "-7");
        assert!(shown(Kind::CompressionLevel, "--7").starts_with("! invalid literal"));
        assert_eq!(shown(Kind::Compression, "ZStd"), "zstd");
        assert_eq!(shown(Kind::Compression, "NONE"), "");
        assert!(shown(Kind::Compression, "rar").contains("'rar' (must be one in: gzip, bzip2"));
    }

    #[test]
    fn only_urls_of_known_stores_are_cloud() {
        for (url, expected) in [
            ("s3://bucket/x", true),
            ("S3://bucket", true),
            ("s3:///x", false),
            ("gs://bucket", true),
            ("gs://", false),
            ("https://console.cloud.google.com/storage/browser/b/x", true),
            ("https://a.blob.core.windows.net/c/x", true),
            ("https://a.blob.core.windows.net", false),
            ("ftp://host/x", false),
            ("/var/lib", false),
        ] {
            assert_eq!(is_cloud_url(url), expected, "{url}");
        }
    }
}
