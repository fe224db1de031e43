//! What is known of a TLS connection once its handshake is done.

use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use openssl::ssl::SslRef;
use tokio::runtime::Handle;

use super::client_certificate::ClientCertificate;
use super::ffi;
use crate::access_log::Value;
use crate::certificate::sni::CertificateSet;
use crate::config::model::{LogField, TlsPolicy};
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
    /// What the handshake met, if anything beyond the general.
    pub(super) policy: Option<Arc<TlsPolicy>>,
    /// What the client presented.
    pub(super) client_certificate: Option<ClientCertificate>,
    /// Whether the client's certificate was accepted under another policy than that of the handshake,
    /// with that policy's digest: the last one asked about.
    pub(super) verified: Mutex<Option<([u8; 32], bool)>>,
    /// Weak, so that no connection keeps a replaced state alive: see
    /// [`super::GlobalCertificate::publish`].
    pub(super) attachment: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// When the handshake ended.
    pub(super) since: Instant,
    /// The group of the key exchange, by OpenSSL's name.
    pub(super) group: &'static str,
    /// Whether the session was resumed.
    pub(super) is_resumed: bool,
    /// The protocol that was agreed on, if any.
    pub(super) alpn: &'static str,
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
            policy: None,
            client_certificate: None,
            verified: Mutex::default(),
            attachment: Mutex::default(),
            since: Instant::now(),
            group: "",
            is_resumed: false,
            alpn: "",
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

    /// With what the handshake met.
    pub(super) fn with_policy(self, policy: Option<Arc<TlsPolicy>>) -> Self {
        Self { policy, ..self }
    }

    /// With what the client has presented in the handshake of `ssl`, if it was asked.
    pub(super) fn with_client_of(mut self, ssl: &SslRef) -> Self {
        let policy = self.policy.as_ref();
        if policy.is_some_and(|policy| policy.client_auth.is_some()) {
            // One that cannot be read is none: then nothing is allowed that needs one.
            self.client_certificate = ClientCertificate::of(ssl).unwrap_or_default();
        }
        self
    }

    /// With what was agreed on in the handshake of `ssl`.
    pub(super) fn with_agreement_of(self, ssl: &SslRef) -> Self {
        Self {
            group: ffi::known_group(ffi::group_name(ssl)),
            is_resumed: ssl.session_reused(),
            alpn: match ssl.selected_alpn_protocol() {
                Some(b"h2") => "h2",
                Some(b"http/1.1") => "http/1.1",
                _ => "",
            },
            ..self
        }
    }

    /// What the access log has of the connection.
    pub(crate) fn log_value(&self, field: LogField) -> Value<'_> {
        match field {
            LogField::Sni => match &self.server_name {
                Some(name) => Value::Word(name.as_str()),
                None => Value::None,
            },
            LogField::TlsGroup => Some(self.group).filter(|name| !name.is_empty()).into(),
            LogField::TlsResumed => Value::Flag(self.is_resumed),
            LogField::Alpn => Some(self.alpn).filter(|name| !name.is_empty()).into(),
            LogField::Certificate => {
                let set = self.certificates.as_ref();
                let first = set.and_then(|set| set.by_kind.first()?.names().first());
                first.map_or(Value::None, |name| Value::Shown(name))
            }
            _ => Value::None,
        }
    }

    /// What the handshake met, if anything beyond the general.
    pub fn policy(&self) -> Option<&TlsPolicy> {
        self.policy.as_deref()
    }

    /// The certificate that the client presented, if any. It has been verified.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.client_certificate.as_ref()
    }

    /// Whether the client has shown what `policy`, another than that of the handshake, demands of
    /// its certificate. Verifies it the first time.
    pub fn satisfies(&self, policy: &TlsPolicy) -> bool {
        let Some(client_auth) = &policy.client_auth else {
            return true;
        };
        let Some(certificate) = &self.client_certificate else {
            return !client_auth.is_required;
        };
        let mut verified = self.verified.lock_unpoisoned();
        match *verified {
            Some((digest, is_accepted)) if digest == *policy.digest() => is_accepted,
            _ => {
                let is_accepted = certificate.is_accepted_by(client_auth);
                *verified = Some((*policy.digest(), is_accepted));
                is_accepted
            }
        }
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
