//! Which certificates are managed: takes up specifications with what the storage has of them, and
//! releases them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::cert_events::{CertEvents, emit_unneeded};
use super::issuers::{is_not_limited, may_be_mended};
use super::load::{self, StoredState, Unread};
use super::managed_cert::{ManagedCert, StoredCopy};
use super::{Deferred, MonitoredCert, NameStatus, PendingCert, Renewals};
use crate::cert_store::{READ_AGAIN, Use};
use crate::certificate::sni::Precedence;
use crate::certificate::{Change, TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::host::Pattern;
use crate::issuer::spec::{CertSpec, SpecChange};
use crate::schedule::{Facts, Retries};
use crate::storage::keys;

/// How long it takes at least, in seconds, until it is asked again whether a name is allowed that
/// was not, and the share of the rest of its certificate's life after which that is done.
const ASK_AGAIN: i64 = 60;
const REST: i64 = 10;

impl Renewals {
    /// Takes the issuers of another configuration. A certificate of a CA that was replaced is
    /// served until the new CA has issued one. A failed DNS challenge may succeed where
    /// `is_other_dns`.
    pub(crate) fn configure(
        &mut self,
        issuers: &IndexMap<Arc<str>, Configured>,
        is_other_dns: bool,
    ) {
        let now = self.deps.clock.now();
        let changed = self.issuers.configure(issuers);
        for (spec, entry) in &mut self.certs {
            let moved = &changed.moved;
            if spec.precedence == Precedence::OnDemand {
                let label = entry.certificate().map(|one| one.source().label());
                let of = moved.iter().find(|one| label == Some(&***one)).cloned();
                if let Some(of) = of {
                    entry.mark_foreign();
                    // A certificate of a CA that is no longer configured is good until it is due.
                    // Another CA in its place, as after a trial, is asked at once.
                    if self.issuers.is_configured(&of) {
                        self.queues.request_now(spec, now);
                    }
                }
            } else if spec.issuers.iter().any(|one| moved.contains(one)) {
                entry.mark_foreign();
                if entry.stored.is_read() {
                    entry.stored = StoredCopy::Unread;
                }
            }
            let is_of_dns = is_other_dns && self.issuers.is_over_dns(spec);
            for name in &spec.issuers {
                if (is_of_dns || changed.mended.contains(name))
                    && let Some(account) = changed.accounts.get(name)
                    && entry.retries.make_due(account, is_not_limited, now)
                {
                    self.queues.request_now(spec, now);
                }
            }
        }
        // Another account may be asked for what the one before was not.
        self.queues.replan_all();
    }

    /// Has CAs asked for advice or not, as the configuration says.
    pub(crate) fn set_ari(&mut self, is_on: bool, now: UnixTime) {
        if !self.ari.set_on(is_on) {
            return;
        }
        for (spec, entry) in &self.certs {
            if is_on && entry.certificate().is_some() {
                self.ari.schedule_query(spec, now);
            } else {
                self.ari.forget_spec(spec);
                self.queues.set_advised_time(spec, None);
            }
        }
    }

    /// Sees that all of `specs` is planned, and serves what the storage has of it. The certificates
    /// are renewed in the last `window` of their life.
    pub(crate) fn ensure_planned(
        &mut self,
        specs: &[CertSpec],
        window: f64,
        now: UnixTime,
    ) -> Vec<SpecChange> {
        self.queues.set_window(window);
        // A storage that answers with a time-out is not to be waited for in every pass.
        let is_soon = |last: UnixTime| (last..last + READ_AGAIN).contains(&now);
        let is_resting = self.unread.is_some_and(is_soon);
        let mut unread = Vec::new();
        for spec in specs {
            let entry = self.certs.get(spec);
            if entry.is_some_and(|entry| is_resting || entry.stored.is_read()) {
                continue;
            }
            unread.push(Unread {
                spec: Arc::new(spec.clone()),
                subject: keys::subject(&spec.names),
                issuers: self.issuers.open_listed(&spec.issuers),
            });
        }
        if !is_resting {
            self.unread = None;
        }
        if unread.is_empty() {
            return Vec::new();
        }
        let read = load::read_all(&self.deps, &unread);
        match read.iter().flatten().find_map(|read| read.as_ref().err()) {
            Some(error) => {
                self.deps.health.record_failure(Use::Reading, error);
                self.unread = Some(now);
            }
            None => self.deps.health.record_success(Use::Reading),
        }
        let present = load::present_by_names(&self.certs, &unread);
        let mut served = Vec::new();
        for (Unread { spec, subject, .. }, read) in unread.into_iter().zip(read) {
            let (stored, unreadable) = match read {
                Some(Ok(stored)) => (stored, None),
                Some(Err(error)) => (StoredState::default(), Some(error.to_string())),
                None => (
                    StoredState::default(),
                    Some("it does not respond".to_owned()),
                ),
            };
            let others = present.get(&spec.names).map_or(&[][..], Vec::as_slice);
            let change = self.install_stored(&spec, subject, stored, unreadable, others, now);
            served.extend(change.map(|change| ((*spec).clone(), change)));
        }
        if !served.is_empty() {
            tracing::info!(certificates = served.len(), "loaded from the storage");
        }
        served
    }

    /// Installs the best certificate there is for `spec`, and plans it where the storage could be
    /// read.
    fn install_stored(
        &mut self,
        spec: &Arc<CertSpec>,
        subject: String,
        stored: StoredState,
        unreadable: Option<String>,
        others: &[Arc<TlsCertificate>],
        now: UnixTime,
    ) -> Option<Change> {
        if let Some(error) = stored.damaged {
            tracing::error!(domain = %spec.domain(), "{error}");
        }
        let entry = self.certs.entry(Arc::clone(spec));
        let entry = entry.or_insert_with(|| ManagedCert::new(subject));
        let is_foreign = entry.is_foreign();
        let better = load::choose(entry, spec, stored.certificate, others, &self.deps, now);
        let change = better.map(|new| {
            CertEvents::new(&self.deps, spec, now).emit_loaded(&new);
            entry.install(Arc::new(new), now)
        });
        if let Some(why) = unreadable {
            // What is planned stays as it is. The rest is planned once it is known what there is.
            entry.stored = StoredCopy::Unreadable(why.into());
            return change;
        }
        entry.stored = StoredCopy::Read;
        // What is known here may not have been stored.
        entry.retries.merge_from(stored.retries);
        let facts = entry.facts(self.issuers.accounts(&spec.issuers));
        self.queues.set(spec, facts, now);
        if change.is_some() {
            self.ari.schedule_query(spec, now);
        } else if is_foreign {
            self.queues.request_now(spec, now);
        }
        change
    }

    /// Asks once more for all that is missing, whatever the back-off says, where the CA does not
    /// forbid it.
    pub(crate) fn retry_missing(&mut self) {
        let now = self.deps.clock.now();
        for (spec, entry) in &mut self.certs {
            if spec.precedence == Precedence::OnDemand || !entry.is_missing() {
                continue;
            }
            for account in self.issuers.accounts(&spec.issuers) {
                if entry.retries.make_due(&account, may_be_mended, now) {
                    self.queues.request_now(spec, now);
                }
            }
        }
    }

    /// Forgets what `is_needed` does not ask for any more, of what the configuration asked for.
    pub(crate) fn retain(&mut self, is_needed: impl Fn(&CertSpec) -> bool) -> Vec<Change> {
        let (mut changes, mut failing) = (Vec::new(), Vec::new());
        let (queues, ari) = (&mut self.queues, &mut self.ari);
        self.certs.retain(|spec, entry| {
            if spec.precedence == Precedence::OnDemand || is_needed(spec) {
                return true;
            }
            failing.extend(queues.retry(spec).map(|_| Arc::clone(spec)));
            queues.remove(spec);
            ari.forget_spec(spec);
            changes.extend(entry.uninstall());
            false
        });
        emit_unneeded(&failing, self.certs.keys(), &self.deps);
        changes
    }

    /// Takes up a certificate that a client has asked for, with what the storage has of it.
    pub(crate) fn adopt_spec(
        &mut self,
        spec: &Arc<CertSpec>,
        subject: String,
        stored: StoredState,
        now: UnixTime,
    ) -> Option<Change> {
        let mut entry = ManagedCert::new(subject);
        entry.stored = StoredCopy::Read;
        entry.retries = stored.retries;
        let certificate = stored.certificate.map(Arc::new);
        let change = certificate.map(|certificate| entry.install(certificate, now));
        let facts = entry.facts(self.issuers.accounts(&spec.issuers));
        self.certs.insert(Arc::clone(spec), entry);
        self.queues.set(spec, facts, now);
        if change.is_some() {
            self.ari.schedule_query(spec, now);
        }
        change
    }

    /// Why a name is put off that these issuers may be asked for, by what the storage has of its
    /// failures; `None` where one of them can be asked.
    pub(crate) fn deferral(
        &self,
        retries: &Retries,
        issuers: &[Arc<str>],
        now: UnixTime,
    ) -> Option<Deferred> {
        let retry = retries.combined(self.issuers.accounts(issuers))?;
        Deferred::from_retry(&retry, now)
    }

    /// Forgets a certificate that clients have asked for.
    pub(crate) fn release_spec(&mut self, spec: &Arc<CertSpec>) -> Option<Change> {
        self.stop_renewal(spec);
        self.certs.remove(spec)?.uninstall()
    }

    /// Has other issuers asked for a certificate from now on. The present one is good until it is
    /// due.
    pub(crate) fn change_issuers(
        &mut self,
        spec: &Arc<CertSpec>,
        instead: &Arc<CertSpec>,
        now: UnixTime,
    ) {
        let Some(entry) = self.certs.remove(spec) else {
            return;
        };
        self.stop_renewal(spec);
        let facts = entry.facts(self.issuers.accounts(&instead.issuers));
        let label = entry.certificate().map(|one| one.source().label());
        let is_replaced = |issuer: &Arc<str>| entry.is_foreign() && label == Some(&**issuer);
        let is_urgent = instead.issuers.iter().any(is_replaced);
        let has_one = entry.certificate().is_some();
        self.certs.insert(Arc::clone(instead), entry);
        self.queues.set(instead, facts, now);
        if is_urgent {
            self.queues.request_now(instead, now);
        }
        if has_one {
            self.ari.schedule_query(instead, now);
        }
    }

    /// Does not renew a certificate for now, since its name is no longer allowed.
    pub(super) fn postpone_unwanted(&mut self, spec: &Arc<CertSpec>, now: UnixTime) {
        let Some(entry) = self.certs.get_mut(spec) else {
            return;
        };
        let end = entry.certificate().map(|one| one.not_after());
        let is_new = !std::mem::replace(&mut entry.is_dropped, true);
        if let (Some(end), true) = (end, is_new) {
            let what = format!(
                "will not be renewed because it is no longer allowed; it is served until {}",
                end
            );
            CertEvents::new(&self.deps, spec, now).emit_dropped(&what, Some(end));
        }
        let left = end.map_or(0, |end| end - now).max(1);
        let pause = (left / REST).max(ASK_AGAIN).min(left);
        self.queues.defer(spec, now + pause);
    }

    /// Does nothing more about a certificate. It may be gone from the storage by now.
    pub(crate) fn stop_renewal(&mut self, spec: &Arc<CertSpec>) {
        self.queues.remove(spec);
        self.ari.forget_spec(spec);
    }

    /// Obtains a certificate again that is over, see [`Self::is_over`].
    pub(crate) fn resume_renewal(&mut self, spec: &Arc<CertSpec>, now: UnixTime) {
        if !self.is_over(spec, now) {
            return;
        }
        let retry = self.queues.retry(spec).cloned();
        if let Some(entry) = self.certs.get_mut(spec) {
            entry.is_dropped = false;
            let life = entry.lifetime();
            self.queues.set(spec, Facts { life, retry }, now);
        }
    }

    /// Continues with `certificate`, which is stored, in the place of one that is over.
    pub(crate) fn install_renewed(
        &mut self,
        spec: &Arc<CertSpec>,
        certificate: TlsCertificate,
        now: UnixTime,
    ) -> Option<Change> {
        // Otherwise a job is at work on it and finds the stored one.
        let entry = self.certs.get_mut(spec).filter(|it| it.is_dropped)?;
        entry.is_dropped = false;
        let is_newer =
            |present: &Arc<TlsCertificate>| certificate.not_after() > present.not_after();
        let change = entry.certificate().is_none_or(is_newer).then(|| {
            CertEvents::new(&self.deps, spec, now).emit_loaded(&certificate);
            entry.install(Arc::new(certificate), now)
        });
        let life = entry.lifetime();
        self.queues.set(spec, Facts { life, retry: None }, now);
        self.ari.schedule_query(spec, now);
        change
    }

    /// The specifications of all certificates.
    pub(crate) fn specs(&self) -> Vec<Arc<CertSpec>> {
        self.certs.keys().cloned().collect()
    }

    /// The certificate of `spec`, with how its renewal goes; `None` if there is none.
    pub(crate) fn monitored_cert(
        &self,
        spec: &Arc<CertSpec>,
        now: UnixTime,
    ) -> Option<MonitoredCert> {
        self.status(now).monitored_cert(spec)
    }

    /// The status of a name that clients have asked for.
    pub(crate) fn name_status(&self, spec: &Arc<CertSpec>, now: UnixTime) -> NameStatus {
        self.status(now).name_status(spec)
    }

    /// The configured names that have no certificate, or none that was valid since the start, each
    /// with the reason.
    pub(crate) fn uncovered_names(&self, now: UnixTime) -> HashMap<&Pattern, PendingCert> {
        self.status(now).uncovered_names()
    }

    /// Whether a certificate is not to be renewed, and none that is valid is left.
    pub(crate) fn is_over(&self, spec: &CertSpec, now: UnixTime) -> bool {
        let is_expired = |one: &Arc<TlsCertificate>| one.validity(now) == Validity::Expired;
        let entry = self.certs.get(spec).filter(|entry| entry.is_dropped);
        entry.is_some_and(|entry| entry.certificate().is_none_or(is_expired))
    }

    /// The segments of storage keys of the certificates that the configuration asks for.
    pub(crate) fn configured_subjects(&self) -> HashSet<&str> {
        self.status(self.deps.clock.now()).configured_subjects()
    }

    /// The certificates that are known to be revoked.
    pub(crate) fn revoked_certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        let revoked = self.certs.values().filter(|entry| entry.is_revoked());
        revoked.filter_map(|entry| entry.certificate())
    }

    /// Whether there is a certificate for this very specification.
    pub(crate) fn has_certificate(&self, spec: &CertSpec) -> bool {
        let entry = self.certs.get(spec);
        entry.is_some_and(|entry| entry.certificate().is_some())
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.certs.values().filter_map(ManagedCert::certificate)
    }
}
