//! Listening sockets in the file system: made without a moment in which others could connect, and
//! removed with the listener. One that another program uses is never touched.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

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
    inode: u64,
}

impl SocketFile {
    /// Changes who may connect.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
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
    let file = SocketFile {
        path: path.to_owned(),
        inode: fs::symlink_metadata(path)?.ino(),
    };
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
        _ => Err(UnixBindError::InUse),
    }
}
