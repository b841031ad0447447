//! Commands that go by names of their own: the program does what it is called.

use std::ffi::OsString;
use std::path::Path;

/// The names under which Barman's packages install them, and the command that each stands for.
const PERSONALITIES: [(&str, &str); 2] = [
    ("barman-wal-archive", "wal-archive"),
    ("barman-wal-restore", "wal-restore"),
];

/// The command line as it would be under the name `walarch`.
pub(super) fn command_line(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words = given.into_iter();
    let program = words.next();
    let called = program
        .as_deref()
        .and_then(|path| Path::new(path).file_name());
    let command = PERSONALITIES
        .into_iter()
        .find(|(name, _)| called.is_some_and(|called| called == *name))
        .map(|(_, command)| OsString::from(command));
    program.into_iter().chain(command).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        command_line(words.iter().map(OsString::from))
    }

    #[test]
    fn the_name_chooses_the_command() {
        assert_eq!(
            line(&["/usr/bin/barman-wal-archive", "-z", "host"]),
            ["/usr/bin/barman-wal-archive", "wal-archive", "-z", "host"]
        );
        assert_eq!(
            line(&["barman-wal-restore"]),
            ["barman-wal-restore", "wal-restore"]
        );
    }

    #[test]
    fn any_other_name_chooses_nothing() {
        for words in [&["/bin/walarch", "check"][..], &["barman", "put-wal"], &[]] {
            assert_eq!(line(words), words);
        }
    }
}
