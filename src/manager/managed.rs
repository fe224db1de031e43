//! The certificates that CAs are asked for: what is at hand of each, what is due, what came of it.
//!
//! The plan of [`crate::schedule`] decides when; [`super::work`] does the asking, elsewhere. What
//! is stored is read when a certificate is first needed, and served at once.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::issued::{Issued, Served};
use super::needs::{Asked, Need};
use super::parallel;
use super::report::Change;
use super::stored::{self, Parcel, StoredError};
use super::told::{self, Teller};
use super::work::{Authority, Done, Job, Outcome, Tools};
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::config::model::{Acme, Issuer as Configured};
use crate::host::Pattern;
use crate::issuer::Issuer;
use crate::schedule::{CertState, Facts, Plan, Retry, Upkeep};
use crate::storage::{Lease, StorageError, keys};

/// Makes an issuer by its name in the configuration and what that says of it. Does no I/O.
pub type MakeIssuer = Box<dyn Fn(&Arc<str>, &Arc<Acme>) -> Arc<dyn Issuer> + Send + Sync>;

/// The part of its life in which a certificate is renewed, until the configuration says.
const WINDOW: f64 = 1.0 / 3.0;

/// After how many seconds it is looked again where another instance is at work.
const LOOK_AGAIN: i64 = 5;

/// Every certificate that CAs are asked for.
pub(super) struct Managed {
    tools: Tools,
    make: MakeIssuer,
    open: HashMap<Arc<str>, (Arc<Acme>, Arc<dyn Issuer>)>,
    entries: HashMap<Arc<Need>, Entry>,
    plan: Plan<Arc<Need>>,
    window: f64,
}

/// What is at hand of one certificate.
struct Entry {
    subject: String,
    certificate: Option<Arc<TlsCertificate>>,
    /// What was issued and could not be stored.
    unsaved: Option<Parcel>,
    /// Whether the storage has said what it holds.
    is_read: bool,
    /// Whether nothing but an expired certificate was there from the start.
    is_stale: bool,
}

/// A certificate that an issuer is asked for, for whoever wants to see it.
#[derive(Clone, Debug)]
pub struct ManagedView {
    pub names: Vec<Pattern>,
    /// Names of issuers, in the order in which they are asked.
    pub issuers: Vec<Arc<str>>,
    pub certificate: Option<Arc<TlsCertificate>>,
    pub state: CertState,
    /// The failures since the last success.
    pub retry: Option<Retry>,
    /// When something is done about it.
    pub next: Option<UnixTime>,
    /// Whether it is in the storage.
    pub is_stored: bool,
}

/// How far a start is that has to wait for certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// All are there.
    Complete,
    /// One cannot be had, and why.
    Failed(String),
    /// Some are being obtained.
    Pending,
}

/// What the storage holds of a certificate.
#[derive(Default)]
struct Read {
    certificate: Option<TlsCertificate>,
    retry: Option<Retry>,
    damaged: Option<StoredError>,
}

impl Managed {
    pub(super) fn new(tools: Tools, make: MakeIssuer) -> Self {
        Self {
            tools,
            make,
            open: HashMap::new(),
            entries: HashMap::new(),
            plan: Plan::new(WINDOW),
            window: WINDOW,
        }
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Forgets the issuers that `issuers` no longer has as they were.
    pub(super) fn close_others(&mut self, issuers: &IndexMap<Arc<str>, Configured>) {
        self.open.retain(|name, (acme, _)| {
            matches!(issuers.get(name), Some(Configured::Acme(now)) if now == acme)
        });
    }

    /// Sees that all of `asked` is planned, and returns what the storage has of it.
    pub(super) fn ensure(
        &mut self,
        asked: &[Asked<'_>],
        issuers: &IndexMap<Arc<str>, Configured>,
        window: f64,
        now: UnixTime,
    ) -> Vec<Served> {
        if self.window.to_bits() != window.to_bits() {
            self.window = window;
            self.plan.set_window(window);
        }
        let mut unread = Vec::new();
        for (need, _) in asked {
            if self.entries.get(need).is_some_and(|entry| entry.is_read) {
                continue;
            }
            let remote = self.remote(need, issuers);
            unread.push((Arc::new(need.clone()), keys::subject(&need.names), remote));
        }
        let tools = &self.tools;
        let read = parallel::map(&unread, |(need, subject, remote)| {
            read(tools, need, subject, remote)
        });
        let mut served = Vec::new();
        let mut loaded = 0_usize;
        for ((need, subject, _), read) in unread.into_iter().zip(read) {
            if let Some(change) = self.take_read(&need, subject, read, now) {
                loaded += usize::from(change.new.is_some());
                served.push(((*need).clone(), change));
            }
        }
        if loaded > 0 {
            tracing::info!(certificates = loaded, "loaded from the storage");
        }
        served
    }

    fn take_read(
        &mut self,
        need: &Arc<Need>,
        subject: String,
        read: Result<Read, StorageError>,
        now: UnixTime,
    ) -> Option<Change> {
        let (read, is_read) = match read {
            Ok(read) => {
                self.tools.health.works();
                (read, true)
            }
            Err(error) => {
                self.tools.health.failed(&error);
                (Read::default(), false)
            }
        };
        if let Some(error) = read.damaged {
            tracing::error!(domain = %need.domain(), "{error}");
        }
        let entry = self
            .entries
            .entry(Arc::clone(need))
            .or_insert_with(|| Entry {
                subject,
                certificate: None,
                unsaved: None,
                is_read,
                is_stale: false,
            });
        entry.is_read = is_read;
        let better = read.certificate.filter(|stored| {
            let present = entry.certificate.as_ref();
            present.is_none_or(|present| stored.not_after() > present.not_after())
        });
        let new = better.map(Arc::new);
        let change = new.map(|new| {
            entry.is_stale = new.validity(now) == Validity::Expired;
            Teller {
                tools: &self.tools,
                need,
                now,
            }
            .loaded(&new);
            let old = entry.certificate.replace(Arc::clone(&new));
            Change {
                old,
                new: Some(new),
            }
        });
        let facts = Facts {
            life: entry.certificate.as_deref().map(TlsCertificate::lifetime),
            retry: read.retry,
        };
        self.plan.set(Arc::clone(need), facts, now);
        change
    }

    /// Forgets what `is_needed` does not ask for any more.
    pub(super) fn retain(&mut self, is_needed: impl Fn(&Need) -> bool) -> Vec<(Need, Change)> {
        let mut changes = Vec::new();
        let plan = &mut self.plan;
        self.entries.retain(|need, entry| {
            if is_needed(need) {
                return true;
            }
            plan.remove(need);
            if let Some(old) = entry.certificate.take() {
                let change = Change {
                    old: Some(old),
                    new: None,
                };
                changes.push(((**need).clone(), change));
            }
            false
        });
        changes
    }

    /// Up to `max` certificates that something is to be done about now; each is held to be worked
    /// on until [`Self::settle`] says what came of it.
    pub(super) fn due(
        &mut self,
        issued: &mut Issued,
        issuers: &IndexMap<Arc<str>, Configured>,
        window: f64,
        now: UnixTime,
        max: usize,
    ) -> Vec<Job> {
        let due = self.plan.due(now, max);
        due.into_iter()
            .filter_map(|need| {
                self.plan.start(&need);
                let entry = self.entries.get(&need)?;
                let (subject, present) = (entry.subject.clone(), entry.certificate.clone());
                let authorities = self.authorities(&need, issued, issuers);
                Some(Job {
                    failures: self.plan.retry(&need).map_or(0, |retry| retry.failures),
                    need,
                    subject,
                    issuers: authorities,
                    present,
                    window,
                })
            })
            .collect()
    }

    /// When something is next due.
    pub(super) fn next_due(&self) -> Option<UnixTime> {
        self.plan.next_wake()
    }

    /// Takes what came of the work on a certificate: what changes in what is served.
    pub(super) fn settle(&mut self, done: Done, now: UnixTime) -> Option<Served> {
        let Done { need, outcome } = done;
        let Some(entry) = self.entries.get_mut(&need) else {
            // It is not asked for any more.
            return None;
        };
        let teller = Teller {
            tools: &self.tools,
            need: &need,
            now,
        };
        let (certificate, unsaved) = match outcome {
            Outcome::Issued {
                certificate,
                issuer,
                unsaved,
            } => {
                teller.issued(&certificate, issuer, entry.certificate.is_some());
                (certificate, unsaved)
            }
            Outcome::Found(certificate) => {
                teller.loaded(&certificate);
                (certificate, None)
            }
            Outcome::Elsewhere => {
                self.plan.defer(&need, now.saturating_add(LOOK_AGAIN));
                return None;
            }
            Outcome::Failed { failure, issuer } => {
                let present = entry.certificate.as_deref();
                let mut rng = fastrand::Rng::new();
                let retry = self
                    .plan
                    .fail(&need, &failure, Some(&issuer), now, &mut rng)?;
                teller.failed(present, issuer, &failure, &retry, self.window);
                self.keep_retry(&need, Some(&retry));
                return None;
            }
        };
        entry.unsaved = unsaved;
        entry.is_stale = false;
        let had_failed = self.plan.retry(&need).is_some();
        self.plan.succeed(&need, certificate.lifetime(), now);
        let change = Change {
            old: entry.certificate.replace(Arc::clone(&certificate)),
            new: Some(certificate),
        };
        if had_failed {
            self.keep_retry(&need, None);
        }
        Some(((*need).clone(), change))
    }

    /// Stores what could not be stored before.
    pub(super) fn save(&mut self) {
        let storage = &*self.tools.storage;
        for entry in self.entries.values_mut() {
            let Some(parcel) = &entry.unsaved else {
                continue;
            };
            let stored = keys::lock(&entry.subject)
                .and_then(|key| storage.try_lock(&key))
                .and_then(|lease| {
                    lease.map_or(Ok(false), |lease: Lease| {
                        parcel.store_late(storage, &lease).map(|()| true)
                    })
                });
            match stored {
                Ok(true) => {
                    entry.unsaved = None;
                    self.tools.health.works();
                }
                // A peer is at work on it.
                Ok(false) => {}
                Err(error) => {
                    self.tools.health.failed(&error);
                    return;
                }
            }
        }
    }

    /// Makes what `subject` stands for due now, whatever its schedule says. Whether there is any.
    pub(super) fn request(&mut self, subject: &str, now: UnixTime) -> bool {
        let needs: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.subject == subject)
            .map(|(need, _)| Arc::clone(need))
            .collect();
        for need in &needs {
            self.plan.request(need, now);
        }
        !needs.is_empty()
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.entries
            .values()
            .filter_map(|entry| entry.certificate.as_ref())
    }

    /// Every certificate, with how its renewal goes.
    pub(super) fn watched_over(&self) -> impl Iterator<Item = (&Arc<TlsCertificate>, Upkeep)> {
        self.entries.iter().filter_map(|(need, entry)| {
            let failures = self.plan.retry(need).map_or(0, |retry| retry.failures);
            let upkeep = Upkeep::Renewed {
                window: self.window,
                failures,
            };
            Some((entry.certificate.as_ref()?, upkeep))
        })
    }

    /// Everything that issuers are asked for.
    pub(super) fn views(&self, now: UnixTime) -> impl Iterator<Item = ManagedView> {
        self.entries.iter().map(move |(need, entry)| ManagedView {
            names: need.names.clone(),
            issuers: need.issuers.clone(),
            certificate: entry.certificate.clone(),
            state: self.plan.state(need, now).unwrap_or(CertState::Missing),
            retry: self.plan.retry(need).cloned(),
            next: self.plan.next_attempt(need),
            is_stored: entry.certificate.is_some() && entry.unsaved.is_none(),
        })
    }

    /// Whether all certificates are there.
    pub(super) fn start_state(&self, now: UnixTime) -> Start {
        let mut state = Start::Complete;
        for (need, entry) in &self.entries {
            if entry.certificate.is_some() && !entry.is_stale {
                continue;
            }
            match self.plan.retry(need) {
                Some(retry) if self.plan.next_attempt(need).is_none_or(|next| next > now) => {
                    return Start::Failed(format!(
                        "there is no certificate for {}: {}",
                        need.domain(),
                        told::last_failure(retry)
                    ));
                }
                _ => state = Start::Pending,
            }
        }
        state
    }

    /// The names that have no certificate, or none that was valid since the start, each with the
    /// reason.
    pub(super) fn lacking(&self, now: UnixTime) -> HashMap<&Pattern, Arc<str>> {
        let mut lacking = HashMap::new();
        for (need, entry) in &self.entries {
            let what = match &entry.certificate {
                None => "there is none yet",
                Some(certificate)
                    if entry.is_stale && certificate.validity(now) == Validity::Expired =>
                {
                    "the one at hand has expired"
                }
                Some(_) => continue,
            };
            let why: Arc<str> = match self.plan.retry(need) {
                None => format!("{what}; {} is being asked", need.issuers.join(", ")),
                Some(retry) => format!("{what}; {}", told::last_failure(retry)),
            }
            .into();
            lacking.extend(need.names.iter().map(|name| (name, Arc::clone(&why))));
        }
        lacking
    }

    /// The issuers of a need that are over the network.
    fn remote(
        &mut self,
        need: &Need,
        issuers: &IndexMap<Arc<str>, Configured>,
    ) -> Vec<Arc<dyn Issuer>> {
        let names = need.issuers.iter();
        names
            .filter_map(|name| match issuers.get(name)? {
                Configured::Acme(acme) => Some(self.issuer(name, acme)),
                Configured::LocalCa { .. } => None,
            })
            .collect()
    }

    fn issuer(&mut self, name: &Arc<str>, acme: &Arc<Acme>) -> Arc<dyn Issuer> {
        let make = &self.make;
        let (_, issuer) = self
            .open
            .entry(Arc::clone(name))
            .or_insert_with(|| (Arc::clone(acme), make(name, acme)));
        Arc::clone(issuer)
    }

    fn authorities(
        &mut self,
        need: &Need,
        issued: &mut Issued,
        issuers: &IndexMap<Arc<str>, Configured>,
    ) -> Vec<Authority> {
        let mut authorities = Vec::with_capacity(need.issuers.len());
        for name in &need.issuers {
            match issuers.get(name) {
                Some(Configured::Acme(acme)) => {
                    authorities.push(Authority::Remote(self.issuer(name, acme)));
                }
                Some(Configured::LocalCa { .. }) => match issued.local_ca(name, issuers) {
                    Ok(ca) => authorities.extend(ca.map(Authority::Local)),
                    Err(reason) => tracing::error!(issuer = %name, reason, "cannot be asked"),
                },
                None => {}
            }
        }
        authorities
    }

    fn keep_retry(&self, need: &Need, retry: Option<&Retry>) {
        let subject = keys::subject(&need.names);
        if let Err(error) = stored::store_retry(&*self.tools.storage, &subject, retry) {
            self.tools.health.failed(&error);
        }
    }
}

fn read(
    tools: &Tools,
    need: &Need,
    subject: &str,
    remote: &[Arc<dyn Issuer>],
) -> Result<Read, StorageError> {
    let now = tools.clock.now();
    let mut read = Read {
        retry: stored::load_retry(&*tools.storage, subject)?,
        ..Read::default()
    };
    for issuer in remote {
        let stored = stored::load(
            &*tools.storage,
            &tools.loader,
            issuer.ca(),
            subject,
            issuer.name(),
        );
        match stored {
            Ok(Some(certificate)) if super::work::covers(&certificate, &need.names) => {
                let is_valid = certificate.validity(now) == Validity::Valid;
                let is_longer = read
                    .certificate
                    .as_ref()
                    .is_none_or(|other| other.not_after() < certificate.not_after());
                if is_valid || is_longer {
                    read.certificate = Some(certificate);
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
