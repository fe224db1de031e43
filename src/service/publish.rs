//! The last step of every change: what is ready is served, and what is missing is reported.
//!
//! Only the writer calls it, on a thread that may block. Handshakes, requests and probes read what
//! is published here and wait for nobody.

use std::time::Duration;

use super::load::LoadPhase;
use super::state::{GatewayState, Writer};
use crate::certificate::sni::SniMap;
use crate::config::model::Config;
use crate::host::Pattern;
use crate::manager::{Report, UncoveredHost};
use crate::proxy::{self, SiteTable};
use crate::tls::Snapshot;

/// The part of [`crate::readiness::Readiness`] that speaks of names without a certificate.
const CERTIFICATES: &str = "certificates";

/// The part that speaks until all files have been looked at.
const LOADING: &str = "loading";

/// How long a new table of sites waits for its upstreams' names. Those that take longer are looked
/// up again and again while it is served.
const LOOKUP: Duration = Duration::from_secs(2);

impl GatewayState {
    /// Publishes certificates and sites as one state.
    pub(super) fn publish(&self, config: &Config, writer: &mut Writer, report: &Report) {
        let previous = self.sites.load();
        let sites = SiteTable::build(config, &self.metrics, Some(&previous));
        resolve(&sites);
        self.sites.store(sites.into());
        self.certificates
            .parsed_cache()
            .set_capacity(config.certificate_cache);
        self.publish_certificates(config, writer, report);
    }

    /// Publishes certificates, where they changed, beside the sites that are served, and tells
    /// what is missing.
    pub(super) fn publish_certificates(
        &self,
        config: &Config,
        writer: &mut Writer,
        report: &Report,
    ) {
        self.publish_map(config);
        writer.manager.note_served();
        if writer.watch != report.watch {
            writer.watch = std::sync::Arc::clone(&report.watch);
            self.note_watched(writer);
        }
        self.report_loading(report.loading, writer.manager.is_listed());
        writer.missing.clone_from(&report.missing);
        // Without a certificate they are served on plain HTTP; with an old one that has to be told.
        let map = self.map.load();
        let counts =
            |missing: &&UncoveredHost| !config.server.https_optional || has_any(&map, missing);
        let missing = report.missing.iter().filter(counts);
        self.readiness.set(CERTIFICATES, missing);
        self.planned.notify_one();
    }

    /// Reports how far the first scan of all files is.
    fn report_loading(&self, loading: Option<(usize, usize)>, is_listed: bool) {
        let told = loading.map(|(done, all)| format!("{done} of {all} certificates loaded"));
        self.readiness.set(LOADING, told);
        self.loaded.send_replace(match loading {
            None => LoadPhase::Done,
            Some(_) if is_listed => LoadPhase::Listed,
            Some(_) => LoadPhase::Begun,
        });
    }

    pub(super) fn publish_map(&self, config: &Config) {
        let snapshot = Snapshot {
            certificates: self.map.load_full(),
            unknown_sni: config.tls.unknown_sni,
            attachment: Some(self.sites.load_full()),
        };
        if !snapshot.is_same_as(&self.certificates.snapshot()) {
            self.certificates.publish(snapshot);
        }
    }

    /// Notes what is to be watched now.
    pub(super) fn note_watched(&self, writer: &Writer) {
        let paths = writer.versions.paths().chain(&*writer.watch);
        let paths: Vec<_> = paths.cloned().collect();
        self.watched.store(paths.into());
    }
}

/// Whether there is a certificate, good or not.
fn has_any(map: &SniMap, missing: &UncoveredHost) -> bool {
    match &missing.host {
        Pattern::Exact(name) => map.lookup(name.as_str()).is_some(),
        other => map.get(other).is_some(),
    }
}

/// Looks up the upstreams' names that are new, so that no request meets a server without an
/// address. At the start there is no runtime yet; the edge waits for the first look-up itself.
fn resolve(sites: &SiteTable) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let looked_up = proxy::resolve_due(sites, Duration::MAX);
        // What is not found in time is looked up while it is served.
        let _ = runtime.block_on(async { tokio::time::timeout(LOOKUP, looked_up).await });
    }
}
