//! Every metric that Snigate exports, named and described in this one file.
//!
//! Labels are bounded by the configuration: a site by its first host, a status by its class, never
//! a raw path or a name that a client chose.

mod ends;
mod notify;
mod sites;
mod tunnels;

use std::sync::Arc;

use prometheus::{
    Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use self::ends::{CertificateEnds, End};
pub use self::notify::NotifyMetrics;
pub use self::sites::{SiteMetrics, Sites};
pub use self::tunnels::{TunnelMetrics, Tunnels};

/// The metrics of one gateway.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// TLS handshakes by result: `ok`, `failed`, `timeout`, or `challenge` for the validation by a
    /// CA.
    pub handshakes: IntCounterVec,
    /// Handshakes whose SNI found no certificate.
    pub unknown_names: IntCounter,
    /// Handshakes refused because of the client's certificate, by reason.
    pub client_certificates_refused: IntCounterVec,
    /// Loaded certificates, by source.
    pub certificates: IntGaugeVec,
    /// Certificates that are kept parsed, ready for handshakes.
    pub parsed_cache: ParsedCacheMetrics,
    /// When certificates expire, for those that expire first.
    pub certificate_ends: CertificateEnds,
    /// Certificates whose files were read.
    pub files_read: IntCounter,
    /// Names that asked for a certificate on demand, by result.
    pub on_demand: IntCounterVec,
    /// Handshakes that wait for a certificate on demand.
    pub on_demand_waiting: IntGauge,
    /// Certificates requested from issuers, by issuer and result.
    pub renewals: IntCounterVec,
    /// Until when a CA limits requests, by issuer and scope of the limit.
    pub ca_limited: IntGaugeVec,
    /// Requests by site and status class, and seconds from a request's head to the end of its
    /// response by site.
    pub sites: Sites,
    /// Requests that were refused, by reason, except those that a site has nothing for.
    pub refused: IntCounterVec,
    /// Fetches of JWKS, by server and result.
    pub key_fetches: IntCounterVec,
    /// Attempts at an upstream by result.
    pub upstream_attempts: IntCounterVec,
    /// Retries of requests to an upstream by result.
    pub upstream_retries: IntCounterVec,
    /// Addresses of upstream servers that were ejected because requests to them failed.
    pub upstream_ejections: IntCounterVec,
    /// 1 for each address that health checks have found to work, 0 for the others.
    pub upstream_healthy: IntGaugeVec,
    /// 1 for each address that is drained.
    pub upstream_drained: IntGaugeVec,
    /// Configuration reloads by result.
    pub reloads: IntCounterVec,
    /// 1 if the last reload succeeded, 0 if it was rejected.
    pub last_reload_successful: IntGauge,
    /// Unix time of the last successful reload.
    pub last_reload_timestamp: IntGauge,
    /// Lost lines of the access log.
    pub access_lines_lost: IntCounter,
    /// Lost lines of the gateway's own log.
    pub log_lines_lost: IntCounter,
    /// Open connections, by listener kind.
    pub connections: IntGaugeVec,
    /// Connections closed or kept waiting because of a limit, by limit.
    pub limited: IntCounterVec,
    /// Connections of balancers refused for want of a PROXY protocol header, by reason.
    pub proxy_protocol_refused: IntCounterVec,
    /// Connections that are passed on octet by octet.
    pub tunnels: Tunnels,
    /// Notifications of recipients.
    pub notify: NotifyMetrics,
}

impl Metrics {
    /// Registers every metric with a new registry.
    ///
    /// # Errors
    /// If two metrics share a name, which is a bug in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let sites = Sites::new(
            (
                "snigate_requests_total",
                "Requests by site and status class.",
            ),
            (
                "snigate_request_duration_seconds",
                "From the request's head to the end of its response.",
            ),
        )?;
        registry.register(Box::new(sites.clone()))?;
        let certificate_ends = CertificateEnds::new(
            (
                "snigate_certificate_not_after_seconds",
                "Unix time at which the certificate of a site's name expires, of those that expire \
                 first.",
            ),
            (
                "snigate_certificates_not_shown",
                "Certificates whose expiry is not shown because others expire earlier.",
            ),
        )?;
        registry.register(Box::new(certificate_ends.clone()))?;
        gauges(
            "snigate_build_info",
            "Always 1; the labels say which version runs, and with which OpenSSL.",
            &["version", "openssl"],
        )?
        .with_label_values(&[env!("CARGO_PKG_VERSION"), openssl_version()])
        .set(1);
        Ok(Self {
            handshakes: counters(
                "snigate_tls_handshakes_total",
                "TLS handshakes by result.",
                &["result", "version", "group", "resumed"],
            )?,
            unknown_names: counter(
                "snigate_tls_unknown_names_total",
                "TLS handshakes whose server name has no certificate.",
            )?,
            client_certificates_refused: counters(
                "snigate_tls_client_certificates_refused_total",
                "TLS handshakes refused because of the client's certificate, by reason.",
                &["reason"],
            )?,
            certificates: gauges(
                "snigate_certificates",
                "Certificates that are loaded, by source.",
                &["source"],
            )?,
            parsed_cache: ParsedCacheMetrics {
                hits: counter(
                    "snigate_certificate_cache_hits_total",
                    "Handshakes whose certificate was already parsed.",
                )?,
                misses: counter(
                    "snigate_certificate_cache_misses_total",
                    "Handshakes whose certificate had to be parsed or read first.",
                )?,
                evictions: counter(
                    "snigate_certificate_cache_evictions_total",
                    "Parsed certificates evicted to make room.",
                )?,
                bytes: gauge(
                    "snigate_certificate_cache_bytes",
                    "Approximate memory used by parsed certificates.",
                )?,
            },
            certificate_ends,
            files_read: counter(
                "snigate_certificate_files_read_total",
                "Certificates whose files were read, at the start or because they changed.",
            )?,
            on_demand: counters(
                "snigate_on_demand_total",
                "Names that requested a certificate on demand, by outcome.",
                &["result"],
            )?,
            on_demand_waiting: gauge(
                "snigate_on_demand_waiting",
                "Handshakes that are waiting for a certificate on demand.",
            )?,
            renewals: counters(
                "snigate_certificate_renewals_total",
                "Certificates requested from issuers, by issuer and result.",
                &["issuer", "result"],
            )?,
            ca_limited: gauges(
                "snigate_ca_limited_until_seconds",
                "Unix time at which a CA's limit ends, by issuer and scope.",
                &["issuer", "scope"],
            )?,
            sites,
            refused: counters(
                "snigate_requests_refused_total",
                "Requests that were refused, by reason.",
                &["reason"],
            )?,
            key_fetches: counters(
                "snigate_jwks_fetches_total",
                "Fetches of JWKS, by server and result.",
                &["server", "result"],
            )?,
            upstream_attempts: counters(
                "snigate_upstream_attempts_total",
                "Attempts at an upstream by result.",
                &["upstream", "result"],
            )?,
            upstream_retries: counters(
                "snigate_upstream_retries_total",
                "Retries of requests to an upstream: sent, or not because the budget was used up.",
                &["upstream", "result"],
            )?,
            upstream_ejections: counters(
                "snigate_upstream_ejections_total",
                "Servers of an upstream that were left out because requests to them failed.",
                &["upstream"],
            )?,
            upstream_healthy: gauges(
                "snigate_upstream_healthy",
                "1 for a server's address whose health checks succeed, 0 if they fail.",
                &["upstream", "server"],
            )?,
            upstream_drained: gauges(
                "snigate_upstream_drained",
                "1 for a server's address that is drained.",
                &["upstream", "server"],
            )?,
            reloads: counters(
                "snigate_config_reloads_total",
                "Configuration reloads by result.",
                &["result"],
            )?,
            last_reload_successful: gauge(
                "snigate_config_last_reload_successful",
                "1 if the last reload was applied, 0 if it was refused.",
            )?,
            last_reload_timestamp: gauge(
                "snigate_config_last_reload_timestamp_seconds",
                "Unix time of the last reload that was applied.",
            )?,
            access_lines_lost: counter(
                "snigate_access_log_lines_lost_total",
                "Lines of the access log that were lost: written too slowly, or not at all.",
            )?,
            log_lines_lost: counter(
                "snigate_log_lines_lost_total",
                "Lines of the gateway's own log that were lost: written too slowly, or not at all.",
            )?,
            connections: gauges(
                "snigate_connections",
                "Connections that are open, by listener kind.",
                &["listener"],
            )?,
            limited: counters(
                "snigate_connections_limited_total",
                "Connections closed or kept waiting because they met a limit, by limit.",
                &["limit"],
            )?,
            proxy_protocol_refused: counters(
                "snigate_proxy_protocol_refused_total",
                "Connections of load balancers refused for lack of a PROXY protocol header, by reason.",
                &["reason"],
            )?,
            tunnels: Tunnels {
                open: gauges(
                    "snigate_tunnels",
                    "Open connections that are passed on octet by octet, by site.",
                    &["site"],
                )?,
                ended: counters(
                    "snigate_tunnels_total",
                    "Connections that were passed on octet by octet or refused, by how they ended.",
                    &["site", "result"],
                )?,
                octets: counters(
                    "snigate_tunnel_bytes_total",
                    "Octets received from clients and sent to them on such connections.",
                    &["site", "direction"],
                )?,
            },
            notify: NotifyMetrics::register(&registry)?,
            registry,
        })
    }

    /// All metrics in Prometheus's text format.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(4096);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The request metrics of one site, so that a request looks nothing up.
    pub fn site(&self, site: &Arc<str>) -> SiteMetrics {
        self.sites.site(site)
    }
}

/// The version of the linked OpenSSL, such as `4.0.3`.
fn openssl_version() -> &'static str {
    // "OpenSSL 4.0.3 29 Sep 2026"
    let text = openssl::version::version();
    text.split(' ').nth(1).unwrap_or(text)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_register_and_render() {
        let metrics = Metrics::new().expect("unique names");
        let site = metrics.site(&"a.example".into());
        site.observe(204, 0.002);
        let text = String::from_utf8(metrics.render().expect("encodable")).expect("text");
        assert!(text.contains(r#"snigate_requests_total{site="a.example",status="2xx"} 1"#));
    }

    #[test]
    fn the_program_names_the_maintained_openssl_that_it_is_built_with() {
        let metrics = Metrics::new().expect("unique names");
        let text = String::from_utf8(metrics.render().expect("encodable")).expect("text");
        let version = env!("CARGO_PKG_VERSION");
        let info = r#"snigate_build_info{openssl="4.0."#;
        let line = text.lines().find(|line| line.starts_with(info));
        let line = line.unwrap_or_else(|| panic!("OpenSSL 4.0 is not in {text}"));
        assert!(
            line.ends_with(&format!(r#"",version="{version}"}} 1"#)),
            "{line}"
        );
    }
}
