//! How the admin interface shows the OCSP response of a certificate.

use serde::{Deserialize, Serialize};

use super::super::view::rfc3339;
use super::{CertificateState, CertificateView};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;

/// The OCSP response that is stapled to a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct StapleView {
    /// `good`, `missing`, or `revoked` if the CA says that the certificate is.
    pub state: String,
    /// The URL of the responder.
    pub responder: Option<String>,
    /// Whether clients are to refuse the certificate without a response (Must-Staple).
    pub required: bool,
    #[serde(with = "rfc3339::option")]
    pub this_update: Option<UnixTime>,
    /// It is sent until then at most.
    #[serde(with = "rfc3339::option")]
    pub next_update: Option<UnixTime>,
    /// Why there is no newer one; `None` if the last attempt succeeded.
    pub fault: Option<String>,
    /// The serial number of the certificate that clients get for its first name while it is not served,
    /// for want of a response; `None` if it is served, or there is no other.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub served_instead: Option<String>,
}

impl StapleView {
    /// `None` if the certificate names no responder and requires no response.
    pub(super) fn of(certificate: &TlsCertificate, now: UnixTime) -> Option<Self> {
        let status = certificate.status()?;
        let sources = status.sources();
        if sources.responder.is_none() && !sources.requires_staple {
            return None;
        }
        let known = status.known();
        let staple = status.staple(now);
        let state = match &staple {
            _ if known.is_revoked() => "revoked",
            Some(_) => "good",
            None => "missing",
        };
        Some(Self {
            state: state.to_owned(),
            responder: sources.responder.as_deref().map(str::to_owned),
            required: sources.requires_staple,
            this_update: staple.as_ref().map(|staple| staple.this_update),
            next_update: staple.as_ref().map(|staple| staple.next_update),
            fault: known.fault.as_deref().map(str::to_owned),
            served_instead: None,
        })
    }
}

impl CertificateView {
    /// Notes that it is not served for want of an OCSP response, and the serial number of the
    /// certificate that is served in its place.
    pub(crate) fn withhold(&mut self, instead: Option<String>) {
        if matches!(
            self.state,
            CertificateState::Valid | CertificateState::Due | CertificateState::Obtaining
        ) {
            self.state = CertificateState::Withheld;
        }
        if let Some(staple) = &mut self.staple {
            staple.served_instead = instead;
        }
    }
}
