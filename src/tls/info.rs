//! What is known of a TLS connection once its handshake is done.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::lock;
use crate::certificate::sni::CertificateSet;
use crate::host::HostName;

/// How long after the handshake a first request belongs to the state of the handshake. Browsers
/// open connections ahead of need; what they ask for later is answered as things stand then.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// What is known of a TLS connection when its requests are routed.
///
/// Found in a request's digest: `ssl_digest.extension.get::<TlsInfo>()`. A connection without it
/// is not TLS.
pub struct TlsInfo {
    /// The name the client asked for, `None` where it named none or no host name.
    pub server_name: Option<HostName>,
    /// What was presented to the client.
    pub certificates: Option<Arc<CertificateSet>>,
    /// Whether the client asked for a name that it did not get a certificate for.
    pub fell_back: bool,
    /// No connection holds what has been replaced: see [`super::GlobalCertificate::publish`].
    pub(super) attachment: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// When the handshake ended.
    pub(super) since: Instant,
}

/// Holds what has been replaced while first requests may come that belong to it.
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
    /// What is known of a connection whose handshake worked from no snapshot of ours.
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

    /// With the attachment of the snapshot that the handshake worked from.
    pub(super) fn with_attachment(
        mut self,
        attachment: Option<&Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        self.attachment = Mutex::new(attachment.map(Arc::downgrade));
        self
    }

    /// Whether a request for `host`, a name in normal form, may be answered on this connection.
    pub fn covers(&self, host: &str) -> bool {
        self.certificates
            .as_ref()
            .is_some_and(|set| set.covers(host))
    }

    /// Whether a request for the address `host` may be answered on this connection.
    pub fn covers_ip(&self, host: IpAddr) -> bool {
        self.certificates
            .as_ref()
            .is_some_and(|set| set.covers_ip(host))
    }

    /// What [`Self::take_attachment`] would give.
    pub fn attachment(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        let attachment = lock(&self.attachment).clone()?;
        self.in_time(&attachment)
    }

    /// The attachment of the snapshot that the handshake worked from, for the first request of
    /// the connection; `None` for those after it, and for one that was long in coming.
    pub fn take_attachment(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        let attachment = lock(&self.attachment).take()?;
        self.in_time(&attachment)
    }

    fn in_time(
        &self,
        attachment: &Weak<dyn Any + Send + Sync>,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let in_time = self.since.elapsed() < FIRST_REQUEST;
        attachment.upgrade().filter(|_| in_time)
    }
}
