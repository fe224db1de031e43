//! TLS termination: the certificate by SNI, sessions, protocols.

use std::net::IpAddr;
use std::sync::Arc;

use crate::certificate::sni::CertificateSet;
use crate::host::HostName;

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
}

impl TlsInfo {
    /// Whether a request for `host`, a name in normal form, may be answered on this connection.
    pub fn covers(&self, host: &str) -> bool {
        self.certificates.as_ref().is_some_and(|set| set.covers(host))
    }

    /// Whether a request for the address `host` may be answered on this connection.
    pub fn covers_ip(&self, host: IpAddr) -> bool {
        self.certificates.as_ref().is_some_and(|set| set.covers_ip(host))
    }
}
