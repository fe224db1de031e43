//! The OCSP responses of the manager's certificates, which others fetch.

use std::sync::Arc;

use super::TlsManager;
use super::report::Report;
use crate::cert_status;
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::clock::UnixTime;

/// The certificates that name a place to learn their status.
pub(crate) fn status_watched(manager: &TlsManager) -> Vec<Arc<TlsCertificate>> {
    let certificates = manager.certificates();
    let watched = certificates.filter(|one| one.status().is_some());
    watched.cloned().collect()
}

/// Whether issuers are asked for the certificate with this fingerprint, and whether it is known to be
/// revoked.
pub(crate) fn is_managed(manager: &TlsManager, fingerprint: Fingerprint) -> (bool, bool) {
    let is_managed = |one: &Arc<TlsCertificate>| one.fingerprint() == fingerprint;
    (
        manager.renewals.certificates().any(is_managed),
        manager.renewals.is_revoked(fingerprint),
    )
}

/// Takes note that these certificates, which clients are to refuse without a response, have got one or
/// have lost it: from now on they are served, or no longer.
pub(crate) fn note_staples(manager: &mut TlsManager, changed: &[Arc<TlsCertificate>]) {
    let Some(config) = manager.config.clone() else {
        return;
    };
    for certificate in changed {
        manager.served.candidates_mut().note_staple(certificate);
    }
    let now = manager.now();
    manager.publish(&config, now, &mut Report::default());
}

/// Takes the stored response of a certificate that is not served without one. Blocks on the storage.
pub(super) fn restore(manager: &TlsManager, certificate: &TlsCertificate, now: UnixTime) {
    let is_on = manager
        .config
        .as_ref()
        .is_some_and(|one| one.revocation.ocsp);
    if is_on && !manager.served.is_dry() && certificate.lacks_staple(now) {
        cert_status::restore_staple(&*manager.renewals.deps().storage, certificate, now);
    }
}
