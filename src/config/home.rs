//! Home directories, without touching the environment.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// The home directory for paths that start with `~`: `$HOME` as long as the process runs as the user
/// it was started by, and the passwd entry otherwise.
///
/// Barman sets `HOME` when it changes the user; a library must not, because other threads may be reading
/// the environment.
pub(super) fn home_directory(started_as: Uid) -> Option<PathBuf> {
    let user = Uid::current();
    let variable = std::env::var_os("HOME").filter(|_| user == started_as);
    variable.map(PathBuf::from).or_else(|| {
        let entry = User::from_uid(user).ok().flatten()?;
        Some(entry.dir)
    })
}

/// Expands a leading `~` or `~user`; what cannot be expanded stays.
pub(super) fn expand_user(path: &str, home: Option<&Path>) -> PathBuf {
    let Some(rest) = path.strip_prefix('~') else {
        return PathBuf::from(path);
    };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let home = match user {
        "" => home.map(Path::to_path_buf),
        name => User::from_name(name).ok().flatten().map(|user| user.dir),
    };
    home.map_or_else(
        || PathBuf::from(path),
        |home| home.join(rest.trim_start_matches('/')),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_expanded_at_the_start_only() {
        let home = Some(Path::new("/home/b"));
        for (written, expected) in [
            ("~/x", "/home/b/x"),
            ("~", "/home/b"),
            ("/~/x", "/~/x"),
            ("~no-such-user-here/x", "~no-such-user-here/x"),
        ] {
            assert_eq!(expand_user(written, home), Path::new(expected));
        }
        assert_eq!(expand_user("~/x", None), Path::new("~/x"));
    }
}
