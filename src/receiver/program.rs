//! Which `pg_receivewal` there is on this host.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{AccessFlags, access};

use crate::config::search_path;

/// The names of the program: today's, and that of before PostgreSQL 10.
const NAMES: [&str; 2] = ["pg_receivewal", "pg_receivexlog"];

/// An installed `pg_receivewal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverProgram {
    /// Where it is.
    pub path: PathBuf,
    /// Its version as it prints it, such as `15.18` or `19devel`; `None` if that makes no sense.
    pub version: Option<String>,
}

impl ReceiverProgram {
    /// Looks in `path_prefix` and `PATH`, as Barman does: the first one that answers to `--version`
    /// with exit code 0. Debian's wrappers do not where the real program is not installed.
    pub fn find(path_prefix: Option<&str>) -> Option<Self> {
        let path = search_path(path_prefix).or_else(|| env::var_os("PATH"))?;
        env::split_paths(&path)
            .flat_map(|directory| NAMES.map(|name| directory.join(name)))
            .filter(|program| access(program, AccessFlags::X_OK).is_ok() && program.is_file())
            .find_map(|program| Self::ask(program, &path))
    }

    fn ask(program: PathBuf, path: &OsString) -> Option<Self> {
        let answer = Command::new(&program)
            .arg("--version")
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        answer.status.success().then(|| ReceiverProgram {
            version: version(&String::from_utf8_lossy(&answer.stdout)),
            path: program,
        })
    }

    /// The major version: 15 for 15.18.
    pub fn major_version(&self) -> Option<u32> {
        let version = self.version.as_deref()?;
        let digits = version.find(|c: char| !c.is_ascii_digit());
        version.get(..digits.unwrap_or(version.len()))?.parse().ok()
    }

    /// Whether it can receive from a server of this version, as a number (150018 for 15.18): it
    /// understands its own major version and older ones (PostgreSQL manual, "pg_receivewal").
    pub fn is_compatible_with(&self, server_version: i32) -> bool {
        let server_major = u32::try_from(server_version / 10_000).unwrap_or(0);
        self.major_version()
            .is_some_and(|major| major >= server_major)
    }
}

impl AsRef<Path> for ReceiverProgram {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// The version in `NAME (PostgreSQL) VERSION (packager's words)`.
fn version(answer: &str) -> Option<String> {
    let mut words = answer.split_whitespace().skip(1);
    words
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(answer: &str) -> ReceiverProgram {
        ReceiverProgram {
            path: PathBuf::new(),
            version: version(answer),
        }
    }

    #[test]
    fn versions_are_read_as_they_are_printed() {
        for (answer, printed, major) in [
            (
                "pg_receivewal (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                "15.18",
                15,
            ),
            ("pg_receivewal (PostgreSQL) 18beta1\n", "18beta1", 18),
            ("pg_receivewal (PostgreSQL) 19devel\n", "19devel", 19),
            ("pg_receivexlog (PostgreSQL) 9.6.24\n", "9.6.24", 9),
        ] {
            let program = program(answer);
            assert_eq!(program.version.as_deref(), Some(printed));
            assert_eq!(program.major_version(), Some(major));
        }
        assert_eq!(program("hello\n").version, None);
    }

    #[test]
    fn servers_up_to_its_own_version_can_be_received_from() {
        let program = program("pg_receivewal (PostgreSQL) 15.18");
        assert!(program.is_compatible_with(100_023));
        assert!(program.is_compatible_with(150_020));
        assert!(!program.is_compatible_with(160_000));
    }
}
