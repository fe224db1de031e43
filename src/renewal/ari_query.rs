//! Queries a CA for renewal info (ACME ARI, RFC 9773). Of all instances that share the storage, one
//! queries, and the others read what it stored.
//!
//! [`AriQuery::run`] runs beside the manager and does not touch it, like [`super::Job::run`]. Its
//! result goes to [`super::Renewals::apply_ari_result`].

use std::sync::Arc;

use super::deps::Deps;
use crate::cert_store;
use crate::cert_store::Use;
use crate::certificate::{Fingerprint, TlsCertificate};
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::schedule::Advice;
use crate::storage::{Key, Lease, StorageError, blocking, release};

/// A certificate about which the CA is to be queried.
pub struct AriQuery {
    pub(super) spec: Arc<CertSpec>,
    pub(super) certificate: Arc<TlsCertificate>,
    /// How it is known at its CA.
    pub(super) id: String,
    pub(super) issuer: Arc<dyn Issuer>,
    /// Where the advice is stored.
    pub(super) place: Key,
    /// The advice so far, perhaps about the previous certificate.
    pub(super) known: Option<Advice>,
}

/// The result of an [`AriQuery`].
pub struct AriResult {
    pub(super) spec: Arc<CertSpec>,
    pub(super) fingerprint: Fingerprint,
    /// `None` while another instance is asking.
    pub(super) advice: Option<Advice>,
    /// Whether this instance is to report it.
    pub(super) is_news: bool,
}

impl AriQuery {
    /// Asks the CA, or reads what another instance has stored.
    pub async fn run(self, deps: &Deps) -> AriResult {
        let (advice, is_news) = match self.fetch_advice(deps).await {
            Some((advice, is_news)) => (Some(advice), is_news),
            None => (None, false),
        };
        AriResult {
            spec: self.spec,
            fingerprint: self.certificate.fingerprint(),
            advice,
            is_news,
        }
    }

    async fn fetch_advice(&self, deps: &Deps) -> Option<(Advice, bool)> {
        let now = deps.clock.now();
        let known = self.latest_advice(deps).await;
        if let Some(known) = known.filter(|known| known.is_fresh(&self.id, now)) {
            return Some((known, false));
        }
        let place = self.place.clone();
        let lease = blocking(&deps.storage, move |storage| storage.try_lock(&place)).await;
        let lease = match lease {
            Ok(lease) => Arc::new(lease?),
            Err(error) => {
                deps.health.record_failure(Use::Writing, &error);
                Arc::new(Lease::unstored())
            }
        };
        // Another instance may have asked just before.
        let known = self.latest_advice(deps).await;
        let told = match known {
            Some(known) if known.is_fresh(&self.id, now) => (known, false),
            known => self.ask_issuer(known.as_ref(), &lease, deps).await,
        };
        release(&deps.storage, lease).await;
        Some(told)
    }

    /// Asks the CA, and stores the advice.
    async fn ask_issuer(
        &self,
        known: Option<&Advice>,
        lease: &Arc<Lease>,
        deps: &Deps,
    ) -> (Advice, bool) {
        let said = self.issuer.renewal_info(&self.certificate).await;
        let now = deps.clock.now();
        let before = Advice::for_certificate(&self.id, known, now);
        let mut advice = before.clone();
        let failure = match said {
            Ok(info) => {
                advice.apply_info(info, now, &mut fastrand::Rng::new());
                None
            }
            Err(failure) => {
                advice.record_failure(&failure, now);
                Some(failure)
            }
        };
        // Most CAs give no advice, and then there is nothing to store.
        if advice.window.is_some() || advice.failures > 0 || before.window.is_some() {
            self.store_advice(advice.clone(), lease, deps).await;
        }
        if let Some(failure) = failure {
            let (domain, issuer) = (self.spec.domain(), self.issuer.name());
            let why = "cannot get renewal advice from the CA; will ask again";
            if advice.failures == 1 {
                tracing::warn!(%domain, %issuer, %failure, "{why}");
            } else {
                tracing::debug!(%domain, %issuer, %failure, "{why}");
            }
        }
        let is_news = advice.is_news(&before, now);
        (advice, is_news)
    }

    async fn store_advice(&self, advice: Advice, lease: &Arc<Lease>, deps: &Deps) {
        let (lease, place) = (Arc::clone(lease), self.place.clone());
        let kept = blocking(&deps.storage, move |storage| {
            cert_store::store_advice(storage, &lease, &place, &advice)
        });
        match kept.await {
            Ok(()) => deps.health.record_success(Use::Writing),
            // The instance that took over stores its own.
            Err(StorageError::Lost { .. }) => {}
            Err(error) => deps.health.record_failure(Use::Writing, &error),
        }
    }

    /// The stored advice, or ours if it is later: it may not have been stored.
    async fn latest_advice(&self, deps: &Deps) -> Option<Advice> {
        let place = self.place.clone();
        let loaded = blocking(&deps.storage, move |storage| {
            cert_store::load_advice(storage, &place)
        });
        let stored = loaded.await.unwrap_or_else(|error| {
            deps.health.record_failure(Use::Reading, &error);
            None
        });
        let both = stored.into_iter().chain(self.known.clone());
        both.max_by_key(|advice| (advice.certificate == self.id, advice.ask_at))
    }
}
