//! A backup host that is this machine, over a real sshd.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::unistd::{User, geteuid};

use crate::Result;
use crate::corpus::run;

pub(crate) const HOST: &str = "127.0.0.1";

/// Stopped when dropped.
pub(crate) struct Sshd {
    folder: PathBuf,
    server: Child,
}

impl Sshd {
    /// A host on which `barman` is this program, with this configuration.
    pub(crate) fn start(folder: PathBuf, program: &Path, configuration: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("remote"))?;
        let at = folder.display();
        for key in ["host_key", "id"] {
            let path = format!("{at}/{key}");
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path]))?;
        }
        fs::copy(folder.join("id.pub"), folder.join("authorized_keys"))?;
        symlink(program, folder.join("remote/barman"))?;
        let port = TcpListener::bind((HOST, 0))?.local_addr()?.port();
        if geteuid().is_root() {
            fs::create_dir_all("/run/sshd")?;
        }
        let host_key = fs::read_to_string(folder.join("host_key.pub"))?;
        fs::write(
            folder.join("known_hosts"),
            format!("[{HOST}]:{port} {host_key}"),
        )?;
        fs::write(
            folder.join("ssh"),
            format!(
                "#!/bin/sh\nexec /usr/bin/ssh -F none -p {port} -i {at}/id \
                 -o UserKnownHostsFile={at}/known_hosts \"$@\"\n"
            ),
        )?;
        fs::set_permissions(folder.join("ssh"), Permissions::from_mode(0o755))?;
        fs::write(
            folder.join("sshd_config"),
            format!(
                "ListenAddress {HOST}:{port}\nHostKey {at}/host_key\nPidFile none\nStrictModes no\n\
                 AuthorizedKeysFile {at}/authorized_keys\nUsePAM no\nMaxStartups 100\n\
                 SetEnv PATH={at}/remote:/usr/bin:/bin BARMAN_CONFIG_FILE={}\n",
                configuration.display()
            ),
        )?;
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-f", &format!("{at}/sshd_config")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let sshd = Sshd { folder, server };
        for _ in 0..500 {
            if TcpStream::connect((HOST, port)).is_ok() {
                return Ok(sshd);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err("sshd does not answer".into())
    }

    /// PATH with an `ssh` that knows the way.
    pub(crate) fn path(&self) -> String {
        format!("{}:/usr/bin:/bin", self.folder.display())
    }

    pub(crate) fn user() -> Result<String> {
        Ok(User::from_uid(geteuid())?
            .ok_or("this user has no name")?
            .name)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
