//! What stands before a maker of certificates.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::ask::{Asker, Said};
use super::failures::Failures;
use super::flight::{Flight, Flights, Outcome, WaitingRoom};
use super::policy::{Letters, Policy};
use super::quota::{Quotas, UsedUp};
use super::told::Told;
use super::{Maker, Wanted};
use crate::certificate::sni::{CertificateSet, OnDemand};
use crate::clock::Clock;
use crate::config::model;
use crate::host::HostName;
use crate::metrics::Metrics;

/// The longest that a name is worked for. Makers give up before by themselves.
const LONGEST_FLIGHT: Duration = Duration::from_secs(3600);

/// What a [`Gate`] is made of.
pub struct Setup<'a> {
    pub config: &'a model::OnDemand,
    pub maker: Arc<dyn Maker>,
    pub clock: Arc<dyn Clock>,
    pub metrics: Option<&'a Metrics>,
}

/// Decides which names get certificates, and has a [`Maker`] get them.
pub struct Gate(Arc<Shared>);

struct Shared {
    policy: Policy,
    limits: model::OnDemandLimits,
    asker: Option<Arc<Asker>>,
    quotas: Arc<Quotas>,
    failures: Failures,
    flights: Arc<Flights>,
    room: Arc<WaitingRoom>,
    maker: Arc<dyn Maker>,
    clock: Arc<dyn Clock>,
    told: Arc<Told>,
}

impl Gate {
    /// A gate that goes on from `previous`, the one that it takes the place of: quotas stay used
    /// up, and answers stay known, as far as what is configured on them is the same. Failures are
    /// forgotten.
    ///
    /// # Errors
    /// Where the service that is to be asked cannot be: then nobody may have a certificate.
    pub fn new(setup: Setup<'_>, previous: Option<&Self>) -> Result<Self, String> {
        let Setup {
            config,
            maker,
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
                    None => Arc::new(Asker::new(ask, Arc::clone(&clock))?),
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
            failures: Failures::default(),
            flights: Arc::default(),
            room: previous.map_or_else(
                || Arc::new(WaitingRoom::new(gauge)),
                |gate| Arc::clone(&gate.room),
            ),
            maker,
            clock,
            told: previous.map_or_else(
                || Arc::new(Told::new(metrics.cloned())),
                |gate| Arc::clone(&gate.told),
            ),
        })))
    }
}

impl Gate {
    /// Whether `host`, a name in normal form, is one that may have a certificate by its letters,
    /// whatever has come of it of late.
    pub fn covers(&self, host: &str) -> bool {
        self.0.policy.judge(host) != Letters::Foreign
    }
}

#[async_trait]
impl OnDemand for Gate {
    fn allows(&self, host: &str) -> bool {
        let shared = &*self.0;
        match shared.policy.judge(host) {
            Letters::Foreign => false,
            Letters::Good if !shared.is_held(host) => true,
            // What is there is served all the same.
            Letters::Good | Letters::Senseless => host
                .parse()
                .is_ok_and(|name| shared.maker.at_hand(&name).is_some()),
        }
    }

    async fn certificate(&self, host: &str, client: Option<IpAddr>) -> Option<Arc<CertificateSet>> {
        let shared = &self.0;
        let letters = shared.policy.judge(host);
        if letters == Letters::Foreign {
            return None;
        }
        let name: HostName = host.parse().ok()?;
        let is_open = letters == Letters::Good && !shared.is_held(host);
        if let Some(set) = shared.maker.at_hand(&name) {
            if is_open && shared.maker.is_due(&set) {
                shared.renew(&name);
            }
            return Some(set);
        }
        if is_open {
            return shared.wait(&name, client).await;
        }
        shared.told.held();
        None
    }
}

#[async_trait]
impl Wanted for Gate {
    async fn is_wanted(&self, name: &HostName) -> Option<bool> {
        if self.0.policy.judge(name.as_str()) != Letters::Good {
            return Some(false);
        }
        let Some(asker) = &self.0.asker else {
            return Some(true);
        };
        match asker.ask(name, None).await {
            Said::Yes => Some(true),
            Said::No => Some(false),
            Said::Nothing(why) => {
                self.0.told.unanswered(name, None, &why);
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
        let refused = |asker: &Arc<Asker>| asker.known(host) == Some(false);
        self.asker.as_ref().is_some_and(refused) || self.failures.hold(host, self.clock.now())
    }

    /// Waits for the certificate of `name`, which others may be waiting for too.
    async fn wait(self: &Arc<Self>, name: &HostName, client: Option<IpAddr>) -> Outcome {
        let Some(_seat) = self.room.enter(client, self.limits.max_waiting) else {
            self.told.limited(name, client, "max_waiting");
            return None;
        };
        let Some((mut waiter, flight)) = self.flights.join(name) else {
            self.told.limited(name, client, "names at once");
            return None;
        };
        if let Some(flight) = flight {
            tokio::spawn(Arc::clone(self).fly(flight, Purpose::New(client)));
        }
        let ended = waiter.wait_for(Option::is_some);
        match tokio::time::timeout(self.limits.max_wait, ended).await {
            Ok(Ok(outcome)) => outcome.clone().flatten(),
            Ok(Err(_)) => None,
            Err(_) => {
                self.told.waited_out(name, client);
                None
            }
        }
    }

    /// Has the certificate of `name` renewed behind the handshakes that it is presented in.
    fn renew(self: &Arc<Self>, name: &HostName) {
        if let Some((_, Some(flight))) = self.flights.join(name) {
            tokio::spawn(Arc::clone(self).fly(flight, Purpose::Renewal));
        }
    }

    /// Works for a name, whoever still waits for it.
    async fn fly(self: Arc<Self>, flight: Flight, purpose: Purpose) {
        let work = self.get(flight.name(), purpose);
        let outcome = tokio::time::timeout(LONGEST_FLIGHT, work).await;
        flight.end(outcome.unwrap_or_default());
    }

    async fn get(&self, name: &HostName, purpose: Purpose) -> Outcome {
        let client = match purpose {
            Purpose::New(client) => client,
            Purpose::Renewal => None,
        };
        let is_renewal = purpose == Purpose::Renewal;
        // It may have come between the look and the take-off.
        if !is_renewal && let Some(set) = self.maker.at_hand(name) {
            return Some(set);
        }
        let is_known = !is_renewal && self.maker.knows(name).await;
        let is_new = !is_renewal && !is_known;
        if is_new {
            let taken = self.quotas.take_client(client, self.clock.now());
            self.within(taken, name, client)?;
        }
        if let Some(asker) = &self.asker {
            match asker.ask(name, client).await {
                Said::Yes => {}
                Said::No => {
                    let why = "the service of 'on_demand.ask' does";
                    self.told.refused(name, client, why);
                    return None;
                }
                Said::Nothing(why) => {
                    self.told.unanswered(name, client, &why);
                    if is_new {
                        // That is no fault of the client's.
                        self.quotas.put_back_client(client);
                        return None;
                    }
                }
            }
        }
        if is_new {
            let taken = self.quotas.take_name(name, client, self.clock.now());
            self.within(taken, name, client)?;
            self.told.allowed();
        }
        match self.maker.obtain(name).await {
            Ok(set) => {
                self.failures.forget(name);
                if is_new {
                    self.told.made(name, client);
                } else if is_renewal {
                    self.told.renewed();
                }
                Some(set)
            }
            Err(error) => {
                if is_new && !error.is_begun {
                    self.quotas.put_back(name, client);
                }
                let now = self.clock.now();
                let seconds = self.failures.note(name, error.retry_after, now);
                self.told.failed(name, client, &error.why, seconds);
                None
            }
        }
    }

    /// Goes on only where nothing is used up.
    fn within(
        &self,
        taken: Result<(), UsedUp>,
        name: &HostName,
        client: Option<IpAddr>,
    ) -> Option<()> {
        taken
            .inspect_err(|limit| self.told.limited(name, client, limit.as_str()))
            .ok()
    }
}

#[cfg(test)]
mod tests;
