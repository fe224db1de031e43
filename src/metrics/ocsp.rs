//! OCSP responses and revocation lists.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::Catalog;

/// The metrics of the status of certificates.
#[derive(Clone, Debug)]
pub struct StatusMetrics {
    /// Requests to OCSP responders by result: `good`, `revoked`, `unknown`, `failed`, `unreachable`.
    pub ocsp_requests: IntCounterVec,
    /// Certificates that name a responder by state of their response: `good`, `missing`, `revoked`.
    pub staples: IntGaugeVec,
    /// When the first of all responses ends, in Unix time; 0 if there is none.
    pub first_end: IntGauge,
    /// Fetches of revocation lists by result: `ok`, `unchanged`, `failed`.
    pub list_fetches: IntCounterVec,
    /// Certificates that were found to be revoked.
    pub revoked: IntCounter,
}

impl StatusMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Result<Self, prometheus::Error> {
        Ok(Self {
            ocsp_requests: catalog.counters_of(
                "snigate_ocsp_requests_total",
                "Requests to OCSP responders by result.",
                &["result"],
                &["good", "revoked", "unknown", "failed", "unreachable"],
            )?,
            staples: catalog.gauges(
                "snigate_ocsp_staples",
                "Certificates with an OCSP responder by state of their response.",
                &["state"],
            )?,
            first_end: catalog.gauge(
                "snigate_ocsp_first_next_update_seconds",
                "Unix time at which the first of all stapled responses ends; 0 if there is none.",
            )?,
            list_fetches: catalog.counters_of(
                "snigate_crl_fetches_total",
                "Fetches of revocation lists by result.",
                &["result"],
                &["ok", "unchanged", "failed"],
            )?,
            revoked: catalog.counter(
                "snigate_certificates_found_revoked_total",
                "Served certificates that an OCSP response or a revocation list calls revoked.",
            )?,
        })
    }

    /// Shows how many certificates have a response, and when the first response ends.
    pub fn show_staples(&self, good: i64, missing: i64, revoked: i64, first_end: i64) {
        for (state, number) in [("good", good), ("missing", missing), ("revoked", revoked)] {
            self.staples.with_label_values(&[state]).set(number);
        }
        self.first_end.set(first_end);
    }
}
