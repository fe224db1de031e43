//! What operators learn: each name is counted by what came of it, and one of a kind in a second
//! has a line, since strangers cause them.

use std::net::IpAddr;

use tracing::field::{DisplayValue, display};
use tracing::{info, warn};

use crate::host::HostName;
use crate::metrics::Metrics;
use crate::throttle::Throttle;

/// Counts and logs requests for certificates on demand.
#[derive(Default)]
pub(super) struct Report {
    metrics: Option<Metrics>,
    made: Throttle,
    refused: Throttle,
    limited: Throttle,
    failed: Throttle,
    unanswered: Throttle,
    waited_out: Throttle,
}

impl Report {
    pub(super) fn new(metrics: Option<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Neither the service nor a quota is against it.
    pub(super) fn count_allowed(&self) {
        self.count("allowed");
    }

    pub(super) fn log_obtained(&self, name: &HostName, client: Option<IpAddr>) {
        if let Some((client, held_back)) = self.log_refusal("made", &self.made, client) {
            info!(%name, client, held_back, "obtained a certificate on demand");
        }
    }

    /// A name that has a certificate has got another.
    pub(super) fn count_renewed(&self) {
        self.count("renewed");
    }

    /// The policy is against it.
    pub(super) fn log_refused(&self, name: &HostName, client: Option<IpAddr>, why: &str) {
        if let Some((client, held_back)) = self.log_refusal("refused", &self.refused, client) {
            info!(%name, client, why, held_back, "no certificate on demand: the name is refused");
        }
    }

    /// A limit is met.
    pub(super) fn log_limited(&self, name: &HostName, client: Option<IpAddr>, limit: &str) {
        if let Some((client, held_back)) = self.log_refusal("limited", &self.limited, client) {
            warn!(
                %name,
                client,
                limit,
                held_back,
                "no certificate on demand: a limit of 'on_demand.limits' is met"
            );
        }
    }

    /// The issuer has failed; `seconds` is how long it is not asked for the name.
    pub(super) fn log_failed(
        &self,
        name: &HostName,
        client: Option<IpAddr>,
        why: &str,
        seconds: i64,
    ) {
        if let Some((client, held_back)) = self.log_refusal("failed", &self.failed, client) {
            warn!(
                %name,
                client,
                error = why,
                again_after_seconds = seconds,
                held_back,
                "no certificate on demand: it cannot be obtained"
            );
        }
    }

    /// The service could not say.
    pub(super) fn log_unanswered(&self, name: &HostName, client: Option<IpAddr>, why: &str) {
        if let Some((client, held_back)) = self.log_refusal("unanswered", &self.unanswered, client)
        {
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

    /// A handshake has waited in vain. The work continues.
    pub(super) fn log_wait_expired(&self, name: &HostName, client: Option<IpAddr>) {
        if let Some((client, held_back)) = self.log_refusal("waited_out", &self.waited_out, client)
        {
            warn!(
                %name,
                client,
                held_back,
                "the on-demand certificate was not ready within 'max_wait'; work on it continues"
            );
        }
    }

    /// It failed or was refused a short while ago, and so is not tried.
    pub(super) fn count_held(&self) {
        self.count("held");
    }

    /// Counts it. Where a line of its kind may be written: what that says of the client, and how
    /// many were not since the last one.
    fn log_refusal(
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
