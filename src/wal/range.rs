//! A part of an archive, from one segment to another.

use super::name::{WalKind, WalName};

/// From one segment to another, both included, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalRange {
    /// The first segment; `None` is the beginning of the archive.
    pub from: Option<WalName>,
    /// The last segment; `None` is its end.
    pub to: Option<WalName>,
}

impl WalRange {
    /// Whether a file belongs to it: by its segment or, for a history file, by its timeline.
    pub fn contains(&self, name: &WalName) -> bool {
        // All that matters of a history file is its timeline.
        let place = |other: &WalName| match name.kind() {
            WalKind::History => (other.timeline(), None),
            _ => (other.timeline(), other.ordinal()),
        };
        let after = self.from.as_ref().is_none_or(|f| place(f) <= place(name));
        let before = self.to.as_ref().is_none_or(|to| place(name) <= place(to));
        after && before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_where_its_segment_or_its_timeline_does() {
        let name = |text| WalName::parse(text).unwrap();
        let range = WalRange {
            from: Some(name("000000010000000000000004")),
            to: Some(name("000000020000000000000008")),
        };
        for (text, inside) in [
            ("000000010000000000000003", false),
            ("000000010000000000000004", true),
            ("000000010000000000000004.00000028.backup", true),
            ("0000000100000001000000ff.partial", true),
            ("000000020000000000000008.partial", true),
            ("000000020000000000000009", false),
            ("00000001.history", true),
            ("00000002.history", true),
            ("00000003.history", false),
        ] {
            assert_eq!(range.contains(&name(text)), inside, "{text}");
            assert!(WalRange::default().contains(&name(text)));
        }
    }
}
