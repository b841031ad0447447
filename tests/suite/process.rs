//! walarch as a process: whose rights it runs with, and what if nobody reads what it prints?

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use nix::unistd::{User, getuid};

use crate::support::home::{Home, names, tree};
use crate::support::tool::{Walarch, in_home};

const FIRST: &str = "000000010000000000000001";

#[test]
fn a_reader_of_its_output_that_goes_away_does_not_stop_archiving() {
    let home = Home::new();
    let files = home.incoming_segments(1..=20);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = Walarch.command(&home, &["archive-wal", "main"]);
    let status = command
        .stdin(Stdio::null())
        .stdout(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(home.listed(), files.into_keys().collect::<Vec<_>>());
    assert_eq!(names(&home.incoming()), [""; 0]);
}

#[test]
fn closed_standard_streams_do_not_stop_archiving() {
    let home = Home::new();
    let files = home.incoming_segments(1..=20);
    let mut command = in_home(Command::new("sh"), &home);
    command
        .args(["-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"])
        .arg(Walarch.program())
        .arg("-c")
        .arg(home.config_file())
        .args(["archive-wal", "main"]);
    assert_eq!(command.status().unwrap().code(), Some(0));
    assert_eq!(home.listed(), files.into_keys().collect::<Vec<_>>());
    assert_eq!(names(&home.incoming()), [""; 0]);
}

#[test]
fn a_log_file_that_is_rotated_away_is_followed_by_a_new_one() {
    let home = Home::with(&[(
        "pre_archive_script",
        "mv {root}/barman.log {root}/barman.log.1; false",
    )]);
    home.incoming_segments([1]);
    home.archive().exits(0);
    let rotated = fs::read_to_string(home.root().join("barman.log.1")).unwrap();
    assert!(rotated.contains("Archiving segment 1 of 1"), "{rotated}");
    let log = home.log();
    assert!(log.contains("barman.log.1"), "the hook's failure: {log}");
}

#[test]
fn root_becomes_the_configured_user_with_its_groups_and_its_home() {
    if !getuid().is_root() {
        return; // nobody else can become somebody
    }
    let user = User::from_name("postgres")
        .unwrap()
        .expect("no user postgres: run tests/setup.sh");
    let home = Home::with(&[("pre_archive_script", "{root}/hook")]);
    home.script(
        "hook",
        "id -u > {root}/uid; id -G > {root}/groups; echo \"$HOME\" > {root}/home-of",
    );
    let text = fs::read_to_string(home.config_file()).unwrap();
    home.write_config_text(&text.replace("barman_user = root", "barman_user = postgres"));
    let files = home.incoming_segments([1]);
    for path in tree(home.root()) {
        give(&home, path.to_str().unwrap(), &user);
    }
    give(&home, "", &user);
    // It may hold passwords.
    chown(home.config_file(), Some(0), Some(0)).unwrap();
    fs::set_permissions(home.config_file(), Permissions::from_mode(0o600)).unwrap();

    home.archive().exits(0);
    home.assert_archived(FIRST, &files[FIRST]);
    for path in [home.archived(FIRST), home.xlogdb_file(), home.wals()] {
        assert_eq!(path.metadata().unwrap().uid(), user.uid.as_raw());
    }
    let said = |name: &str| fs::read_to_string(home.root().join(name)).unwrap();
    assert_eq!(said("uid").trim(), user.uid.to_string());
    assert_eq!(said("home-of").trim(), user.dir.to_str().unwrap());
    let known = Command::new("id")
        .args(["-G", "postgres"])
        .output()
        .unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    assert_eq!(groups(&said("groups")), groups(&known));
}

fn give(home: &Home, path: &str, user: &User) {
    let path = home.root().join(path);
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
}

fn groups(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}
