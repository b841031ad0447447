//! The built-in receiver and `pg_receivewal` go on for one another, wherever the other one was stopped or killed, and
//! what they leave together is the server's WAL.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{
    Receiving, SETTINGS, Way, assert_received, partials, receive_wal, received, wait_for_segments,
};
use crate::support::chance::Chance;
use crate::support::faults::is_full_sweep;
use crate::support::home::{Home, names};
use crate::support::postgres::{Major, Postgres};
use crate::support::tool::{Walarch, wait_for};
use crate::support::writers::Writers;

fn server(major: Major) -> Postgres {
    Postgres::start_major(major, &["--wal-segsize=1"], |_| {
        format!("{SETTINGS}wal_keep_size = 1GB\n")
    })
}

/// Somebody who receives into the home.
enum Receiver {
    Builtin(Receiving),
    PgReceivewal(Child),
}

impl Receiver {
    fn builtin(home: &Home) -> Self {
        Self::Builtin(Receiving::start(Walarch, home))
    }

    /// The program itself, with nobody beside it.
    fn pg_receivewal(postgres: &Postgres, home: &Home, slot: &str) -> Self {
        let output = File::create(home.root().join("pg_receivewal.out")).unwrap();
        let mut command = Command::new(postgres.bin().join("pg_receivewal"));
        command
            .args([
                "--no-loop",
                "--synchronous",
                "--verbose",
                "--slot",
                slot,
                "-d",
            ])
            .arg(postgres.conninfo())
            .arg("-D")
            .arg(home.streaming())
            .stderr(output);
        Self::PgReceivewal(command.spawn().unwrap())
    }

    fn id(&self) -> Pid {
        match self {
            Self::Builtin(receiving) => receiving.pid(),
            Self::PgReceivewal(child) => Pid::from_raw(i32::try_from(child.id()).unwrap()),
        }
    }

    /// Whether it has not begun because the server still believes in the one before.
    fn has_ended(&mut self) -> bool {
        match self {
            Self::Builtin(receiving) => receiving.has_ended(),
            Self::PgReceivewal(child) => child.try_wait().unwrap().is_some(),
        }
    }

    fn end_by(self, signal: Signal) {
        kill(self.id(), signal).unwrap();
        match self {
            Self::Builtin(receiving) => drop(receiving.end()),
            Self::PgReceivewal(mut child) => drop(child.wait().unwrap()),
        }
    }
}

/// A server, and a home with a slot there.
struct Stage {
    postgres: Postgres,
    home: Home,
}

impl Stage {
    fn set(postgres: Postgres) -> Self {
        let home = Way::Builtin.home(&postgres, "takeover", &[]);
        receive_wal(Walarch, &home, &["--create-slot"]).exits(0);
        Self { postgres, home }
    }

    /// Lets one of them go on until this is so.
    #[track_caller]
    fn receive_until(&self, builtin: bool, what: &str, done: impl Fn() -> bool) -> Receiver {
        let start = || match builtin {
            true => Receiver::builtin(&self.home),
            false => Receiver::pg_receivewal(&self.postgres, &self.home, "takeover"),
        };
        let mut receiver = start();
        wait_for(what, || {
            if done() {
                return Some(());
            }
            if receiver.has_ended() {
                receiver = start();
            }
            None
        });
        receiver
    }

    /// All of it, from the first to the last, as the server has it.
    #[track_caller]
    fn assert_whole(&self, first: &str, last: &str) {
        let mut expected = names(&self.postgres.data().join("pg_wal"));
        expected.retain(|name| name.len() == 24 && first <= name.as_str() && name.as_str() <= last);
        let mut segments = received(&self.home);
        segments.retain(|name| name.len() == 24);
        assert_eq!(segments, expected);
        for name in &segments {
            assert_received(&self.postgres, &self.home.streaming(), name);
        }
        assert!(
            partials(&self.home).len() <= 1,
            "{:?}",
            partials(&self.home)
        );
    }
}

/// They take turns under load, each killed or stopped at an instant that nobody chose.
#[track_caller]
fn assert_take_turns(major: Major, turns: u64) {
    let stage = Stage::set(server(major));
    let Stage { postgres, home } = &stage;
    Writers::prepare(postgres);
    let mut receiver = stage.receive_until(true, "the first one", || !partials(home).is_empty());
    let first = partials(home)[0].replace(".partial", "");
    let writers = Writers::start(postgres, 2);
    let mut chance = Chance::new();
    for turn in 1..=turns {
        chance.sleep_below(300);
        let signal = if chance.once_in(2) {
            Signal::SIGKILL
        } else {
            Signal::SIGINT
        };
        receiver.end_by(signal);
        let goal = writers.count() + usize::try_from(chance.below(200)).unwrap();
        receiver = stage.receive_until(turn.is_multiple_of(2), "commits", || {
            writers.count() >= goal
        });
    }
    writers.end();
    receiver.end_by(Signal::SIGKILL);
    let last = postgres.fill_segment();
    let receiver = stage.receive_until(turns.is_multiple_of(2), "the last segment", || {
        home.streaming().join(&last).exists()
    });
    receiver.end_by(Signal::SIGINT);
    stage.assert_whole(&first, &last);
}

#[test]
fn they_take_turns_at_any_moment() {
    let turns = if is_full_sweep() { 100 } else { 12 };
    assert_take_turns(Major::Debian, turns);
}

#[test]
fn they_take_turns_with_a_newer_major_version() {
    let turns = if is_full_sweep() { 50 } else { 5 };
    assert_take_turns(Major::Newer, turns);
}

type Leave = fn(&Path);

/// What the one before may have left of the segment that it was at.
const LEFTOVERS: [(&str, Leave); 4] = [
    ("nothing", |partial| fs::remove_file(partial).unwrap()),
    ("no bytes", |partial| drop(File::create(partial).unwrap())),
    ("the first page", |partial| set_size(partial, 8192)),
    ("half of it", |partial| set_size(partial, 1 << 19)),
];

fn set_size(path: &Path, size: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(size).unwrap();
}

#[test]
fn whatever_is_left_of_the_newest_segment_is_gone_on_from() {
    let stage = Stage::set(server(Major::Debian));
    let Stage { postgres, home } = &stage;
    let mut first = None;
    for (what, leave) in LEFTOVERS {
        for builtin in [true, false] {
            let receiver = stage.receive_until(builtin, what, || {
                postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', repeat('x', 50000))");
                let partial = partials(home);
                partial.len() == 1 && fs::read(home.streaming().join(&partial[0])).unwrap()[0] != 0
            });
            let partial = partials(home).remove(0);
            first.get_or_insert(partial.replace(".partial", ""));
            receiver.end_by(Signal::SIGKILL);
            leave(&home.streaming().join(&partial));
            // pg_receivewal itself goes on only where there is nothing, no bytes or all of them.
            let receiver = stage.receive_until(true, what, || !partials(home).is_empty());
            let segment = postgres.fill_segment();
            wait_for_segments(home, &[&segment]);
            receiver.end_by(Signal::SIGINT);
        }
    }
    let last = received(home).pop().unwrap();
    stage.assert_whole(&first.unwrap(), &last);
}

#[test]
fn they_follow_one_another_onto_the_next_timeline() {
    for (before, after) in [(true, false), (false, true)] {
        let primary = server(Major::Debian);
        let standby = primary.standby(&format!("{SETTINGS}wal_keep_size = 1GB\n"));
        let stage = Stage::set(standby);
        let (postgres, home) = (&stage.postgres, &stage.home);
        let receiver = stage.receive_until(before, "the first one", || !partials(home).is_empty());
        let first = partials(home)[0].replace(".partial", "");
        let old = primary.fill_segment();
        primary.sql("SELECT pg_logical_emit_message(true, 'walarch', 'the last words')");
        wait_for_segments(home, &[&old]);
        let end = primary.ask("SELECT pg_current_wal_flush_lsn()");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        wait_for("the standby", || {
            (postgres.ask(&replayed) == "t").then_some(())
        });
        receiver.end_by(Signal::SIGKILL);
        postgres.promote();
        let receiver = stage.receive_until(after, "the next timeline", || {
            home.streaming().join("00000002.history").exists()
        });
        let new = postgres.fill_segment();
        wait_for_segments(home, &[&new]);
        receiver.end_by(Signal::SIGINT);
        let same = |name: &str| {
            assert_received(postgres, &home.streaming(), name);
        };
        same("00000002.history");
        same(&new);
        assert!(first <= old);
        let segments = received(home);
        assert!(segments.contains(&old), "{segments:?}");
        for name in segments
            .iter()
            .filter(|name| name.starts_with("00000001") && name.len() == 24)
        {
            assert_received(&primary, &home.streaming(), name);
        }
    }
}
