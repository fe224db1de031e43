//! What is served is brought to where clients find it: one new map at most for each pass, and what
//! makes certificates on demand.

use std::sync::Arc;

use super::TlsManager;
use super::report::{Problem, Report};
use crate::certificate::sni::{CertificateSet, OnDemand as _};
use crate::clock::UnixTime;
use crate::config::model::{self, Config};
use crate::host::HostName;
use crate::local_ca::LocalMaker;
use crate::on_demand::{Gate, Maker as _};

/// What makes certificates on demand.
pub(super) struct Demand {
    gate: Arc<Gate>,
    local: Arc<LocalMaker>,
}

impl Demand {
    /// The certificate of `name` where it takes no waiting.
    fn at_once(&self, name: &HostName) -> Option<Arc<CertificateSet>> {
        if !self.gate.allows(name.as_str()) {
            return None;
        }
        self.local
            .make(name)
            .ok()
            .or_else(|| self.local.at_hand(name))
    }
}

impl TlsManager {
    /// Publishes what has changed.
    pub(super) fn publish(&mut self, config: &Config, now: UnixTime, report: &mut Report) {
        self.renew_on_demand(config, report);
        let mut map = self.map.clone();
        if !self.candidates.is_settled() {
            map = self.candidates.update(&map, now);
        }
        let default = config.tls.default_certificate.as_ref().and_then(|name| {
            let present = map.find(name).cloned();
            present.or_else(|| self.on_demand.as_ref()?.at_once(name.name()?))
        });
        map = map.with_default(default);
        let on_demand = self.on_demand.as_ref();
        map = map.with_on_demand(on_demand.map(|on_demand| Arc::clone(&on_demand.gate) as _));
        if !map.is_same_as(&self.map) {
            self.map = map;
            if !self.dry {
                self.published.store(Arc::new(self.map.clone()));
            }
        }
    }

    fn renew_on_demand(&mut self, config: &Config, report: &mut Report) {
        if let Some(on_demand) = &self.on_demand {
            on_demand.local.sweep();
            return;
        }
        let Some(model::OnDemand { issuers, allow }) = &config.on_demand else {
            return;
        };
        let mut reasons = Vec::new();
        for issuer in issuers {
            match self.issued.local_ca(issuer, &config.issuers) {
                Ok(ca) => {
                    self.on_demand = ca.map(|ca| {
                        let clock = Arc::clone(&self.clock);
                        let window = config.renewal.window;
                        let local = Arc::new(LocalMaker::new(ca, clock, window));
                        let gate = Arc::new(Gate::new(Arc::clone(&local) as _, allow.clone()));
                        Demand { gate, local }
                    });
                    return;
                }
                Err(reason) => reasons.push(format!("issuer {issuer}: {reason}")),
            }
        }
        report.problems.push(Problem::new(
            &config.places.on_demand,
            None,
            format!("no certificates on demand: {}", reasons.join("; ")),
        ));
    }
}
