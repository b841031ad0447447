//! What systemd wants to know of a service of `Type=notify` (manual page sd_notify(3)).

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one.
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
