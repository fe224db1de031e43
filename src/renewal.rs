//! The certificates that CAs are asked for: what is there of each, what is due, what the jobs
//! returned.
//!
//! The plan of [`crate::schedule`] decides when; `obtain` asks the issuers. What is stored is
//! read when a certificate is first needed, and served at once.

mod ari;
mod ari_query;
mod cert_events;
mod deps;
mod hook;
mod issuers;
mod job;
mod load;
mod managed_cert;
mod obtain;
mod queue;
mod revocation;
mod specs;
mod status;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::ari_query::{AriQuery, AriResult};
pub(crate) use self::cert_events::CertEvents;
pub use self::deps::Deps;
pub(crate) use self::deps::LastCheck;
pub(crate) use self::hook::CurrentHook;
pub use self::hook::ObtainingHook;
pub(crate) use self::issuers::OpenLocalCa;
pub use self::issuers::{IssuerLimit, MakeIssuer};
pub use self::job::{Job, JobResult, RenewalPolicy};
pub(crate) use self::load::{StoredState, read_stored_state};
pub(crate) use self::revocation::FoundRevocation;
pub use self::revocation::{ActionError, RevocationJob, list_revoked};
pub(crate) use self::status::{Deferred, NameStatus};
pub use self::status::{ManagedView, MonitoredCert, PendingCert, StartupStatus};

use self::ari::{Advised, Ari};
use self::issuers::{Issuers, check_obstacles};
use self::job::{AbandonedJobs, Outcome};
use self::managed_cert::{ManagedCert, ManagedCerts, StoredCopy};
use self::queue::RenewalQueues;
use self::status::Status;
use crate::cert_store::READ_AGAIN;
use crate::certificate::Fingerprint;
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::issuer::Issuer;
use crate::issuer::spec::SpecChange;
use crate::schedule::{CertState, Failure, FailureClass, Wait};

/// The part of its life in which a certificate is renewed, until the configuration says.
const WINDOW: f64 = 1.0 / 3.0;

/// After how long a certificate is looked at again that another instance is working on.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The same where a client waits for it.
const LOOK_SOON: Duration = Duration::from_secs(1);

/// Every certificate that CAs are asked for.
pub(crate) struct Renewals {
    deps: Deps,
    issuers: Issuers,
    certs: ManagedCerts,
    queues: RenewalQueues,
    ari: Ari,
    abandoned: AbandonedJobs,
    /// When the storage last could not be read.
    unread: Option<UnixTime>,
}

impl Renewals {
    /// No certificates yet. `make` makes the issuers.
    pub(crate) fn new(deps: Deps, make: MakeIssuer) -> Self {
        Self {
            deps,
            issuers: Issuers::new(make),
            certs: ManagedCerts::new(),
            queues: RenewalQueues::new(WINDOW),
            ari: Ari::default(),
            abandoned: AbandonedJobs::default(),
            unread: None,
        }
    }

    /// The dependencies of jobs.
    pub(crate) fn deps(&self) -> &Deps {
        &self.deps
    }

    /// The certificates that are due now, as many as may be worked on at a time; each is held until
    /// [`Self::apply_result`] has its result. On-demand names ask `policy` first whether they may
    /// still have one.
    pub(crate) fn begin_due_jobs(
        &mut self,
        local_ca: &mut OpenLocalCa<'_>,
        policy: Option<&Arc<dyn RenewalPolicy>>,
    ) -> Vec<Job> {
        let now = self.deps.clock.now();
        for spec in self.abandoned.take_all() {
            let why = "the work on it was interrupted by a bug; see the log";
            let failure = Failure::new(FailureClass::Internal, why);
            self.queues.record_failure(&spec, &failure, now);
        }
        let mut issuers_of = HashMap::new();
        for list in self.queues.lists() {
            let job_issuers = self.issuers.open_for_job(list, local_ca);
            issuers_of.insert(list.clone(), job_issuers);
        }
        let none = Vec::new();
        let (certs, is_on) = (&self.certs, self.ari.is_on());
        let begun = self.queues.begin_due(now, |spec| {
            let job_issuers = issuers_of.get(&spec.issuers).unwrap_or(&none);
            let Some(entry) = certs.get(spec) else {
                return Ok(());
            };
            check_obstacles(job_issuers, spec, entry, is_on, now)
        });
        let window = self.queues.window();
        let mut jobs = Vec::new();
        for spec in begun {
            let Some(entry) = self.certs.get_mut(&spec) else {
                continue;
            };
            let is_requested = entry.is_requested;
            let has_one = entry.certificate().is_some();
            let retry = self.queues.retry(&spec).cloned();
            // The first attempt has just been allowed.
            let is_first = !has_one && retry.is_none();
            let asks = spec.precedence == Precedence::OnDemand && !is_first && !is_requested;
            let advised = self.ari.followed_window(&spec, entry, window, now);
            jobs.push(Job {
                subject: entry.subject.clone(),
                has_one,
                present: entry.own_certificate().cloned(),
                policy: policy.filter(|_| asks).cloned(),
                issuers: issuers_of.get(&spec.issuers).unwrap_or(&none).clone(),
                is_revoked: entry.is_revoked(),
                retry,
                retries: entry.retries.clone(),
                advised: advised.filter(|_| !is_requested),
                tells_replaced: is_on,
                is_asked: is_requested,
                window,
                guard: self.abandoned.guard(&spec, &entry.current_issuer),
            });
            entry.is_requested = false;
        }
        jobs
    }

    /// How many certificates are due and wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.queues.waiting()
    }

    /// Applies the result of a job. Returns what changes in what is served.
    pub(crate) fn apply_result(&mut self, done: JobResult, now: UnixTime) -> Option<SpecChange> {
        let JobResult { guard, outcome } = done;
        let spec = guard.release();
        // Otherwise it is no longer wanted.
        let entry = self.certs.get_mut(&spec)?;
        let cert_events = CertEvents::new(&self.deps, &spec, now);
        let certificate = match outcome {
            Outcome::Issued {
                certificate,
                issuer,
            } => {
                let is_renewal = entry.certificate().is_some();
                cert_events.emit_issued(&certificate, issuer, is_renewal);
                certificate
            }
            Outcome::Found(certificate) => {
                cert_events.emit_loaded(&certificate);
                if self.queues.retry(&spec).is_some() {
                    cert_events.emit_recovered("was obtained by another instance");
                }
                certificate
            }
            Outcome::Elsewhere => {
                let is_awaited =
                    spec.precedence == Precedence::OnDemand && entry.certificate().is_none();
                let pause = if is_awaited { LOOK_SOON } else { LOOK_AGAIN };
                self.queues.defer(&spec, now + pause);
                return None;
            }
            Outcome::Unread(why) => {
                entry.stored = StoredCopy::Unreadable(why.into());
                self.unread = Some(now);
                self.queues.defer(&spec, now + READ_AGAIN);
                return None;
            }
            Outcome::Unwanted => {
                self.postpone_unwanted(&spec, now);
                return None;
            }
            Outcome::Deferred { retries, until } => {
                entry.note_failures(&spec, retries);
                let accounts = self.issuers.accounts(&spec.issuers);
                match entry.retries.combined(accounts) {
                    Some(retry) if retry.next.is_none_or(|next| next > now) => {
                        self.queues.set_retry(&spec, retry);
                    }
                    _ => {
                        let soon = now + LOOK_AGAIN;
                        let until = until.map_or(soon, |until| until.max(soon));
                        self.queues.defer_at_most(&spec, until, now);
                    }
                }
                return None;
            }
            Outcome::Failed {
                failure,
                issuer,
                retries,
                retry,
                is_of_none,
                is_paused,
            } => {
                entry.note_failures(&spec, retries);
                let pauses = (self.queues.window(), is_paused);
                let present = entry.certificate().map(|one| &**one);
                cert_events.emit_failed(present, issuer, &failure, &retry, pauses);
                // The configuration may have other accounts by now.
                let accounts = self.issuers.accounts(&spec.issuers);
                let own = || entry.retries.combined(accounts);
                match if is_of_none { Some(*retry) } else { own() } {
                    Some(retry) => self.queues.set_retry(&spec, retry),
                    None => self.queues.defer(&spec, now + 1),
                }
                return None;
            }
        };
        entry.stored.forget_failure();
        entry.retries.forget(self.issuers.accounts(&spec.issuers));
        self.queues
            .record_success(&spec, certificate.lifetime(), now);
        self.ari.schedule_query(&spec, now);
        let change = entry.install(certificate, now);
        Some(((*spec).clone(), change))
    }

    /// Makes the certificates of `subject` (see [`crate::storage::keys::subject`]) due now,
    /// whatever their schedule. Whether there are any.
    pub(crate) fn request_renewal(&mut self, subject: &str) -> bool {
        let now = self.deps.clock.now();
        let mut is_known = false;
        for (spec, entry) in &mut self.certs {
            if entry.subject != subject {
                continue;
            }
            is_known = true;
            entry.is_requested = true;
            let open = spec
                .issuers
                .iter()
                .filter_map(|name| self.issuers.get(name));
            open.for_each(|issuer| issuer.clear_limits(&spec.names));
            self.queues.request_now(spec, now);
        }
        if is_known {
            // What was lifted may have held others too.
            self.queues.replan_all();
        }
        is_known
    }

    /// A person has had this certificate revoked: another is obtained now, whatever the schedule
    /// and the back-off say. Whether one is.
    pub(crate) fn replace_revoked(&mut self, fingerprint: Fingerprint) -> bool {
        let now = self.deps.clock.now();
        let mut is_known = false;
        for (spec, entry) in &mut self.certs {
            let present = entry.certificate().map(|one| one.fingerprint());
            if present == Some(fingerprint) {
                is_known = true;
                entry.mark_revoked();
                entry.is_requested = true;
                self.queues.request_now(spec, now);
            }
        }
        is_known
    }

    /// Others, or this instance before a restart, have had these certificates revoked: others are
    /// obtained in their place.
    pub(crate) fn mark_revoked(&mut self, revoked: &HashSet<String>) {
        if revoked.is_empty() {
            return;
        }
        let now = self.deps.clock.now();
        for (spec, entry) in &mut self.certs {
            let present = entry.certificate().filter(|_| !entry.is_revoked());
            let fingerprint = present.map(|one| one.fingerprint().to_string());
            if fingerprint.is_none_or(|fingerprint| !revoked.contains(&fingerprint)) {
                continue;
            }
            tracing::warn!(domain = %spec.domain(), "the current certificate was revoked");
            entry.mark_revoked();
            if self.queues.state(spec, now) == CertState::Obtaining {
                continue;
            }
            // What has failed before a restart waits on.
            let retry = self.queues.retry(spec).cloned();
            self.queues.request_now(spec, now);
            if let Some(retry) = retry {
                self.queues.set_retry(spec, retry);
            }
        }
    }

    /// The certificates whose CAs are to be asked for renewal info now, at most so many; each
    /// counts as asked. The results go to [`Self::apply_ari_result`].
    pub(crate) fn ari_queries(&mut self, most: usize) -> Vec<AriQuery> {
        let now = self.deps.clock.now();
        self.ari
            .begin_queries(&self.certs, &mut self.issuers, now, most)
    }

    /// Applies the renewal info of a CA: the plan follows it from now on.
    pub(crate) fn apply_ari_result(&mut self, result: AriResult) {
        let now = self.deps.clock.now();
        let spec = Arc::clone(&result.spec);
        let entry = self.certs.get(&spec);
        let Some(certificate) = entry.and_then(ManagedCert::certificate) else {
            return;
        };
        let advised = self.ari.apply_result(result, certificate, now);
        let Some(Advised { at, news }) = advised else {
            return;
        };
        self.queues.set_advised_time(&spec, at);
        if let (Some(window), Some(at)) = (news, at) {
            CertEvents::new(&self.deps, &spec, now).emit_advised(certificate, &window, at);
        }
    }

    /// When a CA is next to be asked for renewal info.
    pub(crate) fn next_ari_query(&self) -> Option<UnixTime> {
        self.ari.next_query()
    }

    /// When [`Self::begin_due_jobs`] next has something.
    pub(crate) fn next_due(&self) -> Option<UnixTime> {
        self.queues.next_wake()
    }

    /// Whether the storage does not say what it holds of some.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// The issuers whose limits are to be checked in the storage now, see
    /// [`Issuer::refresh_limits`]; each counts as checked.
    pub(crate) fn limits_to_check(&mut self) -> Vec<Arc<dyn Issuer>> {
        self.issuers.limits_to_check(self.deps.clock.now())
    }

    /// All limits of CAs that hold now, each with the issuer.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&Arc<str>, Wait)> {
        self.issuers.limits()
    }

    /// The issuer of this name; `None` where it is none over the network.
    pub(crate) fn open_issuer(&mut self, name: &str) -> Option<Arc<dyn Issuer>> {
        self.issuers.open(name)
    }

    /// All issuers over the network: those of `first`, then the others, which may have issued what
    /// is still good.
    pub(crate) fn open_all_remote(&mut self, first: &[Arc<str>]) -> Vec<Arc<dyn Issuer>> {
        self.issuers.open_all(first)
    }

    /// Every certificate, for people.
    pub(crate) fn views(&self) -> Vec<ManagedView> {
        self.status(self.deps.clock.now()).views().collect()
    }

    /// Whether there are all certificates that the configuration asks for.
    pub(crate) fn startup_status(&self) -> StartupStatus {
        self.status(self.deps.clock.now()).startup_status()
    }

    /// The status of everything at `now`.
    fn status(&self, now: UnixTime) -> Status<'_> {
        Status {
            deps: &self.deps,
            issuers: &self.issuers,
            certs: &self.certs,
            queues: &self.queues,
            ari: &self.ari,
            now,
        }
    }
}
