//! Becoming the user that the home belongs to.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{Group, User, geteuid, getgrouplist, setgid, setgroups, setuid};

/// Continues as `user_name`.
///
/// When that takes a change of user, the program starts itself again as that user, with `HOME`
/// set: hook scripts and gpg look there. Returns only if we are that user already, or with the
/// message to print.
pub(super) fn become_user(user_name: &str) -> Result<(), String> {
    let user = User::from_name(user_name)
        .ok()
        .flatten()
        .ok_or_else(|| format!("the configured user '{user_name}' does not exist"))?;
    if user.uid == geteuid() {
        return Ok(());
    }
    let refused = || format!("please run walarch as '{user_name}' user");
    if !geteuid().is_root() {
        return Err(refused());
    }
    let groups = std::ffi::CString::new(user_name)
        .ok()
        .and_then(|name| getgrouplist(&name, user.gid).ok())
        .ok_or_else(refused)?;
    setgroups(&groups)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|_| refused())?;
    Err(start_again(&user).to_string())
}

/// Replaces this process by a new one of the same program. Returns the error that prevented it.
fn start_again(user: &User) -> io::Error {
    let group = Group::from_gid(user.gid)
        .ok()
        .flatten()
        .map(|group| group.name);
    let failed = |error: io::Error| {
        let group = group.as_deref().unwrap_or("?");
        io::Error::other(format!(
            "cannot start again as user '{}' (group '{group}'): {error}",
            user.name
        ))
    };
    match env::current_exe() {
        Ok(program) => {
            let mut arguments = env::args_os();
            let name = arguments.next().unwrap_or_default();
            failed(
                Command::new(program)
                    .arg0(name)
                    .args(arguments)
                    .env("HOME", &user.dir)
                    .exec(),
            )
        }
        Err(error) => failed(error),
    }
}
