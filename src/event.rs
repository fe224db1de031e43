//! What happens to certificates, to the storage and to upstreams, for whoever has to act.
//!
//! An [`EventBus`] writes each [`Event`] to the log, keeps the last ones and passes them on to
//! subscribers and sinks. It decides nothing and never waits for either.

mod kinds;
mod sink;
mod survey;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::clock::UnixTime;
use crate::lock::MutexExt;

pub use self::kinds::KindSet;
pub use self::sink::EventSink;
pub use self::survey::Survey;
use self::survey::Surveys;

/// How many events are kept for late subscribers.
const KEPT: usize = 1000;

/// How many events a subscriber may lag behind before it loses some.
const BEHIND: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A stored certificate was loaded and is served; not kept if nothing is wrong with it.
    CertificateLoaded,
    /// A CA suggests to renew a certificate earlier than was known, or says why.
    CertificateRenewalAdvised,
    /// An issuer is being asked for a certificate.
    CertificateObtaining,
    /// A step on the way to a certificate; not kept.
    CertificateProgress,
    /// A first certificate was issued.
    CertificateObtained,
    /// A certificate was issued in place of another.
    CertificateRenewed,
    /// An issuer did not issue a certificate.
    CertificateFailed,
    /// A certificate expires soon, and nothing has replaced it.
    CertificateExpiring,
    /// A certificate has expired.
    CertificateExpired,
    /// A certificate is not valid yet.
    CertificateNotYetValid,
    /// A certificate was revoked.
    CertificateRevoked,
    /// A CA has refused something because of a limit: nothing that it covers is requested until it
    /// ends.
    CaLimited,
    /// A certificate on demand is not renewed, or no longer kept; the event itself is not kept.
    CertificateDropped,
    /// A persistent record that validates a name expires soon, or has expired.
    ValidationExpiring,
    /// The storage cannot be read or written.
    StorageFailed,
    /// The storage can be used again.
    StorageRecovered,
    /// Health checks have found that a server of an upstream does not work.
    UpstreamDown,
    /// Health checks have found that it works again.
    UpstreamUp,
    /// What an earlier event said of a served certificate no longer holds.
    CertificateRecovered,
    /// A served certificate has a flaw that clients object to: its chain is incomplete, it does not
    /// cover a name that it is served for, or its key or its signature is weak.
    CertificateFlawed,
    /// A certificate should have been renewed by now.
    CertificateRenewalOverdue,
    /// A hook did not let a certificate be obtained.
    CertificateVetoed,
    /// No OCSP response can be had for a certificate.
    StapleFailed,
    /// OCSP responses can be had again.
    StapleRecovered,
    /// A changed configuration is in use.
    ConfigReloaded,
    /// A changed configuration has errors; the one before it stays in use.
    ConfigRejected,
    /// Somebody wants to know whether notifications arrive; nothing has happened.
    NotificationTest,
}

impl EventKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::CertificateLoaded,
        Self::CertificateRenewalAdvised,
        Self::CertificateObtaining,
        Self::CertificateProgress,
        Self::CertificateObtained,
        Self::CertificateRenewed,
        Self::CertificateFailed,
        Self::CertificateExpiring,
        Self::CertificateExpired,
        Self::CertificateNotYetValid,
        Self::CertificateRevoked,
        Self::CaLimited,
        Self::CertificateDropped,
        Self::ValidationExpiring,
        Self::StorageFailed,
        Self::StorageRecovered,
        Self::UpstreamDown,
        Self::UpstreamUp,
        Self::CertificateRecovered,
        Self::CertificateFlawed,
        Self::CertificateRenewalOverdue,
        Self::CertificateVetoed,
        Self::StapleFailed,
        Self::StapleRecovered,
        Self::ConfigReloaded,
        Self::ConfigRejected,
        Self::NotificationTest,
    ];

    /// The name for programs, such as `certificate_failed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CertificateLoaded => "certificate_loaded",
            Self::CertificateRenewalAdvised => "certificate_renewal_advised",
            Self::CertificateObtaining => "certificate_obtaining",
            Self::CertificateProgress => "certificate_progress",
            Self::CertificateObtained => "certificate_obtained",
            Self::CertificateRenewed => "certificate_renewed",
            Self::CertificateFailed => "certificate_failed",
            Self::CertificateExpiring => "certificate_expiring",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateRevoked => "certificate_revoked",
            Self::CaLimited => "ca_limited",
            Self::CertificateDropped => "certificate_dropped",
            Self::ValidationExpiring => "validation_expiring",
            Self::StorageFailed => "storage_failed",
            Self::StorageRecovered => "storage_recovered",
            Self::UpstreamDown => "upstream_down",
            Self::UpstreamUp => "upstream_up",
            Self::CertificateRecovered => "certificate_recovered",
            Self::CertificateFlawed => "certificate_flawed",
            Self::CertificateRenewalOverdue => "certificate_renewal_overdue",
            Self::CertificateVetoed => "certificate_vetoed",
            Self::StapleFailed => "staple_failed",
            Self::StapleRecovered => "staple_recovered",
            Self::ConfigReloaded => "config_reloaded",
            Self::ConfigRejected => "config_rejected",
            Self::NotificationTest => "notification_test",
        }
    }
}

/// Who has to act, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nobody: this is normal operation.
    Info,
    /// Somebody, some day: it may resolve itself.
    Warning,
    /// Somebody, soon: it has not resolved itself for long.
    Error,
    /// Somebody, now: clients are refused, or soon will be.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        })
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in seconds since the Unix epoch.
    pub at: UnixTime,
    /// What happened.
    pub kind: EventKind,
    /// Who has to act, and when.
    pub severity: Severity,
    /// The first name of the certificate; empty if none is concerned.
    pub domain: String,
    /// The issuer by its name in the configuration; `None` if none is concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<Arc<str>>,
    /// The upstream by its name in the configuration; `None` if none is concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<Arc<str>>,
    /// The address of the upstream's server.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<Box<str>>,
    /// What is wrong with a served certificate, by its name for programs, the same in the event that
    /// reports it and in the one that says that it is over; why the health check of a server
    /// failed; or why a hook objects.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The number of the attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// When the next attempt is made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<UnixTime>,
    /// Until when the certificate is valid.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_after: Option<UnixTime>,
    /// What happened, or why, for people; and what to do about it.
    pub message: String,
    /// A page of the CA about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
}

impl Event {
    /// An event with only these members.
    pub fn new(
        at: UnixTime,
        kind: EventKind,
        severity: Severity,
        domain: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            at,
            kind,
            severity,
            domain: domain.into(),
            issuer: None,
            upstream: None,
            server: None,
            reason: None,
            attempt: None,
            next: None,
            not_after: None,
            message: message.into(),
            url: None,
        }
    }
}

/// Where events go. A handle; clones share the events.
#[derive(Clone)]
pub struct EventBus(Arc<Shared>);

struct Shared {
    kept: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
    sinks: Mutex<Vec<Weak<sink::Shared>>>,
    surveys: Arc<Surveys>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            sender: broadcast::Sender::new(BEHIND),
            sinks: Mutex::default(),
            surveys: Arc::default(),
        }))
    }
}

impl EventBus {
    /// Logs an event, keeps it and passes it on.
    pub fn emit(&self, event: Event) {
        log(&event);
        let event = Arc::new(event);
        if !is_passing(&event) {
            let mut kept = self.0.kept.lock_unpoisoned();
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Arc::clone(&event));
        }
        self.0.sinks.lock_unpoisoned().retain(|sink| {
            let sink = sink.upgrade();
            sink.is_some_and(|sink| {
                sink.push(&event);
                true
            })
        });
        // An error means that nobody listens.
        let _ = self.0.sender.send(event);
    }

    /// Collects the events of these kinds from now on, for a reader that may be slow.
    pub fn open_sink(&self, kinds: KindSet) -> EventSink {
        let sink = EventSink::new(kinds, Arc::clone(&self.0.surveys));
        self.0.sinks.lock_unpoisoned().push(sink.downgrade());
        sink
    }

    /// Notes that a survey is complete: what it has found has been emitted.
    pub fn complete(&self, survey: Survey) {
        if self.0.surveys.complete(survey) {
            let sinks = self.0.sinks.lock_unpoisoned();
            let sinks = sinks.iter().filter_map(Weak::upgrade);
            sinks.for_each(|sink| sink.wake());
        }
    }

    /// The last events, oldest first.
    pub fn recent(&self) -> Vec<Arc<Event>> {
        let kept = self.0.kept.lock_unpoisoned();
        kept.iter().cloned().collect()
    }

    /// Every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.sender.subscribe()
    }
}

/// Returns true if an event is of no interest once it is over: the certificates that a start loads
/// by the thousands, and those that nobody uses any more, must not push out what went wrong.
fn is_passing(event: &Event) -> bool {
    match event.kind {
        EventKind::CertificateProgress | EventKind::CertificateDropped => true,
        EventKind::CertificateLoaded => event.severity == Severity::Info,
        _ => false,
    }
}

/// Returns true if events of this kind are too many for the log, or if each reload logs more than they
/// say.
fn is_quiet(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::CertificateProgress | EventKind::ConfigReloaded | EventKind::ConfigRejected
    )
}

/// Tracing has no level above error: the severity is a field.
fn log(event: &Event) {
    macro_rules! write_with {
        ($level:ident) => {
            tracing::$level!(
                kind = event.kind.as_str(),
                severity = %event.severity,
                domain = %event.domain,
                issuer = event.issuer.as_deref(),
                upstream = event.upstream.as_deref(),
                server = event.server.as_deref(),
                reason = event.reason.as_deref(),
                attempt = event.attempt,
                next = event.next.map(|at| at.to_string()).as_deref(),
                not_after = event.not_after.map(|at| at.to_string()).as_deref(),
                url = event.url.as_deref(),
                "{}",
                event.message
            )
        };
    }
    match event.severity {
        _ if is_quiet(event.kind) => write_with!(debug),
        Severity::Info => write_with!(info),
        Severity::Warning => write_with!(warn),
        Severity::Error | Severity::Critical => write_with!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn event(kind: EventKind) -> Event {
        Event::new(unix(1), kind, Severity::Info, "a.test", "a message")
    }

    #[test]
    fn the_last_events_are_kept_and_progress_is_not() {
        let bus = EventBus::default();
        let mut subscriber = bus.subscribe();
        bus.emit(event(EventKind::CertificateProgress));
        for at in 0..=KEPT {
            let at = unix(i64::try_from(at).expect("small"));
            bus.emit(Event {
                at,
                ..event(EventKind::CertificateFailed)
            });
        }
        let recent = bus.recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent.first().map(|event| event.at), Some(unix(1)));
        let first = subscriber.try_recv().expect("passed on");
        assert_eq!(first.kind, EventKind::CertificateProgress);
    }

    #[test]
    fn names_are_the_same_in_json_and_in_code() {
        let json = serde_json::to_value(event(EventKind::CertificateNotYetValid)).expect("JSON");
        assert_eq!(
            json.get("kind").and_then(|kind| kind.as_str()),
            Some(EventKind::CertificateNotYetValid.as_str())
        );
        assert!(json.get("next").is_none(), "{json}");
    }
}
