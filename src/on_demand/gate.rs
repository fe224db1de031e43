//! What stands before an issuer of certificates on demand.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::ask::{Answer, Asker};
use super::negative_cache::NegativeCache;
use super::policy::{NameVerdict, Policy};
use super::quota::{QuotaExceeded, Quotas};
use super::report::Report;
use super::request_table::{Flight, Outcome, RequestTable};
use super::wait_limit::WaitLimit;
use super::{Decider, OnDemandIssuer};
use crate::certificate::sni::{CertificateSet, OnDemand};
use crate::clock::Clock;
use crate::config::model;
use crate::host::HostName;
use crate::metrics::Metrics;
use crate::renewal::RenewalPolicy;

/// The longest that a name is worked for. Makers give up before by themselves.
const LONGEST_FLIGHT: Duration = Duration::from_secs(3600);

/// What a [`Gate`] is made of.
pub struct GateSettings<'a> {
    /// What is configured.
    pub config: &'a model::OnDemand,
    /// Obtains what the gate lets through.
    pub issuer: Arc<dyn OnDemandIssuer>,
    /// Decides where the configuration names no service to ask.
    pub decider: Option<Arc<dyn Decider>>,
    /// The names that clients wait for.
    pub requests: &'a Arc<RequestTable>,
    /// The time of quotas and of what is remembered.
    pub clock: Arc<dyn Clock>,
    /// Counts what comes of names.
    pub metrics: Option<&'a Metrics>,
}

/// Decides which names get certificates, and has an [`OnDemandIssuer`] get them.
pub struct Gate(Arc<Shared>);

struct Shared {
    policy: Policy,
    limits: model::OnDemandLimits,
    asker: Option<Arc<Asker>>,
    quotas: Arc<Quotas>,
    negative_cache: NegativeCache,
    requests: Arc<RequestTable>,
    room: Arc<WaitLimit>,
    issuer: Arc<dyn OnDemandIssuer>,
    clock: Arc<dyn Clock>,
    report: Arc<Report>,
}

impl Gate {
    /// A gate that continues from `previous`, the one that it replaces: quotas stay used
    /// up, and answers stay known, as far as what is configured on them is the same. Failures are
    /// forgotten.
    ///
    /// # Errors
    /// If the service that is to be asked cannot be: then nobody may have a certificate.
    pub fn new(setup: GateSettings<'_>, previous: Option<&Self>) -> Result<Self, String> {
        let GateSettings {
            config,
            issuer,
            decider,
            requests,
            clock,
            metrics,
        } = setup;
        let previous = previous.map(|gate| &*gate.0);
        let asker = match &config.ask {
            None => None,
            Some(ask) => {
                let same = previous
                    .and_then(|gate| gate.asker.as_ref())
                    .filter(|asker| asker.config() == ask);
                Some(match same {
                    Some(asker) => Arc::clone(asker),
                    None => Arc::new(Asker::new(ask, decider.as_ref(), Arc::clone(&clock))?),
                })
            }
        };
        let quotas = previous
            .map(|gate| &gate.quotas)
            .filter(|quotas| quotas.are_of(&config.limits))
            .map_or_else(
                || Arc::new(Quotas::new(config.limits, clock.now())),
                Arc::clone,
            );
        let gauge = metrics.map(|metrics| metrics.on_demand_waiting.clone());
        Ok(Self(Arc::new(Shared {
            policy: Policy::new(config),
            limits: config.limits,
            asker,
            quotas,
            negative_cache: NegativeCache::default(),
            requests: Arc::clone(requests),
            room: previous.map_or_else(
                || Arc::new(WaitLimit::new(gauge)),
                |gate| Arc::clone(&gate.room),
            ),
            issuer,
            clock,
            report: previous.map_or_else(
                || Arc::new(Report::new(metrics.cloned())),
                |gate| Arc::clone(&gate.report),
            ),
        })))
    }
}

impl Gate {
    /// Whether `host`, a name in normal form, is one that may have a certificate by its letters,
    /// whatever has come of it of late.
    pub fn covers(&self, host: &str) -> bool {
        self.0.policy.judge_name(host) != NameVerdict::NotCovered
    }
}

#[async_trait]
impl OnDemand for Gate {
    fn allows(&self, host: &str) -> bool {
        let shared = &*self.0;
        match shared.policy.judge_name(host) {
            NameVerdict::NotCovered => false,
            NameVerdict::Acceptable if !shared.is_held(host) => true,
            // What is there is served all the same.
            NameVerdict::Acceptable | NameVerdict::Implausible => host
                .parse()
                .is_ok_and(|name| shared.issuer.cached(&name).is_some()),
        }
    }

    async fn certificate(&self, host: &str, client: Option<IpAddr>) -> Option<Arc<CertificateSet>> {
        let shared = &self.0;
        let letters = shared.policy.judge_name(host);
        if letters == NameVerdict::NotCovered {
            return None;
        }
        let name: HostName = host.parse().ok()?;
        let is_open = letters == NameVerdict::Acceptable && !shared.is_held(host);
        if let Some(set) = shared.issuer.cached(&name) {
            if is_open && shared.issuer.is_due(&set) {
                shared.renew_name(&name);
            }
            return Some(set);
        }
        if shared.issuer.is_stopped() {
            return None;
        }
        if is_open {
            return shared.await_certificate(&name, client).await;
        }
        shared.report.count_held();
        None
    }
}

#[async_trait]
impl RenewalPolicy for Gate {
    async fn still_allows(&self, name: &HostName) -> Option<bool> {
        if self.0.policy.judge_name(name.as_str()) != NameVerdict::Acceptable {
            return Some(false);
        }
        let Some(asker) = &self.0.asker else {
            return Some(true);
        };
        match asker.ask_decider(name, None).await {
            Answer::Yes => Some(true),
            Answer::No => Some(false),
            Answer::Nothing(why) => {
                self.0.report.log_unanswered(name, None, &why);
                None
            }
        }
    }
}

/// Why a name is worked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It has nothing.
    New(Option<IpAddr>),
    /// What it has soon ends.
    Renewal,
}

impl Shared {
    /// Whether it is known that `host` gets no certificate now.
    fn is_held(&self, host: &str) -> bool {
        let refused = |asker: &Arc<Asker>| asker.cached_answer(host) == Some(false);
        self.asker.as_ref().is_some_and(refused)
            || self.negative_cache.is_held(host, self.clock.now())
    }

    /// Waits for the certificate of `name`, which others may be waiting for too.
    async fn await_certificate(
        self: &Arc<Self>,
        name: &HostName,
        client: Option<IpAddr>,
    ) -> Outcome {
        let Some(_seat) = self.room.admit_client(client, self.limits.max_waiting) else {
            self.report.log_limited(name, client, "max_waiting");
            return None;
        };
        let Some((mut waiter, flight)) = self.requests.join(name) else {
            self.report.log_limited(name, client, "names at once");
            return None;
        };
        if let Some(flight) = flight {
            tokio::spawn(Arc::clone(self).run_flight(flight, Purpose::New(client)));
        }
        let ended = waiter.wait_for(Option::is_some);
        match tokio::time::timeout(self.limits.max_wait, ended).await {
            Ok(Ok(outcome)) => outcome.clone().flatten(),
            Ok(Err(_)) => None,
            Err(_) => {
                self.report.log_wait_expired(name, client);
                None
            }
        }
    }

    /// Has the certificate of `name` renewed behind the handshakes that it is presented in.
    fn renew_name(self: &Arc<Self>, name: &HostName) {
        if let Some((_, Some(flight))) = self.requests.join(name) {
            tokio::spawn(Arc::clone(self).run_flight(flight, Purpose::Renewal));
        }
    }

    /// Works for a name, whoever still waits for it.
    async fn run_flight(self: Arc<Self>, flight: Flight, purpose: Purpose) {
        let work = self.obtain_certificate(flight.name(), purpose);
        let outcome = tokio::time::timeout(LONGEST_FLIGHT, work).await;
        flight.finish(outcome.unwrap_or_default());
    }

    async fn obtain_certificate(&self, name: &HostName, purpose: Purpose) -> Outcome {
        let client = match purpose {
            Purpose::New(client) => client,
            Purpose::Renewal => None,
        };
        let is_renewal = purpose == Purpose::Renewal;
        // It may have come between the look and the take-off.
        if !is_renewal && let Some(set) = self.issuer.cached(name) {
            return Some(set);
        }
        let is_known = !is_renewal && self.issuer.has_stored(name).await;
        let is_new = !is_renewal && !is_known;
        if is_new {
            let taken = self.quotas.charge_client(client, self.clock.now());
            self.report_exceeded(taken, name, client)?;
        }
        if let Some(asker) = &self.asker {
            match asker.ask_decider(name, client).await {
                Answer::Yes => {}
                Answer::No => {
                    self.report.log_refused(name, client, asker.refuser());
                    return None;
                }
                Answer::Nothing(why) => {
                    self.report.log_unanswered(name, client, &why);
                    if is_new {
                        // That is no fault of the client's.
                        self.quotas.refund_client(client);
                        return None;
                    }
                }
            }
        }
        if is_new {
            let taken = self.quotas.charge_name(name, client, self.clock.now());
            self.report_exceeded(taken, name, client)?;
            self.report.count_allowed();
        }
        match self.issuer.obtain(name).await {
            Ok(set) => {
                self.negative_cache.forget_name(name);
                if is_new {
                    self.report.log_obtained(name, client);
                } else if is_renewal {
                    self.report.count_renewed();
                }
                Some(set)
            }
            Err(error) => {
                if is_new && !error.is_begun {
                    self.quotas.refund_name(name, client);
                }
                let now = self.clock.now();
                let seconds = self
                    .negative_cache
                    .record_failure(name, error.retry_after, now);
                self.report.log_failed(name, client, &error.why, seconds);
                None
            }
        }
    }

    /// Continues only if no quota is used up.
    fn report_exceeded(
        &self,
        taken: Result<(), QuotaExceeded>,
        name: &HostName,
        client: Option<IpAddr>,
    ) -> Option<()> {
        taken
            .inspect_err(|limit| self.report.log_limited(name, client, limit.as_str()))
            .ok()
    }
}

#[cfg(test)]
mod tests;
