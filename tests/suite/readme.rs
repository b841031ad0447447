//! The README, the help, the examples and the code say the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walarch::config::reference_markdown;

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
