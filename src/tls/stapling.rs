//! Staples OCSP responses (RFC 6066, section 8; RFC 8446, section 4.4.2.1).
//!
//! OpenSSL asks once it has chosen the certificate, and only if the client wants a response. Nothing is
//! fetched here.

use std::sync::Arc;

use openssl::error::ErrorStack;
use openssl::pkey::Id;
use openssl::ssl::SslRef;

use crate::certificate::sni::CertificateSet;
use crate::certificate::{KeyKind, TlsCertificate};
use crate::clock::{Clock as _, SystemClock};

/// Has the response of the presented certificate, one of `set`, sent to the client. Returns whether
/// there is one.
pub(super) fn staple(ssl: &mut SslRef, set: &CertificateSet) -> bool {
    if set.by_kind.iter().all(|one| one.status().is_none()) {
        return false;
    }
    let presented = match &*set.by_kind {
        [only] => Some(only),
        several => find_presented(ssl, several),
    };
    let status = presented.and_then(|one| one.status());
    let Some(staple) = status.and_then(|status| status.staple(SystemClock.now())) else {
        return false;
    };
    // Out of memory: the handshake goes through without the response.
    let is_set = ssl.set_ocsp_status(&staple.response).is_ok();
    drop(ErrorStack::get());
    is_set
}

/// The one of several that OpenSSL has chosen; there is at most one for each kind of key.
fn find_presented<'s>(
    ssl: &SslRef,
    several: &'s [Arc<TlsCertificate>],
) -> Option<&'s Arc<TlsCertificate>> {
    let kind = match ssl.certificate()?.public_key().ok()?.id() {
        Id::EC => KeyKind::Ecdsa,
        Id::ED25519 => KeyKind::Ed25519,
        Id::RSA | Id::RSA_PSS => KeyKind::Rsa,
        _ => return None,
    };
    several.iter().find(|one| one.kind() == kind)
}
