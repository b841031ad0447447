//! Commands that go by names of their own: the program does what it is called.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches, Parser};

use super::args::Args;

/// The names under which Barman's packages install them, and the command that each stands for.
const PERSONALITIES: [(&str, &str); 2] = [
    ("barman-wal-archive", "wal-archive"),
    ("barman-wal-restore", "wal-restore"),
];

/// Parses a command line, under whichever name.
pub(super) fn parse(given: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
    let given: Vec<OsString> = given.into_iter().collect();
    let Some((called, command)) = personality(&given) else {
        return Args::try_parse_from(given);
    };
    let mut named = Args::command();
    if let Some(usage) = usage(called, command) {
        named = named.mut_subcommand(command, |named| {
            named.display_name(called).override_usage(usage)
        });
    }
    let mut matches = named.try_get_matches_from(command_line(given))?;
    Args::from_arg_matches_mut(&mut matches)
}

/// How a command is used under a name of its own.
fn usage(called: &str, command: &str) -> Option<String> {
    let mut whole = Args::command();
    whole.build();
    let usage = whole.find_subcommand_mut(command)?.render_usage();
    let usage = usage.to_string();
    let (_, arguments) = usage.split_once(&format!(" {command} "))?;
    Some(format!("{called} {arguments}"))
}

/// The name under which the program was called, and the command that it stands for.
fn personality(given: &[OsString]) -> Option<(&'static str, &'static str)> {
    let called = Path::new(given.first()?).file_name()?;
    PERSONALITIES.into_iter().find(|(name, _)| called == *name)
}

/// The command line as it would be under the name `walarch`.
fn command_line(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let given: Vec<OsString> = given.into_iter().collect();
    let command = personality(&given).map(|(_, command)| OsString::from(command));
    let mut words = given.into_iter();
    words
        .next()
        .into_iter()
        .chain(command)
        .chain(words)
        .collect()
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
