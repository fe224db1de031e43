//! What a ClientHello asked for, for the report of how its handshake ended.
//!
//! Where a handshake fails, OpenSSL's state of it is gone before anyone can ask. So what was
//! learnt is noted beside it, in the task whose handshake it is: the callbacks run within.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::SocketDigest;
use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use crate::host::{HostName, MAX_HOST_NAME};

tokio::task_local! {
    static TRACE: RefCell<HandshakeTrace>;
}

/// What is known of a handshake whatever became of it.
#[derive(Clone, Debug, Default)]
pub struct HandshakeTrace {
    server_name: Option<Name>,
    /// Whether the name that was asked for has no certificate.
    pub is_unknown: bool,
    /// Whether nothing is presented for it, after it was waited for.
    is_refused: bool,
    /// The socket, which knows the address of this machine that the client has come to.
    socket: Option<Arc<SocketDigest>>,
    /// The address that the client has come from.
    client: Option<IpAddr>,
    /// How long it has waited for a certificate on demand, before `waiting_since`.
    waited: Duration,
    waiting_since: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Name {
    Host(HostName),
    /// What was asked for is no host name.
    Other(String),
}

/// A handshake that is traced.
pub type Traced<F> = TaskLocalFuture<RefCell<HandshakeTrace>, F>;

/// Traces what a handshake asks for. `client` is the address that it comes from; `socket` is asked
/// for the one of this machine that it has come to, where that matters.
pub fn traced<F: Future>(
    handshake: F,
    client: Option<IpAddr>,
    socket: Option<Arc<SocketDigest>>,
) -> Traced<F> {
    let trace = HandshakeTrace {
        socket,
        client,
        ..HandshakeTrace::default()
    };
    TRACE.scope(RefCell::new(trace), handshake)
}

/// The address of this machine that the client of the handshake under way has come to.
pub(super) fn local_address() -> Option<IpAddr> {
    let local = TRACE.try_with(|trace| {
        let trace = trace.try_borrow().ok()?;
        let address = trace.socket.as_ref()?.local_addr()?.as_inet()?;
        Some(address.ip().to_canonical())
    });
    local.ok().flatten()
}

/// The address of the client of the handshake under way.
pub(super) fn client_address() -> Option<IpAddr> {
    let client = TRACE.try_with(|trace| trace.try_borrow().ok()?.client);
    client.ok().flatten()
}

/// Waits for `certificate` without counting the time against the client: see
/// [`wait_until_overdue`].
pub(super) async fn without_deadline<F: Future>(certificate: F) -> F::Output {
    update_trace(|trace| trace.waiting_since = Some(Instant::now()));
    let output = certificate.await;
    update_trace(|trace| {
        let waited = trace.waiting_since.take().map(|since| since.elapsed());
        trace.waited += waited.unwrap_or_default();
    });
    output
}

/// Ends when the handshake under way, which is [`traced`], has taken `limit`. What it has waited
/// for a certificate on demand is not counted: that has a bound of its own, and is no fault of the
/// client's.
pub async fn wait_until_overdue(limit: Duration) {
    let mut rest = limit;
    let mut granted = Duration::ZERO;
    loop {
        tokio::time::sleep(rest).await;
        let waited = TRACE.try_with(|trace| {
            let trace = trace.try_borrow().ok()?;
            let since = trace.waiting_since.map(|since| since.elapsed());
            Some(trace.waited + since.unwrap_or_default())
        });
        let waited = waited.ok().flatten().unwrap_or_default();
        rest = waited.saturating_sub(granted);
        if rest.is_zero() {
            return;
        }
        granted = waited;
    }
}

impl HandshakeTrace {
    /// Takes the trace of a handshake that has ended or is given up.
    pub fn take_from<F>(handshake: Pin<&mut Traced<F>>) -> Self {
        let trace = handshake.take_value().map(RefCell::into_inner);
        trace.unwrap_or_default()
    }

    /// The name that was asked for as it came. Whoever prints it escapes it.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_ref().map(|name| match name {
            Name::Host(name) => name.as_str(),
            Name::Other(text) => text,
        })
    }
}

/// Records what the handshake under way asks for.
pub(super) fn record_server_name(name: Option<&HostName>, raw: Option<&[u8]>) {
    update_trace(|trace| {
        let other = || {
            let raw = raw?;
            let raw = raw.get(..MAX_HOST_NAME).unwrap_or(raw);
            Some(Name::Other(String::from_utf8_lossy(raw).into_owned()))
        };
        trace.server_name = name.cloned().map(Name::Host).or_else(other);
    });
}

/// Records that what the handshake under way asks for has no certificate.
pub(super) fn record_unknown_name() {
    update_trace(|trace| trace.is_unknown = true);
}

/// Records that nothing is presented for what the handshake under way asks for.
pub(super) fn record_refusal() {
    update_trace(|trace| trace.is_refused = true);
}

/// Whether nothing is presented for what the handshake under way asks for.
pub(super) fn is_refused() -> bool {
    TRACE
        .try_with(|trace| trace.try_borrow().is_ok_and(|trace| trace.is_refused))
        .unwrap_or_default()
}

fn update_trace(change: impl FnOnce(&mut HandshakeTrace)) {
    // An error means that the handshake is not traced.
    let _ = TRACE.try_with(|trace| {
        if let Ok(mut trace) = trace.try_borrow_mut() {
            change(&mut trace);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// How many seconds a handshake gets that waits `wait` seconds, `before` seconds from its
    /// beginning.
    async fn granted(before: u64, wait: u64) -> u64 {
        let began = Instant::now();
        let handshake = async {
            tokio::time::sleep(Duration::from_secs(before)).await;
            without_deadline(tokio::time::sleep(Duration::from_secs(wait))).await;
            std::future::pending::<()>().await;
        };
        let bounded = async {
            tokio::select! {
                () = handshake => {}
                () = wait_until_overdue(LIMIT) => {}
            }
        };
        traced(bounded, None, None).await;
        // Timers have the grain of a millisecond.
        (began.elapsed() + Duration::from_millis(500)).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_certificate_is_on_no_account_of_the_client() {
        for (before, wait, expected) in [
            (0, 0, 10),
            (0, 3, 13),
            (2, 20, 30),
            (9, 60, 70),
            (20, 5, 10),
        ] {
            assert_eq!(granted(before, wait).await, expected, "{before} {wait}");
        }
    }
}
