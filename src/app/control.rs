//! What the admin interface can ask of this gateway.

mod certificate;
mod preflight;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use self::certificate::{Judge, not_yet_valid, of_ca, of_local_ca};
use super::logging::OwnLog;
use crate::admin::{
    CertificateView, Control, IssuerView, LastReload, ListenerView, LogView, Managed,
    PreflightView, ReloadError, ReloadSummary, RenewError, SiteView, Status, UpstreamView,
};
use crate::certificate::{Fingerprint, RenewalFacts, Validity};
use crate::clock::UnixTime;
use crate::config::model::{Config, Issuer};
use crate::engine::Engine;
use crate::event::EventBus;
use crate::host::Pattern;
use crate::issuer::{AccountFacts, AccountTask, Ports, RevocationReason};
use crate::manager::{Withheld, withheld};
use crate::notify::{Notifier, TestOutcome};
use crate::on_demand;
use crate::reload::{self, GatewayEdge, GatewayListeners, GatewayState, ReloadReport, Reloader};
use crate::renewal::ActionError;
use crate::secret::Secret;
use crate::service::stop::Stopper;
use crate::storage::keys;

/// The gateway as the admin interface sees it.
pub(super) struct AppControl {
    pub(super) engine: Arc<Engine>,
    pub(super) state: Arc<GatewayState>,
    pub(super) edge: Arc<GatewayEdge>,
    pub(super) listeners: Arc<GatewayListeners>,
    pub(super) notifier: Arc<Notifier>,
    pub(super) log: OwnLog,
    pub(super) started: UnixTime,
    pub(super) reloader: Reloader,
    pub(super) stopper: Stopper,
}

impl AppControl {
    /// Requests the certificate of `subject` from its issuers now: with `force` in any case, else only
    /// if there is no valid one.
    fn request_from_issuers(&self, subject: &str, force: bool) -> Result<(), RenewError> {
        let now = self.engine.clock().now();
        let managed = self.engine.lock().renewals().views();
        let Some(view) = managed
            .iter()
            .find(|view| keys::subject(&view.names) == subject)
        else {
            return Err(RenewError::Refused(
                "the local CA issues each certificate automatically when it is due and cannot be \
                 asked earlier"
                    .to_owned(),
            ));
        };
        let certificate = view.certificate.as_ref();
        let is_valid = certificate.is_some_and(|one| one.validity(now) == Validity::Valid);
        if force || !is_valid {
            self.engine.request_renewal(subject);
        }
        Ok(())
    }
}

fn fingerprint(managed: &Managed) -> Option<Fingerprint> {
    Some(managed.certificate.as_ref()?.fingerprint())
}

#[async_trait]
impl Control for AppControl {
    fn token(&self) -> Option<Secret> {
        self.state.current().config.server.admin_token.clone()
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            uptime_seconds: self.engine.clock().now() - self.started,
            connections: self.edge.open_connections() as u64,
            listeners: self
                .listeners
                .addresses()
                .into_iter()
                .map(|(address, kind)| ListenerView {
                    address: address.to_string(),
                    protocol: kind.as_str().to_owned(),
                })
                .collect(),
            config_file: self.state.file().to_owned(),
            last_reload: self.state.last_reload().map(|outcome| LastReload {
                at: outcome.at,
                taken: outcome.refused.is_none(),
                errors: outcome.refused.as_ref().map(errors).unwrap_or_default(),
            }),
        }
    }

    fn sites(&self) -> Vec<SiteView> {
        let current = self.state.current();
        let sites = current.config.sites.iter();
        sites.map(|site| SiteView::from(&**site)).collect()
    }

    fn upstreams(&self) -> Vec<UpstreamView> {
        let sites = self.state.sites();
        let mut views: Vec<_> = sites
            .pools()
            .map(|pool| UpstreamView::from(&**pool))
            .collect();
        views.sort_by(|one, other| one.name.cmp(&other.name));
        views
    }

    fn set_drained(&self, upstream: &str, server: &str, is_drained: bool) -> bool {
        let sites = self.state.sites();
        let mut pools = sites.pools().filter(|pool| &**pool.name() == upstream);
        pools.any(|pool| pool.set_drained(server, is_drained))
    }

    fn certificates(&self) -> Vec<CertificateView> {
        let now = self.engine.clock().now();
        let current = self.state.current();
        let (config, window) = (&current.config, current.config.renewal.window);
        // Under one lock, so that all belongs to one state.
        let manager = self.engine.lock();
        let loaded: Vec<_> = manager.certificates().cloned().collect();
        let planned = manager.renewals().views();
        let made = manager.on_demand().issuance().certificates();
        let not_yet_valid = not_yet_valid(&manager, config);
        let withheld = withheld(&manager);
        drop(manager);
        let judge = Judge::new(&self.engine);
        let of_local_ca =
            |one, is_on_demand| of_local_ca(one, window, is_on_demand, &not_yet_valid, &judge);

        let mut managed: Vec<_> = planned.into_iter().map(|one| of_ca(one, &judge)).collect();
        let planned: HashSet<_> = managed.iter().filter_map(fingerprint).collect();
        let others = loaded
            .iter()
            .filter(|one| !planned.contains(&one.fingerprint()));
        managed.extend(others.filter_map(|one| of_local_ca(one, false)));
        managed.extend(made.iter().filter_map(|one| of_local_ca(one, true)));
        let managed_ones: HashSet<_> = managed.iter().filter_map(fingerprint).collect();
        let mut views: Vec<_> = managed
            .iter()
            .map(|one| CertificateView::managed(one, now))
            .collect();
        views.extend(
            loaded
                .iter()
                .filter(|one| !managed_ones.contains(&one.fingerprint()))
                .map(|one| CertificateView {
                    findings: judge.findings(one, &RenewalFacts::BY_HAND),
                    ..CertificateView::loaded(one, now)
                }),
        );
        withhold(&mut views, withheld);
        let missing = missing(config, &views);
        views.extend(missing);
        views
    }

    fn chain(&self, fingerprint: &str) -> Option<String> {
        let manager = self.engine.lock();
        let mut certificates: Vec<_> = manager.certificates().cloned().collect();
        certificates.extend(manager.on_demand().issuance().certificates());
        drop(manager);
        let certificate = certificates
            .iter()
            .find(|one| one.fingerprint().to_string() == fingerprint)?;
        let pem = certificate.chain_pem().ok()?;
        String::from_utf8(pem).ok()
    }

    fn renew(&self, subject: &str, force: bool) -> Result<CertificateView, RenewError> {
        self.request_from_issuers(subject, force)?;
        let is_meant = |view: &CertificateView| {
            let renewal = view.renewal.as_ref();
            renewal.is_some_and(|renewal| renewal.subject == subject)
        };
        let mut views = self.certificates().into_iter();
        views.find(is_meant).ok_or(RenewError::Unknown)
    }

    async fn preflight(&self, name: Pattern, ports: Ports) -> PreflightView {
        let (engine, asked) = (Arc::clone(&self.engine), name.clone());
        let would = tokio::task::spawn_blocking(move || engine.lock().plan_issuance(&asked)).await;
        match would {
            Ok(would) => preflight::run_preflight(&name, ports, would).await,
            Err(_) => preflight::failed_preflight(&name),
        }
    }

    async fn revoke(
        &self,
        fingerprint: &str,
        reason: RevocationReason,
    ) -> Result<bool, ActionError> {
        self.engine.revoke(fingerprint.to_owned(), reason).await
    }

    fn issuers(&self) -> Vec<IssuerView> {
        let current = self.state.current();
        let issuers = current.config.issuers.iter();
        issuers
            .map(|(name, issuer)| {
                let (kind, directory) = match issuer {
                    Issuer::Acme(acme) => ("acme", Some(acme.directory.clone())),
                    Issuer::LocalCa { .. } => ("local_ca", None),
                    Issuer::Own => ("own", None),
                };
                IssuerView {
                    name: name.to_string(),
                    kind: kind.to_owned(),
                    directory,
                }
            })
            .collect()
    }

    async fn account(&self, issuer: &str, task: AccountTask) -> Result<AccountFacts, ActionError> {
        self.engine.run_account_task(issuer.to_owned(), &task).await
    }

    fn log(&self) -> LogView {
        self.log.view()
    }

    fn set_log_level(&self, level: &str) -> Result<LogView, String> {
        self.log.set_level(level)
    }

    fn events(&self) -> EventBus {
        self.engine.events().clone()
    }

    async fn test_notifications(&self, hook: Option<&str>) -> Option<Vec<TestOutcome>> {
        self.notifier.test(hook).await
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

/// The hosts of sites that none of `views` is for.
fn missing(config: &Config, views: &[CertificateView]) -> Vec<CertificateView> {
    let on_demand = |host: &Pattern| {
        let config = config.on_demand.as_ref();
        config.is_some_and(|config| on_demand::covers(config, host))
    };
    let mut known: HashSet<String> = views
        .iter()
        .flat_map(|view| view.names.iter().cloned())
        .collect();
    let mut missing = Vec::new();
    let sites = config.sites.iter().filter(|site| site.tls.is_terminated());
    for host in sites.flat_map(|site| &site.hosts) {
        let given = match host {
            Pattern::Any => true,
            Pattern::Exact(name) => {
                let above = name.parent().map(|parent| format!("*.{parent}"));
                above.is_some_and(|above| known.contains(&above)) || on_demand(host)
            }
            Pattern::Ip(_) => false,
            Pattern::Wildcard(_) => on_demand(host),
        };
        if !given && known.insert(host.to_string()) {
            missing.push(CertificateView::missing(vec![host.to_string()]));
        }
    }
    missing
}

/// Shows which certificates are not served for want of an OCSP response, and which are in their place.
fn withhold(views: &mut [CertificateView], withheld: Vec<Withheld>) {
    let withheld: HashMap<_, _> = withheld
        .into_iter()
        .map(|one| (one.certificate.fingerprint().to_string(), one.instead))
        .collect();
    for view in views {
        let known = view.fingerprint.as_ref().and_then(|own| withheld.get(own));
        if let Some(instead) = known {
            view.withhold(instead.as_ref().map(|one| one.describe().serial));
        }
    }
}

fn summary(reloaded: ReloadReport) -> ReloadSummary {
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

fn errors(refused: &reload::ReloadError) -> Vec<Value> {
    match refused {
        reload::ReloadError::Invalid(diagnostics) => {
            diagnostics.errors().map(|error| json!(error)).collect()
        }
        reload::ReloadError::Unable(why) => vec![json!({ "message": why })],
    }
}
