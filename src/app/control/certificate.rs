//! Certificates as the admin interface shows them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::admin::{FindingView, HeldView, LastFailure, Managed};
use crate::certificate::finding::{describe, findings};
use crate::certificate::{RenewalFacts, Source, TlsCertificate};
use crate::clock::UnixTime;
use crate::config::model::{Config, Issuer};
use crate::engine::{Engine, Judgement};
use crate::manager::TlsManager;
use crate::renewal::ManagedView;
use crate::schedule::{CertState, Failure, FailureClass, RenewedBy};

/// Judges certificates as the validity service does.
pub(super) struct Judge {
    judgement: Judgement,
    now: UnixTime,
}

impl Judge {
    pub(super) fn new(engine: &Engine) -> Self {
        Self {
            judgement: engine.judgement(),
            now: engine.clock().now(),
        }
    }

    /// What is wrong with `certificate`.
    pub(super) fn findings(
        &self,
        certificate: &TlsCertificate,
        facts: &RenewalFacts,
    ) -> Vec<FindingView> {
        let found = findings(certificate, facts, self.judgement.warn, self.now);
        let views = found.iter().map(|finding| FindingView {
            state: finding.state().to_owned(),
            severity: finding.severity,
            message: describe(finding, certificate, facts),
        });
        views.collect()
    }
}

/// Why clients refuse what local CAs issue, by their names.
pub(super) fn not_yet_valid(manager: &TlsManager, config: &Config) -> HashMap<Arc<str>, String> {
    let issuers = config.issuers.iter();
    let locals = issuers.filter(|(_, issuer)| matches!(issuer, Issuer::LocalCa { .. }));
    locals
        .filter_map(|(name, _)| Some((Arc::clone(name), manager.not_yet_valid(name)?)))
        .collect()
}

/// A certificate of a local CA, as the admin interface shows it; `None` for one of another issuer.
pub(super) fn of_local_ca(
    certificate: &Arc<TlsCertificate>,
    window: f64,
    on_demand: bool,
    not_yet_valid: &HashMap<Arc<str>, String>,
    judge: &Judge,
) -> Option<Managed> {
    let Source::Issuer(issuer) = certificate.source() else {
        return None;
    };
    let last_failure = not_yet_valid.get(issuer).map(|why| LastFailure {
        at: certificate.not_before(),
        issuer: Some(Arc::clone(issuer)),
        failure: Failure::new(FailureClass::Clock, why.clone()),
    });
    let due = certificate.lifetime().due_at(window);
    let facts = RenewalFacts {
        renewed_by: RenewedBy::Renewed {
            window,
            failures: 0,
        },
        // One for a client is not renewed before another client asks.
        expected: (!on_demand).then_some(due),
        is_revoked: false,
        expects_must_staple: false,
    };
    Some(Managed {
        findings: judge.findings(certificate, &facts),
        names: certificate.names().to_vec(),
        issuers: vec![Arc::clone(issuer)],
        revoked: false,
        obtaining: false,
        on_demand,
        next: Some(due),
        held: None,
        unread: None,
        advice: None,
        failures: u32::from(last_failure.is_some()),
        last_failure,
        certificate: Some(Arc::clone(certificate)),
    })
}

/// A certificate that is obtained by jobs, as the admin interface shows it.
pub(super) fn of_ca(view: ManagedView, judge: &Judge) -> Managed {
    let retry = view.retry.as_ref();
    let certificate = view.certificate.as_ref();
    Managed {
        findings: certificate.map_or_else(Vec::new, |one| judge.findings(one, &view.facts)),
        revoked: view.is_revoked,
        obtaining: view.state == CertState::Obtaining,
        on_demand: view.is_on_demand,
        next: view.next,
        held: view.held.map(|held| HeldView {
            message: held.wait.to_string(),
            scope: held.wait.reason.as_str().to_owned(),
            until: held.wait.until,
            issuer: held.issuer.to_string(),
        }),
        unread: view.unread,
        advice: view.advice,
        failures: retry.map_or(0, |retry| retry.failures),
        last_failure: retry.map(|retry| LastFailure {
            at: retry.last,
            issuer: retry.issuer.as_deref().map(Arc::from),
            failure: Failure {
                url: retry.url.clone(),
                ..Failure::new(retry.class, retry.message.clone())
            },
        }),
        names: view.names,
        issuers: view.issuers,
        certificate: view.certificate,
    }
}
