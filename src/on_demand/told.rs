//! What operators learn: each name is counted by what came of it, and one of a kind in a second
//! has a line, since strangers cause them.

use std::net::IpAddr;

use tracing::field::{DisplayValue, display};
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
        if let Some((client, held_back)) = self.note("made", &self.made, client) {
            info!(%name, client, held_back, "got a certificate on demand");
        }
    }

    /// A name that has a certificate has got another.
    pub(super) fn renewed(&self) {
        self.count("renewed");
    }

    /// The policy is against it.
    pub(super) fn refused(&self, name: &HostName, client: Option<IpAddr>, why: &str) {
        if let Some((client, held_back)) = self.note("refused", &self.refused, client) {
            info!(%name, client, why, held_back, "no certificate on demand: the name is refused");
        }
    }

    /// A limit is met.
    pub(super) fn limited(&self, name: &HostName, client: Option<IpAddr>, limit: &str) {
        if let Some((client, held_back)) = self.note("limited", &self.limited, client) {
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
        if let Some((client, held_back)) = self.note("failed", &self.failed, client) {
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
        if let Some((client, held_back)) = self.note("unanswered", &self.unanswered, client) {
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
        if let Some((client, held_back)) = self.note("waited_out", &self.waited_out, client) {
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

    /// Counts it. Where a line of its kind may be written: what that says of the client, and how
    /// many were not since the last one.
    fn note(
        &self,
        result: &str,
        throttle: &Throttle,
        client: Option<IpAddr>,
    ) -> Option<(Option<DisplayValue<IpAddr>>, u64)> {
        self.count(result);
        let held_back = throttle.admit()?;
        Some((client.map(display), held_back))
    }

    fn count(&self, result: &str) {
        if let Some(metrics) = &self.metrics {
            metrics.on_demand.with_label_values(&[result]).inc();
        }
    }
}
