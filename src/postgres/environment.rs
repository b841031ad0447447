//! Where the libpq that is built into walarch looks for files, made the same as on Debian.

use std::env;
use std::path::{Path, PathBuf};

/// Where Debian's libpq looks for `pg_service.conf`.
const SERVICE_DIRECTORY: &str = "/etc/postgresql-common";

/// Where Debian's PostgreSQL has its sockets.
const SOCKET_DIRECTORY: &str = "/var/run/postgresql";

/// Where the certificates of well-known authorities are: Debian's, then Red Hat's.
const CERTIFICATE_FILES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Lets the built-in libpq find the service file and, for `sslrootcert=system`, the certificates of
/// this host. What the environment says already stays.
///
/// Must be called before any thread is started.
pub fn use_debian_paths() {
    let wanted = [
        ("PGSYSCONFDIR", Some(PathBuf::from(SERVICE_DIRECTORY))),
        (
            "SSL_CERT_FILE",
            CERTIFICATE_FILES
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists()),
        ),
    ];
    for (name, path) in wanted {
        if let Some(path) = path.filter(|path| path.exists())
            && env::var_os(name).is_none()
        {
            set(name, &path);
        }
    }
}

#[allow(
    unsafe_code,
    reason = "libpq and OpenSSL take these paths from the environment only"
)]
fn set(name: &str, path: &Path) {
    // SAFETY: the environment must not be read by another thread meanwhile, and there is none yet:
    // the command line calls this before it starts anything.
    unsafe { env::set_var(name, path) };
}

/// The directory of the sockets where neither the connection string nor the environment names a
/// host. `None` leaves it to libpq.
pub(super) fn socket_directory() -> Option<&'static str> {
    Path::new(SOCKET_DIRECTORY)
        .is_dir()
        .then_some(SOCKET_DIRECTORY)
}
