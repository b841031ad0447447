//! `switch-wal`, beside Barman's.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::home::{Home, names};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Barman, Run, Tool, Walarch};

const SWITCH: [&str; 2] = ["switch-wal", "main"];
const FORCE: [&str; 3] = ["switch-wal", "--force", "main"];

/// A server that writes nothing by itself.
fn quiet(major: Major) -> Postgres {
    Postgres::start_major(major, &[], |_| {
        "checkpoint_timeout = 1h\nautovacuum = off\nbgwriter_lru_maxpages = 0\nwal_level = replica\n"
            .to_owned()
    })
}

fn home_of(postgres: &Postgres) -> Home {
    Home::with(&[("conninfo", &postgres.conninfo())])
}

fn write_something(postgres: &Postgres) {
    postgres.sql("SELECT pg_logical_emit_message(false, 'walarch', 'a record')");
}

/// A text in which segments have no names.
fn masked(text: &str) -> String {
    let is_segment =
        |word: &str| word.len() == 24 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(char::is_whitespace);
    words
        .map(|word| match is_segment(word.trim_end()) {
            true => word.replace(word.trim_end(), "SEGMENT"),
            false => word.to_owned(),
        })
        .collect()
}

/// Both tools, one after the other and each after `prepare`, print the same and end alike.
#[track_caller]
fn both_print_the_same(home: &Home, arguments: &[&str], prepare: impl Fn()) -> Run {
    let [barmans, ours] = [Barman, Walarch].map(|tool: Tool| {
        prepare();
        tool.run(home, arguments)
    });
    assert_eq!(
        masked(&ours.stdout),
        masked(&barmans.stdout),
        "{arguments:?}"
    );
    assert_eq!(ours.code, barmans.code, "{arguments:?}: {}", ours.stderr);
    // Where something failed, PostgreSQL's reason follows.
    let stderr = masked(&ours.stderr);
    for line in masked(&barmans.stderr).lines() {
        assert!(
            !line.starts_with("ERROR") || stderr.contains(line),
            "{line}: {stderr}"
        );
    }
    ours
}

#[test]
fn the_current_segment_is_closed_if_there_is_anything_in_it() {
    for major in [Major::Debian, Major::Newer] {
        let postgres = quiet(major);
        let home = home_of(&postgres);
        let written = || write_something(&postgres);
        both_print_the_same(&home, &SWITCH, written).exits(0);
        let current = || postgres.ask("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
        let run = both_print_the_same(&home, &SWITCH, || {
            postgres.sql("SELECT pg_switch_wal()");
        });
        assert_eq!(run.stdout, "No switch required for server 'main'\n");
        for arguments in [&SWITCH[..], &FORCE] {
            write_something(&postgres);
            let before = current();
            let run = home.run(arguments).exits(0);
            let closed = format!("The WAL file {before} has been closed on server 'main'\n");
            assert_eq!(run.stdout, closed);
            assert_ne!(current(), before);
        }
        both_print_the_same(&home, &FORCE, || {}).exits(0);
    }
}

#[test]
fn a_standby_is_left_alone_unless_the_primary_is_known() {
    let primary = quiet(Major::Debian);
    let standby = primary.standby("");
    let home = home_of(&standby);
    both_print_the_same(&home, &SWITCH, || {}).exits(0);
    both_print_the_same(&home, &FORCE, || {}).exits(0);

    let both = |conninfo: &str| {
        let primary = primary.conninfo();
        Home::with(&[("conninfo", conninfo), ("primary_conninfo", &primary)])
    };
    let home = both(&standby.conninfo());
    let run = both_print_the_same(&home, &SWITCH, || write_something(&primary));
    assert!(run.stdout.contains("has been closed"), "{}", run.stdout);
    // Barman's checkpoint is one of the standby, and there is nothing to switch after it.
    primary.sql("SELECT pg_switch_wal()");
    let run = home.run(&FORCE).exits(0);
    assert!(run.stdout.contains("has been closed"), "{}", run.stdout);

    let home = both(&primary.conninfo());
    let run = both_print_the_same(&home, &SWITCH, || write_something(&primary));
    let warning = "WARNING: 'primary_conninfo' is set but 'conninfo' does not point to a standby \
                   server. Ignoring 'primary_conninfo'.\n";
    assert_eq!(run.stderr, warning);
}

#[test]
fn who_may_not_switch_is_told_why() {
    let postgres = quiet(Major::Debian);
    postgres.sql("CREATE ROLE nobody LOGIN");
    let conninfo = format!("host={} user=nobody dbname=postgres", postgres.socket());
    let home = Home::with(&[("conninfo", &conninfo)]);
    let run = home.run(&SWITCH).exits(1);
    for text in [
        "Unable to perform pg_switch_wal for server 'main'.",
        "permission denied",
        "HINT",
    ] {
        assert!(run.stderr.contains(text), "{text}: {}", run.stderr);
    }
    both_print_the_same(&home, &FORCE, || {}).exits(1);
    postgres
        .sql("GRANT EXECUTE ON FUNCTION pg_switch_wal() TO nobody; GRANT pg_checkpoint TO nobody");
    home.run(&FORCE).exits(0);
}

#[test]
fn servers_that_cannot_be_reached_or_asked_do_not_stop_the_others() {
    let postgres = quiet(Major::Debian);
    let home = Home::with_servers(&[
        ("absent", &[]),
        ("main", &[("conninfo", &postgres.conninfo())]),
        (
            "passive",
            &[("primary_ssh_command", "ssh barman@primary.invalid")],
        ),
    ]);
    both_print_the_same(&home, &["switch-wal", "absent"], || {}).exits(1);
    let run = home.run(&["switch-wal", "all"]).exits(1);
    assert!(run.stderr.contains("/nonexistent"), "{}", run.stderr);
    assert!(run.stdout.contains("on server 'main'"), "{}", run.stdout);
    assert!(
        run.stdout.contains("Skipping passive server 'passive'"),
        "{}",
        run.stdout
    );
}

/// A server whose `archive_command` fills `incoming`.
fn archiving() -> (Postgres, Home) {
    let postgres = Postgres::start(|folder| {
        fs::create_dir(format!("{folder}/incoming")).unwrap();
        format!(
            "archive_mode = on\narchive_command = 'cp %p {folder}/incoming/.%f && \
             mv {folder}/incoming/.%f {folder}/incoming/%f'\ncheckpoint_timeout = 1h\n"
        )
    });
    let incoming = postgres.dir("incoming");
    let home = Home::with(&[
        ("conninfo", &postgres.conninfo()),
        ("incoming_wals_directory", incoming.to_str().unwrap()),
    ]);
    (postgres, home)
}

#[test]
fn with_archive_the_closed_segment_is_waited_for_and_archived() {
    let (postgres, home) = archiving();
    let archive = ["switch-wal", "--archive", "main"];
    let run = both_print_the_same(&home, &archive, || write_something(&postgres)).exits(0);
    let closed = run.stdout.split(' ').nth(3).unwrap();
    assert!(home.listed().contains(&closed.to_owned()), "{}", run.stdout);
    assert!(
        run.stdout.ends_with(&format!("\t{closed}\n")),
        "{}",
        run.stdout
    );
    assert_eq!(names(&postgres.dir("incoming")), [""; 0]);
}

#[test]
fn with_archive_waiting_ends_in_time() {
    let postgres = quiet(Major::Debian);
    let home = home_of(&postgres);
    let archive = ["switch-wal", "--archive", "--archive-timeout", "1", "main"];
    let begin = Instant::now();
    // A segment that was closed must come; without one, nothing need come.
    both_print_the_same(&home, &archive, || write_something(&postgres)).exits(1);
    both_print_the_same(&home, &archive, || {
        postgres.sql("SELECT pg_switch_wal()");
    })
    .exits(0);
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn with_archive_another_archiver_may_do_the_work() {
    let (postgres, home) = archiving();
    write_something(&postgres);
    let lock = home.hold_lock(".main-archive-wal.lock");
    let run = home
        .run(&["switch-wal", "--archive", "--archive-timeout", "1", "main"])
        .exits(1);
    assert!(
        !run.stdout.contains("Another archive-wal"),
        "{}",
        run.stdout
    );
    drop(lock);
}

#[test]
fn with_archive_a_file_that_cannot_be_archived_ends_the_waiting() {
    let (postgres, home) = archiving();
    write_something(&postgres);
    fs::remove_dir(home.wals()).unwrap();
    fs::write(home.wals(), "").unwrap();
    let begin = Instant::now();
    let run = home.run(&["switch-wal", "--archive", "main"]).exits(1);
    assert_eq!(run.stderr.matches("ERROR").count(), 1, "{}", run.stderr);
    assert!(begin.elapsed() < Duration::from_secs(20));
}
