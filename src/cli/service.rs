//! What systemd wants to know of a service of `Type=notify` (manual pages sd_notify(3) and
//! sd_watchdog_enabled(3)).

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::thread;
use std::time::Duration;

/// The service manager, if there is one.
#[derive(Clone)]
pub(super) struct Service {
    socket: Option<OsString>,
}

impl Service {
    /// The manager that started us, by `NOTIFY_SOCKET`.
    pub(super) fn from_environment() -> Self {
        Service {
            socket: env::var_os("NOTIFY_SOCKET"),
        }
    }

    /// We do what we were started for.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// What we are at, in one line.
    pub(super) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// Keeps the manager's watchdog calm for the rest of the process, but only while `is_alive` says
    /// that work has gone on within the time that it is asked about.
    pub(super) fn keep_watchdog(
        &self,
        is_alive: impl Fn(Duration) -> bool + Send + 'static,
    ) -> io::Result<()> {
        let Some(limit) = watchdog_limit().filter(|_| self.socket.is_some()) else {
            return Ok(());
        };
        let (service, interval) = (self.clone(), limit / 2);
        let watch = move || {
            loop {
                if is_alive(interval) {
                    service.send("WATCHDOG=1");
                }
                thread::sleep(interval);
            }
        };
        let builder = thread::Builder::new().name("watchdog".to_owned());
        builder.spawn(watch).map(drop)
    }

    /// We are about to end.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = send(socket, message)
        {
            tracing::debug!("cannot notify the service manager: {error}");
        }
    }
}

/// After which silence the manager ends us, if it watches this very process.
fn watchdog_limit() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let watches_us = match env::var_os("WATCHDOG_PID") {
        Some(_) => number("WATCHDOG_PID") == Some(u64::from(process::id())),
        None => true,
    };
    let limit_us = number("WATCHDOG_USEC").filter(|limit_us| *limit_us > 0 && watches_us)?;
    Some(Duration::from_micros(limit_us))
}

/// An address that begins with `@` has no file.
fn send(address: &OsString, message: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}
