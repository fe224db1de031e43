//! What is known of a TLS connection once its handshake is done.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::certificate::sni::CertificateSet;
use crate::host::HostName;
use crate::lock::MutexExt as _;

/// How long after the handshake a first request belongs to the state of the handshake. Browsers
/// open connections in advance; what they request later is served from the state of that time.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// What is known of a TLS connection when its requests are routed.
///
/// A request's digest has it: `ssl_digest.extension.get::<TlsInfo>()`. A connection without it is
/// not TLS.
pub struct TlsInfo {
    /// The host name that the client requested, if any.
    pub server_name: Option<HostName>,
    /// What was presented to the client. `None` if it is unknown: the session was resumed, and its
    /// certificate was obtained on demand.
    pub certificates: Option<Arc<CertificateSet>>,
    /// Whether the client requested a name and did not get a certificate for it.
    pub fell_back: bool,
    /// Weak, so that no connection keeps a replaced state alive: see
    /// [`super::GlobalCertificate::publish`].
    pub(super) attachment: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// When the handshake ended.
    pub(super) since: Instant,
}

/// Keeps a replaced state alive while first requests that belong to it may come.
pub(super) fn hold_for_first_requests(attachment: Option<Arc<dyn Any + Send + Sync>>) {
    // Without a runtime nothing is served yet.
    if let (Some(attachment), Ok(runtime)) = (attachment, Handle::try_current()) {
        let blocking = runtime.clone();
        runtime.spawn(async move {
            tokio::time::sleep(FIRST_REQUEST).await;
            // It may be large.
            blocking.spawn_blocking(move || drop(attachment));
        });
    }
}

impl TlsInfo {
    /// What is known of a connection whose handshake used no [`Snapshot`](super::Snapshot).
    pub fn new(
        server_name: Option<HostName>,
        certificates: Option<Arc<CertificateSet>>,
        fell_back: bool,
    ) -> Self {
        Self {
            server_name,
            certificates,
            fell_back,
            attachment: Mutex::default(),
            since: Instant::now(),
        }
    }

    /// With the attachment of the snapshot that the handshake used.
    pub(super) fn with_attachment(
        mut self,
        attachment: Option<&Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        self.attachment = Mutex::new(attachment.map(Arc::downgrade));
        self
    }

    /// Whether a request for `host`, a name in normal form, may be served on this connection.
    pub fn covers(&self, host: &str) -> bool {
        self.certificates
            .as_ref()
            .is_some_and(|set| set.covers(host))
    }

    /// Whether a request for the address `host` may be served on this connection.
    pub fn covers_ip(&self, host: IpAddr) -> bool {
        self.certificates
            .as_ref()
            .is_some_and(|set| set.covers_ip(host))
    }

    /// The attachment of the snapshot that the handshake used, for the first request of the
    /// connection; `None` for later ones, and for a first one that came too late.
    pub fn take_attachment(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        let attachment = self.attachment.lock_unpoisoned().take()?;
        let is_in_time = self.since.elapsed() < FIRST_REQUEST;
        attachment.upgrade().filter(|_| is_in_time)
    }
}
