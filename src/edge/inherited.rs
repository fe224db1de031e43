//! Sockets that systemd has opened and passes to this process (`LISTEN_FDS`), by their names.
//!
//! They are taken over once, and stay open for as long as the process runs: a reload may begin to
//! use one that no configuration has named so far.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::OnceLock;

use socket2::{Domain, Socket, Type};

use super::stream::ListeningSocket;

/// What was passed.
static INHERITED: OnceLock<Inherited> = OnceLock::new();

#[derive(Debug, Default)]
struct Inherited {
    /// Sockets by name, several of which may have the same.
    sockets: Vec<(String, ListeningSocket)>,
    /// What is wrong with others, by name.
    faults: Vec<(String, String)>,
}

/// Takes over the sockets that systemd passes to this process, and removes what it says of them from
/// the environment, so that no child takes them for its own. To be called once, before there is
/// another thread.
pub fn take_inherited_sockets() {
    // SAFETY: there is no other thread that could read the environment, as the caller promises.
    let passed = unsafe { sd_notify::listen_fds_with_names_and_unset_env() };
    let mut inherited = Inherited::default();
    match passed {
        Ok(passed) => {
            for (descriptor, name) in passed {
                // SAFETY: the environment says that it is open and meant for this process, and
                // nobody else has it: this is called once.
                let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
                match to_listener(descriptor) {
                    Ok(socket) => inherited.sockets.push((name, socket)),
                    Err(error) => inherited.faults.push((name, error.to_string())),
                }
            }
        }
        Err(error) => inherited.faults.push((String::new(), error.to_string())),
    }
    _ = INHERITED.set(inherited);
}

/// The socket behind a descriptor, if connections can be accepted from it.
fn to_listener(descriptor: OwnedFd) -> io::Result<ListeningSocket> {
    let socket = Socket::from(descriptor);
    let unfit = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if socket.r#type()? != Type::STREAM {
        return unfit("it is no stream socket: use ListenStream in its unit");
    }
    if !socket.is_listener()? {
        return unfit("it is a connection: use Accept=no in its unit");
    }
    socket.set_nonblocking(true)?;
    match socket.domain()? {
        Domain::IPV4 | Domain::IPV6 => {
            _ = socket.set_tcp_nodelay(true);
            Ok(ListeningSocket::Tcp(socket.into()))
        }
        Domain::UNIX => Ok(ListeningSocket::Unix(socket.into())),
        _ => unfit("it is neither a TCP nor a Unix socket"),
    }
}

/// The sockets of this name.
///
/// # Errors
/// If there is none: why.
pub(super) fn find(name: &str) -> Result<Vec<ListeningSocket>, io::Error> {
    let none = Inherited::default();
    let inherited = INHERITED.get().unwrap_or(&none);
    let of_name = |(other, _): &&(String, ListeningSocket)| other == name;
    let sockets = inherited.sockets.iter().filter(of_name);
    let found: Vec<_> = sockets
        .map(|(_, socket)| socket.try_clone())
        .collect::<Result<_, _>>()?;
    if !found.is_empty() {
        return Ok(found);
    }
    let is_it = |(other, _): &&(String, String)| other.is_empty() || other == name;
    let why = match inherited.faults.iter().find(is_it) {
        Some((_, fault)) => fault.clone(),
        None if inherited.sockets.is_empty() => {
            "systemd passed no sockets: start the gateway by a socket unit".to_owned()
        }
        None => {
            let mut names: Vec<_> = inherited.sockets.iter().map(|(name, _)| &**name).collect();
            names.dedup();
            format!("systemd passed only {}", names.join(", "))
        }
    };
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}

/// The names that `is_used` says are not used.
pub(super) fn unused(is_used: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let sockets = INHERITED.get().into_iter();
    let names = sockets.flat_map(|inherited| &inherited.sockets);
    let mut names: Vec<_> = names
        .map(|(name, _)| &**name)
        .filter(|name| !is_used(name))
        .collect();
    names.dedup();
    names
}
