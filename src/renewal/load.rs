//! Reads what the storage has of a certificate, and chooses which certificate to install.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::deps::Deps;
use super::managed_cert::{ManagedCert, ManagedCerts};
use super::obtain;
use crate::cert_store::{self, StoredError};
use crate::certificate::sni::Precedence;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::parallel;
use crate::schedule::Retries;
use crate::storage::StorageError;

/// How long it may take to learn that something cannot be read, until the rest is not tried: each
/// would take as long.
const SLOW: Duration = Duration::from_secs(1);

/// A specification of which the storage is to be read.
pub(super) struct Unread {
    pub(super) spec: Arc<CertSpec>,
    pub(super) subject: String,
    /// Its issuers over the network.
    pub(super) issuers: Vec<Arc<dyn Issuer>>,
}

/// What the storage holds of a certificate.
#[derive(Default)]
pub(crate) struct StoredState {
    pub(crate) certificate: Option<TlsCertificate>,
    pub(crate) retries: Retries,
    pub(crate) damaged: Option<StoredError>,
}

/// Reads what the storage holds of all of these, on all cores. `None` for what is not tried any
/// more because the storage answers too slowly.
pub(super) fn read_all(
    deps: &Deps,
    unread: &[Unread],
) -> Vec<Option<Result<StoredState, StorageError>>> {
    let is_slow = AtomicBool::new(false);
    parallel::map(unread, |one| {
        if is_slow.load(Ordering::Relaxed) {
            return None;
        }
        let begun = Instant::now();
        let read = read_stored_state(deps, &one.spec.names, &one.subject, &one.issuers);
        let is_given_up = read.is_err() && begun.elapsed() >= SLOW;
        is_slow.fetch_or(is_given_up, Ordering::Relaxed);
        Some(read)
    })
}

/// The certificate to install for `spec`: the stored one where it is better than the present one;
/// else, where there is none, a copy of one of `others`, which are installed for the same names.
pub(super) fn choose(
    entry: &ManagedCert,
    spec: &CertSpec,
    stored: Option<TlsCertificate>,
    others: &[Arc<TlsCertificate>],
    deps: &Deps,
    now: UnixTime,
) -> Option<TlsCertificate> {
    let better = stored.filter(|stored| {
        let present = entry.own_certificate();
        present.is_none_or(|present| stored.not_after() > present.not_after())
    });
    if better.is_some() || entry.certificate().is_some() {
        return better;
    }
    let other = others
        .iter()
        .find(|other| may_take_over(spec, other, now))?;
    reload_copy(deps, other)
}

/// The certificates that are installed, by the lists of names of `unread`.
pub(super) fn present_by_names(
    certs: &ManagedCerts,
    unread: &[Unread],
) -> HashMap<Vec<Pattern>, Vec<Arc<TlsCertificate>>> {
    let lists = unread.iter().map(|one| &one.spec.names);
    let mut present: HashMap<_, Vec<_>> = lists.map(|names| (names.clone(), vec![])).collect();
    for (spec, entry) in certs {
        if let Some(certificate) = entry.certificate()
            && let Some(of_names) = present.get_mut(&spec.names)
        {
            of_names.push(Arc::clone(certificate));
        }
    }
    present
}

/// Whether `spec`, which is new, may take over a certificate that was obtained for another with the
/// same names. Another list of issuers is no reason to burden a CA while a certificate is good for
/// weeks, unless the list lacks its issuer and is chosen for a site on purpose.
fn may_take_over(spec: &CertSpec, other: &TlsCertificate, now: UnixTime) -> bool {
    let is_listed = spec
        .issuers
        .iter()
        .any(|issuer| &**issuer == other.source().label());
    other.validity(now) == Validity::Valid && (is_listed || spec.precedence == Precedence::Fallback)
}

/// A copy of `certificate`: each specification has its own.
fn reload_copy(deps: &Deps, certificate: &TlsCertificate) -> Option<TlsCertificate> {
    let pem = certificate.bundle_pem().ok()?;
    let loaded = deps.loader.load(&pem, certificate.source().clone());
    loaded.ok().map(|loaded| loaded.certificate)
}

/// What the storage holds of the certificate with these names, of the CAs of `remote`.
pub(crate) fn read_stored_state(
    deps: &Deps,
    names: &[Pattern],
    subject: &str,
    remote: &[Arc<dyn Issuer>],
) -> Result<StoredState, StorageError> {
    let now = deps.clock.now();
    let mut read = StoredState {
        retries: cert_store::load_retries(&*deps.storage, subject, remote)?,
        ..StoredState::default()
    };
    for issuer in remote {
        let found = cert_store::find_certificate(
            &*deps.storage,
            &deps.loader,
            issuer.ca(),
            (subject, names),
            issuer.name(),
        );
        match found {
            Ok(Some((certificate, subject))) if obtain::covers(&certificate, names) => {
                let is_valid = certificate.validity(now) == Validity::Valid;
                let is_longer = read
                    .certificate
                    .as_ref()
                    .is_none_or(|other| other.not_after() < certificate.not_after());
                if is_valid || is_longer {
                    read.certificate =
                        Some(deps.place_in_memory(certificate, issuer.ca(), &subject));
                }
                if is_valid {
                    break;
                }
            }
            Ok(_) => {}
            Err(StoredError::Storage(error)) => return Err(error),
            Err(damaged) => read.damaged = Some(damaged),
        }
    }
    Ok(read)
}
