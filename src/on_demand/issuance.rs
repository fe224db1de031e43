//! What issues certificates on demand as configured: the gate, before a local CA or before the
//! requests to CAs.

use std::sync::Arc;
use std::time::Duration;

use super::{Decider, Gate, GateSettings, LocalOnDemandIssuer, OnDemandIssuer, Requests};
use crate::certificate::TlsCertificate;
use crate::certificate::sni::{CertificateSet, OnDemand as _};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, OnDemand};
use crate::host::HostName;
use crate::issuer::spec::is_remote_issuer;
use crate::local_ca::LocalCa;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::renewal::{OpenLocalCa, Renewals};

/// After how long a failed setup is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The issuance on demand, kept as the configuration asks.
pub(crate) struct OnDemandIssuance {
    clock: Arc<dyn Clock>,
    metrics: Option<Metrics>,
    /// Decides on names instead of the service that the configuration names.
    decider: Option<Arc<dyn Decider>>,
    current: Option<Issuance>,
    /// Whether `current` is of an earlier configuration.
    is_stale: bool,
    /// Why it could not be set up as configured, and when that was tried.
    failed: Option<(UnixTime, String)>,
}

/// A gate, and what is behind it.
struct Issuance {
    gate: Arc<Gate>,
    /// `None` where CAs are asked first.
    local: Option<LocalIssuance>,
}

/// The local CA as the issuer.
struct LocalIssuance {
    issuer: Arc<LocalOnDemandIssuer>,
    settings: LocalSettings,
}

/// What determines the certificates that the local CA issues.
struct LocalSettings {
    ca: Arc<LocalCa>,
    window: f64,
    unused: Duration,
}

impl LocalSettings {
    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ca, &other.ca)
            && self.window == other.window
            && self.unused == other.unused
    }
}

impl OnDemandIssuance {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        metrics: Option<Metrics>,
        decider: Option<Arc<dyn Decider>>,
    ) -> Self {
        Self {
            clock,
            metrics,
            decider,
            current: None,
            is_stale: false,
            failed: None,
        }
    }

    /// Has the next update set it up anew.
    pub(super) fn mark_stale(&mut self) {
        self.is_stale = true;
    }

    /// The gate in front of the issuer.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.current.as_ref().map(|current| &current.gate)
    }

    /// The certificates that the local CA has issued and that are kept.
    pub(crate) fn certificates(&self) -> Vec<Arc<TlsCertificate>> {
        let local = self.local();
        local.map_or_else(Vec::new, |local| local.issuer.certificates())
    }

    /// The certificate of `name` where the local CA may issue it. It does so at once.
    pub(crate) fn issue_now(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        if !self.gate()?.allows(name.as_str()) {
            return None;
        }
        let issuer = &self.local()?.issuer;
        issuer
            .issue_certificate(name)
            .ok()
            .or_else(|| issuer.cached(name))
    }

    fn local(&self) -> Option<&LocalIssuance> {
        self.current.as_ref()?.local.as_ref()
    }

    /// Sets it up as `config` asks, where that is due.
    ///
    /// # Errors
    /// Where that fails: then what there was before stays.
    pub(super) fn update(
        &mut self,
        config: &Config,
        requests: &Requests,
        local_ca: &mut OpenLocalCa<'_>,
        renewals: &mut Renewals,
        now: UnixTime,
    ) -> Result<(), Problem> {
        let is_stale = std::mem::take(&mut self.is_stale);
        let Some(on_demand) = &config.on_demand else {
            (self.current, self.failed) = (None, None);
            return Ok(());
        };
        let is_due = match &self.failed {
            Some((last, _)) => !(*last..*last + RETRY_AFTER).contains(&now),
            None => self.current.is_none(),
        };
        if is_stale || is_due {
            let first = on_demand.issuers.first();
            let set_up = if first.is_some_and(|name| is_remote_issuer(name, config)) {
                self.set_up_requests(on_demand, requests, renewals)
                    .map(Some)
            } else {
                self.set_up_local(on_demand, config.renewal.window, requests, local_ca)
            };
            match set_up {
                Ok(issuance) => (self.current, self.failed) = (issuance, None),
                Err(reason) => self.failed = Some((now, reason)),
            }
        } else if let Some(local) = self.local() {
            local.issuer.drop_unused();
        }
        let Some((_, reason)) = &self.failed else {
            return Ok(());
        };
        let what = match &self.current {
            Some(_) => "stays as it was",
            None => "no on-demand certificates",
        };
        let message = format!("{what}: {reason}");
        Err(Problem::new(&config.places.on_demand, None, message))
    }

    /// Certificates come from CAs, by way of `requests`.
    fn set_up_requests(
        &self,
        config: &OnDemand,
        requests: &Requests,
        renewals: &mut Renewals,
    ) -> Result<Issuance, String> {
        let issuers = renewals.open_all_remote(&config.issuers);
        let cas = issuers.iter().map(|issuer| issuer.ca().to_owned());
        requests.set_cas(cas.collect());
        let gate = self.build_gate(config, Arc::new(requests.clone()), requests)?;
        Ok(Issuance { gate, local: None })
    }

    /// Certificates come from the first local CA that can be opened; `None` where it may only be
    /// looked at. The certificates issued before are kept where it would issue the same again.
    fn set_up_local(
        &self,
        config: &OnDemand,
        window: f64,
        requests: &Requests,
        local_ca: &mut OpenLocalCa<'_>,
    ) -> Result<Option<Issuance>, String> {
        let mut reasons = Vec::new();
        for name in &config.issuers {
            let ca = match local_ca(name) {
                Ok(Some(ca)) => ca,
                Ok(None) => return Ok(None),
                Err(reason) => {
                    reasons.push(format!("issuer {name}: {reason}"));
                    continue;
                }
            };
            let settings = LocalSettings {
                ca,
                window,
                unused: config.unused,
            };
            let same = self.local();
            let issuer = match same.filter(|local| local.settings.is_same_as(&settings)) {
                Some(local) => Arc::clone(&local.issuer),
                None => Arc::new(LocalOnDemandIssuer::new(
                    Arc::clone(&settings.ca),
                    Arc::clone(&self.clock),
                    window,
                    config.unused,
                )),
            };
            let gate = self.build_gate(config, Arc::clone(&issuer) as _, requests)?;
            let local = Some(LocalIssuance { issuer, settings });
            return Ok(Some(Issuance { gate, local }));
        }
        Err(reasons.join("; "))
    }

    fn build_gate(
        &self,
        config: &OnDemand,
        issuer: Arc<dyn OnDemandIssuer>,
        requests: &Requests,
    ) -> Result<Arc<Gate>, String> {
        let settings = GateSettings {
            config,
            decider: self.decider.clone(),
            issuer,
            requests: requests.table(),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.as_ref(),
        };
        Gate::new(settings, self.gate().map(|gate| &**gate)).map(Arc::new)
    }
}
