//! Passwords never leave the process.

/// What stands in a password's place.
const REDACTED: &str = "*REDACTED*";

/// Blanks out passwords in connection strings (`password=...`) and URIs
/// (`postgresql://user:...@host`).
pub(super) fn redact(text: &str) -> String {
    redact_uris(&redact_keywords(text))
}

fn redact_keywords(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("password=") {
        redacted.push_str(before);
        redacted.push_str("password=");
        redacted.push_str(REDACTED);
        rest = after.get(value_length(after)..).unwrap_or_default();
    }
    redacted + rest
}

/// The length of a value as libpq reads it: up to a blank, or in single quotes with `\` escaping.
fn value_length(text: &str) -> usize {
    let Some(quoted) = text.strip_prefix('\'') else {
        return text
            .find([' ', '\t', '\n', '\'', '"'])
            .unwrap_or(text.len());
    };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            b'\'' if !escaped => return at + 2,
            _ => escaped = byte == b'\\' && !escaped,
        }
    }
    text.len()
}

fn redact_uris(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["postgresql://", "postgres://"]
        .iter()
        .filter_map(|scheme| rest.find(scheme).map(|at| at + scheme.len()))
        .min()
    {
        let (before, after) = rest.split_at(at);
        redacted.push_str(before);
        let authority = after
            .split(['/', '?', ' ', '\t', '\n', '"', '\''])
            .next()
            .unwrap_or_default();
        rest = after;
        if let Some((credentials, _)) = authority.rsplit_once('@')
            && let Some((user, _)) = credentials.split_once(':')
        {
            redacted.push_str(user);
            redacted.push(':');
            redacted.push_str(REDACTED);
            rest = after.get(credentials.len()..).unwrap_or_default();
        }
    }
    redacted + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_blanked_out() {
        for (text, expected) in [
            (
                "host=a password=secret port=1",
                "host=a password=*REDACTED* port=1",
            ),
            (
                r"password='it\'s a secret' host=a",
                "password=*REDACTED* host=a",
            ),
            ("password='open", "password=*REDACTED*"),
            (
                "a postgresql://u:p@h/db b",
                "a postgresql://u:*REDACTED*@h/db b",
            ),
            (
                "postgres://u:p@x@h,i:5/db",
                "postgres://u:*REDACTED*@h,i:5/db",
            ),
            ("postgresql://u@h/db", "postgresql://u@h/db"),
            ("postgresql://h:5432/db", "postgresql://h:5432/db"),
            ("nothing to hide", "nothing to hide"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }
}
