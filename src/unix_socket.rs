//! Listening sockets in the file system: made without a moment in which others could connect, and
//! removed with the listener. One that another program uses is never touched.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, fstat, open};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

/// Why a path cannot be listened on.
#[derive(Debug, Error)]
pub(crate) enum UnixBindError {
    #[error("something answers there")]
    InUse,
    #[error("it is not a socket")]
    NotASocket,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A socket file that is removed when dropped, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// What the system knows of it; `None` if it has been removed or replaced.
    fn metadata(&self) -> Option<Metadata> {
        let metadata = fs::symlink_metadata(&self.path).ok()?;
        let is_it = (metadata.dev(), metadata.ino()) == (self.device, self.inode);
        is_it.then_some(metadata)
    }

    /// Whether clients that connect to the path reach the socket.
    pub(crate) fn is_in_place(&self) -> bool {
        self.metadata().is_some()
    }

    /// Checks that [`Self::set_mode`] can change who may connect.
    ///
    /// # Errors
    /// If this process may not.
    pub(crate) fn check_mode(&self, mode: u32) -> io::Result<()> {
        let user = nix::unistd::geteuid();
        match self.metadata() {
            Some(metadata)
                if has_other_mode(&metadata, mode)
                    && !user.is_root()
                    && metadata.uid() != user.as_raw() =>
            {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            _ => Ok(()),
        }
    }

    /// Changes who may connect.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.metadata() {
            Some(metadata) if has_other_mode(&metadata, mode) => {
                fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
            }
            // Nobody connects to it by its path any more, or all is as it should be.
            _ => Ok(()),
        }
    }

    /// Gives it to a user and its group.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn set_owner(&self, user: u32, group: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(&self.path, flags, Mode::empty())?;
        let is = fstat(&file)?;
        // Nobody gets a file that was put in its place.
        if (is.st_dev, is.st_ino) != (self.device, self.inode) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        chownat(&file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
        Ok(())
    }
}

fn has_other_mode(metadata: &Metadata, mode: u32) -> bool {
    metadata.mode() & 0o7777 != mode
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`, in place of a socket that a killed program has left there. `mode` says who may
/// connect, from the first moment: before `listen` nobody can.
///
/// # Errors
/// If something else is there, or the system refuses.
pub(crate) fn bind(
    path: &Path,
    mode: u32,
    backlog: i32,
) -> Result<(UnixListener, SocketFile), UnixBindError> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    file.set_mode(mode)?;
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Removes the socket file of a program that was killed. One that responds is left alone.
fn remove_stale(path: &Path) -> Result<(), UnixBindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(UnixBindError::NotASocket);
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    // A queue that is full is one of a program.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whether a program listens there is not known.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error.into()),
        _ => Err(UnixBindError::InUse),
    }
}
