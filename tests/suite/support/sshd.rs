//! A real sshd on loopback, through which a database host reaches a backup host.
//!
//! Both are this machine and, as root or not, this user; keys, host key, configuration and port are of the test alone.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, getuid};
use tempfile::TempDir;

use super::home::Home;
use super::tool::{Tool, wait_for};

/// What `BARMAN_HOST` is to the clients.
pub const HOST: &str = "127.0.0.1";

/// The backup host. Stopped, with all its sessions, when dropped.
pub struct Sshd {
    folder: TempDir,
    port: u16,
    server: Child,
}

impl Sshd {
    /// A host on which the tool is installed, as `barman` and, if it is walarch, by its own name too; it works in the
    /// home.
    pub fn start(home: &Home, tool: Tool) -> Self {
        Self::start_with(home, tool, "")
    }

    /// The same host, with options before the key in `authorized_keys`, such as `command="..."`.
    pub fn start_with(home: &Home, tool: Tool, key_options: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("walarch-ssh.")
            .tempdir()
            .unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = |name: &str| folder.path().join(name);
        generate_key(&path("host_key"));
        generate_key(&path("id"));
        let public = fs::read_to_string(path("id.pub")).unwrap();
        fs::write(path("authorized_keys"), format!("{key_options} {public}")).unwrap();
        fs::create_dir(path("remote")).unwrap();
        symlink(tool.program(), path("remote/barman")).unwrap();
        if tool == Tool::Walarch {
            symlink(tool.program(), path("remote/walarch")).unwrap();
        }
        if getuid().is_root() {
            // Debian's sshd separates its privileges there; it is gone after a reboot.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create("/run/sshd")
                .unwrap();
        }
        let port = free_port();
        fs::write(
            path("sshd_config"),
            server_config(folder.path(), port, home),
        )
        .unwrap();
        let log = fs::File::create(path("sshd.log")).unwrap();
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("no sshd: run tests/setup.sh");
        let sshd = Self {
            folder,
            port,
            server,
        };
        sshd.install_client(&sshd.client());
        wait_for("sshd", || TcpStream::connect((HOST, port)).ok());
        sshd
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who may log in: whoever runs the tests.
    pub fn user(&self) -> String {
        User::from_uid(getuid()).unwrap().unwrap().name
    }

    /// What sshd wrote about its sessions.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("sshd.log")).unwrap()
    }

    /// A directory to put before PATH on the database host: its `ssh` knows port, key and host key.
    pub fn client(&self) -> PathBuf {
        self.folder.path().join("client")
    }

    /// Makes such a directory elsewhere, for another user to own: ssh takes no key that belongs to somebody else.
    pub fn install_client(&self, directory: &Path) {
        fs::create_dir(directory).unwrap();
        let path = |name: &str| directory.join(name);
        let key = path("id");
        fs::copy(self.folder.path().join("id"), &key).unwrap();
        fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let host_key = fs::read_to_string(self.folder.path().join("host_key.pub")).unwrap();
        let port = self.port;
        fs::write(path("known_hosts"), format!("[{HOST}]:{port} {host_key}")).unwrap();
        let config = format!(
            "Port {port}\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\n\
             StrictHostKeyChecking yes\n",
            key.display(),
            path("known_hosts").display()
        );
        fs::write(path("config"), config).unwrap();
        let ssh = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n",
            path("config").display()
        );
        fs::write(path("ssh"), ssh).unwrap();
        fs::set_permissions(path("ssh"), Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts the client's directory before the command's PATH.
    pub fn reachable_from<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.client().display());
        command.env("PATH", path)
    }

    /// From now on nobody answers, as when a network dies: connections stay open and bring nothing.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Undoes [`Sshd::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// The server stops first, so that it starts no session that we do not see.
    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.server.id()).unwrap();
        let _ = kill(Pid::from_raw(id), Signal::SIGSTOP);
        for process in descendants(id).into_iter().chain([id]) {
            let _ = kill(Pid::from_raw(process), signal);
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.server.wait();
    }
}

fn server_config(folder: &Path, port: u16, home: &Home) -> String {
    let (at, root) = (folder.display(), home.root().display());
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // As `tool::in_home`.
    let mut environment = format!(
        "PATH={at}/remote:{path} HOME={root} LANG=C.UTF-8 TZ=UTC PYTHONDONTWRITEBYTECODE=1 \
         BARMAN_CONFIG_FILE={}",
        home.config_file().display()
    );
    if home.gpg_home().exists() {
        environment.push_str(&format!(" GNUPGHOME={}", home.gpg_home().display()));
    }
    format!(
        "ListenAddress {HOST}:{port}\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/authorized_keys\n\
         PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 100\n\
         PrintMotd no\nPrintLastLog no\nSetEnv {environment}\n"
    )
}

fn generate_key(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status();
    assert!(status.expect("no ssh-keygen: run tests/setup.sh").success());
}

/// Taken by nobody a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The processes below one, parents before their children.
fn descendants(id: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let mut found = Vec::new();
    for child in children.split_whitespace() {
        let child = child.parse().unwrap();
        found.push(child);
        found.extend(descendants(child));
    }
    found
}
