//! Becoming the user that the home belongs to.

use std::env;
use std::ffi::CString;

use nix::unistd::{User, geteuid, getgrouplist, setgid, setgroups, setuid};

/// Makes sure that this process runs as a user, or says why it does not.
pub(super) type UserRule = fn(&str) -> Result<(), String>;

/// Becomes `user_name`, with its groups and its `HOME`: hook scripts and gpg look there.
///
/// Only root can become somebody else. Must be called before any thread is started.
pub(super) fn become_user(user_name: &str) -> Result<(), String> {
    let user = look_up(user_name)?;
    if user.uid == geteuid() {
        return Ok(());
    }
    let wrong_user = |_| wrong_user(user_name);
    let name = CString::new(user_name).map_err(|_| format!("'{user_name}' is no user name"))?;
    getgrouplist(&name, user.gid)
        .and_then(|groups| setgroups(&groups))
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(wrong_user)?;
    set_home(&user);
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "the one safe way to give every child process another HOME"
)]
fn set_home(user: &User) {
    // SAFETY: the environment must not be read by another thread meanwhile, and there is none yet:
    // the command line calls this before it starts anything.
    unsafe { env::set_var("HOME", &user.dir) };
}

/// Accepts only to be `user_name` already.
pub(super) fn must_be_user(user_name: &str) -> Result<(), String> {
    match look_up(user_name)?.uid == geteuid() {
        true => Ok(()),
        false => Err(wrong_user(user_name)),
    }
}

fn look_up(user_name: &str) -> Result<User, String> {
    User::from_name(user_name)
        .ok()
        .flatten()
        .ok_or_else(|| format!("the configured user '{user_name}' does not exist"))
}

fn wrong_user(user_name: &str) -> String {
    format!("please run walarch as '{user_name}' user")
}
