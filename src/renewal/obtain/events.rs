//! The events of a certificate while it is being obtained.

use std::sync::Arc;

use super::super::deps::Deps;
use super::super::job::{Job, JobIssuer};
use crate::event::{Event, EventKind, Severity};
use crate::schedule::{Failure, FailureClass};

/// The job begins to ask `candidates`.
pub(super) fn obtaining(job: &Job, candidates: &[&JobIssuer], deps: &Deps) -> Event {
    let issuers: Vec<_> = candidates.iter().map(|one| &**one.name()).collect();
    let first = issuers.first().copied().unwrap_or_default();
    let verb = if job.present.is_some() {
        "renewing"
    } else {
        "obtaining"
    };
    let (domain, issuers) = (job.domain(), issuers.join(", else "));
    let mut message = format!("{verb} the certificate for {domain} from {issuers}");
    let mut url = None;
    if let Some(window) = &job.advised {
        message.push_str(", as its CA advises");
        url.clone_from(&window.url);
    }
    let (kind, severity) = (EventKind::CertificateObtaining, Severity::Info);
    new_event(job, deps, &first.into(), kind, severity, message, url)
}

/// An issuer failed, and another issued the certificate in its place.
pub(super) fn emit_replaced(
    job: &Job,
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
    let url = failure.url.clone();
    let event = new_event(job, deps, issuer, kind, severity, message, url);
    deps.events.emit(event);
}

fn new_event(
    job: &Job,
    deps: &Deps,
    issuer: &Arc<str>,
    kind: EventKind,
    severity: Severity,
    message: String,
    url: Option<String>,
) -> Event {
    let at = deps.clock.now();
    let failures = job.retry.as_ref().map_or(0, |retry| retry.failures);
    let mut event = Event::new(at, kind, severity, job.domain(), message);
    event.issuer = Some(Arc::clone(issuer));
    event.attempt = Some(failures.saturating_add(1));
    event.url = url;
    event
}
