//! The tools of this crate, tried on the real Barman: what finds nothing there would find nothing anywhere.

use std::process::Command;

use crate::support::cluster::real_wal;
use crate::support::compare::outcome;
use crate::support::decode::{decode, decode_with_tools};
use crate::support::faults::{Fault, Scenario};
use crate::support::home::{Home, put};
use crate::support::order::Protocol;
use crate::support::sshd::{HOST, Sshd};
use crate::support::tool::{Barman, Tool, Walarch};
use crate::support::trace::record;
use crate::support::wal::{self, Segment};

#[test]
fn barman_archives_in_a_scratch_home_without_a_postgres() {
    let home = Home::with(&[("compression", "zstd")]);
    let files = home.incoming_segments(1..=2);
    let run = Barman.run(&home, &["archive-wal", "main"]).exits(0);
    assert_eq!(
        run.stdout,
        "Processing xlog segments from file archival for main\n\
         \t000000010000000000000001\n\t000000010000000000000002\n"
    );
    assert_eq!(run.stderr, "");
    for (name, bytes) in &files {
        assert!(decode(&home.archived(name)).unwrap() == *bytes);
        assert!(decode_with_tools(&home, &home.archived(name)) == *bytes);
    }
    assert_eq!(home.listed(), files.keys().cloned().collect::<Vec<_>>());
}

#[test]
fn two_copies_of_a_home_end_alike_under_the_same_tool() {
    let home = Home::with(&[("compression", "gzip")]);
    home.incoming_segments(1..=2);
    put(&home.incoming(), "stranger", b"?");
    let (_, first) = outcome(Barman, &home, &["archive-wal", "main"]);
    let (_, second) = outcome(Barman, &home, &["archive-wal", "main"]);
    assert_eq!(first, second);
    assert!(
        first
            .files
            .keys()
            .any(|name| name == "main/errors/stranger.STAMP.unknown")
    );
}

#[test]
fn synthetic_segments_look_to_pg_waldump_like_those_of_postgres() {
    let (name, real) = real_wal().segments().next().unwrap();
    let synthetic = Segment::of_size(16 << 20, 1).system_id(real_wal().system_id);
    assert_eq!(*name, synthetic.name());
    // Magic, flags, timeline, address; then system identifier, segment size and page size.
    let bytes = synthetic.bytes();
    assert_eq!(bytes[..16], real[..16]);
    assert_eq!(bytes[24..40], real[24..40]);
    assert_eq!(bytes[8192..8194], real[8192..8194]);
    assert_eq!(bytes[8196..8208], real[8196..8208]);
}

#[test]
fn real_wal_holds_every_kind_of_file() {
    let wal = real_wal();
    assert!(wal.segments().count() >= 3);
    assert!(wal.archived.contains_key("00000002.history"));
    assert!(
        wal.with_suffix(".backup")
            .1
            .starts_with(b"START WAL LOCATION")
    );
    assert!(wal.partial.0.ends_with(".partial"));
    assert_eq!(wal.partial.1.len(), 16 << 20);
}

fn order_violations(tool: Tool, options: &[(&str, &str)]) -> Vec<String> {
    let home = Home::with(options);
    home.incoming_segments(1..=2);
    let protocol = Protocol::before(&home);
    let (run, calls) = record(tool, &home, &["archive-wal", "main"]);
    run.exits(0);
    protocol.violations(&calls)
}

#[test]
fn the_order_check_catches_barmans_early_unlink() {
    let violations = order_violations(Barman, &[("compression", "gzip")]);
    for expected in [
        "the final name is published before the bytes are durable: 000000010000000000000001",
        "the final name is published by a call that may overwrite: 000000010000000000000001",
        "the source is removed before the archived file is durable: 000000010000000000000001",
        "the source is removed before its xlogdb line is durable: 000000010000000000000001",
    ] {
        assert!(
            violations.iter().any(|found| found == expected),
            "{expected}\n{violations:#?}"
        );
    }
}

#[test]
fn the_order_check_catches_barmans_plain_rename() {
    let violations = order_violations(Barman, &[]);
    assert!(
        violations.contains(
            &"the source is removed before its xlogdb line is durable: 000000010000000000000002"
                .to_owned()
        ),
        "{violations:#?}"
    );
}

/// The breaches that faults in the chosen calls bring to light.
fn breaches(scenario: &Scenario, fault: Fault, call: &str) -> Vec<String> {
    let (recorded_in, targets) = scenario.targets();
    let mut broken = Vec::new();
    for target in targets.iter().filter(|target| target.name == call) {
        let (hit, found) = scenario.strike(recorded_in.root(), target, fault);
        assert!(hit, "{fault:?} did not strike at {target:?}");
        broken.extend(found);
    }
    broken
}

fn barman_with_one_segment() -> Scenario {
    let home = Home::with(&[("compression", "gzip")]);
    let originals = home.incoming_segments(1..=1);
    Scenario {
        tool: Barman,
        home,
        originals,
        command_file: None,
    }
}

#[test]
fn the_kill_sweep_catches_barmans_lost_xlogdb_line() {
    let found = breaches(&barman_with_one_segment(), Fault::Kill, "fsync").join("\n");
    // Killed between the rename and the append, Barman never lists the file again.
    assert!(
        found.contains("the xlogdb lists [], the archive holds"),
        "{found}"
    );
}

#[test]
fn the_error_sweep_catches_barmans_unsafe_order() {
    let found = breaches(&barman_with_one_segment(), Fault::IoError, "fsync").join("\n");
    assert!(
        found.contains("no source was kept although a sync had failed"),
        "{found}"
    );
}

#[test]
fn history_and_label_names_are_those_of_postgres() {
    let (history, _) = wal::history(2);
    assert!(real_wal().archived.contains_key(&history));
    let (label, _) = wal::backup_label(&Segment::small(3));
    assert_eq!(label, "000000010000000000000003.00000028.backup");
}

#[test]
fn a_command_over_ssh_runs_in_the_home() {
    let home = Home::new();
    for tool in [Walarch, Barman] {
        let sshd = Sshd::start(&home, tool);
        let mut ssh = Command::new("ssh");
        let output = sshd
            .reachable_from(&mut ssh)
            .args(["-q", "-T", &format!("{}@{HOST}", sshd.user())])
            .args(["barman", "list-servers", "--minimal"])
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout, "main\n", "{tool:?}: {}", sshd.log());
    }
}
