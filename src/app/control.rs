//! What the admin interface can ask of this gateway.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::admin::{
    CertificateView, Control, LastReload, Managed, ReloadError, ReloadSummary, RenewError,
    SiteView, Status,
};
use crate::certificate::{Source, TlsCertificate};
use crate::clock::{Clock, UnixTime};
use crate::config::model::{Config, SiteTls};
use crate::event::EventBus;
use crate::host::Pattern;
use crate::local_ca::on_demand;
use crate::secret::Secret;
use crate::service::live::{GatewayEdge, Live, Refused, Reloaded};
use crate::service::reload::Reloader;
use crate::service::stop::Stopper;

/// The gateway as the admin interface sees it.
pub(super) struct AppControl {
    live: Arc<Live>,
    edge: Arc<GatewayEdge>,
    clock: Arc<dyn Clock>,
    events: EventBus,
    started: UnixTime,
    reloader: Reloader,
    stopper: Stopper,
}

impl AppControl {
    pub(super) fn new(
        live: Arc<Live>,
        edge: Arc<GatewayEdge>,
        clock: Arc<dyn Clock>,
        events: EventBus,
        reloader: Reloader,
        stopper: Stopper,
    ) -> Self {
        Self {
            live,
            edge,
            started: clock.now(),
            clock,
            events,
            reloader,
            stopper,
        }
    }

    /// What issuers are asked for. The local CA is asked in every pass of the manager, so all that
    /// there is to know is in the certificates.
    fn managed(&self, certificates: &[Arc<TlsCertificate>], config: &Config) -> Vec<Managed> {
        let window = config.renewal.window;
        certificates
            .iter()
            .filter_map(|certificate| {
                let Source::Issuer(issuer) = certificate.source() else {
                    return None;
                };
                Some(Managed {
                    names: certificate.names().to_vec(),
                    issuers: vec![Arc::clone(issuer)],
                    obtaining: false,
                    next: Some(renewal_at(certificate, window)),
                    failures: 0,
                    last_failure: None,
                    certificate: Some(Arc::clone(certificate)),
                })
            })
            .collect()
    }

    /// Has issuers asked for the certificate of `subject` at once.
    fn ask_issuers(&self, _subject: &str, _force: bool) -> Result<(), RenewError> {
        Err(RenewError::Refused(
            "the local CA gives each certificate by itself when it is due, and cannot be asked \
             for one before"
                .to_owned(),
        ))
    }
}

#[async_trait]
impl Control for AppControl {
    fn token(&self) -> Option<Secret> {
        self.live.current().config.server.admin_token.clone()
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            uptime_seconds: self.clock.now().saturating_sub(self.started),
            connections: self.edge.open_connections() as u64,
            config_file: self.live.file().to_owned(),
            last_reload: self.live.last().map(|outcome| LastReload {
                at: outcome.at,
                taken: outcome.refused.is_none(),
                errors: outcome.refused.as_ref().map(errors).unwrap_or_default(),
            }),
        }
    }

    fn sites(&self) -> Vec<SiteView> {
        let current = self.live.current();
        let sites = current.config.sites.iter();
        sites.map(|site| SiteView::from(&**site)).collect()
    }

    fn certificates(&self) -> Vec<CertificateView> {
        let now = self.clock.now();
        let loaded = self.live.certificates();
        let config = &self.live.current().config;
        let managed = self.managed(&loaded, config);
        let kept_up: HashSet<_> = managed
            .iter()
            .filter_map(|one| Some(one.certificate.as_ref()?.fingerprint()))
            .collect();
        let mut views: Vec<_> = managed
            .iter()
            .map(|one| CertificateView::managed(one, now))
            .collect();
        views.extend(
            loaded
                .iter()
                .filter(|one| !kept_up.contains(&one.fingerprint()))
                .map(|one| CertificateView::loaded(one, now)),
        );
        let missing = missing(config, &views);
        views.extend(missing);
        views
    }

    fn chain(&self, fingerprint: &str) -> Option<String> {
        let certificates = self.live.certificates();
        let certificate = certificates
            .iter()
            .find(|one| one.fingerprint().to_string() == fingerprint)?;
        let pem = certificate.chain_pem().ok()?;
        String::from_utf8(pem).ok()
    }

    fn renew(&self, subject: &str, force: bool) -> Result<CertificateView, RenewError> {
        self.ask_issuers(subject, force)?;
        let is_meant = |view: &CertificateView| {
            let renewal = view.renewal.as_ref();
            renewal.is_some_and(|renewal| renewal.subject == subject)
        };
        let mut views = self.certificates().into_iter();
        views.find(is_meant).ok_or(RenewError::Unknown)
    }

    fn events(&self) -> EventBus {
        self.events.clone()
    }

    async fn reload(&self) -> Result<ReloadSummary, ReloadError> {
        match self.reloader.reload().await {
            Some(Ok(reloaded)) => Ok(summary(reloaded)),
            Some(Err(refused)) => Err(ReloadError::Rejected(errors(&refused))),
            None => Err(ReloadError::Unavailable(
                "the gateway is stopping".to_owned(),
            )),
        }
    }

    fn stop(&self) {
        self.stopper.stop();
    }
}

/// When the renewal of an issued certificate is due.
fn renewal_at(certificate: &TlsCertificate, window: f64) -> UnixTime {
    let (begin, end) = (certificate.not_before(), certificate.not_after());
    // Lifetimes are far below 2^52 seconds, where f64 is exact.
    let left = (end.saturating_sub(begin) as f64 * window) as i64;
    end.saturating_sub(left)
}

/// The hosts of sites that none of `views` is for.
fn missing(config: &Config, views: &[CertificateView]) -> Vec<CertificateView> {
    let allow = config
        .on_demand
        .as_ref()
        .map_or(&[][..], |on_demand| &on_demand.allow);
    let mut known: HashSet<String> = views
        .iter()
        .flat_map(|view| view.names.iter().cloned())
        .collect();
    let mut missing = Vec::new();
    let sites = config.sites.iter().filter(|site| site.tls != SiteTls::Off);
    for host in sites.flat_map(|site| &site.hosts) {
        let given = match host {
            Pattern::Any => true,
            Pattern::Exact(name) => {
                let above = name.parent().map(|parent| format!("*.{parent}"));
                above.is_some_and(|above| known.contains(&above))
                    || on_demand::allows(allow, name.as_str())
            }
            Pattern::Wildcard(_) => allow.contains(host),
        };
        if !given && known.insert(host.to_string()) {
            missing.push(CertificateView::missing(vec![host.to_string()]));
        }
    }
    missing
}

fn summary(reloaded: Reloaded) -> ReloadSummary {
    let warnings = reloaded.warnings.iter().map(|warning| json!(warning));
    let problems = reloaded
        .problems
        .iter()
        .map(|problem| json!({ "message": problem }));
    ReloadSummary {
        sites: reloaded.sites,
        certificates: reloaded.certificates,
        warnings: warnings.chain(problems).collect(),
        restart_needed: reloaded
            .restart_needed
            .into_iter()
            .map(str::to_owned)
            .collect(),
    }
}

fn errors(refused: &Refused) -> Vec<Value> {
    match refused {
        Refused::Invalid(diagnostics) => diagnostics.errors().map(|error| json!(error)).collect(),
        Refused::Unable(why) => vec![json!({ "message": why })],
    }
}
