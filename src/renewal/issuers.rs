//! Which issuers to ask for a certificate, and whether any of them can be asked now.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use super::job::JobIssuer;
use super::obtain::replaced_at;
use super::{ManagedCert, OpenIssuer, OpenLocalCa, Renewals};
use crate::certificate::sni::Precedence;
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::schedule::{FailureClass, Intent, Retry, Wait, WaitReason};
use crate::storage::keys;

/// After how many seconds it is looked again what the storage has of the limits of CAs.
const CHECK_EVERY: i64 = 60;

impl Renewals {
    /// Forgets the issuers that `issuers` no longer has as they were. A certificate of a CA that was
    /// replaced is served until the new CA has issued one. A failed DNS challenge may succeed where
    /// `is_other_dns`.
    pub(crate) fn close_changed_issuers(
        &mut self,
        issuers: &IndexMap<Arc<str>, Configured>,
        is_other_dns: bool,
        now: UnixTime,
    ) {
        let (mut moved, mut mended) = (Vec::new(), Vec::new());
        let mut accounts = HashMap::new();
        self.open
            .retain(|name, (before, issuer)| match issuers.get(name) {
                Some(now) if now == before => {
                    accounts.insert(Arc::clone(name), issuer.account_id().to_owned());
                    true
                }
                Some(now) if is_same_ca(now, before) => {
                    mended.push(Arc::clone(name));
                    accounts.insert(Arc::clone(name), issuer.account_id().to_owned());
                    false
                }
                _ => {
                    moved.push(Arc::clone(name));
                    false
                }
            });
        let names =
            |spec: &CertSpec, of: &[Arc<str>]| spec.issuers.iter().any(|one| of.contains(one));
        for (spec, entry) in &mut self.entries {
            if spec.precedence == Precedence::OnDemand {
                let certificate = entry.certificate.as_ref();
                let label = certificate.map(|one| one.source().label());
                let of = moved.iter().find(|one| label == Some(&***one));
                entry.is_foreign |= of.is_some();
                // What is of a CA that is no longer configured is good until it is due. Another in
                // its place, as after a trial, is asked at once.
                if of.is_some_and(|of| issuers.contains_key(of)) {
                    self.queues.request_now(spec, now);
                }
            } else if names(spec, &moved) {
                (entry.is_foreign, entry.is_read) = (true, false);
            }
            let is_of_dns = is_other_dns && is_over_dns(spec, issuers);
            for name in spec.issuers.iter() {
                if (is_of_dns || mended.contains(name))
                    && let Some(account) = accounts.get(name)
                    && entry.retries.make_due(account, is_not_limited, now)
                {
                    self.queues.request_now(spec, now);
                }
            }
        }
        // Another account may be asked for what the one before was not.
        self.queues.replan_all();
    }

    /// Those of `names` that are over the network.
    pub(crate) fn open_remote(
        &mut self,
        names: &[Arc<str>],
        issuers: &IndexMap<Arc<str>, Configured>,
    ) -> Vec<Arc<dyn Issuer>> {
        names
            .iter()
            .filter_map(|name| match issuers.get(name)? {
                remote @ (Configured::Acme(_) | Configured::Own) => {
                    Some(self.open_issuer(name, remote))
                }
                Configured::LocalCa { .. } => None,
            })
            .collect()
    }

    /// The issuer `name`, which is asked by jobs; made if it is not open yet.
    pub(crate) fn open_issuer(
        &mut self,
        name: &Arc<str>,
        configured: &Configured,
    ) -> Arc<dyn Issuer> {
        let (make, looked) = (&self.make, &mut self.looked);
        let (_, issuer) = self.open.entry(Arc::clone(name)).or_insert_with(|| {
            *looked = None;
            (configured.clone(), make(name, configured))
        });
        Arc::clone(issuer)
    }

    pub(super) fn job_issuers_of(
        &mut self,
        list: &[Arc<str>],
        local_ca: &mut OpenLocalCa<'_>,
        issuers: &IndexMap<Arc<str>, Configured>,
    ) -> Vec<JobIssuer> {
        let mut job_issuers = Vec::with_capacity(list.len());
        for name in list {
            match issuers.get(name) {
                Some(remote @ (Configured::Acme(_) | Configured::Own)) => {
                    // A change of the configuration may have closed it.
                    job_issuers.push(JobIssuer::Remote(self.open_issuer(name, remote)));
                }
                Some(Configured::LocalCa { .. }) => match local_ca(name) {
                    Ok(ca) => job_issuers.extend(ca.map(JobIssuer::Local)),
                    Err(reason) => tracing::error!(issuer = %name, reason, "cannot be asked"),
                },
                None => {}
            }
        }
        job_issuers
    }
}

/// Whether both are the same CA, however it is dealt with.
fn is_same_ca(one: &Configured, other: &Configured) -> bool {
    match (one, other) {
        (Configured::Acme(one), Configured::Acme(other)) => one.directory == other.directory,
        _ => one == other,
    }
}

/// Why nobody is asked for a certificate now.
pub(super) enum Obstacle {
    /// Our own pace, which is one for all of the list, until then.
    Pace(UnixTime),
    /// Failures and limits that concern this certificate, until then.
    OfNeed(UnixTime),
}

/// Whether one of the issuers can be asked for a certificate now. A limit or a failure of one CA
/// leaves it to the next one, the pace at which we ask does not.
///
/// # Errors
/// Until when, and for whom, there is none.
pub(super) fn check_obstacles(
    job_issuers: &[JobIssuer],
    spec: &CertSpec,
    entry: &ManagedCert,
    tells_replaced: bool,
    now: UnixTime,
) -> Result<(), Obstacle> {
    let mut soonest: Option<UnixTime> = None;
    for job_issuer in job_issuers {
        if let Some(next) = backed_off(&job_issuer.account_id(), entry, now) {
            soonest = soonest.into_iter().chain(next).min();
            continue;
        }
        let JobIssuer::Remote(issuer) = job_issuer else {
            return Ok(());
        };
        let Err(wait) = issuer.ready(&intent(spec, entry, issuer, tells_replaced, now)) else {
            return Ok(());
        };
        let is_sooner = soonest.is_none_or(|soonest| wait.until < soonest);
        if wait.reason == WaitReason::Pace {
            let until = soonest.filter(|_| !is_sooner);
            return Err(until.map_or(Obstacle::Pace(wait.until), Obstacle::OfNeed));
        }
        if is_sooner {
            soonest = Some(wait.until);
        }
    }
    // Where there is nobody to be asked, the work on it says so.
    soonest.map_or(Ok(()), |until| Err(Obstacle::OfNeed(until)))
}

/// When failures let this account be asked again, `None` where they do not stand against it now.
fn backed_off(account: &str, entry: &ManagedCert, now: UnixTime) -> Option<Option<UnixTime>> {
    let next = entry.retries.next(account, now);
    let is_due = entry.is_asked || next.is_some_and(|next| next <= now);
    (!is_due).then_some(next)
}

/// What an order for `spec` would be at `issuer`.
pub(super) fn intent<'a>(
    spec: &'a CertSpec,
    entry: &ManagedCert,
    issuer: &Arc<dyn Issuer>,
    tells_replaced: bool,
    now: UnixTime,
) -> Intent<'a> {
    let present = entry.certificate.as_ref();
    let present = present.filter(|_| tells_replaced && !entry.is_foreign);
    let replaced = present.and_then(|it| replaced_at(it, entry.is_revoked, issuer, now));
    Intent {
        names: &spec.names,
        replaces: replaced.is_some(),
    }
}

/// What stands for the accounts at these issuers, see [`Issuer::account_id`].
pub(super) fn accounts(issuers: &[Arc<str>], open: &HashMap<Arc<str>, OpenIssuer>) -> Vec<String> {
    let account = |name: &Arc<str>| match open.get(name) {
        Some((_, issuer)) => issuer.account_id().to_owned(),
        None => keys::local_account(name),
    };
    issuers.iter().map(account).collect()
}

impl Renewals {
    /// The limit of a CA for which nobody is asked for a certificate, and when somebody is; `None`
    /// where somebody can be asked now, or nothing but failures stands against that.
    pub(super) fn active_limit(
        &self,
        spec: &CertSpec,
        entry: &ManagedCert,
        now: UnixTime,
    ) -> Option<(IssuerLimit, Option<UnixTime>)> {
        let (mut soonest, mut next): (Option<IssuerLimit>, Option<UnixTime>) = (None, None);
        for (name, account) in spec.issuers.iter().zip(accounts(&spec.issuers, &self.open)) {
            let limit = self.open.get(name).and_then(|(_, issuer)| {
                issuer.held(&intent(spec, entry, issuer, self.ari.is_on(), now))
            });
            let free = match (&limit, backed_off(&account, entry, now)) {
                (None, None) => return None,
                (Some(wait), None) => Some(wait.until),
                (None, Some(next)) => next,
                (Some(wait), Some(next)) => next.map(|next| next.max(wait.until)),
            };
            next = next.into_iter().chain(free).min();
            let is_sooner = |wait: &Wait| {
                let soonest = soonest.as_ref();
                soonest.is_none_or(|one| wait.until < one.wait.until)
            };
            if let Some(wait) = limit.filter(is_sooner) {
                let issuer = Arc::clone(name);
                soonest = Some(IssuerLimit { issuer, wait });
            }
        }
        soonest.map(|held| (held, next))
    }

    /// The issuers whose limits are to be looked at in the storage now, see
    /// [`Issuer::refresh_limits`]; each counts as looked at.
    pub(crate) fn limits_to_check(&mut self, now: UnixTime) -> Vec<Arc<dyn Issuer>> {
        let is_soon = |last: UnixTime| (last..last.saturating_add(CHECK_EVERY)).contains(&now);
        if self.looked.is_some_and(is_soon) {
            return Vec::new();
        }
        self.looked = Some(now);
        let open = self.open.values();
        open.map(|(_, issuer)| Arc::clone(issuer)).collect()
    }

    /// All limits of CAs that hold now, each with the issuer.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&Arc<str>, Wait)> {
        self.open
            .iter()
            .flat_map(|(name, (_, issuer))| issuer.limits().into_iter().map(move |it| (name, it)))
    }
}

/// A limit of a CA that keeps a certificate from being ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerLimit {
    /// The issuer by its name in the configuration.
    pub issuer: Arc<str>,
    pub wait: Wait,
}

impl fmt::Display for IssuerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.issuer, self.wait)
    }
}

/// Whether what failed may have been mended by a new start.
pub(super) fn may_be_mended(retry: &Retry) -> bool {
    is_not_limited(retry) && retry.class != FailureClass::Paused
}

/// Whether what failed may have been mended by a change of the configuration: the CA's limits stay.
pub(super) fn is_not_limited(retry: &Retry) -> bool {
    retry.class != FailureClass::RateLimited
}

/// Whether the names of a specification may be proved over the DNS.
pub(super) fn is_over_dns(spec: &CertSpec, issuers: &IndexMap<Arc<str>, Configured>) -> bool {
    let is_configured = |name: &Arc<str>| match issuers.get(name) {
        Some(Configured::Acme(acme)) => acme.challenges.iter().any(|kind| kind.is_over_dns()),
        _ => false,
    };
    spec.dns.is_some() || spec.issuers.iter().any(is_configured)
}
