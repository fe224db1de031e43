//! A certificate from files: what is served of it, and what its files are like now.

use std::path::PathBuf;
use std::sync::Arc;

use super::files::{Kind, Stamps};
use crate::certificate::{CertificateWarning, TlsCertificate, Validity};
use crate::clock::{UnixTime, rfc3339};
use crate::config::model::Origin;

/// One entry of a configured directory, or a configured pair of files.
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) origin: Arc<Origin>,
    pub(super) stamps: Stamps,
    /// Whether the stamps are enough to tell that nothing changed.
    pub(super) sure: bool,
    pub(super) digest: u64,
    pub(super) certificate: Option<Arc<TlsCertificate>>,
    pub(super) warnings: Vec<CertificateWarning>,
    /// Whether the file is named after a host that the certificate does not cover.
    pub(super) misnamed: bool,
    /// Why the files, as they are now, cannot be used.
    pub(super) problem: Option<(PathBuf, String)>,
}

impl Entry {
    /// What is odd about what is served at `now`.
    pub(super) fn warnings(&self, now: UnixTime) -> impl Iterator<Item = String> {
        let certificate = self.certificate.as_deref();
        let validity = certificate.and_then(|certificate| invalidity(certificate, now));
        let misnamed = certificate.filter(|_| self.misnamed).map(misnamed);
        let own = self.warnings.iter().map(ToString::to_string);
        own.chain(validity.map(|warning| warning.to_string()))
            .chain(misnamed)
    }
}

/// Why `certificate` is not valid at `now`; `None` where it is.
pub(super) fn invalidity(
    certificate: &TlsCertificate,
    now: UnixTime,
) -> Option<CertificateWarning> {
    match certificate.validity(now) {
        Validity::Expired => Some(CertificateWarning::Expired(rfc3339(
            certificate.not_after(),
        ))),
        Validity::NotYet => {
            let begin = rfc3339(certificate.not_before());
            Some(CertificateWarning::NotYetValid(begin))
        }
        Validity::Valid => None,
    }
}

fn misnamed(certificate: &TlsCertificate) -> String {
    let names: Vec<_> = certificate
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    format!(
        "is named after a host that its certificate does not cover (it is for {}); is it the right \
         file?",
        names.join(", ")
    )
}
