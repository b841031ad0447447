//! What if `put-wal` is killed, or one of its calls fails, at any point? Its file is whole under its name or not
//! there, what was there before is not harmed, success means that it is there, and the next run puts everything right.

use std::collections::HashMap;
use std::fs;

use crate::support::home::{Home, names, put};
use crate::support::tarball::stream;
use crate::support::tool::{Run, Walarch, input_of};
use crate::support::trace::{CHANGING, Call, traced_with};
use crate::support::wal::Segment;

const PUT: [&str; 2] = ["put-wal", "main"];
const FIRST: &str = "000000010000000000000001";
const EFFECTS: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];

fn good() -> Vec<u8> {
    Segment::small(1).bytes()
}

fn run(home: &Home, options: &[String]) -> (Run, Vec<Call>) {
    let input = input_of(home, &stream(FIRST, &good()));
    traced_with(Walarch, home, &PUT, options, input)
}

/// Every call that changes something in the home, as system call and how-manieth of its kind.
fn targets(home: &Home) -> Vec<(String, usize)> {
    let home = home.copy();
    let (run, calls) = run(&home, &["-e".to_owned(), format!("trace={CHANGING}")]);
    run.exits(0);
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut targets = Vec::new();
    for call in &calls {
        let count = counts.entry(&call.name).or_default();
        *count += 1;
        let effect = call.effect();
        let is_ours = effect
            .path()
            .is_some_and(|path| path.starts_with(home.barman_home()));
        if call.changes() && is_ours {
            targets.push((call.name.clone(), *count));
        }
    }
    targets
}

/// `before` is what `incoming` holds of that name when the run begins.
fn sweep(before: Option<&[u8]>) {
    let home = Home::new();
    if let Some(before) = before {
        put(&home.incoming(), FIRST, before);
    }
    let targets = targets(&home);
    assert!(targets.len() > 4, "{targets:?}");
    let mut struck = 0;
    for (name, count) in targets {
        for effect in EFFECTS {
            let what = format!("{effect} at {name} {count}");
            let home = home.copy();
            let options = [
                "-e".to_owned(),
                format!("trace={name}"),
                "-e".to_owned(),
                format!("inject={name}:{effect}:when={count}"),
            ];
            let (run_hit, calls) = run(&home, &options);
            let hit = run_hit.code == 128 + 9 || calls.iter().any(|call| call.injected);
            struck += usize::from(hit);
            let path = home.incoming().join(FIRST);
            let found = fs::read(&path).ok();
            let is_good = found.as_deref() == Some(&good());
            let is_as_before = found.as_deref() == before;
            let was_set_aside = found.is_none() && !names(&home.errors()).is_empty();
            assert!(
                is_good || is_as_before || was_set_aside,
                "{what}: neither the old nor the new file"
            );
            if run_hit.code == 0 {
                assert!(is_good, "{what}: exit 0 without a good copy");
            }
            if hit && run_hit.code != 128 + 9 {
                let left: Vec<String> = names(&home.incoming());
                assert!(
                    left.iter().all(|name| name == FIRST) || name.starts_with("unlink"),
                    "{what}: {left:?} left"
                );
                if name.contains("sync") {
                    assert_ne!(run_hit.code, 0, "{what}: a failed sync went unheard");
                }
            }
            let (again, _) = run(&home, &["-e".to_owned(), "trace=none".to_owned()]);
            assert_eq!(again.code, 0, "{what}: {}", again.stderr);
            assert_eq!(names(&home.incoming()), [FIRST], "{what}");
            assert!(fs::read(&path).unwrap() == good(), "{what}");
        }
    }
    assert!(struck > 10, "only {struck} faults struck");
}

#[test]
fn no_fault_loses_a_new_file() {
    sweep(None);
}

#[test]
fn no_fault_loses_a_file_that_is_there_already() {
    sweep(Some(&good()));
}

#[test]
fn no_fault_makes_a_file_that_was_cut_short_worse() {
    sweep(Some(&good()[..5000]));
}

#[test]
fn no_fault_makes_a_damaged_file_worse() {
    sweep(Some(&Segment::small(2).bytes()));
}
