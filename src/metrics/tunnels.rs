//! Connections that are passed on octet by octet, by site.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

/// The tunnels of all sites.
#[derive(Clone, Debug)]
pub struct Tunnels {
    pub(super) open: IntGaugeVec,
    pub(super) ended: IntCounterVec,
    pub(super) octets: IntCounterVec,
}

/// The tunnels of one site.
#[derive(Clone, Debug)]
pub struct TunnelMetrics {
    /// How many are open.
    pub open: IntGauge,
    /// Octets from clients.
    pub received: IntCounter,
    /// Octets to clients.
    pub sent: IntCounter,
    site: Box<str>,
    ended: IntCounterVec,
}

impl Tunnels {
    /// Those of a site.
    pub fn site(&self, site: &str) -> TunnelMetrics {
        let octets = |direction| self.octets.with_label_values(&[site, direction]);
        TunnelMetrics {
            open: self.open.with_label_values(&[site]),
            received: octets("received"),
            sent: octets("sent"),
            site: site.into(),
            ended: self.ended.clone(),
        }
    }
}

impl TunnelMetrics {
    /// Counts one that has ended so.
    pub fn count_end(&self, result: &str) {
        self.ended.with_label_values(&[&*self.site, result]).inc();
    }
}
