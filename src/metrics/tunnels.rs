//! Connections that are passed on octet by octet, by site.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::Catalog;

/// The tunnels of all sites.
#[derive(Clone, Debug)]
pub struct Tunnels {
    open: IntGaugeVec,
    ended: IntCounterVec,
    octets: IntCounterVec,
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
    pub(super) fn new(catalog: &mut Catalog) -> Result<Self, prometheus::Error> {
        Ok(Self {
            open: catalog.gauges(
                "snigate_tunnels_open",
                "Open connections that are passed on octet by octet, by site.",
                &["site"],
            )?,
            ended: catalog.counters(
                "snigate_tunnels_total",
                "Connections that were passed on octet by octet or refused, by how they ended.",
                &["site", "result"],
            )?,
            octets: catalog.counters(
                "snigate_tunnel_bytes_total",
                "Octets received from clients and sent to them on such connections.",
                &["site", "direction"],
            )?,
        })
    }

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
