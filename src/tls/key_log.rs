//! Writes the secrets of connections to a file, in the format that Wireshark and others read: for
//! looking into what was sent, and for nothing else.
//!
//! Only the configuration asks for it. The environment variable `SSLKEYLOGFILE` has no effect.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use openssl::ssl::SslContextBuilder;
use zeroize::Zeroizing;

/// A file for the secrets of connections, which only its owner may read.
#[derive(Debug)]
pub struct KeyLog(File);

impl KeyLog {
    /// Opens a file, to which secrets are appended. Nobody else may read it from now on.
    ///
    /// # Errors
    /// If it cannot be written, is not a regular file, belongs to another user, or has another name.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        let known = file.metadata()?;
        if !known.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        // Otherwise somebody may have prepared it, in order to read what is written.
        if known.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if known.nlink() != 1 {
            return Err(io::Error::other("it has a second name, a hard link"));
        }
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Self(file))
    }

    /// Has the secrets of all connections of a context written.
    pub(super) fn follow(self, builder: &mut SslContextBuilder) {
        builder.set_keylog_callback(move |_, line| {
            let mut whole = Zeroizing::new(Vec::with_capacity(line.len() + 1));
            whole.extend_from_slice(line.as_bytes());
            whole.push(b'\n');
            // In one piece, so that lines of several connections do not mix. If the disk is full,
            // handshakes are worth more.
            _ = (&self.0).write_all(&whole);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_the_owner_of_a_regular_file_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        fs::write(&path, "before\n").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        let log = KeyLog::open(&path).expect("opened");
        (&log.0).write_all(b"after\n").expect("written");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).expect("text"), "before\nafter\n");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(KeyLog::open(&link).is_err());
        assert!(KeyLog::open(folder.path()).is_err());
        let twin = folder.path().join("twin");
        fs::hard_link(&path, &twin).expect("a second name");
        assert!(KeyLog::open(&path).is_err());
        if nix::unistd::geteuid().is_root() {
            let foreign = folder.path().join("foreign");
            fs::write(&foreign, "").expect("written");
            std::os::unix::fs::chown(&foreign, Some(1), None).expect("root may");
            assert!(KeyLog::open(&foreign).is_err());
        }
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(KeyLog::open(&pipe).is_err());
    }
}
