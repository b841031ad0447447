//! `put-wal --forced-command`: the holder of a key can do what the key is for, and nothing else.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::support::home::{Home, names, put};
use crate::support::sshd::{HOST, Sshd};
use crate::support::tarball::stream;
use crate::support::tool::{
    Run, Tool, Walarch, barman_venv, finish, in_home, input_of, start, start_with,
};
use crate::support::wal::Segment;

const FIRST: &str = "000000010000000000000001";

fn first() -> Vec<u8> {
    Segment::small(1).bytes()
}

fn servers() -> Home {
    Home::with_servers(&[("main", &[]), ("other", &[]), ("third", &[])])
}

/// What sshd does with a key for `main` and `other`: it starts the forced command and tells what was asked for.
fn asked(home: &Home, request: Option<&str>, input: &[u8]) -> Run {
    let arguments = ["put-wal", "--forced-command", "main,other"];
    let mut command = Walarch.command(home, &arguments);
    command.env("SSH_CONNECTION", "192.0.2.7 40000 192.0.2.1 22");
    if let Some(request) = request {
        command.env("SSH_ORIGINAL_COMMAND", request);
    }
    let child = start_with(&mut command, input_of(home, input));
    finish(child, Duration::from_secs(60))
}

#[test]
fn wal_of_the_named_servers_is_received() {
    let home = servers();
    for server in ["main", "other"] {
        let request = format!("barman put-wal {server}");
        asked(&home, Some(&request), &stream(FIRST, &first())).exits(0);
        let arrived = home.barman_home().join(server).join("incoming").join(FIRST);
        assert!(fs::read(arrived).unwrap() == first());
        let run = asked(&home, Some(&format!("{request} --test")), b"").exits(0);
        assert!(run.stdout.starts_with("Ready to accept WAL files"));
    }
}

#[test]
fn wal_of_the_named_servers_is_given_back() {
    let home = servers();
    let segments = home.incoming_segments(1..=2);
    home.archive().exits(0);
    for (request, expected) in [
        (
            format!("barman get-wal 'main' '{FIRST}'"),
            segments[FIRST].len(),
        ),
        (
            format!("walarch get-wal --keep-compression main {FIRST}"),
            segments[FIRST].len(),
        ),
        (format!("barman get-wal --peek '5' 'main' '{FIRST}'"), 50),
        (
            "barman get-wal --test 'main' 'dummy_wal_name'".to_owned(),
            49,
        ),
    ] {
        let arguments = ["put-wal", "--forced-command", "main"];
        let mut command = Walarch.command(&home, &arguments);
        command.env("SSH_ORIGINAL_COMMAND", &request);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{request}: {output:?}");
        assert_eq!(output.stdout.len(), expected, "{request}");
        assert_eq!(output.stderr, b"");
    }
    asked(
        &home,
        Some("barman get-wal main 000000010000000000000009"),
        b"",
    )
    .exits(1);
    asked(&home, Some(&format!("barman get-wal third {FIRST}")), b"").exits(5);
}

#[test]
fn everything_else_is_refused_and_logged() {
    let home = servers();
    for (request, reason) in [
        (None, "nothing was asked for"),
        (Some(""), "nothing was asked for"),
        (Some("bash"), "'bash' is not a program"),
        (Some("scp -t /tmp"), "'scp' is not a program"),
        (Some("/usr/lib/openssh/sftp-server"), "is not a program"),
        (Some("barman put-wal third"), "not for server 'third'"),
        (Some("barman put-wal all"), "not for server 'all'"),
        (
            Some("barman put-wal main,other"),
            "not for server 'main,other'",
        ),
        (
            Some("barman archive-wal main"),
            "'archive-wal' is not a command",
        ),
        (Some("barman delete main all"), "'delete' is not a command"),
        (Some("barman cron"), "'cron' is not a command"),
        (Some("barman put-wal main; id"), "';' is not allowed"),
        (Some("barman put-wal main\nid"), "'\\n' is not allowed"),
        (Some("barman put-wal $(id)"), "'$' is not allowed"),
        (
            Some("barman put-wal --forced-command third"),
            "'--forced-command' is not an option",
        ),
        (Some("barman -q put-wal main"), "'-q' is not an option"),
        (
            Some("barman -c /tmp/evil.conf put-wal main"),
            "not the configuration file in use",
        ),
        (
            Some("barman get-wal -o /tmp main 000000010000000000000001"),
            "'-o' is not an option",
        ),
    ] {
        let run = asked(&home, request, &stream(FIRST, &first())).exits(5);
        let refused = "ERROR: The request was refused: ";
        assert!(run.stderr.starts_with(refused), "{}", run.stderr);
        assert!(run.stderr.contains(reason), "{request:?}: {}", run.stderr);
        assert_eq!(run.stdout, "");
        assert!(home.log().contains(reason));
        assert!(home.log().contains("(SSH host: 192.0.2.7)"));
    }
    for server in ["main", "other", "third"] {
        let incoming = home.barman_home().join(server).join("incoming");
        assert_eq!(names(&incoming), [""; 0]);
    }
}

#[test]
fn the_configuration_in_use_may_be_named() {
    let home = servers();
    let config = home.config_file();
    let request = format!("barman --config='{}' put-wal main", config.display());
    asked(&home, Some(&request), &stream(FIRST, &first())).exits(0);
}

#[test]
fn a_forced_command_needs_servers_and_nothing_else() {
    let home = servers();
    for arguments in [
        &["put-wal"][..],
        &["put-wal", "--forced-command"],
        &["put-wal", "main", "--forced-command", "main"],
        &["put-wal", "--test", "--forced-command", "main"],
    ] {
        Walarch.run(&home, arguments).exits(2);
    }
}

/// The keys of a database host, as sshd and the real clients treat them.
#[test]
fn a_restricted_key_archives_and_opens_no_shell() {
    let home = servers();
    let command = "restrict,command=\"walarch put-wal --forced-command main\"";
    let sshd = Sshd::start_with(&home, Walarch, command);
    let database = Home::new();
    let clients: [(&str, Tool); 2] = [
        ("barman-wal-archive", Tool::Barman),
        ("wal-archive", Walarch),
    ];
    for (number, (name, tool)) in (1..).zip(clients) {
        let segment = Segment::small(number);
        let path = put(database.root(), &segment.name(), &segment.bytes());
        let archive = |server: &str| {
            let mut command = match tool {
                Tool::Barman => Command::new(barman_venv().join("bin").join(name)),
                Walarch => Command::new(Walarch.program()),
            };
            if tool == Walarch {
                command.arg(name);
            }
            let mut command = in_home(command, &database);
            sshd.reachable_from(&mut command);
            command.args(["-U", &sshd.user(), HOST, server]).arg(&path);
            finish(start(&mut command), Duration::from_secs(60))
        };
        archive("main").exits(0);
        assert!(fs::read(home.incoming().join(segment.name())).unwrap() == segment.bytes());
        home.archive().exits(0);
        let restore = |tool: Tool| {
            let mut command = match tool {
                Tool::Barman => Command::new(barman_venv().join("bin/barman-wal-restore")),
                Walarch => Command::new(Walarch.program()),
            };
            if tool == Walarch {
                command.arg("wal-restore");
            }
            let mut command = in_home(command, &database);
            sshd.reachable_from(&mut command);
            command.args(["-U", &sshd.user(), "-P", "-z", HOST, "main"]);
            let goal = database.root().join("RECOVERYXLOG");
            command.arg(segment.name()).arg(&goal);
            finish(start(&mut command), Duration::from_secs(60)).exits(0);
            assert!(fs::read(&goal).unwrap() == segment.bytes());
            fs::remove_file(goal).unwrap();
        };
        restore(Tool::Barman);
        restore(Walarch);
        let run = archive("other");
        // Barman's client calls it a broken pipe when the refusal comes before it has sent everything.
        let expected: &[i32] = if tool == Walarch { &[5] } else { &[5, 2] };
        assert!(expected.contains(&run.code), "{run:?}");
        assert!(
            run.stderr.contains("not for server 'other'"),
            "{}",
            run.stderr
        );
    }
    for words in [
        &[][..],
        &["id"],
        &["sh", "-c", "id"],
        &["barman", "list-servers"],
    ] {
        let mut command = in_home(Command::new(sshd.client().join("ssh")), &database);
        command.arg(format!("{}@{HOST}", sshd.user())).args(words);
        let run = finish(start(&mut command), Duration::from_secs(60)).exits(5);
        assert!(
            run.stderr.contains("The request was refused"),
            "{}",
            run.stderr
        );
        assert_eq!(run.stdout, "");
    }
}
