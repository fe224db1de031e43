//! The OCSP responses of the manager's certificates, which others fetch.

use std::collections::HashSet;
use std::sync::Arc;

use super::TlsManager;
use super::report::Report;
use crate::cert_status;
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::clock::UnixTime;
use crate::host::{Identifier, Pattern};

/// The certificates that name a place to learn their status.
pub(crate) fn status_watched(manager: &TlsManager) -> Vec<Arc<TlsCertificate>> {
    let certificates = manager.certificates().chain(manager.served.predecessors());
    let watched = certificates.filter(|one| one.status().is_some());
    watched.cloned().collect()
}

/// A certificate that is not served for want of an OCSP response.
pub(crate) struct Withheld {
    pub(crate) certificate: Arc<TlsCertificate>,
    /// The one that clients get for its first name in its place.
    pub(crate) instead: Option<Arc<TlsCertificate>>,
}

/// The certificates that are not served for want of OCSP responses.
pub(crate) fn withheld(manager: &TlsManager) -> Vec<Withheld> {
    let now = manager.now();
    let candidates = manager.served.candidates();
    let withheld = manager
        .certificates()
        .filter(|one| candidates.holds_back(one, now));
    let withheld = withheld.map(|one| Withheld {
        certificate: Arc::clone(one),
        instead: served_instead(manager, one),
    });
    withheld.collect()
}

fn served_instead(
    manager: &TlsManager,
    certificate: &TlsCertificate,
) -> Option<Arc<TlsCertificate>> {
    let set = match certificate.names().first()? {
        Pattern::Exact(name) => manager.served.map().find(&Identifier::Dns(name.clone())),
        Pattern::Ip(address) => manager.served.map().find(&Identifier::Ip(*address)),
        Pattern::Any | Pattern::Wildcard(_) => None,
    };
    match set {
        Some(set) => set.by_kind.first().cloned(),
        None => manager.served.predecessor(certificate).cloned(),
    }
}

/// What is known of certificates that turned out to be revoked, by their fingerprints.
#[derive(Default)]
pub(crate) struct KnownRevoked {
    /// Issuers are asked for these.
    pub(crate) managed: HashSet<Fingerprint>,
    /// These are known to be revoked.
    pub(crate) known: HashSet<Fingerprint>,
}

impl KnownRevoked {
    /// What is known of `certificates`.
    pub(crate) fn among(manager: &TlsManager, certificates: &HashSet<Fingerprint>) -> Self {
        let is_one = |one: &Fingerprint| certificates.contains(one);
        let managed = manager.renewals.certificates();
        let known = manager.renewals.revoked_certificates();
        Self {
            managed: managed
                .map(|one| one.fingerprint())
                .filter(is_one)
                .collect(),
            known: known.map(|one| one.fingerprint()).filter(is_one).collect(),
        }
    }
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

/// Takes the stored responses of all certificates that are not served without one, once responses are
/// stapled again. Blocks on the storage.
pub(super) fn restore_all(manager: &TlsManager) {
    let now = manager.now();
    for certificate in manager.certificates() {
        restore(manager, certificate, now);
    }
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
