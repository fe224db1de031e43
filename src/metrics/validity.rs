//! How many served certificates are in which state, as the validity service last found.

use prometheus::{IntGauge, IntGaugeVec};

use super::catalog::Catalog;

/// The gauges. A handle; clones show the same.
#[derive(Clone, Debug)]
pub struct CertificateStates {
    states: IntGaugeVec,
    uncovered: IntGauge,
}

impl CertificateStates {
    pub(super) fn new(catalog: &mut Catalog) -> Result<Self, prometheus::Error> {
        Ok(Self {
            states: catalog.gauges(
                "snigate_certificate_states",
                "Certificates that are served, each by its gravest state.",
                &["state"],
            )?,
            uncovered: catalog.gauge(
                "snigate_hosts_not_covered",
                "Hosts of sites without a valid certificate, except those whose first order has not failed.",
            )?,
        })
    }

    /// Shows the number of certificates in each state, and that of hosts without one.
    pub fn show<'a>(&self, states: impl IntoIterator<Item = (&'a str, usize)>, uncovered: usize) {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in states {
            self.states.with_label_values(&[state]).set(number(count));
        }
        self.uncovered.set(number(uncovered));
    }
}
