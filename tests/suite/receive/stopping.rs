//! Whatever the built-in receiver waits for: asked to stop, it ends soon.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::builtin::wait_until_printed;
use super::support::{Receiving, SETTINGS, Way, last_reason, shared, state, state_file, streaming};
use crate::support::home::Home;
use crate::support::messages::READY;
use crate::support::postgres::Postgres;
use crate::support::proxy::{Answer, Mischief, Proxy};
use crate::support::tool::{Walarch, wait_for};
use crate::support::trace::traced_command;
use crate::support::wire::Frame;

/// More than it ever takes, and less than systemd waits (`TimeoutStopSec` of the example).
const SOON: Duration = Duration::from_secs(15);

/// Asks it to stop, which it does, in good order.
#[track_caller]
fn assert_stops(home: &Home, receiving: Receiving) {
    let pid = state(home)["pid"].as_i64().unwrap();
    let asked = Instant::now();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
    let run = receiving.end().exits(0);
    assert!(asked.elapsed() < SOON, "{:?}: {run:?}", asked.elapsed());
    assert!(run.stdout.contains("SIGTERM received"), "{run:?}");
    assert_eq!(last_reason(home), "it was asked to stop");
}

fn postgres() -> Postgres {
    Postgres::start(|_| SETTINGS.to_owned())
}

#[test]
fn in_the_pause_before_the_next_attempt() {
    let mut postgres = postgres();
    let home = Way::Builtin.home_with_slot(&postgres, "pause", &[]);
    let receiving = streaming(&home);
    postgres.stop();
    wait_until_printed(&receiving, "the next attempt follows in", 2);
    assert_stops(&home, receiving);
}

#[test]
fn while_a_host_does_not_answer_that_it_connects_to_for_the_first_time() {
    let postgres = shared();
    // It lets us in, and that is all.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres connect_timeout=600");
    for mute in ["conninfo", "streaming_conninfo"] {
        let home = Way::Builtin.home(&postgres, "mute", &[(mute, &conninfo)]);
        let receiving = Receiving::start(Walarch, &home);
        wait_for("the connection", || {
            state_file(&home).exists().then_some(())
        });
        thread::sleep(Duration::from_secs(1));
        assert_stops(&home, receiving);
    }
}

#[test]
fn while_the_host_does_not_answer_that_it_connects_to_again() {
    let mut postgres = postgres();
    let home = Way::Builtin.home_with_slot(&postgres, "again", &[]);
    let receiving = streaming(&home);
    postgres.stop();
    let path = format!("{}/.s.PGSQL.5432", postgres.socket());
    let mute = UnixListener::bind(path).unwrap();
    let (connection, _) = mute.accept().unwrap();
    assert_stops(&home, receiving);
    drop(connection);
}

#[test]
fn while_there_is_no_room_on_the_disk() {
    let postgres = postgres();
    let home = Way::Builtin.home_with_slot(&postgres, "no_room", &[]);
    let full = "--inject=fallocate:error=ENOSPC:when=2+";
    let options = ["--trace=fallocate".to_owned(), full.to_owned()];
    let command = traced_command(Walarch, &home, &["receive-wal", "main"], &options);
    let receiving = Receiving::start_command(command, &home);
    receiving.wait_until_it_prints("starting log streaming at");
    postgres.fill_segment();
    receiving.wait_until_it_prints("waiting for room");
    assert_stops(&home, receiving);
}

/// Says that the WAL is gone, and then nothing.
struct Evasive(Arc<AtomicUsize>);

impl Mischief for Evasive {
    fn answer(&mut self, sql: &str) -> Option<Answer> {
        if sql.starts_with("START_REPLICATION") {
            let gone = b"SERROR\0C58P01\0Mrequested WAL segment has already been removed\0\0";
            let gone = Frame::new(b'E', *gone).bytes();
            return Some(Answer::Bytes([gone, READY.to_vec()].concat()));
        }
        let is_asked = sql.contains("pg_ls_waldir");
        let times = self.0.fetch_add(usize::from(is_asked), Ordering::Relaxed);
        // The first time it is asked whether it has what is needed.
        (is_asked && times > 0).then(|| Answer::Bytes(Vec::new()))
    }
}

#[test]
fn while_the_server_does_not_say_what_it_has_left() {
    let postgres = postgres();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let proxy = Proxy::start(&postgres, move |_| Box::new(Evasive(count.clone())));
    let home = Way::Builtin.home(
        &postgres,
        "evasive",
        &[
            ("create_slot", "auto"),
            ("conninfo", &proxy.conninfo()),
            ("streaming_conninfo", &proxy.conninfo()),
        ],
    );
    let receiving = Receiving::start(Walarch, &home);
    wait_for("the question", || {
        (asked.load(Ordering::Relaxed) > 1).then_some(())
    });
    assert_stops(&home, receiving);
}
