//! Why a storage operation failed, in words for whoever has to repair it.
//!
//! The text says what to do next, by the system's reason. Callers distinguish causes by variant,
//! never by text.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::geteuid;
use thiserror::Error;

use crate::printable::Printable as _;

/// Why a storage operation failed.
#[derive(Debug, Error)]
pub enum StorageError {
    /// Another process holds the lock.
    #[error("{key:?} is locked by another process; is another gateway using this storage?")]
    Busy { key: String },
    /// Another process has taken over the lock.
    #[error("{key:?} was not written: this process was away for so long that another took over")]
    Lost { key: String },
    /// There is no lock to write it under.
    #[error("{key:?} was not written: the storage could not lock it")]
    Unlocked { key: String },
    /// The operation panicked, which is a bug.
    #[error("work on the storage was interrupted by a bug; see the log")]
    BrokeOff,
    /// The program is ending, and begins nothing more.
    #[error("the storage was not accessed: the gateway is stopping")]
    Ending,
    /// The directory was in use, and is now missing or empty.
    #[error(
        "{} was in use and is gone or empty: mount or restore it; if it was emptied on purpose, \
         restart the gateway to start afresh", path.display()
    )]
    Gone { path: PathBuf },
    /// A file or directory cannot be used.
    #[error("cannot {action} {}: {source}; {}", path.printable(), advice(source))]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The text is not a key.
    #[error("{0:?} is not a storage key")]
    Key(String),
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
