//! The certificates that CAs are asked for: what is at hand of each, what is due, what came of it.
//!
//! The plan of [`crate::schedule`] decides when; [`super::work`] does the asking, elsewhere. What
//! is stored is read when a certificate is first needed, and served at once.

mod opening;
mod plans;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use self::plans::Plans;
pub use self::view::{ManagedView, Start};
use super::health::Use;
use super::issued::{Issued, Served};
use super::job::{Authority, Done, Job, Outcome, Tools};
use super::needs::Need;
use super::report::Change;
use super::stored::{self, Parcel};
use super::told::Teller;
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::config::model::{Acme, Issuer as Configured};
use crate::issuer::Issuer;
use crate::schedule::Retry;
use crate::storage::{Lease, keys};

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
    open: HashMap<Arc<str>, Open>,
    entries: HashMap<Arc<Need>, Entry>,
    plans: Plans,
}

/// An issuer with what the configuration says of it.
type Open = (Arc<Acme>, Arc<dyn Issuer>);

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
    /// Whether the certificate is of a CA that the configuration no longer names.
    is_foreign: bool,
}

impl Managed {
    pub(super) fn new(tools: Tools, make: MakeIssuer) -> Self {
        Self {
            tools,
            make,
            open: HashMap::new(),
            entries: HashMap::new(),
            plans: Plans::new(WINDOW),
        }
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Forgets the issuers that `issuers` no longer has as they were. What is at hand of a CA that
    /// another has taken the place of is served until there is one of the other.
    pub(super) fn close_others(&mut self, issuers: &IndexMap<Arc<str>, Configured>) {
        let mut moved = Vec::new();
        self.open
            .retain(|name, (before, _)| match issuers.get(name) {
                Some(Configured::Acme(now)) => {
                    if now.directory != before.directory {
                        moved.push(Arc::clone(name));
                    }
                    now == before
                }
                _ => false,
            });
        for (need, entry) in &mut self.entries {
            if need.issuers.iter().any(|name| moved.contains(name)) {
                (entry.is_foreign, entry.is_read) = (true, false);
            }
        }
    }

    /// Forgets what `is_needed` does not ask for any more.
    pub(super) fn retain(&mut self, is_needed: impl Fn(&Need) -> bool) -> Vec<(Need, Change)> {
        let mut changes = Vec::new();
        let plans = &mut self.plans;
        self.entries.retain(|need, entry| {
            if is_needed(need) {
                return true;
            }
            plans.remove(need);
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

    /// The certificates that something is to be done about now, as many as may be worked on at a
    /// time; each is held to be worked on until [`Self::settle`] says what came of it.
    pub(super) fn due(
        &mut self,
        issued: &mut Issued,
        issuers: &IndexMap<Arc<str>, Configured>,
        now: UnixTime,
    ) -> Vec<Job> {
        let mut jobs = Vec::new();
        for need in self.plans.begin(now) {
            let authorities = self.authorities(&need, issued, issuers);
            let Some(entry) = self.entries.get(&need) else {
                continue;
            };
            let present = entry.certificate.clone();
            jobs.push(Job {
                subject: entry.subject.clone(),
                present: present.filter(|_| !entry.is_foreign),
                issuers: authorities,
                failures: self.plans.retry(&need).map_or(0, |retry| retry.failures),
                window: self.plans.window(),
                need,
            });
        }
        jobs
    }

    /// When something is next due.
    pub(super) fn next_due(&self) -> Option<UnixTime> {
        self.plans.next_wake()
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
                self.plans.defer(&need, now.saturating_add(LOOK_AGAIN));
                return None;
            }
            Outcome::Failed { failure, issuer } => {
                let present = entry.certificate.clone();
                let retry = self.plans.fail(&need, &failure, &issuer, now)?;
                // Kept before it is told: a restart must not forget what others know.
                self.keep_retry(&need, Some(&retry));
                let (present, window) = (present.as_deref(), self.plans.window());
                teller.failed(present, issuer, &failure, &retry, window);
                return None;
            }
        };
        entry.unsaved = unsaved;
        (entry.is_stale, entry.is_foreign) = (false, false);
        let had_failed = self.plans.retry(&need).is_some();
        self.plans.succeed(&need, certificate.lifetime(), now);
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
                    self.tools.health.works(Use::Writing);
                }
                // A peer is at work on it.
                Ok(false) => {}
                Err(error) => {
                    self.tools.health.failed(Use::Writing, &error);
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
            self.plans.request(need, now);
        }
        !needs.is_empty()
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &Arc<TlsCertificate>> {
        self.entries
            .values()
            .filter_map(|entry| entry.certificate.as_ref())
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
            self.tools.health.failed(Use::Writing, &error);
        }
    }
}
