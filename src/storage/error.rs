//! Why a storage operation failed, in words for whoever has to repair it.
//!
//! The text says what to do next, by the system's reason. Callers distinguish causes by variant,
//! never by text.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::geteuid;
use thiserror::Error;

use super::Key;
use crate::printable::Printable as _;

/// Why a storage operation failed.
///
/// A backend of another program reports [`Self::Lost`] where a lease is no longer held, and
/// everything else by [`Self::backend`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process holds the lock. [`super::Storage::lock`] gives up with it.
    #[error("{key:?} is locked by another process; is another gateway using this storage?")]
    Busy {
        /// The key that is locked.
        key: String,
    },
    /// Another process has taken over the lease.
    #[error("{key:?} was not written: this process was away for so long that another took over")]
    Lost {
        /// The key that was to be written.
        key: String,
    },
    /// There is no lock to write it under.
    #[error("{key:?} was not written: the storage could not lock it")]
    Unlocked {
        /// The key that was to be written.
        key: String,
    },
    /// The operation panicked, which is a bug.
    #[error("work on the storage was interrupted by a bug; see the log")]
    BrokeOff,
    /// The program is ending, and begins nothing more.
    #[error("the storage was not accessed: the gateway is stopping")]
    Ending,
    /// A backend of another program failed.
    #[error("cannot {action} {key:?} in the storage: {source}")]
    Backend {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// The key that was to be used.
        key: String,
        /// Why it failed, and what to do about it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory was in use, and is now missing or empty.
    #[error(
        "{} was in use and is gone or empty: mount or restore it; if it was emptied on purpose, \
         restart the gateway to start afresh", path.display()
    )]
    Gone {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory cannot be used.
    #[error("cannot {action} {}: {source}; {}", path.printable(), advice(source))]
    Io {
        /// What was tried, as a verb: `read`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The text is not a key.
    #[error("{0:?} is not a storage key")]
    Key(String),
}

impl StorageError {
    /// That a backend could not `action` (`read`, `write`, `lock`) the value of `key`, because of
    /// `source`. People read it in logs and events, so `source` should also say what to do.
    pub fn backend(
        action: &'static str,
        key: &Key,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Backend {
            action,
            key: key.to_string(),
            source: source.into(),
        }
    }

    /// That nothing was written to `key` because the lease is no longer held.
    pub fn lost(key: &Key) -> Self {
        Self::Lost {
            key: key.to_string(),
        }
    }
}

/// What to do about `error`.
fn advice(error: &io::Error) -> String {
    if let Some(number) = error.raw_os_error() {
        match Errno::from_raw(number) {
            Errno::EMFILE | Errno::ENFILE => {
                return "raise the limit of open files (LimitNOFILE= in the systemd unit)".into();
            }
            Errno::EIO => return "the disk may be failing: see the kernel's log (dmesg)".into(),
            Errno::ENOLCK => {
                return "the file system does not support locks: on NFS, mount it without nolock, \
                        with version 4 or with its lock service running"
                    .into();
            }
            _ => {}
        }
    }
    match error.kind() {
        ErrorKind::StorageFull => {
            "the disk is full: free space on it ('df -h' and 'df -i' show what is left)".into()
        }
        ErrorKind::QuotaExceeded => {
            "the quota is used up: free space or have the quota raised ('quota' shows it)".into()
        }
        ErrorKind::PermissionDenied => format!(
            "make the user that snigate runs as, currently number {}, the owner of the storage's \
             directory and everything in it",
            geteuid()
        ),
        ErrorKind::ReadOnlyFilesystem => {
            "it is read-only: mount it writable, let the service write there (ReadWritePaths= in \
             the systemd unit), or set storage.file.path to another place"
                .into()
        }
        ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::AlreadyExists => {
            "a file stands where a directory should be, or the other way round: move it away".into()
        }
        ErrorKind::StaleNetworkFileHandle | ErrorKind::TimedOut => {
            "another process, or the server of a network file system, is holding it: release it \
             there"
                .into()
        }
        _ => "check that it exists and who owns it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_of_another_program_says_what_it_was_doing() {
        let key = "retry/a.json".parse().expect("a key");
        let error = StorageError::backend("write", &key, "the database is read-only: promote it");
        assert_eq!(
            error.to_string(),
            "cannot write \"retry/a.json\" in the storage: the database is read-only: promote it"
        );
    }

    #[test]
    fn messages_say_what_to_do() {
        for (errno, told) in [
            (Errno::ENOSPC, "free space"),
            (Errno::EDQUOT, "quota"),
            (Errno::EACCES, "the owner of the storage's directory"),
            (Errno::EPERM, "the owner of the storage's directory"),
            (Errno::EROFS, "ReadWritePaths="),
            (Errno::EMFILE, "LimitNOFILE="),
            (Errno::ENOTDIR, "move it away"),
            (Errno::EIO, "kernel's log"),
            (Errno::ENOLCK, "nolock"),
            (Errno::ENOENT, "who owns it"),
        ] {
            let error = StorageError::Io {
                action: "write",
                path: "/data/a".into(),
                source: io::Error::from(errno),
            };
            let text = error.to_string();
            assert!(text.starts_with("cannot write /data/a: "), "{text}");
            assert!(text.contains(told), "{errno}: {text}");
        }
    }
}
