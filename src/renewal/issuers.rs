//! The issuers over the network, and whether any of a list can be asked now.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::job::JobIssuer;
use super::managed_cert::ManagedCert;
use super::obtain::replaced_at;
use crate::clock::UnixTime;
use crate::config::model::Issuer as Configured;
use crate::issuer::Issuer;
use crate::issuer::spec::CertSpec;
use crate::local_ca::LocalCa;
use crate::schedule::{FailureClass, Intent, Retry, Wait, WaitReason};
use crate::storage::keys;

/// How long it is between two checks of the limits in the storage.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// Makes an issuer by its name in the configuration and what that says of it. Does no I/O.
pub type MakeIssuer = Box<dyn Fn(&Arc<str>, &Configured) -> Arc<dyn Issuer> + Send + Sync>;

/// Opens the local CA that the configuration calls by a name; `None` where it may only be looked
/// at.
pub(crate) type OpenLocalCa<'a> = dyn FnMut(&Arc<str>) -> Result<Option<Arc<LocalCa>>, String> + 'a;

/// The configured issuers. Those over the network are opened when they are first needed.
pub(super) struct Issuers {
    make: MakeIssuer,
    configured: IndexMap<Arc<str>, Configured>,
    open: HashMap<Arc<str>, OpenIssuer>,
    /// When the limits in the storage were last checked.
    checked: Option<UnixTime>,
}

/// An issuer with what the configuration says of it.
type OpenIssuer = (Configured, Arc<dyn Issuer>);

/// What another configuration changes about the issuers that were open.
#[derive(Default)]
pub(super) struct ChangedIssuers {
    /// Those that are another CA now, or none.
    pub(super) moved: Vec<Arc<str>>,
    /// Those whose settings changed: what failed before may succeed.
    pub(super) mended: Vec<Arc<str>>,
    /// The accounts at the same CAs as before, by issuer.
    pub(super) accounts: HashMap<Arc<str>, String>,
}

impl Issuers {
    /// No issuers yet; `make` makes them.
    pub(super) fn new(make: MakeIssuer) -> Self {
        Self {
            make,
            configured: IndexMap::new(),
            open: HashMap::new(),
            checked: None,
        }
    }

    /// Takes the issuers of another configuration. Closes those that are not as they were.
    pub(super) fn configure(&mut self, issuers: &IndexMap<Arc<str>, Configured>) -> ChangedIssuers {
        self.configured.clone_from(issuers);
        let mut changed = ChangedIssuers::default();
        self.open.retain(|name, (before, issuer)| {
            let Some(now) = issuers.get(name).filter(|now| is_same_ca(now, before)) else {
                changed.moved.push(Arc::clone(name));
                return false;
            };
            let account = issuer.account_id().to_owned();
            changed.accounts.insert(Arc::clone(name), account);
            let is_same = now == before;
            if !is_same {
                changed.mended.push(Arc::clone(name));
            }
            is_same
        });
        changed
    }

    pub(super) fn is_configured(&self, name: &str) -> bool {
        self.configured.contains_key(name)
    }

    /// Whether the names of a specification may be validated over the DNS.
    pub(super) fn is_over_dns(&self, spec: &CertSpec) -> bool {
        let is_configured = |name: &Arc<str>| match self.configured.get(name) {
            Some(Configured::Acme(acme)) => acme.challenges.iter().any(|kind| kind.is_over_dns()),
            _ => false,
        };
        spec.dns.is_some() || spec.issuers.iter().any(is_configured)
    }

    /// The issuer of this name, where jobs ask it; opened if it is not.
    pub(super) fn open(&mut self, name: &str) -> Option<Arc<dyn Issuer>> {
        let (name, configured) = self.configured.get_key_value(name)?;
        if let Configured::LocalCa { .. } = configured {
            return None;
        }
        let (make, checked) = (&self.make, &mut self.checked);
        let (_, issuer) = self.open.entry(Arc::clone(name)).or_insert_with(|| {
            *checked = None;
            (configured.clone(), make(name, configured))
        });
        Some(Arc::clone(issuer))
    }

    /// Those of `names` that are over the network.
    pub(super) fn open_listed(&mut self, names: &[Arc<str>]) -> Vec<Arc<dyn Issuer>> {
        names.iter().filter_map(|name| self.open(name)).collect()
    }

    /// All issuers over the network: those of `first`, then the others.
    pub(super) fn open_all(&mut self, first: &[Arc<str>]) -> Vec<Arc<dyn Issuer>> {
        let others = self.configured.keys().filter(|name| !first.contains(name));
        let names: Vec<_> = first.iter().chain(others).cloned().collect();
        self.open_listed(&names)
    }

    /// The issuers of a list, as a job asks them.
    pub(super) fn open_for_job(
        &mut self,
        list: &[Arc<str>],
        local_ca: &mut OpenLocalCa<'_>,
    ) -> Vec<JobIssuer> {
        let mut job_issuers = Vec::with_capacity(list.len());
        for name in list {
            match self.configured.get(name) {
                Some(Configured::Acme(_) | Configured::Own) => {
                    job_issuers.extend(self.open(name).map(JobIssuer::Remote));
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

    /// The issuer of this name, where it is open.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<dyn Issuer>> {
        self.open.get(name).map(|(_, issuer)| issuer)
    }

    /// The accounts at these issuers, see [`Issuer::account_id`].
    pub(super) fn accounts(&self, issuers: &[Arc<str>]) -> Vec<String> {
        let account = |name: &Arc<str>| match self.get(name) {
            Some(issuer) => issuer.account_id().to_owned(),
            None => keys::local_account(name),
        };
        issuers.iter().map(account).collect()
    }

    /// The issuers whose limits are to be checked in the storage now, see
    /// [`Issuer::refresh_limits`]; each counts as checked.
    pub(super) fn limits_to_check(&mut self, now: UnixTime) -> Vec<Arc<dyn Issuer>> {
        let is_soon = |last: UnixTime| (last..last + CHECK_EVERY).contains(&now);
        if self.checked.is_some_and(is_soon) {
            return Vec::new();
        }
        self.checked = Some(now);
        let open = self.open.values();
        open.map(|(_, issuer)| Arc::clone(issuer)).collect()
    }

    /// All limits of CAs that hold now, each with the issuer.
    pub(super) fn limits(&self) -> impl Iterator<Item = (&Arc<str>, Wait)> {
        self.open
            .iter()
            .flat_map(|(name, (_, issuer))| issuer.limits().into_iter().map(move |it| (name, it)))
    }
}

/// Whether both are the same CA, however it is asked.
fn is_same_ca(one: &Configured, other: &Configured) -> bool {
    match (one, other) {
        (Configured::Acme(one), Configured::Acme(other)) => one.directory == other.directory,
        _ => one == other,
    }
}

/// Why no issuer is asked for a certificate now.
pub(super) enum Obstacle {
    /// Our own pace, which is one for all of the list, until then.
    Pace(UnixTime),
    /// Failures and limits that concern this certificate, until then.
    OfNeed(UnixTime),
}

/// Checks whether one of the issuers can be asked for a certificate now. After a limit or a failure
/// of one CA the next is asked; our own pace is waited for.
///
/// # Errors
/// Why none can be asked, and until when.
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
    // If there is no issuer at all, the job reports that.
    soonest.map_or(Ok(()), |until| Err(Obstacle::OfNeed(until)))
}

/// When failures let this account be asked again; `None` where they do not stand against it now.
pub(super) fn backed_off(
    account: &str,
    entry: &ManagedCert,
    now: UnixTime,
) -> Option<Option<UnixTime>> {
    let next = entry.retries.next(account, now);
    let is_due = entry.is_requested || next.is_some_and(|next| next <= now);
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
    let present = entry.own_certificate().filter(|_| tells_replaced);
    let replaced = present.and_then(|it| replaced_at(it, entry.is_revoked(), issuer, now));
    Intent {
        names: &spec.names,
        replaces: replaced.is_some(),
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

/// Whether a restart may have fixed what failed.
pub(super) fn may_be_mended(retry: &Retry) -> bool {
    is_not_limited(retry) && retry.class != FailureClass::Paused
}

/// Whether a change of the configuration may have fixed what failed: the CA's limits stay.
pub(super) fn is_not_limited(retry: &Retry) -> bool {
    retry.class != FailureClass::RateLimited
}
