//! What if the built-in receiver is killed, or one of its calls fails, at any point, while commits wait for it or while
//! nobody does? What was promised is there at that instant, and whoever goes on misses nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::support::{Receiving, SETTINGS, Way, assert_holds, receive_wal, received};
use crate::support::chance::Chance;
use crate::support::faults::{Fault, is_full_sweep};
use crate::support::home::{Home, names};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Walarch, wait_for};
use crate::support::trace::{CHANGING, Call, QUICK, take_calls, trace_file, traced_command};
use crate::support::wire::position;
use crate::support::writers::Writers;

/// For so many commits a receiver is watched at most: some segments.
const COMMITS: usize = 600;

/// And for so many segments where nobody waits.
const SEGMENTS: usize = 5;

/// A server, clients that commit, and whether their commits wait for a receiver.
struct Stage {
    postgres: Postgres,
    writers: Writers,
    commits_wait: bool,
    homes: u32,
}

/// A receiver on the stage.
struct Act {
    home: Home,
    slot: String,
    /// What others had received before.
    promised_before: u64,
    /// How much of the log is about receivers that promised nothing: the next one may begin later.
    promised_nothing_bytes: usize,
}

impl Stage {
    fn set(commits_wait: bool) -> Self {
        let settings = format!("{SETTINGS}wal_keep_size = 1GB\n");
        let postgres =
            Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |_| settings.clone());
        Writers::prepare(&postgres);
        if commits_wait {
            postgres.wait_for_receiver_at_commit(&settings);
        }
        let writers = Writers::start(&postgres, if commits_wait { 4 } else { 1 });
        Self {
            postgres,
            writers,
            commits_wait,
            homes: 0,
        }
    }

    fn act(&mut self) -> Act {
        self.homes += 1;
        let slot = format!("fault_{}", self.homes);
        let home = Way::Builtin.archiving_home(&self.postgres, &slot, &[]);
        receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
        Act {
            home,
            slot,
            promised_before: self.writers.promised().position,
            promised_nothing_bytes: 0,
        }
    }

    /// Where it ends that a receiver of this act has promised to keep.
    fn promised(&self, act: &Act) -> Option<u64> {
        if self.commits_wait {
            let position = self.writers.promised().position;
            return (position != act.promised_before).then_some(position);
        }
        // What is before it the server may remove.
        let kept = "SELECT restart_lsn FROM pg_replication_slots WHERE restart_lsn IS NOT NULL";
        let kept = self
            .postgres
            .ask(&format!("{kept} AND slot_name = '{}'", act.slot));
        (!kept.is_empty()).then(|| position(&kept))
    }

    /// What counts as work: commits that did not wait in vain, or else segments.
    fn done(&self, act: &Act) -> usize {
        match self.commits_wait {
            true => self.writers.count(),
            false => act.segments(),
        }
    }

    /// The calls of an undisturbed run that change something in the home, by name, each as the how manieth of its name in
    /// its thread.
    fn targets(&mut self) -> BTreeMap<String, Vec<usize>> {
        let act = self.act();
        let mut receiving = act.trace(&[format!("--trace={CHANGING}"), QUICK.to_owned()]);
        self.watch(&act, &mut receiving, || false);
        act.stop(receiving);
        let mut counts: HashMap<(u32, &str), usize> = HashMap::new();
        let mut targets: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let calls = take_calls(&act.home);
        for call in &calls {
            let count = counts.entry((call.thread, &call.name)).or_default();
            *count += 1;
            if changes(call, &act.home) {
                targets.entry(call.name.clone()).or_default().push(*count);
            }
        }
        for counts in targets.values_mut() {
            counts.sort_unstable();
            counts.dedup();
        }
        self.clear(act);
        targets
    }

    /// Lets a receiver work until it ends, something has happened, or there were enough commits.
    fn watch(&self, act: &Act, receiving: &mut Receiving, happened: impl Fn() -> bool) {
        let enough = if self.commits_wait { COMMITS } else { SEGMENTS };
        let goal = self.done(act) + enough;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !receiving.has_ended() && !happened() && self.done(act) < goal {
            assert!(Instant::now() < deadline, "{}", receiving.output());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// One run with the fault, and one without that goes on after it. Returns whether the fault struck.
    fn strike(&mut self, fault: Fault, name: &str, count: usize, goes_on: bool) -> bool {
        let what = format!("{fault:?} at {name} {count}, going on: {goes_on}");
        let mut act = self.act();
        if goes_on {
            let receiving = Receiving::start(Walarch, &act.home);
            receiving.wait_until_it_prints("starting log streaming");
            self.writers.wait_for(30);
            drop(receiving);
        }
        let effect = match fault {
            Fault::Kill => format!("signal=KILL:when={count}"),
            // For some calls, as a disk stays full.
            Fault::NoSpace => format!("error=ENOSPC:when={count}..{}", count + 2),
            Fault::IoError => format!("error=EIO:when={count}"),
        };
        let mut receiving = act.trace(&[
            format!("--trace={name}"),
            format!("--inject={name}:{effect}"),
        ]);
        self.watch(&act, &mut receiving, || act.was_injected());
        let was_struck = receiving.has_ended() || act.was_injected();
        if !receiving.has_ended() {
            // Does it go on?
            let goal = self.writers.count() + 20;
            let until = Instant::now() + Duration::from_secs(4);
            while !receiving.has_ended() && self.writers.count() < goal && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let output = receiving.output();
        act.stop(receiving);
        // Nobody receives now: no more can be promised.
        self.assert_holds(&act, &what);
        if self.promised(&act).is_none() {
            act.promised_nothing_bytes = act.home.log().len();
        }

        let mut receiving = Receiving::start(Walarch, &act.home);
        let goal = self.done(&act) + if self.commits_wait { 30 } else { 2 };
        wait_for(&what, || {
            assert!(!receiving.has_ended(), "{what}: {}", receiving.output());
            (self.done(&act) >= goal).then_some(())
        });
        receiving.end_by(Signal::SIGINT).exits(0);
        self.assert_holds(&act, &format!("{what}, and on"));
        let words = output + &act.home.log();
        assert!(!words.contains("panicked"), "{what}: {words}");
        assert!(names(&act.home.errors()).is_empty(), "{what}: {words}");
        self.clear(act);
        was_struck
    }

    /// All WAL from the beginning of the act to what was promised in it is here as the server has it, in whole segments
    /// and one that is not yet.
    #[track_caller]
    fn assert_holds(&self, act: &Act, what: &str) {
        if let Some((start, end)) = act.start().zip(self.promised(act)) {
            assert_holds(&self.postgres, &act.home, start..end, what);
        }
    }

    fn clear(&self, act: Act) {
        let drop = format!("SELECT pg_drop_replication_slot('{}')", act.slot);
        wait_for("the slot", || {
            let active = format!(
                "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'",
                act.slot
            );
            (self.postgres.ask(&active) == "f").then_some(())
        });
        self.postgres.sql(&drop);
    }

    /// Returns how many faults struck.
    fn sweep(mut self, fault: Fault) -> usize {
        let targets = self.targets();
        for name in ["pwrite64", "fdatasync", "fallocate"] {
            assert!(targets.contains_key(name), "{targets:?}");
        }
        let mut chance = Chance::new();
        let mut struck = 0;
        for (name, counts) in targets {
            for count in choose(&counts, fault, &mut chance) {
                // What there is to lose is there from the beginning if another one was killed before.
                let goes_on = count == counts[0];
                let is_struck = self.strike(fault, &name, count, goes_on);
                println!("{fault:?} at {name} {count}: {is_struck}");
                struck += usize::from(is_struck);
            }
        }
        struck
    }
}

/// In a full sweep up to 40 of each name, else the first one, if it is a kill, and any other.
fn choose(counts: &[usize], fault: Fault, chance: &mut Chance) -> Vec<usize> {
    let mut any = |number: usize| {
        let from = usize::try_from(chance.below(counts.len() as u64)).unwrap();
        counts[from..]
            .iter()
            .chain(&counts[..from])
            .step_by(counts.len().div_ceil(number))
            .copied()
            .collect()
    };
    let mut chosen: Vec<usize> = any(if is_full_sweep() { 40 } else { 1 });
    if fault == Fault::Kill || is_full_sweep() {
        chosen.push(counts[0]);
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn changes(call: &Call, home: &Home) -> bool {
    let effect = call.effect();
    let path = effect.path().filter(|_| call.changes());
    path.is_some_and(|path| path.starts_with(home.barman_home()))
}

impl Act {
    /// Where the first receiver began that promised anything.
    fn start(&self) -> Option<u64> {
        let log = self.home.log();
        let log = log.get(self.promised_nothing_bytes..)?;
        let (_, rest) = log.split_once("starting log streaming at ")?;
        Some(position(rest.split_whitespace().next()?))
    }

    /// How many segments are complete.
    fn segments(&self) -> usize {
        let waiting = received(&self.home);
        let waiting = waiting
            .iter()
            .filter(|name| !self.home.archived(name).exists());
        waiting.count() + self.home.listed().len()
    }

    fn trace(&self, options: &[String]) -> Receiving {
        let command = traced_command(Walarch, &self.home, &["receive-wal", "main"], options);
        Receiving::start_command(command, &self.home)
    }

    fn was_injected(&self) -> bool {
        let trace = fs::read(trace_file(&self.home)).unwrap_or_default();
        String::from_utf8_lossy(&trace).contains("(INJECTED)")
    }

    fn stop(&self, mut receiving: Receiving) {
        wait_for("the end", || {
            if receiving.has_ended() {
                return Some(());
            }
            // It may not have come so far that it can be found.
            receive_wal(Walarch, &self.home, &["--stop"]);
            None
        });
    }
}

#[track_caller]
fn assert_survives(fault: Fault, commits_wait: bool) {
    let struck = Stage::set(commits_wait).sweep(fault);
    assert!(struck > 5, "only {struck} faults struck");
}

#[test]
fn killed_at_any_call_it_has_kept_its_promises() {
    assert_survives(Fault::Kill, true);
}

#[test]
fn a_disk_that_is_full_for_a_while_breaks_no_promise() {
    assert_survives(Fault::NoSpace, true);
}

#[test]
fn a_disk_that_fails_breaks_no_promise() {
    assert_survives(Fault::IoError, true);
}

#[test]
fn killed_while_nobody_waits_it_has_kept_what_the_slot_does_not() {
    assert_survives(Fault::Kill, false);
}

#[test]
fn a_disk_that_is_full_while_nobody_waits_costs_nothing_that_the_slot_does_not_keep() {
    assert_survives(Fault::NoSpace, false);
}

#[test]
fn a_disk_that_fails_while_nobody_waits_costs_nothing_that_the_slot_does_not_keep() {
    assert_survives(Fault::IoError, false);
}
