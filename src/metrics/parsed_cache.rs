//! Metrics of the certificates that are kept parsed.

use prometheus::{IntCounter, IntGauge};

use super::catalog::Catalog;

/// Metrics of the certificates that are kept parsed.
#[derive(Clone, Debug)]
pub struct ParsedCacheMetrics {
    /// Handshakes that found their certificate ready.
    pub hits: IntCounter,
    /// Handshakes that had to have it parsed or fetched.
    pub misses: IntCounter,
    /// Evicted certificates.
    pub evictions: IntCounter,
    /// The size of parsed certificates, in octets.
    pub bytes: IntGauge,
}

impl ParsedCacheMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Result<Self, prometheus::Error> {
        Ok(Self {
            hits: catalog.counter(
                "snigate_certificate_cache_hits_total",
                "Handshakes whose certificate was already parsed.",
            )?,
            misses: catalog.counter(
                "snigate_certificate_cache_misses_total",
                "Handshakes whose certificate had to be parsed or read first.",
            )?,
            evictions: catalog.counter(
                "snigate_certificate_cache_evictions_total",
                "Parsed certificates evicted to make room.",
            )?,
            bytes: catalog.gauge(
                "snigate_certificate_cache_bytes",
                "Approximate memory used by parsed certificates.",
            )?,
        })
    }
}
