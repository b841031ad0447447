//! Texts that somebody else has chosen, such as the names of files, in a log or on a terminal.

/// The text without what would steer a terminal or forge a line of a log.
pub(crate) fn printable(text: &str) -> String {
    let keep = |character: char| match character.is_control() {
        true => char::REPLACEMENT_CHARACTER,
        false => character,
    };
    text.chars().map(keep).collect()
}
