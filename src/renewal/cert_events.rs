//! The events of certificates that CAs are asked for.

use std::collections::HashSet;
use std::sync::Arc;

use super::deps::Deps;
use crate::certificate::{TlsCertificate, Validity};
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};
use crate::issuer::spec::CertSpec;
use crate::schedule::advice::Window;
use crate::schedule::{Alert, Failure, FailureClass, RenewedBy, Retry, WarnFrom};

/// Emits the events of one certificate.
pub(crate) struct CertEvents<'a> {
    deps: &'a Deps,
    spec: &'a CertSpec,
    now: UnixTime,
}

impl<'a> CertEvents<'a> {
    /// The events of the certificate that is obtained as `spec`, at `now`.
    pub(crate) fn new(deps: &'a Deps, spec: &'a CertSpec, now: UnixTime) -> Self {
        Self { deps, spec, now }
    }

    /// A stored certificate is served.
    pub(super) fn emit_loaded(&self, certificate: &TlsCertificate) {
        let domain = self.spec.domain();
        let end = certificate.not_after();
        let (severity, message) = match certificate.validity(self.now) {
            Validity::Valid => (
                Severity::Info,
                format!("the stored certificate for {domain} is served; it is valid until {end}"),
            ),
            Validity::Expired => (
                Severity::Critical,
                format!(
                    "the stored certificate for {domain} expired at {end}; it will be renewed as \
                     soon as possible"
                ),
            ),
            Validity::NotYet => (
                Severity::Error,
                format!(
                    "the stored certificate for {domain} is not valid before {}; is this \
                     machine's clock right?",
                    certificate.not_before()
                ),
            ),
        };
        let mut event = self.new_event(EventKind::CertificateLoaded, severity, message);
        event.issuer = Some(certificate.source().label().into());
        event.not_after = Some(certificate.not_after());
        self.deps.events.emit(event);
    }

    /// The CA advises to renew `certificate` in `window`; the renewal is planned for `at`.
    pub(super) fn emit_advised(&self, certificate: &TlsCertificate, window: &Window, at: UnixTime) {
        let domain = self.spec.domain();
        let is_at_once = window.end <= self.now;
        let (severity, advice) = match is_at_once {
            true => (Severity::Warning, "at once".to_owned()),
            false => {
                let (start, end) = (window.start, window.end);
                (Severity::Info, format!("between {start} and {end}"))
            }
        };
        let why = match (&window.url, is_at_once) {
            (Some(_), _) => "; see the CA's page for the reason",
            (None, true) => "; it may have been, or be about to be, revoked",
            (None, false) => "",
        };
        let then = match at > self.now {
            true => format!("; it will be renewed at {} or earlier", at),
            false => "; it is being renewed now".to_owned(),
        };
        let message =
            format!("the CA advises renewing the certificate for {domain} {advice}{why}{then}");
        let kind = EventKind::CertificateRenewalAdvised;
        let mut event = self.new_event(kind, severity, message);
        event.issuer = Some(certificate.source().label().into());
        event.next = Some(at.max(self.now));
        event.not_after = Some(certificate.not_after());
        event.url.clone_from(&window.url);
        self.deps.events.emit(event);
    }

    /// A certificate was obtained, or renewed.
    pub(super) fn emit_issued(
        &self,
        certificate: &TlsCertificate,
        issuer: Arc<str>,
        renewed: bool,
    ) {
        self.count_result(&issuer, "ok");
        let (kind, verb) = if renewed {
            (EventKind::CertificateRenewed, "renewed")
        } else {
            (EventKind::CertificateObtained, "obtained")
        };
        let message = format!(
            "{verb} the certificate for {} from {issuer}; it is valid until {}",
            self.spec.domain(),
            certificate.not_after()
        );
        let mut event = self.new_event(kind, Severity::Info, message);
        event.issuer = Some(issuer);
        event.not_after = Some(certificate.not_after());
        self.deps.events.emit(event);
    }

    /// A certificate was not obtained. `present` is still served, and due in the last `window` of
    /// its life. A CA that has paused waits for a person.
    pub(super) fn emit_failed(
        &self,
        present: Option<&TlsCertificate>,
        issuer: Arc<str>,
        failure: &Failure,
        retry: &Retry,
        (window, is_paused): (f64, bool),
    ) {
        let is_vetoed = failure.class == FailureClass::Vetoed;
        self.count_result(&issuer, if is_vetoed { "vetoed" } else { "failed" });
        let severity = match present {
            _ if is_paused => Severity::Critical,
            // Somebody has wanted it so.
            None if is_vetoed => Severity::Warning,
            None => Severity::Error,
            Some(present) => {
                let failures = retry.failures;
                let renewed_by = RenewedBy::Renewed { window, failures };
                let alert = Alert::for_lifetime(
                    &present.lifetime(),
                    renewed_by,
                    WarnFrom::default(),
                    self.now,
                );
                alert.map_or(Severity::Warning, |alert| alert.severity)
            }
        };
        let meanwhile = match present.map(|present| present.validity(self.now)) {
            None => "there is none",
            Some(Validity::Expired) => "the current one has expired but is still served",
            Some(_) => "the current one is still served",
        };
        let message = format!(
            "no new certificate for {}: {failure}; {meanwhile}; {}",
            self.spec.domain(),
            next_attempt(retry)
        );
        let kind = match is_vetoed {
            true => EventKind::CertificateVetoed,
            false => EventKind::CertificateFailed,
        };
        let mut event = self.new_event(kind, severity, message);
        event.reason = is_vetoed.then(|| failure.message.clone());
        event.issuer = Some(issuer);
        event.attempt = Some(retry.failures);
        event.next = retry.next;
        event.not_after = present.map(TlsCertificate::not_after);
        event.url.clone_from(&failure.url);
        self.deps.events.emit(event);
    }

    /// What has failed before is over, because of `why`; no issuer has issued the certificate now.
    pub(super) fn emit_recovered(&self, why: &str) {
        let message = format!("the certificate for {} {why}", self.spec.domain());
        let kind = EventKind::CertificateRecovered;
        let mut event = self.new_event(kind, Severity::Info, message);
        event.reason = Some("issuance".to_owned());
        self.deps.events.emit(event);
    }

    /// A certificate that a client has asked for is removed, or will not be renewed after `end`.
    pub(crate) fn emit_dropped(&self, what: &str, end: Option<UnixTime>) {
        let message = format!("the certificate for {} {what}", self.spec.domain());
        let mut event = self.new_event(EventKind::CertificateDropped, Severity::Info, message);
        event.not_after = end;
        self.deps.events.emit(event);
    }

    fn new_event(&self, kind: EventKind, severity: Severity, message: String) -> Event {
        Event::new(self.now, kind, severity, self.spec.domain(), message)
    }

    fn count_result(&self, issuer: &str, result: &str) {
        if let Some(renewals) = &self.deps.renewals {
            renewals.with_label_values(&[issuer, result]).inc();
        }
    }
}

/// Reports that the failures of `failing` are over, which are no longer configured, unless one of
/// `others` has the same name.
pub(super) fn emit_unneeded<'a>(
    failing: &[Arc<CertSpec>],
    others: impl Iterator<Item = &'a Arc<CertSpec>>,
    deps: &Deps,
) {
    if failing.is_empty() {
        return;
    }
    let others: HashSet<String> = others.map(|spec| spec.domain()).collect();
    for spec in failing
        .iter()
        .filter(|spec| !others.contains(&spec.domain()))
    {
        CertEvents::new(deps, spec, deps.clock.now()).emit_recovered("is no longer configured");
    }
}

/// The last failure in a line.
pub(super) fn last_failure(retry: &Retry) -> String {
    let Retry {
        message, failures, ..
    } = retry;
    format!("{message} (attempt {failures}; {})", next_attempt(retry))
}

fn next_attempt(retry: &Retry) -> String {
    match retry.next {
        Some(next) => format!("the next attempt is at {}", next),
        None => "no automatic retry; action is required".to_owned(),
    }
}
