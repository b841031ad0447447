//! What systemd is told: `Type=notify` and the watchdog.

use std::cell::RefCell;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{Receiving, SETTINGS, Way, shared, state, with_each_receiver};
use crate::support::home::Home;
use crate::support::postgres::Postgres;
use crate::support::tool::Walarch;
use crate::support::trace::traced_command;

with_each_receiver! {
    the_service_manager_is_told_when_wal_flows_and_when_it_ends
    the_watchdog_is_kept_calm_by_the_process_that_it_watches
}

/// Stands for systemd.
struct Manager {
    socket: UnixDatagram,
    /// What `NOTIFY_SOCKET` says.
    variable: String,
    /// The messages that nobody waited for since the last one that was waited for.
    before: RefCell<String>,
}

impl Manager {
    fn new(socket: io::Result<UnixDatagram>, variable: String) -> Self {
        let socket = socket.unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Manager {
            socket,
            variable,
            before: RefCell::default(),
        }
    }

    #[track_caller]
    fn wait_for_message(&self, words: &str) -> String {
        let mut before = self.before.borrow_mut();
        before.clear();
        let mut bytes = [0; 4096];
        loop {
            let size = self.socket.recv(&mut bytes).expect(words);
            let message = String::from_utf8_lossy(&bytes[..size]).into_owned();
            if message.contains(words) {
                return message;
            }
            before.push_str(&message);
        }
    }
}

fn the_service_manager_is_told_when_wal_flows_and_when_it_ends(way: Way) {
    let postgres = shared();
    let home = way.home_with_slot(&postgres, &way.name("notify"), &[]);
    let path = home.root().join("notify.socket");
    let abstract_name = format!("{}-{}", way.name("walarch"), std::process::id());
    let address = SocketAddr::from_abstract_name(abstract_name.as_bytes()).unwrap();
    let managers = [
        Manager::new(UnixDatagram::bind(&path), path.display().to_string()),
        Manager::new(
            UnixDatagram::bind_addr(&address),
            format!("@{abstract_name}"),
        ),
    ];
    for manager in managers {
        let mut command = Walarch.command(&home, &["receive-wal", "main"]);
        command.env("NOTIFY_SOCKET", &manager.variable);
        let receiving = Receiving::start_command(command, &home);
        let ready = manager.wait_for_message("READY=1");
        assert!(ready.contains("\nSTATUS=receiving WAL from "), "{ready}");
        receiving.end_by(Signal::SIGTERM).exits(0);
        manager.wait_for_message("STOPPING=1");
    }
}

fn the_watchdog_is_kept_calm_by_the_process_that_it_watches(way: Way) {
    let postgres = shared();
    let home = way.home_with_slot(&postgres, &way.name("watchdog"), &[]);
    let path = home.root().join("notify.socket");
    let manager = Manager::new(UnixDatagram::bind(&path), path.display().to_string());
    let start = |watched: Option<&str>| {
        let mut command = Walarch.command(&home, &["receive-wal", "main"]);
        command.env("NOTIFY_SOCKET", &manager.variable);
        command.env("WATCHDOG_USEC", "2000000");
        command.envs(watched.map(|pid| ("WATCHDOG_PID", pid)));
        Receiving::start_command(command, &home)
    };
    let receiving = start(None);
    manager.wait_for_message("READY=1");
    manager.wait_for_message("WATCHDOG=1");
    manager.wait_for_message("WATCHDOG=1");
    receiving.end_by(Signal::SIGTERM).exits(0);
    manager.wait_for_message("STOPPING=1");

    let receiving = start(Some("1"));
    manager.wait_for_message("READY=1");
    thread::sleep(Duration::from_secs(3));
    receiving.end_by(Signal::SIGTERM).exits(0);
    let mut messages = manager.wait_for_message("STOPPING=1");
    messages.push_str(&manager.before.borrow());
    assert!(!messages.contains("WATCHDOG"), "{messages}");
}

/// A receiver that systemd watches, and would end after two seconds of silence.
fn watched(home: &Home, manager: &Manager, options: &[&str]) -> Receiving {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let mut command = traced_command(Walarch, home, &["receive-wal", "main"], &options);
    command.env("NOTIFY_SOCKET", &manager.variable);
    command.env("WATCHDOG_USEC", "2000000");
    Receiving::start_command(command, home)
}

/// Killing strace would let it go on alone.
fn kill_traced(home: &Home, receiving: Receiving) {
    let pid = state(home)["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    receiving.end();
}

/// How often the watchdog is told within this time that all is well.
fn signs_of_life(manager: &Manager, time: Duration) -> usize {
    let until = Instant::now() + time;
    let mut bytes = [0; 4096];
    let mut count = 0;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let left = left.max(Duration::from_millis(1));
        manager.socket.set_read_timeout(Some(left)).unwrap();
        if let Ok(size) = manager.socket.recv(&mut bytes) {
            count += usize::from(bytes[..size].starts_with(b"WATCHDOG=1"));
        }
    }
    count
}

#[test]
fn waiting_for_the_server_or_for_room_is_no_reason_for_the_watchdog_to_bite() {
    let mut postgres = Postgres::start(|_| SETTINGS.to_owned());
    let home = Way::Builtin.home_with_slot(&postgres, "patient", &[]);
    let path = home.root().join("notify.socket");
    let manager = Manager::new(UnixDatagram::bind(&path), path.display().to_string());
    let full = "--inject=fallocate:error=ENOSPC:when=2+";
    let receiving = watched(&home, &manager, &["--trace=fallocate", full]);
    manager.wait_for_message("READY=1");
    postgres.fill_segment();
    manager.wait_for_message("waiting for room");
    assert!(signs_of_life(&manager, Duration::from_secs(6)) >= 4);
    postgres.crash();
    manager.wait_for_message("STATUS=lost the connection");
    assert!(signs_of_life(&manager, Duration::from_secs(6)) >= 4);
    kill_traced(&home, receiving);
}

#[test]
fn a_receiver_that_is_stuck_does_not_keep_the_watchdog_calm() {
    let postgres = Postgres::start(|_| SETTINGS.to_owned());
    let home = Way::Builtin.home_with_slot(&postgres, "stuck", &[]);
    let home =
        home.walarch_toml("[walarch]\nreceiver = \"builtin\"\nreceive_wal_synchronous = true\n");
    let path = home.root().join("notify.socket");
    let manager = Manager::new(UnixDatagram::bind(&path), path.display().to_string());
    // A disk that does not answer.
    let stuck = "--inject=fdatasync:delay_enter=15000000";
    let receiving = watched(&home, &manager, &["--trace=fdatasync", stuck]);
    manager.wait_for_message("READY=1");
    manager.wait_for_message("WATCHDOG=1");
    postgres.sql("SELECT pg_logical_emit_message(true, 'walarch', 'commit')");
    thread::sleep(Duration::from_secs(3));
    signs_of_life(&manager, Duration::from_millis(100));
    assert_eq!(signs_of_life(&manager, Duration::from_secs(4)), 0);
    kill_traced(&home, receiving);
}
