//! What concerns the process as a whole: file descriptors and the user it runs as.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Uid, User, initgroups, setgid, setuid};
use thiserror::Error;

/// Descriptors that connections may not use: for listeners, logs, reloads, the admin interface
/// and connections to CAs. A gateway that is full must still be able to renew and to be told.
const RESERVE: u64 = 64;

/// Raises the limit on open files as far as it goes, and says how many client connections fit: a
/// proxied one takes a descriptor to the client and one to the upstream.
pub(super) fn connections_by_descriptors() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
            .map(|()| hard)
            .or(Ok(soft))
    });
    let limit = limit.unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit on open files is unknown, taking 1024");
        1024
    });
    connections_within(limit)
}

fn connections_within(descriptors: u64) -> usize {
    let fit = (descriptors.saturating_sub(RESERVE) / 2).max(8);
    usize::try_from(fit).unwrap_or(usize::MAX)
}

/// Why the process cannot run as the configured user.
#[derive(Debug, Error)]
pub enum UserError {
    #[error("server.user: cannot become '{user}': {cause}")]
    Become { user: String, cause: nix::Error },
    #[error("server.user: only root can become '{0}'; start as root, or leave the key out")]
    NotRoot(String),
    #[error("server.user: there is no user '{0}'; create it, or leave the key out")]
    Unknown(String),
    #[error("server.user: cannot look '{user}' up: {cause}")]
    LookUp { user: String, cause: io::Error },
}

/// Becomes `user` for good, with its groups and nothing of root's.
pub(super) fn become_user(user: &str) -> Result<(), UserError> {
    let found = User::from_name(user)
        .map_err(|cause| UserError::LookUp {
            user: user.to_owned(),
            cause: cause.into(),
        })?
        .ok_or_else(|| UserError::Unknown(user.to_owned()))?;
    if Uid::effective() == found.uid {
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err(UserError::NotRoot(user.to_owned()));
    }
    let name = std::ffi::CString::new(user).map_err(|_| UserError::Unknown(user.to_owned()))?;
    initgroups(&name, found.gid)
        .and_then(|()| setgid(found.gid))
        .and_then(|()| setuid(found.uid))
        .map_err(|cause| UserError::Become {
            user: user.to_owned(),
            cause,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_of_descriptors_is_kept() {
        assert_eq!(connections_within(256), 96);
        assert_eq!(connections_within(65_536), 32_736);
        assert_eq!(connections_within(10), 8);
    }

    #[test]
    fn an_unknown_user_is_named() {
        let error = become_user("no-such-user-here").expect_err("unknown");
        assert!(error.to_string().contains("no-such-user-here"));
    }
}
