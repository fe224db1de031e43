//! Loads what the storage has of a certificate when it is first needed, and plans it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::cert_events::CertEvents;
use super::issuers::accounts;
use super::job::Deps;
use super::obtain;
use super::{ManagedCert, Renewals};
use crate::cert_store::READ_AGAIN;
use crate::cert_store::Use;
use crate::cert_store::{self, StoredError};
use crate::certificate::Change;
use crate::certificate::sni::Precedence;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::issuer::spec::SpecChange;
use crate::parallel;
use crate::schedule::{Facts, Retries};
use crate::storage::{StorageError, keys};

/// How long it may take to learn that something cannot be read, until the rest is not tried: each
/// would take as long.
const SLOW: Duration = Duration::from_secs(1);

/// What the storage holds of a certificate.
#[derive(Default)]
pub(crate) struct StoredState {
    pub(crate) certificate: Option<TlsCertificate>,
    pub(crate) retries: Retries,
    pub(crate) damaged: Option<StoredError>,
}

impl ManagedCert {
    /// Notes the failures that are known after an attempt. Where clients ask for it, the attempt has
    /// read what the storage has of it; all else is read again until it has been read whole.
    pub(super) fn note_failures(&mut self, spec: &CertSpec, retries: Retries) {
        self.retries = retries;
        if spec.precedence == Precedence::OnDemand {
            self.unread = None;
        }
    }
}

impl Renewals {
    /// Sees that all of `asked` is planned, and returns what the storage has of it.
    pub(crate) fn ensure_planned(
        &mut self,
        asked: &[CertSpec],
        issuers: &IndexMap<Arc<str>, Configured>,
        window: f64,
        now: UnixTime,
    ) -> Vec<SpecChange> {
        self.queues.set_window(window);
        let mut unread = Vec::new();
        // A storage that answers with a time-out is not to be waited for in every pass.
        let is_soon = |last: UnixTime| (last..last.saturating_add(READ_AGAIN)).contains(&now);
        let is_resting = self.unread.is_some_and(is_soon);
        for spec in asked {
            if is_resting && self.entries.contains_key(spec) {
                continue;
            }
            if self.entries.get(spec).is_some_and(|entry| entry.is_read) {
                continue;
            }
            let remote = self.open_remote(&spec.issuers, issuers);
            unread.push((Arc::new(spec.clone()), keys::subject(&spec.names), remote));
        }
        if !is_resting {
            self.unread = None;
        }
        if unread.is_empty() {
            return Vec::new();
        }
        let (deps, is_slow) = (&self.deps, AtomicBool::new(false));
        let read = parallel::map(&unread, |(spec, subject, remote)| {
            if is_slow.load(Ordering::Relaxed) {
                return None;
            }
            let begun = Instant::now();
            let read = read_stored_state(deps, &spec.names, subject, remote);
            let is_given_up = read.is_err() && begun.elapsed() >= SLOW;
            is_slow.fetch_or(is_given_up, Ordering::Relaxed);
            Some(read)
        });
        match read.iter().flatten().find_map(|read| read.as_ref().err()) {
            Some(error) => {
                deps.health.record_failure(Use::Reading, error);
                self.unread = Some(now);
            }
            None => deps.health.record_success(Use::Reading),
        }
        let at_hand = self.present_by_names(unread.iter().map(|(spec, ..)| &spec.names));
        let mut served = Vec::new();
        let mut loaded = 0_usize;
        for ((spec, subject, _), read) in unread.into_iter().zip(read) {
            let others = at_hand.get(&spec.names).map_or(&[][..], Vec::as_slice);
            if let Some(change) = self.install_stored(&spec, subject, read, others, now) {
                loaded += usize::from(change.new.is_some());
                served.push(((*spec).clone(), change));
            }
        }
        if loaded > 0 {
            tracing::info!(certificates = loaded, "loaded from the storage");
        }
        served
    }

    fn install_stored(
        &mut self,
        spec: &Arc<CertSpec>,
        subject: String,
        read: Option<Result<StoredState, StorageError>>,
        others: &[Arc<TlsCertificate>],
        now: UnixTime,
    ) -> Option<Change> {
        let (read, unread) = match read {
            Some(Ok(read)) => (read, None),
            Some(Err(error)) => (StoredState::default(), Some(error.to_string())),
            None => (
                StoredState::default(),
                Some("it does not respond".to_owned()),
            ),
        };
        if let Some(error) = read.damaged {
            tracing::error!(domain = %spec.domain(), "{error}");
        }
        let is_read = unread.is_none();
        let entry = self
            .entries
            .entry(Arc::clone(spec))
            .or_insert_with(|| ManagedCert {
                subject,
                ..ManagedCert::default()
            });
        entry.is_read = is_read;
        entry.unread = unread.map(Into::into);
        let better = read.certificate.filter(|stored| {
            let present = entry.certificate.as_ref();
            let is_later = |present: &Arc<TlsCertificate>| stored.not_after() > present.not_after();
            entry.is_foreign || present.is_none_or(is_later)
        });
        let is_missing = better.is_none() && entry.certificate.is_none();
        let taken_over = others
            .iter()
            .filter(|_| is_missing)
            .find(|other| may_take_over(spec, other, now))
            .and_then(|other| reload_copy(&self.deps, other));
        let new = better.or(taken_over).map(Arc::new);
        let change = new.map(|new| {
            entry.is_stale = new.validity(now) == Validity::Expired;
            (entry.is_foreign, entry.is_revoked) = (false, false);
            CertEvents {
                deps: &self.deps,
                spec,
                now,
            }
            .emit_loaded(&new);
            let old = entry.certificate.replace(Arc::clone(&new));
            Change {
                old,
                new: Some(new),
            }
        });
        if !is_read {
            // What is planned stays as it is. What is not is not before it is known what there is.
            return change;
        }
        let is_foreign = entry.is_foreign;
        // What is known here may not have been stored.
        entry.retries.merge_from(read.retries);
        let facts = Facts {
            life: entry.certificate.as_deref().map(TlsCertificate::lifetime),
            retry: entry.retries.combined(accounts(&spec.issuers, &self.open)),
        };
        self.queues.set(spec, facts, now);
        if change.is_some() {
            self.ari.schedule_query(spec, now);
        }
        if is_foreign {
            self.queues.request_now(spec, now);
        }
        change
    }

    /// The present certificates, by these lists of names.
    fn present_by_names<'a>(
        &self,
        lists: impl Iterator<Item = &'a Vec<Pattern>>,
    ) -> HashMap<Vec<Pattern>, Vec<Arc<TlsCertificate>>> {
        let mut at_hand: HashMap<_, Vec<_>> = lists.map(|names| (names.clone(), vec![])).collect();
        for (spec, entry) in &self.entries {
            if let Some(certificate) = &entry.certificate
                && let Some(of_names) = at_hand.get_mut(&spec.names)
            {
                of_names.push(Arc::clone(certificate));
            }
        }
        at_hand
    }
}

/// Whether `spec`, which is new, may go on with a certificate that was asked for by another with the
/// same names: another list of issuers is no reason to burden a CA with what is good for weeks,
/// unless it no longer has the one that issued it and is chosen for a site on purpose.
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
