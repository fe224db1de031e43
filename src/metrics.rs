//! Every metric that Snigate exports, named and described in this one file.
//!
//! Labels are bounded by the configuration: a site by its first host, a status by its class, never
//! a raw path or a name that a client chose.

mod by_name;
mod catalog;
mod count;
mod depths;
mod durations;
mod ends;
mod exemplar;
mod exposition;
mod key_servers;
mod notify;
mod ocsp;
mod parsed_cache;
mod process;
mod sites;
mod tunnels;
mod upstreams;
mod validity;

use std::fmt;
use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

pub use self::depths::{Depths, Queue};
pub use self::durations::Durations;
pub use self::ends::{CertificateEnds, End};
pub use self::exemplar::Traced;
pub use self::exposition::{Family, Format, Kind};
pub use self::key_servers::{KeyServerMetrics, KeyServers};
pub use self::notify::{HookMetrics, NotifyMetrics};
pub use self::ocsp::StatusMetrics;
pub use self::parsed_cache::ParsedCacheMetrics;
pub use self::sites::{Ended, SiteMetrics, Sites};
pub use self::tunnels::{TunnelEnd, TunnelMetrics, Tunnels};
pub use self::upstreams::{UpstreamMetrics, Upstreams};

use self::catalog::Catalog;
use self::exposition::{Exposition, Source};
use self::process::Process;
pub use self::validity::CertificateStates;

/// The metrics of one gateway.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    written: Arc<Written>,
    /// TLS handshakes by result: `ok`, `failed`, `timeout`, or `challenge` for the validation by a
    /// CA.
    pub handshakes: IntCounterVec,
    /// Handshakes that failed, by reason.
    pub handshake_failures: IntCounterVec,
    /// Handshakes whose SNI found no certificate.
    pub unknown_names: IntCounter,
    /// Handshakes refused because of the client's certificate, by reason.
    pub client_certificates_refused: IntCounterVec,
    /// Loaded certificates, by source.
    pub certificates: IntGaugeVec,
    /// Certificates that are kept parsed, ready for handshakes.
    pub parsed_cache: ParsedCacheMetrics,
    /// Served certificates, by state.
    pub certificate_states: CertificateStates,
    /// When certificates expire, for those that expire first.
    pub certificate_ends: CertificateEnds,
    /// OCSP responses and revocation lists.
    pub status: StatusMetrics,
    /// Certificates whose files were read.
    pub files_read: IntCounter,
    /// Names that asked for a certificate on demand, by result.
    pub on_demand: IntCounterVec,
    /// Handshakes that wait for a certificate on demand.
    pub on_demand_waiting: IntGauge,
    /// Certificates requested from issuers, by issuer and result.
    pub renewals: IntCounterVec,
    /// Certificates that issuers are being asked for.
    pub renewals_running: IntGauge,
    /// Certificates that are due and that no issuer is being asked for yet.
    pub renewals_waiting: IntGauge,
    /// Until when a CA limits requests, by issuer and scope of the limit.
    pub ca_limited: IntGaugeVec,
    /// Requests by site and status class, and seconds from a request's head to the end of its
    /// response by site.
    pub sites: Sites,
    /// Requests that were refused, by reason.
    pub refused: IntCounterVec,
    /// Requests that were refused for their head alone, by what is wrong with it.
    pub malformed: IntCounterVec,
    /// Requests that failed after they were accepted, by reason.
    pub failed: IntCounterVec,
    /// Fetches of JWKS, by server and result.
    pub key_servers: KeyServers,
    /// Attempts at upstreams, and how long their servers take.
    pub upstreams: Upstreams,
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
    /// Accepted connections, by listener kind.
    pub accepted: IntCounterVec,
    /// How much waits in queues.
    pub depths: Depths,
    /// Connections closed or kept waiting because of a limit, by limit.
    pub limited: IntCounterVec,
    /// Connections of balancers refused for want of a PROXY protocol header, by reason.
    pub proxy_protocol_refused: IntCounterVec,
    /// Spans by what became of them.
    pub trace_spans: IntCounterVec,
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
        let mut catalog = Catalog::default();
        let sites = Sites::default();
        let certificate_ends = CertificateEnds::default();
        let upstreams = Upstreams::default();
        let tunnels = Tunnels::default();
        let key_servers = KeyServers::default();
        let depths = Depths::default();
        for families in [
            &sites::FAMILIES[..],
            &ends::FAMILIES,
            &upstreams::FAMILIES,
            &tunnels::FAMILIES,
            &key_servers::FAMILIES,
            &depths::families(),
            &process::FAMILIES,
        ] {
            catalog.list(families);
        }
        let sources: Vec<Box<dyn Source>> = vec![
            Box::new(sites.clone()),
            Box::new(certificate_ends.clone()),
            Box::new(upstreams.clone()),
            Box::new(tunnels.clone()),
            Box::new(key_servers.clone()),
            Box::new(depths.clone()),
            Box::new(Process),
        ];
        catalog
            .gauges(
                "snigate_build_info",
                "Always 1; the labels say which version runs, and with which OpenSSL.",
                &["version", "openssl"],
            )?
            .with_label_values(&[env!("CARGO_PKG_VERSION"), openssl_version()])
            .set(1);
        Ok(Self {
            handshakes: catalog.counters(
                "snigate_tls_handshakes_total",
                "TLS handshakes by result.",
                &["result", "version", "group", "resumed"],
            )?,
            handshake_failures: catalog.counters(
                "snigate_tls_handshake_failures_total",
                "TLS handshakes that did not succeed, by reason.",
                &["reason"],
            )?,
            unknown_names: catalog.counter(
                "snigate_tls_unknown_names_total",
                "TLS handshakes whose server name has no certificate.",
            )?,
            client_certificates_refused: catalog.counters_of(
                "snigate_tls_client_certificates_refused_total",
                "TLS handshakes refused because of the client's certificate, by reason.",
                &["reason"],
                &["missing", "expired", "not_yet_valid", "revoked", "crl", "depth", "purpose", "unknown_ca", "invalid"],
            )?,
            certificates: catalog.gauges(
                "snigate_certificates",
                "Certificates that are loaded, by source.",
                &["source"],
            )?,
            parsed_cache: ParsedCacheMetrics::new(&mut catalog)?,
            certificate_states: CertificateStates::new(&mut catalog)?,
            certificate_ends,
            status: StatusMetrics::new(&mut catalog)?,
            files_read: catalog.counter(
                "snigate_certificate_files_read_total",
                "Certificates whose files were read, at the start or because they changed.",
            )?,
            on_demand: catalog.counters_of(
                "snigate_on_demand_total",
                "Names that requested a certificate on demand, by outcome.",
                &["result"],
                &["allowed", "made", "renewed", "refused", "limited", "failed", "unanswered", "waited_out", "held"],
            )?,
            on_demand_waiting: catalog.gauge(
                "snigate_on_demand_waiting",
                "Handshakes that are waiting for a certificate on demand.",
            )?,
            renewals: catalog.counters(
                "snigate_certificate_renewals_total",
                "Certificates requested from issuers, by issuer and result.",
                &["issuer", "result"],
            )?,
            renewals_running: catalog.gauge(
                "snigate_certificate_renewals_running",
                "Certificates that issuers are being asked for.",
            )?,
            renewals_waiting: catalog.gauge(
                "snigate_certificate_renewals_waiting",
                "Certificates that are due and wait for their turn.",
            )?,
            ca_limited: catalog.gauges(
                "snigate_ca_limited_until_seconds",
                "Unix time at which a CA's limit ends, by issuer and scope.",
                &["issuer", "scope"],
            )?,
            sites,
            refused: catalog.counters(
                "snigate_requests_refused_total",
                "Requests that were refused, by reason.",
                &["reason"],
            )?,
            malformed: catalog.counters(
                "snigate_requests_malformed_total",
                "Requests that were refused for their head alone, by what is wrong with it.",
                &["reason"],
            )?,
            failed: catalog.counters(
                "snigate_requests_failed_total",
                "Requests that failed after they had been accepted, by reason.",
                &["reason"],
            )?,
            key_servers,
            upstreams,
            upstream_healthy: catalog.gauges(
                "snigate_upstream_healthy",
                "1 for a server's address whose health checks succeed, 0 if they fail.",
                &["upstream", "server"],
            )?,
            upstream_drained: catalog.gauges(
                "snigate_upstream_drained",
                "1 for a server's address that is drained.",
                &["upstream", "server"],
            )?,
            reloads: catalog.counters_of(
                "snigate_config_reloads_total",
                "Configuration reloads by result.",
                &["result"],
                &["ok", "refused"],
            )?,
            last_reload_successful: catalog.gauge(
                "snigate_config_last_reload_successful",
                "1 if the last reload was applied, 0 if it was refused.",
            )?,
            last_reload_timestamp: catalog.gauge(
                "snigate_config_last_reload_timestamp_seconds",
                "Unix time of the last reload that was applied.",
            )?,
            access_lines_lost: catalog.counter(
                "snigate_access_log_lines_lost_total",
                "Lines of the access log that were lost: written too slowly, or not at all.",
            )?,
            log_lines_lost: catalog.counter(
                "snigate_log_lines_lost_total",
                "Lines of the gateway's own log that were lost: written too slowly, or not at all.",
            )?,
            connections: catalog.gauges(
                "snigate_connections",
                "Connections that are open, by listener kind.",
                &["listener"],
            )?,
            accepted: catalog.counters(
                "snigate_connections_accepted_total",
                "Connections that were accepted, by listener kind.",
                &["listener"],
            )?,
            depths,
            limited: catalog.counters(
                "snigate_connections_limited_total",
                "Connections closed or kept waiting because they met a limit, by limit.",
                &["limit"],
            )?,
            proxy_protocol_refused: catalog.counters_of(
                "snigate_proxy_protocol_refused_total",
                "Connections of load balancers refused for lack of a PROXY protocol header, by reason.",
                &["reason"],
                &["missing", "malformed", "checksum", "timeout", "closed"],
            )?,
            trace_spans: catalog.counters_of(
                "snigate_trace_spans_total",
                "Spans of requests, by what became of them: exported, rejected or lost.",
                &["result"],
                &["exported", "rejected", "lost"],
            )?,
            tunnels,
            notify: NotifyMetrics::new(&mut catalog)?,
            registry: catalog.registry,
            written: Arc::new(Written {
                sources,
                families: catalog.families,
            }),
        })
    }

    /// All metrics as a text. It waits for nothing that serves clients.
    pub fn render(&self, format: Format) -> Vec<u8> {
        let mut text = Exposition::new(format);
        for family in self.registry.gather() {
            text.family(&family);
        }
        for source in &self.written.sources {
            source.write(&mut text);
        }
        text.finish()
    }

    /// Every metric, also those without a sample yet.
    pub fn families(&self) -> &[Family] {
        &self.written.families
    }

    /// The request metrics of one site, so that a request looks nothing up.
    pub fn site(&self, site: &Arc<str>) -> SiteMetrics {
        self.sites.site(site)
    }
}

/// What is not gathered by the registry, and a list of all.
struct Written {
    sources: Vec<Box<dyn Source>>,
    families: Vec<Family>,
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

/// The version of the linked OpenSSL, such as `4.0.3`.
fn openssl_version() -> &'static str {
    // "OpenSSL 4.0.3 29 Sep 2026"
    let text = openssl::version::version();
    text.split(' ').nth(1).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_open_metrics_allows() {
        let metrics = Metrics::new().expect("unique names");
        let mut families: Vec<_> = metrics.families().iter().collect();
        for family in &families {
            let is_total = family.name.ends_with("_total");
            assert_eq!(is_total, family.kind == Kind::Counter, "{}", family.name);
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
        // A counter is known by its name without the suffix.
        let name = |family: &Family| family.name.trim_end_matches("_total").to_owned();
        families.sort_by_key(|family| name(family));
        for pair in families.windows(2) {
            assert_ne!(name(pair[0]), name(pair[1]));
        }
    }

    #[test]
    fn counters_with_known_labels_begin_at_zero() {
        let metrics = Metrics::new().expect("unique names");
        let text = String::from_utf8(metrics.render(Format::Text)).expect("text");
        for series in [
            r#"snigate_config_reloads_total{result="refused"}"#,
            r#"snigate_crl_fetches_total{result="failed"}"#,
            r#"snigate_ocsp_requests_total{result="unreachable"}"#,
            r#"snigate_on_demand_total{result="failed"}"#,
            r#"snigate_proxy_protocol_refused_total{reason="checksum"}"#,
            r#"snigate_tls_client_certificates_refused_total{reason="crl"}"#,
            r#"snigate_trace_spans_total{result="lost"}"#,
        ] {
            let line = format!("{series} 0");
            assert!(
                text.lines().any(|one| one == line),
                "{series} is not in {text}"
            );
        }
    }

    #[test]
    fn the_program_names_the_maintained_openssl_that_it_is_built_with() {
        let metrics = Metrics::new().expect("unique names");
        let text = String::from_utf8(metrics.render(Format::Text)).expect("text");
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
