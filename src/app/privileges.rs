//! The privileges of the process: which of them it gives up, and that it cannot regain them.
//!
//! The threads that exist by now write the log and listen to signals. All others are started by the
//! thread that calls this, and have its capabilities.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Uid, User, getresuid, initgroups, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};
use thiserror::Error;

/// What is kept of root's privileges: listeners on ports below 1024 may be added by a reload.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Why the process cannot run as the configured user.
#[derive(Debug, Error)]
pub enum UserError {
    #[error("server.user: cannot become '{user}': {cause}")]
    Become { user: String, cause: io::Error },
    #[error("server.user: only root can become '{0}'; start as root, or leave the key out")]
    NotRoot(String),
    #[error(
        "server.user: as '{0}' this process could become root again; start it without the \
         capabilities CAP_SETUID and CAP_SETGID, or as this user"
    )]
    Regains(String),
    #[error("server.user: there is no user '{0}'; create it, or leave the key out")]
    Unknown(String),
    #[error("server.user: cannot look up '{user}': {cause}")]
    LookUp { user: String, cause: io::Error },
}

/// Keeps this process, and the programs that it starts, from gaining privileges by a program that is
/// installed with some, such as `sudo`. To be called before there is another thread.
///
/// # Errors
/// If the system does not know this.
pub fn forbid_new_privileges() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

/// Keeps the programs that this process starts from inheriting its capabilities, which a service
/// manager may have made ambient. It keeps them itself.
pub(super) fn keep_capabilities_from_children() {
    if let Err(error) = clear_ambient_capability_set() {
        tracing::warn!(%error, "programs that are started inherit the capabilities of this process");
    }
}

/// Becomes `user` for good, with its groups and nothing of root's but the right to listen on ports
/// below 1024. Before that, `hand_over` gives this user and its group what they need of root's.
pub(super) fn become_user(
    user: &str,
    hand_over: impl FnOnce(Uid, Gid) -> io::Result<()>,
) -> Result<(), UserError> {
    let found = User::from_name(user)
        .map_err(|cause| UserError::LookUp {
            user: user.to_owned(),
            cause: cause.into(),
        })?
        .ok_or_else(|| UserError::Unknown(user.to_owned()))?;
    if is_user(found.uid) {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err(UserError::NotRoot(user.to_owned()));
    }
    let name = CString::new(user).map_err(|_| UserError::Unknown(user.to_owned()))?;
    let changed = hand_over(found.uid, found.gid).and_then(|()| change_user(&name, &found));
    changed.map_err(|cause| UserError::Become {
        user: user.to_owned(),
        cause,
    })?;
    match can_become_root() {
        true => Err(UserError::Regains(user.to_owned())),
        false => Ok(()),
    }
}

/// Whether this process is nobody else's in any respect.
fn is_user(uid: Uid) -> bool {
    getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [uid; 3])
}

fn change_user(name: &CString, user: &User) -> io::Result<()> {
    let kept = capabilities(None)?.permitted & KEPT;
    set_keep_capabilities(true)?;
    initgroups(name, user.gid)?;
    setresgid(user.gid, user.gid, user.gid)?;
    // In all threads. The others lose all capabilities by it.
    setresuid(user.uid, user.uid, user.uid)?;
    set_keep_capabilities(false)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(clear_ambient_capability_set()?)
}

/// Whether any of root's identities could be taken again.
fn can_become_root() -> bool {
    let root = Uid::from_raw(0);
    setresuid(root, root, root).is_ok() || setgroups(&[Gid::from_raw(0)]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_named() {
        let error = become_user("no-such-user-here", |_, _| Ok(())).expect_err("unknown");
        assert!(error.to_string().contains("no-such-user-here"));
    }
}
