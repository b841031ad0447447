//! A whole configuration in TOML, for those who have no Barman.
//!
//! The tables are the sections of `barman.conf` with the same options; numbers and booleans may be
//! written as such. `[walarch]` and `[server.NAME]` hold walarch's own options. A server may be called
//! `server`: its options are the plain values of the table `[server]`, and the tables in it are own
//! options. No server can be called `walarch` here.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};
use super::ini::{IniFile, IniSection};
use super::own::OwnTables;

/// A key with its value, and where it stands.
pub(super) struct Entry<'a> {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) value: Spanned<DeValue<'a>>,
}

/// Reads a TOML configuration into what the equivalent `barman.conf` and `walarch.toml` hold.
///
/// # Errors
///
/// When the text is no TOML, when an option is neither text, boolean nor whole number, and when an
/// own option is unknown.
pub(super) fn parse(text: &str, path: &Path) -> Result<(IniFile, OwnTables), ConfigError> {
    let mut file = IniFile::default();
    let mut own = OwnTables::default();
    for section in entries(text, path)? {
        if section.name == "walarch" {
            own.read_general(section.value, text, path)
                .map_err(|error| {
                    error.hint(
                        "[walarch] holds walarch's own options; in TOML no server can have \
                         this name.",
                    )
                })?;
            continue;
        }
        let name = section.name.clone();
        let mut options = IniSection {
            name: name.clone(),
            options: Vec::new(),
        };
        let mut only_own = name == "server";
        for option in table(section, text, path)? {
            if name == "server" && option.value.get_ref().is_table() {
                own.read_server(option, text, path)?;
                continue;
            }
            only_own = false;
            let value = scalar(&option)?;
            options.set(&option.name.to_lowercase(), &value, option.place.line);
        }
        if !only_own {
            file.sections.push(options);
        }
    }
    Ok((file, own))
}

/// The top-level entries of a document, in the order in which they stand.
pub(super) fn entries<'a>(text: &'a str, path: &Path) -> Result<Vec<Entry<'a>>, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ConfigError::new(error.message())
            .file(path)
            .line(line_of(text, offset))
    })?;
    Ok(sorted(document.into_inner(), text, path))
}

/// The entries of an entry that is a table.
pub(super) fn table<'a>(
    entry: Entry<'a>,
    text: &str,
    path: &Path,
) -> Result<Vec<Entry<'a>>, ConfigError> {
    match entry.value.into_inner() {
        DeValue::Table(table) => Ok(sorted(table, text, path)),
        other => Err(ConfigError::new(format!(
            "`{}` is of type {}, where a table is expected",
            entry.name,
            other.type_str()
        ))
        .place(&entry.place)
        .hint("An option belongs into the table of a server, or into [barman].")),
    }
}

fn sorted<'a>(table: DeTable<'a>, text: &str, path: &Path) -> Vec<Entry<'a>> {
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
        .into_iter()
        .map(|(key, value)| Entry {
            place: Place {
                path: path.to_path_buf(),
                line: line_of(text, key.span().start),
            },
            name: key.into_inner().into_owned(),
            value,
        })
        .collect()
}

/// The value as it would stand in `barman.conf`.
fn scalar(option: &Entry<'_>) -> Result<String, ConfigError> {
    let refuse = |kind: &str| {
        ConfigError::new(format!(
            "`{}` is of type {kind}, where a string, a boolean or an integer is expected",
            option.name
        ))
        .place(&option.place)
        .option(&option.name)
    };
    match option.value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                .map(|number| number.to_string())
                .map_err(|_| refuse("integer beyond 64 bits"))
        }
        other => Err(refuse(other.type_str())),
    }
}

/// The line, from 1, of a byte offset.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(IniFile, OwnTables), ConfigError> {
        parse(text, Path::new("test.toml"))
    }

    #[test]
    fn values_come_with_their_lines_in_the_order_of_the_file() -> Result<(), ConfigError> {
        let (file, _) = read(
            "[main]\nconninfo = 'host=db'\narchiver = true\n\
             archiver_batch_size = 1_000\n[barman]\nbarman_home = \"/b\"\n",
        )?;
        let seen: Vec<_> = file
            .sections
            .iter()
            .flat_map(|s| {
                s.options
                    .iter()
                    .map(|o| (&*s.name, &*o.name, &*o.value, o.line))
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("main", "conninfo", "host=db", 2),
                ("main", "archiver", "true", 3),
                ("main", "archiver_batch_size", "1000", 4),
                ("barman", "barman_home", "/b", 6),
            ]
        );
        Ok(())
    }

    #[test]
    fn a_server_may_be_called_server() -> Result<(), ConfigError> {
        let (file, own) = read("[server]\nactive = false\n[server.server]\njobs = 2\n")?;
        assert_eq!(
            file.sections.iter().map(|s| &*s.name).collect::<Vec<_>>(),
            ["server"]
        );
        assert_eq!(own.of_server("server").jobs.map(|n| n.get()), Some(2));
        let (file, own) = read("[server.main]\njobs = 2\n")?;
        assert!(file.sections.is_empty());
        assert_eq!(own.of_server("main").jobs.map(|n| n.get()), Some(2));
        Ok(())
    }

    #[test]
    fn other_types_are_refused_with_their_line() {
        for (text, line) in [
            ("[main]\nactive = 1.5\n", 2),
            ("[main]\n\nactive = [1]\n", 3),
            ("[main.sub]\nactive = 1\n", 1),
            ("active = true\n", 1),
            ("[main]\na = \n", 2),
            ("[walarch]\nconninfo = 'x'\n", 2),
        ] {
            let Err(error) = read(text) else {
                panic!("{text:?} was accepted");
            };
            assert_eq!(error.line_number(), Some(line), "{text:?}: {error}");
        }
    }
}
