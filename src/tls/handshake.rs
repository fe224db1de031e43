//! The record of one handshake: what the client requests, what was selected for it, and how long
//! it has waited for a certificate.
//!
//! OpenSSL's state is gone once a handshake has failed, and Pingora's API carries no argument from
//! a connection to the callbacks. So whoever drives a handshake makes its record first and runs the
//! handshake within it: the callbacks write what they find out, and the driver reads it afterwards.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pingora_core::protocols::SocketDigest;
use pingora_core::protocols::raw_connect::ProxyDigest;
use tokio::time::Instant;

use super::accepted::accepted_place;
use super::client_certificate::{ClientRefusal, Fault};
use super::info::TlsInfo;
use super::select::{Purpose, RequestedName, Selection, Snapshot};
use crate::config::model::{ListenAddress, TlsPolicy};
use crate::lock::MutexExt as _;

tokio::task_local! {
    /// The record of the handshake that the current task drives.
    static CURRENT: Handshake;
}

/// A fatal alert as an unencrypted TLS record (RFC 8446, sections 5.1 and 6): type, version in two
/// octets, length in two, level and description.
const ALERT_RECORD: usize = 7;
const ALERT: u8 = 21;
const FATAL: u8 = 2;

const HANDSHAKE_FAILURE: u8 = 40;
const UNRECOGNIZED_NAME: u8 = 112;

/// The record of one handshake. A handle; clones share the record.
#[derive(Clone, Default)]
pub struct Handshake(Arc<Record>);

#[derive(Default)]
struct Record {
    /// The client's address.
    client: Option<IpAddr>,
    /// The socket, which knows the local address that the client has connected to.
    socket: Option<Arc<SocketDigest>>,
    /// See [`accepted_place`].
    accepted: Option<Arc<ProxyDigest>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requested: RequestedName,
    /// `None` until the ClientHello has been read.
    selected: Option<(Arc<Snapshot>, Selection)>,
    /// How long the handshake has waited for a certificate, up to `waiting_since`.
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Whether it waits until certificates are loaded.
    is_loading: bool,
    /// What it has to meet, if anything beyond the general.
    policy: Option<Arc<TlsPolicy>>,
    /// What is wrong with the client's certificate, if the policy asks for one.
    fault: Option<Fault>,
}

impl Handshake {
    /// The record of a handshake with `client`. `socket` is asked for the local address if the
    /// selection depends on it.
    pub fn new(client: Option<IpAddr>, socket: Option<Arc<SocketDigest>>) -> Self {
        Self::accepted(client, socket, None)
    }

    /// The same, where `accepted` says which address the connection was accepted at.
    pub(crate) fn accepted(
        client: Option<IpAddr>,
        socket: Option<Arc<SocketDigest>>,
        accepted: Option<Arc<ProxyDigest>>,
    ) -> Self {
        Self(Arc::new(Record {
            client,
            socket,
            accepted,
            state: Mutex::default(),
        }))
    }

    /// Runs `handshake` so that its callbacks write to this record.
    pub fn run<F: Future>(&self, handshake: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), handshake)
    }

    /// Waits until the handshake has taken `limit`. The time spent waiting for a certificate does
    /// not count: it is bounded elsewhere, and the client is not to blame for it.
    pub async fn wait_until_overdue(&self, limit: Duration) {
        let mut rest = limit;
        let mut granted = Duration::ZERO;
        loop {
            tokio::time::sleep(rest).await;
            let waited = self.waited();
            rest = waited.saturating_sub(granted);
            if rest.is_zero() {
                return;
            }
            granted = waited;
        }
    }

    /// The name that the client requests; text that is no host name, as it was sent. A caller that
    /// prints it must escape it.
    pub fn server_name(&self) -> Option<String> {
        self.state().requested.as_str().map(str::to_owned)
    }

    /// Whether the client requests a name that has no certificate.
    pub fn is_unknown_name(&self) -> bool {
        self.purpose() == Some(Purpose::FallBack)
    }

    /// Why the handshake was refused, if it was because of the client's certificate. `error` is what
    /// OpenSSL says of the handshake.
    pub fn client_refusal(&self, error: &str) -> Option<ClientRefusal> {
        self.state().fault.as_ref()?.to_refusal(error)
    }

    /// Whether the client is a CA that validates a name (RFC 8737). Its connection ends with the
    /// handshake.
    pub fn is_validation(&self) -> bool {
        self.purpose() == Some(Purpose::Validate)
    }

    /// Corrects the alert that `written`, which the handshake is about to send, ends with.
    ///
    /// A name that is known to have no certificate is refused when its ClientHello is read, with
    /// the alert `unrecognized_name`. After a wait for a certificate, OpenSSL sends
    /// `handshake_failure` and offers no choice. A client could not tell a name that is not served
    /// from a cipher that is not supported.
    pub fn correct_alert(&self, written: &mut [u8]) {
        let Some([ALERT, 3, _, 0, 2, FATAL, description]) =
            written.last_chunk_mut::<ALERT_RECORD>()
        else {
            return;
        };
        if *description == HANDSHAKE_FAILURE && self.is_refused() {
            *description = UNRECOGNIZED_NAME;
        }
    }

    /// The record of the handshake that the current task drives; an empty one if the driver has
    /// made none.
    pub(super) fn current() -> Self {
        CURRENT.try_with(Self::clone).unwrap_or_default()
    }

    pub(super) fn client(&self) -> Option<IpAddr> {
        self.0.client
    }

    /// The local address that the client has connected to. Takes a system call the first time.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let address = self.0.socket.as_ref()?.local_addr()?.as_inet()?;
        Some(address.ip().to_canonical())
    }

    /// The address that the connection was accepted at, as it is configured.
    pub(super) fn place(&self) -> Option<&ListenAddress> {
        accepted_place(self.0.accepted.as_deref())
    }

    pub(super) fn record_requested(&self, requested: RequestedName) {
        self.state().requested = requested;
    }

    pub(super) fn requested(&self) -> RequestedName {
        self.state().requested.clone()
    }

    /// Records what was selected from `snapshot`.
    pub(super) fn record_selection(&self, snapshot: Arc<Snapshot>, selection: Selection) {
        self.state().selected = Some((snapshot, selection));
    }

    pub(super) fn selected(&self) -> Option<(Arc<Snapshot>, Selection)> {
        self.state().selected.clone()
    }

    pub(super) fn record_policy(&self, policy: Arc<TlsPolicy>) {
        self.state().policy = Some(policy);
    }

    pub(super) fn policy(&self) -> Option<Arc<TlsPolicy>> {
        self.state().policy.clone()
    }

    /// Records that the client is asked for a certificate. The result takes what is wrong with it.
    pub(super) fn record_verification(&self) -> Fault {
        let fault = Fault::default();
        self.state().fault = Some(fault.clone());
        fault
    }

    /// Waits for `certificate`, and records for how long.
    pub(super) async fn wait_for<F: Future>(&self, certificate: F) -> F::Output {
        self.state().waiting_since = Some(Instant::now());
        let output = certificate.await;
        let waited = self.waited();
        let mut state = self.state();
        state.waited = waited;
        state.waiting_since = None;
        drop(state);
        output
    }

    /// Whether the handshake waits for a certificate, and not for its client.
    pub fn is_waiting_for_certificate(&self) -> bool {
        let state = self.state();
        state.waiting_since.is_some() || state.is_loading
    }

    /// Waits until more certificates are loaded, which the handshake's deadline limits.
    pub(super) async fn wait_for_load<F: Future>(&self, progress: F) -> F::Output {
        self.state().is_loading = true;
        let output = progress.await;
        self.state().is_loading = false;
        output
    }

    /// What requests of the connection need to know; `None` if no ClientHello was read.
    pub(super) fn to_info(&self) -> Option<TlsInfo> {
        let state = self.state();
        let (snapshot, selection) = state.selected.as_ref()?;
        let server_name = match &state.requested {
            RequestedName::Name(name) => Some(name.clone()),
            _ => None,
        };
        let fell_back = selection.purpose() == Purpose::FallBack;
        let info = TlsInfo::new(server_name, selection.set().cloned(), fell_back);
        let info = info.with_policy(state.policy.clone());
        Some(info.with_attachment(snapshot.attachment.as_ref()))
    }

    fn purpose(&self) -> Option<Purpose> {
        let state = self.state();
        state
            .selected
            .as_ref()
            .map(|(_, selection)| selection.purpose())
    }

    /// Whether the client gets no certificate.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.state().selected, Some((_, Selection::Refuse(_))))
    }

    /// How long the handshake has waited for a certificate.
    fn waited(&self) -> Duration {
        let state = self.state();
        let current = state.waiting_since.map(|since| since.elapsed());
        state.waited + current.unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock_unpoisoned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::UnknownSni;

    const LIMIT: Duration = Duration::from_secs(10);

    /// How many seconds a handshake gets that waits `wait` seconds, `before` seconds from its
    /// beginning.
    async fn granted(before: u64, wait: u64) -> u64 {
        let began = Instant::now();
        let record = Handshake::default();
        let handshake = async {
            tokio::time::sleep(Duration::from_secs(before)).await;
            let certificate = tokio::time::sleep(Duration::from_secs(wait));
            Handshake::current().wait_for(certificate).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = record.run(handshake) => {}
            () = record.wait_until_overdue(LIMIT) => {}
        }
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

    #[test]
    fn only_the_alert_of_a_name_that_was_refused_is_corrected() {
        let failure = [21, 3, 3, 0, 2, 2, 40];
        let handshake = Handshake::default();
        let corrected = |before: &[u8]| {
            let mut written = before.to_vec();
            handshake.correct_alert(&mut written);
            written
        };
        assert_eq!(corrected(&failure), failure, "it is not refused");
        let snapshot = Arc::new(Snapshot {
            certificates: Arc::default(),
            unknown_sni: UnknownSni::Reject,
            attachment: None,
            policies: Arc::default(),
        });
        handshake.record_selection(snapshot, Selection::Refuse(Purpose::FallBack));
        let before = [&b"more"[..], &failure].concat();
        assert_eq!(
            corrected(&before),
            [&b"more"[..], &[21, 3, 3, 0, 2, 2, 112]].concat()
        );
        // Another reason, a warning, and what is no alert.
        for other in [
            [21, 3, 3, 0, 2, 2, 80],
            [21, 3, 3, 0, 2, 1, 40],
            [22, 3, 3, 0, 2, 2, 40],
        ] {
            assert_eq!(corrected(&other), other);
        }
        assert_eq!(corrected(&failure[1..]), failure[1..]);
    }
}
