//! What is known of the certificates that CAs are asked for, for whoever asks.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::needs::Need;
use super::super::told;
use super::{Entry, Managed};
use crate::certificate::sni::Standing;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::host::Pattern;
use crate::schedule::advice::Window;
use crate::schedule::{CertState, Retry, Upkeep};

/// A certificate that an issuer is asked for, for whoever wants to see it.
#[derive(Clone, Debug)]
pub struct ManagedView {
    pub names: Vec<Pattern>,
    /// Names of issuers, in the order in which they are asked.
    pub issuers: Vec<Arc<str>>,
    pub certificate: Option<Arc<TlsCertificate>>,
    pub state: CertState,
    /// Whether the certificate was revoked, and is served until another is there.
    pub is_revoked: bool,
    /// The failures since the last success.
    pub retry: Option<Retry>,
    /// When something is done about it.
    pub next: Option<UnixTime>,
    /// When its CA advises to renew it.
    pub advice: Option<Window>,
    /// Whether it is in the storage.
    pub is_stored: bool,
    /// Whether clients have asked for it, and not the configuration.
    pub is_on_demand: bool,
}

/// A certificate whose validity is watched over.
#[derive(Clone, Debug)]
pub struct Watched {
    pub certificate: Arc<TlsCertificate>,
    /// Who replaces it before its end.
    pub upkeep: Upkeep,
    /// The failures to replace it.
    pub retry: Option<Retry>,
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

impl Managed {
    /// Every certificate, with how its renewal goes; none that is to end.
    pub(in crate::manager) fn watched_over(&self) -> impl Iterator<Item = Watched> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.is_unwanted);
        entries.filter_map(|(need, entry)| {
            let retry = self.plans.retry(need).cloned();
            let upkeep = Upkeep::Renewed {
                window: self.plans.window(),
                failures: retry.as_ref().map_or(0, |retry| retry.failures),
            };
            Some(Watched {
                certificate: Arc::clone(entry.certificate.as_ref()?),
                upkeep,
                retry,
            })
        })
    }

    /// Everything that issuers are asked for.
    pub(in crate::manager) fn views(&self, now: UnixTime) -> impl Iterator<Item = ManagedView> {
        self.entries.iter().map(move |(need, entry)| ManagedView {
            names: need.names.clone(),
            issuers: need.issuers.clone(),
            certificate: entry.certificate.clone(),
            state: self.plans.state(need, now),
            is_revoked: entry.is_revoked,
            retry: self.plans.retry(need).cloned(),
            next: self.plans.next_attempt(need),
            advice: self.advised.advice(need).and_then(|it| it.window.clone()),
            is_on_demand: need.standing == Standing::OnDemand,
            is_stored: entry.certificate.is_some() && !self.tools.is_waiting(&entry.subject),
        })
    }

    /// Whether all certificates are there that the configuration asks for.
    pub(in crate::manager) fn start_state(&self, now: UnixTime) -> Start {
        let mut state = Start::Complete;
        for (need, entry) in self.configured() {
            if entry.certificate.is_some() && !entry.is_stale {
                continue;
            }
            let is_asked = self.plans.state(need, now) == CertState::Obtaining;
            match self.plans.retry(need) {
                Some(retry)
                    if !is_asked && self.plans.next_attempt(need).is_none_or(|next| next > now) =>
                {
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

    /// What the configuration asks for.
    fn configured(&self) -> impl Iterator<Item = (&Arc<Need>, &Entry)> {
        let entries = self.entries.iter();
        entries.filter(|(need, _)| need.standing != Standing::OnDemand)
    }

    /// The configured names that have no certificate, or none that was valid since the start, each
    /// with the reason.
    pub(in crate::manager) fn lacking(&self, now: UnixTime) -> HashMap<&Pattern, Arc<str>> {
        let mut lacking = HashMap::new();
        for (need, entry) in self.configured() {
            let what = match &entry.certificate {
                None => "there is none yet",
                Some(certificate)
                    if entry.is_stale && certificate.validity(now) == Validity::Expired =>
                {
                    "the one at hand has expired"
                }
                Some(_) => continue,
            };
            let why: Arc<str> = match (&entry.unread, self.plans.retry(need)) {
                (Some(why), _) => format!("the storage may have one and cannot be read: {why}"),
                (None, None) => format!("{what}; {} is being asked", need.issuers.join(", ")),
                (None, Some(retry)) => format!("{what}; {}", told::last_failure(retry)),
            }
            .into();
            lacking.extend(need.names.iter().map(|name| (name, Arc::clone(&why))));
        }
        lacking
    }
}
