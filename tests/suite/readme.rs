//! The README, the help, the examples and the code say the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, getuid};
use tempfile::TempDir;
use walarch::config::reference_markdown;

use crate::support::home::tree;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn readme() -> String {
    fs::read_to_string(project("README.md")).unwrap()
}

fn walarch(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_walarch"))
        .args(arguments)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let (_, help) = walarch(&["--help"]);
    let listed = help.split("Commands:\n").nth(1).unwrap();
    let listed = listed.split("\n\n").next().unwrap();
    let names = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_readme_lists_the_options_of_the_code() {
    let (from, to) = (
        "<!-- options: generated, checked by a test -->\n",
        "<!-- end of options -->",
    );
    let readme = readme();
    let section = readme
        .split(from)
        .nth(1)
        .and_then(|rest| rest.split(to).next())
        .unwrap();
    assert_eq!(
        section.trim(),
        reference_markdown().trim(),
        "paste the right side into README.md"
    );
}

#[test]
fn the_readme_names_every_command() {
    let commands = commands();
    assert!(commands.contains(&"archive-wal".to_owned()), "{commands:?}");
    let readme = readme();
    for command in commands.iter().filter(|command| *command != "help") {
        assert!(
            readme.contains(&format!("`{command} ")) || readme.contains(&format!("`{command}`")),
            "{command}"
        );
    }
}

#[test]
fn files_that_the_readme_links_to_exist() {
    for link in readme()
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
    {
        assert!(link.starts_with("http") || project(link).exists(), "{link}");
    }
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let (code, page) = walarch(&["man"]);
    assert!(code == 0 && page.contains(".TH walarch"), "{page}");
    for command in commands().iter().filter(|command| *command != "help") {
        let (code, page) = walarch(&["man", command]);
        assert!(
            code == 0 && page.contains(&format!("walarch-{command}")),
            "{page}"
        );
        for shell in ["bash", "zsh", "fish"] {
            let (code, script) = walarch(&["completion", shell]);
            assert!(code == 0 && script.contains(command), "{shell}");
        }
    }
    assert_eq!(walarch(&["man", "nonsense"]).0, 1);
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    assert_eq!(walarch(&["no-such-command"]).0, 2);
    assert_eq!(walarch(&["archive-wal"]).0, 2);
    assert_eq!(walarch(&["--color", "pink", "list-servers"]).0, 2);
    assert_eq!(walarch(&["--help"]).0, 0);
    assert_eq!(walarch(&[]).0, 0);
    let (code, version) = walarch(&["-v"]);
    assert_eq!(
        (code, version.trim()),
        (0, concat!("walarch ", env!("CARGO_PKG_VERSION")))
    );
}

/// The command lines in the crontab, the units and the settings among the examples, without the program.
fn example_command_lines() -> Vec<(PathBuf, String)> {
    let files = tree(&project("examples"));
    let files = files.into_iter().map(|file| project("examples").join(file));
    let mut found = Vec::new();
    for path in files.filter(|path| path.is_file()) {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim_start_matches("# ");
            let is_setting = ["ExecStart=", "* * * * *", "archive_command ="];
            if let Some(at) = line.find("walarch -")
                && is_setting.iter().any(|start| line.starts_with(start))
            {
                let arguments = line[at + "walarch ".len()..].trim_end_matches('\'');
                found.push((path.clone(), arguments.to_owned()));
            }
        }
    }
    found
}

#[test]
fn the_examples_name_commands_and_options_that_exist() {
    let lines = example_command_lines();
    assert!(lines.len() >= 5, "{lines:?}");
    for (path, line) in lines {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        // Whatever comes before it must make sense.
        arguments.push("--help");
        assert_eq!(walarch(&arguments).0, 0, "{}: {line}", path.display());
    }
}

/// A folder with the files of an example folder, changed so that they fit this host.
fn adapted(files: &[&str], change: impl Fn(String) -> String) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in files {
        let text = change(fs::read_to_string(project("examples").join(file)).unwrap());
        fs::write(
            folder.path().join(Path::new(file).file_name().unwrap()),
            text,
        )
        .unwrap();
    }
    folder
}

#[test]
fn systemd_understands_the_units() {
    let units = [
        "systemd/walarch-receive-wal@.service",
        "systemd/walarch-archive-wal@.service",
        "systemd/walarch-archive-wal@.timer",
    ];
    let folder = adapted(&units, |text| {
        text.replace("/usr/local/bin/walarch", env!("CARGO_BIN_EXE_walarch"))
    });
    let output = Command::new("systemd-analyze")
        .args([
            "verify",
            "walarch-receive-wal@main.service",
            "walarch-archive-wal@main.timer",
        ])
        .current_dir(folder.path())
        .env("SYSTEMD_UNIT_PATH", format!("{}:", folder.path().display()))
        .output()
        .expect("no systemd-analyze: run tests/setup.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn logrotate_understands_its_file() {
    let user = User::from_uid(getuid()).unwrap().unwrap().name;
    let folder = adapted(&["logrotate"], |text| {
        text.replace("barman barman", &format!("{user} {user}"))
    });
    fs::set_permissions(
        folder.path().join("logrotate"),
        Permissions::from_mode(0o644),
    )
    .unwrap();
    let output = Command::new("/usr/sbin/logrotate")
        .args(["-d", "-s", "/dev/null", "logrotate"])
        .current_dir(folder.path())
        .output()
        .expect("no logrotate: run tests/setup.sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error"), "{said}");
    assert!(said.contains("/var/log/barman/barman.log"), "{said}");
}
