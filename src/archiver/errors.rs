//! What lies in the errors directory.

use std::fs;
use std::io;
use std::path::Path;

/// The endings of what is set aside, and what they are called: Barman's words first.
const KINDS: [(&str, &str); 5] = [
    (".error", "not relevant"),
    (".duplicate", "duplicates"),
    (".unknown", "unknown"),
    (".invalid", "invalid"),
    (".superseded", "superseded"),
];

/// What everything else is called.
const OTHER: &str = "unknown failure";

/// How many objects there are of each kind, as in `duplicates: 8, unknown: 1`. `None` if there is none;
/// a directory that is not there holds none.
pub fn summarise_errors(directory: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
    let mut kinds: Vec<&str> = Vec::new();
    for name in names {
        let name = name?;
        let name = name.to_string_lossy();
        let kind = KINDS.iter().find(|(ending, _)| name.ends_with(ending));
        kinds.push(kind.map_or(OTHER, |(_, kind)| kind));
    }
    let summary: Vec<String> = KINDS
        .iter()
        .map(|(_, kind)| *kind)
        .chain([OTHER])
        .map(|kind| (kind, kinds.iter().filter(|&&other| other == kind).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{kind}: {count}"))
        .collect();
    Ok((!summary.is_empty()).then(|| summary.join(", ")))
}
