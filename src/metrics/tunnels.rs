//! Connections that are passed on octet by octet, by site.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::Catalog;
use super::sites::{MOST, OTHERS};
use crate::lock::MutexExt as _;

/// The tunnels of all sites.
#[derive(Clone, Debug)]
pub struct Tunnels {
    open: IntGaugeVec,
    ended: IntCounterVec,
    octets: IntCounterVec,
    /// The sites that are shown by name.
    shown: Arc<Mutex<HashSet<Box<str>>>>,
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
            shown: Arc::default(),
        })
    }

    /// Those of a site.
    pub fn site(&self, site: &str) -> TunnelMetrics {
        let mut shown = self.shown.lock_unpoisoned();
        let is_shown = shown.contains(site) || shown.len() < MOST && shown.insert(site.into());
        drop(shown);
        let site = if is_shown { site } else { OTHERS };
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

#[cfg(test)]
mod tests {
    use super::super::{Format, Metrics};
    use super::*;

    #[test]
    fn only_so_many_sites_are_shown_by_name() {
        let metrics = Metrics::new().expect("metrics");
        for number in 0..MOST + 2 {
            metrics.tunnels.site(&number.to_string()).open.inc();
        }
        metrics.tunnels.site("7").open.inc();
        let text = String::from_utf8(metrics.render(Format::Text)).expect("text");
        let open = |site: &str| format!("snigate_tunnels_open{{site=\"{site}\"}} 2\n");
        assert!(text.contains(&open("7")) && text.contains(&open(OTHERS)));
        assert_eq!(text.matches("snigate_tunnels_open{").count(), MOST + 1);
    }
}
