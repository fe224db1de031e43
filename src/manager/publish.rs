//! Publishes what is served, at most one new map per pass, and sets up what issues certificates on
//! demand.

use std::sync::Arc;
use std::time::Duration;

use super::TlsManager;
use super::report::Report;
use crate::certificate::TlsCertificate;
use crate::certificate::sni::{CertificateSet, OnDemand as _};
use crate::clock::UnixTime;
use crate::config::model::{self, Config};
use crate::host::HostName;
use crate::issuer::spec::is_remote_issuer;
use crate::local_ca::LocalCa;
use crate::on_demand::{Gate, GateSettings, LocalOnDemandIssuer, OnDemandIssuer};
use crate::problem::Problem;

/// After how many seconds it is tried again to make what could not be made.
const AGAIN: i64 = 60;

/// What issues certificates on demand.
pub(super) struct OnDemandIssuance {
    pub(super) gate: Arc<Gate>,
    /// `None` where CAs are asked first.
    local: Option<LocalIssuer>,
}

/// The local CA as issuer on demand.
struct LocalIssuer {
    maker: Arc<LocalOnDemandIssuer>,
    settings: IssuerSettings,
}

/// What determines the certificates that it issues.
struct IssuerSettings {
    ca: Arc<LocalCa>,
    window: f64,
    unused: Duration,
}

impl IssuerSettings {
    fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ca, &other.ca)
            && self.window == other.window
            && self.unused == other.unused
    }
}

impl OnDemandIssuance {
    /// What the local CA has made and is kept.
    pub(super) fn certificates(&self) -> Vec<Arc<TlsCertificate>> {
        let local = self.local.as_ref();
        local.map_or_else(Vec::new, |local| local.maker.certificates())
    }

    /// The certificate of `name` where it takes no waiting.
    fn certificate_now(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        if !self.gate.allows(name.as_str()) {
            return None;
        }
        let maker = &self.local.as_ref()?.maker;
        maker
            .issue_certificate(name)
            .ok()
            .or_else(|| maker.cached(name))
    }
}

impl TlsManager {
    /// Publishes what has changed.
    pub(super) fn publish(&mut self, config: &Config, now: UnixTime, report: &mut Report) {
        if self.renew_on_demand(config, now, report) {
            self.reconfigure_on_demand(config, now, report);
        }
        let mut map = self.map.clone();
        if !self.candidates.is_settled() {
            map = self.candidates.update(&map, now);
        }
        let default = config.tls.default_certificate.as_ref().and_then(|name| {
            let present = map.find(name).cloned();
            present.or_else(|| self.on_demand.as_ref()?.certificate_now(name.name()?))
        });
        map = map.with_default(default);
        let on_demand = self.on_demand.as_ref();
        map = map.with_on_demand(on_demand.map(|on_demand| Arc::clone(&on_demand.gate) as _));
        if self.is_loading != map.loading().is_some() {
            map = map.with_loading(self.load_progress());
        }
        if let Some(gauges) = &self.gauges
            && gauges.are_few()
        {
            gauges.refill(self.certificates());
        }
        if !map.is_same_as(&self.map) {
            self.map = map;
            if !self.dry {
                self.published.store(Arc::new(self.map.clone()));
            }
        }
    }

    /// Sees that what makes certificates on demand is as `config` asks. Whether it is: where it cannot
    /// be, what there was goes on, and that is told.
    fn renew_on_demand(&mut self, config: &Config, now: UnixTime, report: &mut Report) -> bool {
        let is_stale = std::mem::take(&mut self.stale_on_demand);
        let Some(asked) = &config.on_demand else {
            (self.on_demand, self.broken_on_demand) = (None, None);
            return true;
        };
        let is_due = match &self.broken_on_demand {
            Some((last, _)) => !(*last..last.saturating_add(AGAIN)).contains(&now),
            None => self.on_demand.is_none(),
        };
        if is_stale || is_due {
            match self.build_on_demand(config, asked) {
                Ok(demand) => (self.on_demand, self.broken_on_demand) = (demand, None),
                Err(reason) => self.broken_on_demand = Some((now, reason)),
            }
        } else if let Some(local) = self.on_demand.as_ref().and_then(|it| it.local.as_ref()) {
            local.maker.drop_unused();
        }
        let Some((_, reason)) = &self.broken_on_demand else {
            return true;
        };
        let what = match &self.on_demand {
            Some(_) => "stays as it was",
            None => "no on-demand certificates",
        };
        report.problems.push(Problem::new(
            &config.places.on_demand,
            None,
            format!("{what}: {reason}"),
        ));
        false
    }

    /// What makes certificates on demand as `config` asks, going on from what there is; `None` where
    /// there may only be looked.
    fn build_on_demand(
        &mut self,
        config: &Config,
        asked: &model::OnDemand,
    ) -> Result<Option<OnDemandIssuance>, String> {
        let first = asked.issuers.first();
        if first.is_some_and(|name| is_remote_issuer(name, config)) {
            let issuers = self.all_remote(&asked.issuers);
            let cas = issuers.iter().map(|issuer| issuer.ca().to_owned());
            self.requests.set_cas(cas.collect());
            let maker = Arc::new(self.requests.clone());
            let gate = self.build_gate(asked, maker, self.on_demand.as_ref())?;
            return Ok(Some(OnDemandIssuance { gate, local: None }));
        }
        let mut reasons = Vec::new();
        for issuer in &asked.issuers {
            match self.local_certs.local_ca(issuer, &config.issuers) {
                Ok(Some(ca)) => {
                    let window = config.renewal.window;
                    let demand =
                        self.build_local_issuance(asked, window, ca, self.on_demand.as_ref());
                    return demand.map(Some);
                }
                Ok(None) => return Ok(None),
                Err(reason) => reasons.push(format!("issuer {issuer}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// What makes certificates on demand by `ca`. What `before` has made and learnt is kept where
    /// it would come to the same again.
    fn build_local_issuance(
        &self,
        config: &model::OnDemand,
        window: f64,
        ca: Arc<LocalCa>,
        before: Option<&OnDemandIssuance>,
    ) -> Result<OnDemandIssuance, String> {
        let settings = IssuerSettings {
            ca,
            window,
            unused: config.unused,
        };
        let before_local = before.and_then(|before| before.local.as_ref());
        let maker = match before_local.filter(|local| local.settings.is_same_as(&settings)) {
            Some(local) => Arc::clone(&local.maker),
            None => Arc::new(LocalOnDemandIssuer::new(
                Arc::clone(&settings.ca),
                Arc::clone(&self.clock),
                window,
                config.unused,
            )),
        };
        let gate = self.build_gate(config, Arc::clone(&maker) as _, before)?;
        let local = Some(LocalIssuer { maker, settings });
        Ok(OnDemandIssuance { gate, local })
    }

    /// The gate in front of `maker`.
    fn build_gate(
        &self,
        config: &model::OnDemand,
        maker: Arc<dyn OnDemandIssuer>,
        before: Option<&OnDemandIssuance>,
    ) -> Result<Arc<Gate>, String> {
        let setup = GateSettings {
            config,
            issuer: maker,
            decider: self.decider.clone(),
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.as_ref(),
        };
        Gate::new(setup, before.map(|before| &*before.gate)).map(Arc::new)
    }
}
