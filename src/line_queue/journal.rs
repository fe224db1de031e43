//! The native protocol of systemd's journal.
//!
//! An entry is one datagram of fields, `NAME=value` and a line end each. One that is too large for a
//! datagram goes into a sealed file in memory, whose descriptor is sent instead. That takes less than
//! the crates for it, which bring libsystemd or a logging facade of their own.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::frame::Frame;

/// How long the journal may accept nothing.
const SEND: Duration = Duration::from_secs(5);

/// The journal, and the connection to it if there is one.
pub(super) struct Journal {
    path: PathBuf,
    /// Names the log that the entries are of.
    kind: String,
    socket: Option<UnixDatagram>,
}

impl Journal {
    /// The journal that listens at this socket. It is connected to when there is something to send.
    pub(super) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            kind: "log".to_owned(),
            socket: None,
        }
    }

    /// Names the log that the entries are of.
    pub(super) fn set_kind(&mut self, kind: &str) {
        kind.clone_into(&mut self.kind);
    }

    /// Appends the entry for a record, which has the other fields.
    pub(super) fn write_entry(&self, frame: Frame<'_>, out: &mut Vec<u8>) {
        // Writing to a vector does not fail.
        _ = writeln!(
            out,
            "PRIORITY={}\nSYSLOG_IDENTIFIER=snigate\nSNIGATE_LOG={}",
            frame.severity, self.kind
        );
        out.extend_from_slice(frame.record);
    }

    /// Sends an entry.
    pub(super) fn send(&mut self, entry: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_write_timeout(Some(SEND))?;
                socket
            }
        };
        let socket = self.socket.insert(socket);
        match socket.send(entry) {
            Err(error) if is_too_large(&error) => send_as_file(socket, entry),
            sent => sent.map(drop),
        }
    }

    /// Gives up the connection.
    pub(super) fn disconnect(&mut self) {
        self.socket = None;
    }
}

fn is_too_large(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code == Some(Errno::EMSGSIZE as i32) || code == Some(Errno::ENOBUFS as i32)
}

/// Sends the descriptor of a file in memory that nobody can change any more.
fn send_as_file(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("snigate-log", flags)?);
    file.write_all(entry)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    let descriptors = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let socket = socket.as_fd().as_raw_fd();
    sendmsg::<()>(
        socket,
        &[IoSlice::new(&[])],
        &rights,
        MsgFlags::empty(),
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read as _, Seek as _};
    use std::os::fd::{FromRawFd as _, OwnedFd};

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    #[test]
    fn an_entry_too_large_for_a_datagram_arrives_in_a_sealed_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let receiver = UnixDatagram::bind(&path).expect("bound");
        let mut journal = Journal::at(&path);
        let entry = [&b"MESSAGE="[..], &[b'x'; 1 << 20], b"\n"].concat();
        journal.send(&entry).expect("sent");
        let mut octets = [0; 16];
        let mut octets = [IoSliceMut::new(&mut octets)];
        let mut space = nix::cmsg_space!(std::os::fd::RawFd);
        let received = recvmsg::<()>(
            receiver.as_raw_fd(),
            &mut octets,
            Some(&mut space),
            MsgFlags::empty(),
        )
        .expect("received");
        assert_eq!(received.bytes, 0);
        let rights = received.cmsgs().expect("messages").next();
        let Some(ControlMessageOwned::ScmRights(descriptors)) = rights else {
            panic!("no descriptor");
        };
        // SAFETY: the descriptor was just received, and nobody else owns it.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptors[0]) };
        let mut file = File::from(owned);
        assert!(file.write_all(b"y").is_err(), "it is sealed");
        let mut text = Vec::new();
        file.rewind().expect("at its beginning");
        file.read_to_end(&mut text).expect("read");
        assert!(text == entry);
    }
}
