//! The events of a certificate while it is being obtained.

use std::sync::Arc;

use super::super::job::{Deps, Job, JobIssuer};
use crate::event::{Event, EventKind, Severity};
use crate::schedule::{Failure, FailureClass};

impl Job {
    pub(super) fn emit_obtaining(&self, candidates: &[&JobIssuer], deps: &Deps) {
        let issuers: Vec<_> = candidates.iter().map(|one| &**one.name()).collect();
        let first = issuers.first().copied().unwrap_or_default();
        let verb = if self.present.is_some() {
            "renewing"
        } else {
            "obtaining"
        };
        let (domain, issuers) = (self.domain(), issuers.join(", else "));
        let mut message = format!("{verb} the certificate for {domain} from {issuers}");
        let mut url = None;
        if let Some(window) = &self.advised {
            message.push_str(", as its CA advises");
            url.clone_from(&window.url);
        }
        let (kind, severity) = (EventKind::CertificateObtaining, Severity::Info);
        self.emit_event(deps, &first.into(), kind, severity, message, url);
    }

    /// Tells that an issuer failed in whose place another gave the certificate.
    pub(super) fn emit_failed(
        &self,
        deps: &Deps,
        issuer: &Arc<str>,
        instead: &Arc<str>,
        failure: &Failure,
    ) {
        let message = format!("{issuer} issued no certificate, {instead} did instead: {failure}");
        let severity = if failure.class == FailureClass::Paused {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let kind = EventKind::CertificateFailed;
        self.emit_event(deps, issuer, kind, severity, message, failure.url.clone());
    }

    fn emit_event(
        &self,
        deps: &Deps,
        issuer: &Arc<str>,
        kind: EventKind,
        severity: Severity,
        message: String,
        url: Option<String>,
    ) {
        let at = deps.clock.now();
        let failures = self.retry.as_ref().map_or(0, |retry| retry.failures);
        let mut event = Event::new(at, kind, severity, self.domain(), message);
        event.issuer = Some(Arc::clone(issuer));
        event.attempt = Some(failures.saturating_add(1));
        event.url = url;
        deps.events.emit(event);
    }
}
