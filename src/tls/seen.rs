//! What a ClientHello asked for, for whoever tells how its handshake ended.
//!
//! Where a handshake fails, OpenSSL's state of it is gone before anyone can ask. So what was
//! learnt is noted beside it, in the task whose handshake it is: the callbacks run within.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;

use tokio::task::futures::TaskLocalFuture;

use crate::host::{HostName, MAX_HOST_NAME};

tokio::task_local! {
    static SEEN: RefCell<Seen>;
}

/// What is known of a handshake whatever became of it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    server_name: Option<Name>,
    /// Whether the name that was asked for has no certificate.
    pub is_unknown: bool,
    /// The address of this machine that the client has come to.
    local: Option<IpAddr>,
    /// The address that the client has come from.
    client: Option<IpAddr>,
}

#[derive(Clone, Debug)]
enum Name {
    Host(HostName),
    /// What was asked for is no host name.
    Other(String),
}

/// A handshake that is watched.
pub type Watched<F> = TaskLocalFuture<RefCell<Seen>, F>;

/// Watches what a handshake asks for. `client` is the address that it comes from, `local` the one
/// of this machine that it has come to, where that is known.
pub fn watched<F: Future>(
    handshake: F,
    client: Option<IpAddr>,
    local: Option<IpAddr>,
) -> Watched<F> {
    let seen = Seen {
        local,
        client,
        ..Seen::default()
    };
    SEEN.scope(RefCell::new(seen), handshake)
}

/// The address of this machine that the client of the handshake under way has come to.
pub(super) fn local() -> Option<IpAddr> {
    let local = SEEN.try_with(|seen| seen.try_borrow().ok()?.local);
    local.ok().flatten()
}

/// The address of the client of the handshake under way.
pub(super) fn client() -> Option<IpAddr> {
    let client = SEEN.try_with(|seen| seen.try_borrow().ok()?.client);
    client.ok().flatten()
}

impl Seen {
    /// What a handshake that has ended, or is given up, asked for.
    pub fn in_handshake<F>(handshake: Pin<&mut Watched<F>>) -> Self {
        let seen = handshake.take_value().map(RefCell::into_inner);
        seen.unwrap_or_default()
    }

    /// The name that was asked for as it came. Whoever prints it escapes it.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_ref().map(|name| match name {
            Name::Host(name) => name.as_str(),
            Name::Other(text) => text,
        })
    }
}

/// Notes what the handshake under way asks for.
pub(super) fn note(name: Option<&HostName>, raw: Option<&[u8]>) {
    with(|seen| {
        let other = || {
            let raw = raw?;
            let raw = raw.get(..MAX_HOST_NAME).unwrap_or(raw);
            Some(Name::Other(String::from_utf8_lossy(raw).into_owned()))
        };
        seen.server_name = name.cloned().map(Name::Host).or_else(other);
    });
}

/// Notes that what the handshake under way asks for has no certificate.
pub(super) fn note_unknown() {
    with(|seen| seen.is_unknown = true);
}

fn with(change: impl FnOnce(&mut Seen)) {
    // An error means that nobody watches.
    let _ = SEEN.try_with(|seen| {
        if let Ok(mut seen) = seen.try_borrow_mut() {
            change(&mut seen);
        }
    });
}
