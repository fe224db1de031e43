//! The certificates that CAs are asked for: what is there of each, what is due, what the jobs
//! returned.
//!
//! The plan of [`crate::schedule`] decides when; [`obtain`] asks the issuers, elsewhere.
//! What is stored is read when a certificate is first needed, and served at once.

mod ari;
mod ari_query;
mod cert_events;
mod issuers;
mod job;
mod load;
mod obtain;
mod on_demand;
mod queue;
mod revocation;
mod revoked;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;

use self::ari::Ari;
pub use self::ari_query::{AriQuery, AriResult};
use self::cert_events::CertEvents;
pub use self::issuers::IssuerLimit;
use self::issuers::{accounts, check_obstacles, may_be_mended};
use self::job::{AbandonedJobs, CurrentIssuer, Outcome};
pub use self::job::{Deps, Job, JobResult};
pub(crate) use self::load::{StoredState, read_stored_state};
pub(crate) use self::on_demand::{NameStatus, cert_events};
use self::queue::RenewalQueues;
pub(crate) use self::revocation::LastCheck;
pub use self::revocation::{ActionError, RevocationJob};
pub use self::status::{ManagedView, MonitoredCert, StartupStatus};
use crate::cert_store::READ_AGAIN;
use crate::certificate::Change;
use crate::certificate::TlsCertificate;
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::host::HostName;
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::issuer::spec::SpecChange;
use crate::local_ca::LocalCa;
use crate::schedule::{Failure, FailureClass, Retries};

/// Makes an issuer by its name in the configuration and what that says of it. Does no I/O.
pub type MakeIssuer = Box<dyn Fn(&Arc<str>, &Configured) -> Arc<dyn Issuer> + Send + Sync>;

/// Opens the local CA that the configuration calls by a name; `None` where there may only be
/// looked.
pub(crate) type OpenLocalCa<'a> = dyn FnMut(&Arc<str>) -> Result<Option<Arc<LocalCa>>, String> + 'a;

/// Asked before a renewal whether the name may still have a certificate.
#[async_trait]
pub trait RenewalPolicy: Send + Sync {
    /// Whether `name` may still have a certificate; `None` where it cannot be told now.
    async fn still_allows(&self, name: &HostName) -> Option<bool>;
}

/// The part of its life in which a certificate is renewed, until the configuration says.
const WINDOW: f64 = 1.0 / 3.0;

/// After how many seconds it is looked again where another instance is at work.
const LOOK_AGAIN: i64 = 5;

/// The same where a client waits for it.
const LOOK_SOON: i64 = 1;

/// Every certificate that CAs are asked for.
pub(crate) struct Renewals {
    deps: Deps,
    make: MakeIssuer,
    open: HashMap<Arc<str>, OpenIssuer>,
    entries: HashMap<Arc<CertSpec>, ManagedCert>,
    queues: RenewalQueues,
    ari: Ari,
    abandoned: AbandonedJobs,
    /// When the storage could last not be read.
    unread: Option<UnixTime>,
    /// When it was last looked what it has of the limits of CAs.
    looked: Option<UnixTime>,
}

/// An issuer with what the configuration says of it.
type OpenIssuer = (Configured, Arc<dyn Issuer>);

/// What there is of one certificate.
#[derive(Default)]
struct ManagedCert {
    subject: String,
    certificate: Option<Arc<TlsCertificate>>,
    /// Whether the storage has said what it holds.
    is_read: bool,
    /// Why it does not say that.
    unread: Option<Arc<str>>,
    /// Whether nothing but an expired certificate was there from the start.
    is_stale: bool,
    /// Whether the certificate is of a CA that the configuration no longer names.
    is_foreign: bool,
    /// Whether the certificate was revoked.
    is_revoked: bool,
    /// Whether it is not to be renewed: who decides on names has said so.
    is_unwanted: bool,
    /// Whether a person has asked for it.
    is_asked: bool,
    /// Its failures, by the accounts that they happened with.
    retries: Retries,
    /// The issuer that is being asked for it, if any.
    current_issuer: CurrentIssuer,
}

impl Renewals {
    pub(crate) fn new(deps: Deps, make: MakeIssuer) -> Self {
        Self {
            deps,
            make,
            open: HashMap::new(),
            entries: HashMap::new(),
            queues: RenewalQueues::new(WINDOW),
            ari: Ari::default(),
            abandoned: AbandonedJobs::default(),
            unread: None,
            looked: None,
        }
    }

    pub(crate) fn deps(&self) -> &Deps {
        &self.deps
    }

    /// Asks once more for all that is missing, whatever the back-off says, where the CA does not
    /// forbid it: a start depends on it.
    pub(crate) fn retry_missing(&mut self, now: UnixTime) {
        let entries = self.entries.iter_mut();
        for (spec, entry) in entries.filter(|(spec, _)| spec.precedence != Precedence::OnDemand) {
            if entry.certificate.is_some() && !entry.is_stale {
                continue;
            }
            for account in accounts(&spec.issuers, &self.open) {
                if entry.retries.make_due(&account, may_be_mended, now) {
                    self.queues.request_now(spec, now);
                }
            }
        }
    }

    /// Forgets what `is_needed` does not ask for any more, of what the configuration asked for.
    pub(crate) fn retain(&mut self, is_needed: impl Fn(&CertSpec) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        let (queues, ari) = (&mut self.queues, &mut self.ari);
        self.entries.retain(|spec, entry| {
            if spec.precedence == Precedence::OnDemand || is_needed(spec) {
                return true;
            }
            queues.remove(spec);
            ari.forget_spec(spec);
            if let Some(old) = entry.certificate.take() {
                changes.push(Change {
                    old: Some(old),
                    new: None,
                });
            }
            false
        });
        changes
    }

    /// The certificates that something is to be done about now, as many as may be worked on at a
    /// time; each is held to be worked on until [`Self::apply_job_results`] says what came of it. Where clients
    /// have asked for them, `wanted` is asked whether they are still to be had.
    pub(crate) fn begin_due_jobs(
        &mut self,
        local_ca: &mut OpenLocalCa<'_>,
        issuers: &IndexMap<Arc<str>, Configured>,
        wanted: Option<&Arc<dyn RenewalPolicy>>,
        now: UnixTime,
    ) -> Vec<Job> {
        for spec in self.abandoned.take_all() {
            let why = "the work on it was interrupted by a bug; see the log";
            let failure = Failure::new(FailureClass::Internal, why);
            self.queues.record_failure(&spec, &failure, now);
        }
        let lists: Vec<_> = self.queues.lists().cloned().collect();
        let mut issuers_of = HashMap::with_capacity(lists.len());
        for list in lists {
            let job_issuers = self.job_issuers_of(&list, local_ca, issuers);
            issuers_of.insert(list, job_issuers);
        }
        let none = Vec::new();
        let (entries, is_on) = (&self.entries, self.ari.is_on());
        let begun = self.queues.begin_due(now, |spec| {
            let job_issuers = issuers_of.get(&spec.issuers).unwrap_or(&none);
            let Some(entry) = entries.get(spec) else {
                return Ok(());
            };
            check_obstacles(job_issuers, spec, entry, is_on, now)
        });
        let mut jobs = Vec::new();
        for spec in begun {
            let advised = self.followed_window(&spec, now);
            let Some(entry) = self.entries.get_mut(&spec) else {
                continue;
            };
            let present = entry.certificate.clone();
            let retry = self.queues.retry(&spec).cloned();
            // At first it has just been asked.
            let is_first = present.is_none() && retry.is_none();
            let asks = spec.precedence == Precedence::OnDemand && !is_first && !entry.is_asked;
            jobs.push(Job {
                subject: entry.subject.clone(),
                has_one: present.is_some(),
                present: present.filter(|_| !entry.is_foreign),
                wanted: wanted.filter(|_| asks).cloned(),
                issuers: issuers_of.get(&spec.issuers).unwrap_or(&none).clone(),
                is_revoked: entry.is_revoked,
                retry,
                retries: entry.retries.clone(),
                advised: advised.filter(|_| !entry.is_asked),
                tells_replaced: self.ari.is_on(),
                is_asked: std::mem::take(&mut entry.is_asked),
                window: self.queues.window(),
                guard: self.abandoned.guard(&spec, &entry.current_issuer),
            });
        }
        jobs
    }

    /// Whether the storage does not say what it holds of some.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// When something is next due.
    pub(crate) fn next_due(&self) -> Option<UnixTime> {
        self.queues.next_wake()
    }

    /// Applies the result of a job. Returns what changes in what is served.
    pub(crate) fn apply_result(&mut self, done: JobResult, now: UnixTime) -> Option<SpecChange> {
        let JobResult { guard, outcome } = done;
        let spec = guard.release();
        let Some(entry) = self.entries.get_mut(&spec) else {
            // It is not asked for any more.
            return None;
        };
        let cert_events = CertEvents {
            deps: &self.deps,
            spec: &spec,
            now,
        };
        let certificate = match outcome {
            Outcome::Issued {
                certificate,
                issuer,
            } => {
                cert_events.emit_issued(&certificate, issuer, entry.certificate.is_some());
                certificate
            }
            Outcome::Found(certificate) => {
                cert_events.emit_loaded(&certificate);
                certificate
            }
            Outcome::Elsewhere => {
                let awaited =
                    spec.precedence == Precedence::OnDemand && entry.certificate.is_none();
                let pause = if awaited { LOOK_SOON } else { LOOK_AGAIN };
                self.queues.defer(&spec, now.saturating_add(pause));
                return None;
            }
            Outcome::Unread(why) => {
                entry.unread = Some(why.into());
                // What clients ask for is read with the next attempt.
                entry.is_read &= spec.precedence == Precedence::OnDemand;
                self.unread = Some(now);
                self.queues.defer(&spec, now.saturating_add(READ_AGAIN));
                return None;
            }
            Outcome::Unwanted => {
                self.postpone_unwanted(&spec, now);
                return None;
            }
            Outcome::Deferred { retries, until } => {
                entry.note_failures(&spec, retries);
                match entry.retries.combined(accounts(&spec.issuers, &self.open)) {
                    Some(retry) if retry.next.is_none_or(|next| next > now) => {
                        self.queues.set_retry(&spec, retry);
                    }
                    _ => {
                        let soon = now.saturating_add(LOOK_AGAIN);
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
                let present = entry.certificate.as_deref();
                cert_events.emit_failed(present, issuer, &failure, &retry, pauses);
                // The configuration may have other accounts by now.
                let own = || entry.retries.combined(accounts(&spec.issuers, &self.open));
                match if is_of_none { Some(*retry) } else { own() } {
                    Some(retry) => self.queues.set_retry(&spec, retry),
                    None => self.queues.defer(&spec, now.saturating_add(1)),
                }
                return None;
            }
        };
        (entry.is_stale, entry.is_foreign, entry.is_revoked) = (false, false, false);
        (entry.is_unwanted, entry.unread) = (false, None);
        entry.retries.forget(accounts(&spec.issuers, &self.open));
        self.queues
            .record_success(&spec, certificate.lifetime(), now);
        self.ari.schedule_query(&spec, now);
        let change = Change {
            old: entry.certificate.replace(Arc::clone(&certificate)),
            new: Some(certificate),
        };
        Some(((*spec).clone(), change))
    }

    /// Makes the certificates of `subject` due now, whatever their schedule. Whether there are any.
    pub(crate) fn request_renewal(&mut self, subject: &str, now: UnixTime) -> bool {
        let mut is_known = false;
        for (spec, entry) in &mut self.entries {
            if entry.subject != subject {
                continue;
            }
            is_known = true;
            entry.is_asked = true;
            let open = spec.issuers.iter().filter_map(|name| self.open.get(name));
            open.for_each(|(_, issuer)| issuer.clear_limits(&spec.names));
            self.queues.request_now(spec, now);
        }
        if is_known {
            // What was lifted may have held others too.
            self.queues.replan_all();
        }
        is_known
    }

    /// Whether there is a certificate for this very specification.
    pub(crate) fn has_certificate(&self, spec: &CertSpec) -> bool {
        let entry = self.entries.get(spec);
        entry.is_some_and(|entry| entry.certificate.is_some())
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.entries
            .values()
            .filter_map(|entry| entry.certificate.as_ref())
    }
}
