//! What operators learn: each name is counted by what came of it, and one of a kind in a second
//! has a line, since strangers cause them.

use std::net::IpAddr;

use tracing::{info, warn};

use crate::host::HostName;
use crate::metrics::Metrics;
use crate::throttle::Throttle;

/// Tells of names that want a certificate.
#[derive(Default)]
pub(super) struct Told {
    metrics: Option<Metrics>,
    made: Throttle,
    refused: Throttle,
    limited: Throttle,
    failed: Throttle,
    unanswered: Throttle,
    waited_out: Throttle,
}

impl Told {
    pub(super) fn new(metrics: Option<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Neither the service nor a quota is against it.
    pub(super) fn allowed(&self) {
        self.count("allowed");
    }

    pub(super) fn made(&self, name: &HostName, client: Option<IpAddr>) {
        self.count("made");
        if let Some(held_back) = self.made.admit() {
            let client = client.map(tracing::field::display);
            info!(%name, client, held_back, "got a certificate on demand");
        }
    }

    /// The policy is against it.
    pub(super) fn refused(&self, name: &HostName, client: Option<IpAddr>, why: &str) {
        self.count("refused");
        if let Some(held_back) = self.refused.admit() {
            let client = client.map(tracing::field::display);
            info!(%name, client, why, held_back, "no certificate on demand: the name is refused");
        }
    }

    /// A limit is met.
    pub(super) fn limited(&self, name: &HostName, client: Option<IpAddr>, limit: &str) {
        self.count("limited");
        if let Some(held_back) = self.limited.admit() {
            let client = client.map(tracing::field::display);
            warn!(
                %name,
                client,
                limit,
                held_back,
                "no certificate on demand: a limit of 'on_demand.limits' is met"
            );
        }
    }

    /// The maker has failed; `seconds` is how long it is not asked for the name.
    pub(super) fn failed(&self, name: &HostName, client: Option<IpAddr>, why: &str, seconds: i64) {
        self.count("failed");
        if let Some(held_back) = self.failed.admit() {
            let client = client.map(tracing::field::display);
            warn!(
                %name,
                client,
                error = why,
                again_after_seconds = seconds,
                held_back,
                "no certificate on demand: it cannot be had"
            );
        }
    }

    /// The service could not say.
    pub(super) fn unanswered(&self, name: &HostName, client: Option<IpAddr>, why: &str) {
        self.count("unanswered");
        if let Some(held_back) = self.unanswered.admit() {
            let client = client.map(tracing::field::display);
            warn!(
                %name,
                client,
                error = why,
                held_back,
                "no certificate on demand: the service of 'on_demand.ask' does not say whether \
                 the name may have one"
            );
        }
    }

    /// A handshake has waited in vain. The work goes on.
    pub(super) fn waited_out(&self, name: &HostName, client: Option<IpAddr>) {
        self.count("waited_out");
        if let Some(held_back) = self.waited_out.admit() {
            let client = client.map(tracing::field::display);
            warn!(
                %name,
                client,
                held_back,
                "the certificate on demand did not come within 'max_wait'; it is still worked for"
            );
        }
    }

    /// It failed or was refused a short while ago, and so is not tried.
    pub(super) fn held(&self) {
        self.count("held");
    }

    fn count(&self, result: &str) {
        if let Some(metrics) = &self.metrics {
            metrics.on_demand.with_label_values(&[result]).inc();
        }
    }
}
