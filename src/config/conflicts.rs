//! Directories that two options or two servers share by mistake.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::resolve::Settings;

/// The directories that must differ, in Barman's order. `xlogdb_directory` is none of them: the name of
/// the catalog carries that of the server.
const DIRECTORIES: [&str; 6] = [
    "backup_directory",
    "basebackups_directory",
    "errors_directory",
    "incoming_wals_directory",
    "streaming_wals_directory",
    "wals_directory",
];

/// Symbolic links followed for one path; the kernel's limit is the same.
const LINKS_MAX: usize = 40;

/// Disables servers that use one directory twice, and returns the conflicts between servers.
pub(super) fn check(servers: &mut [Settings]) -> Vec<String> {
    let mut owners: HashMap<PathBuf, (&str, String)> = HashMap::new();
    let mut between = Vec::new();
    let mut order: Vec<&mut Settings> = servers.iter_mut().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    for server in order {
        for label in DIRECTORIES {
            let Some(path) = server.text(label).filter(|path| !path.contains("://")) else {
                continue;
            };
            let real = real_path(Path::new(path));
            let Some((other_label, other)) = owners.get(&real) else {
                owners.insert(real, (label, server.name.clone()));
                continue;
            };
            let link = if real.as_os_str() == path {
                String::new()
            } else {
                format!(" (symlink to: {})", real.display())
            };
            let rest = format!("conflicts with '{other_label}' for server '{other}'");
            if *other == server.name {
                server.disable(format!("Conflicting path: {label}={path}{link} {rest}"));
            } else {
                let name = &server.name;
                between.push(format!(
                    "Conflicting path: {label}={path}{link} for server '{name}' {rest}"
                ));
            }
        }
    }
    between
}

/// The path without links, `.` and `..`; what does not exist is kept as written, as Python's
/// `os.path.realpath` does.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut rest: VecDeque<OsString> = parts(&absolute);
    let mut real = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    rest.push_front(part);
                }
            }
            _ => real = next,
        }
    }
    real
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_dots_are_resolved_as_far_as_the_path_exists() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let base = dir.path().canonicalize()?;
        std::fs::create_dir(base.join("a"))?;
        symlink("a", base.join("relative"))?;
        symlink(base.join("relative"), base.join("absolute"))?;
        symlink("loop", base.join("loop"))?;
        for (written, expected) in [
            ("absolute/x", "a/x"),
            ("a/../relative/./x/", "a/x"),
            ("none/../a", "a"),
            ("loop/x", "loop/x"),
        ] {
            assert_eq!(
                real_path(&base.join(written)),
                base.join(expected),
                "{written}"
            );
        }
        Ok(())
    }
}
