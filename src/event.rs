//! What happens to certificates and to the storage, told to whoever has to act.
//!
//! An [`EventBus`] writes each [`Event`] to the log, keeps the last of them and passes them on to
//! subscribers. It decides nothing and never waits for a subscriber.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::clock::{UnixTime, rfc3339};

/// How many events are kept for those who come later.
const KEPT: usize = 1000;

/// How many events a subscriber may be behind before it loses some.
const BEHIND: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A stored certificate was loaded and is served; not kept where all is well with it.
    CertificateLoaded,
    /// A CA advises to renew a certificate sooner than was known, or says why.
    CertificateRenewalAdvised,
    /// An issuer is being asked for a certificate.
    CertificateObtaining,
    /// A step on the way to a certificate; not kept.
    CertificateProgress,
    /// A first certificate was issued.
    CertificateObtained,
    /// A certificate was issued in the place of another.
    CertificateRenewed,
    /// An issuer did not give a certificate.
    CertificateFailed,
    /// A certificate ends soon, and nothing has replaced it.
    CertificateExpiring,
    /// A certificate has ended.
    CertificateExpired,
    /// A certificate's validity has not begun.
    CertificateNotYetValid,
    /// A certificate was revoked.
    CertificateRevoked,
    /// A CA has refused something for one of its limits: what that holds is not asked for until it
    /// ends.
    CaLimited,
    /// A certificate on demand is not renewed, or no longer kept; not kept itself.
    CertificateDropped,
    /// A record that proves a name for good ends soon, or has ended.
    ValidationExpiring,
    /// The storage cannot be read or written.
    StorageFailed,
    /// The storage can be used again.
    StorageRecovered,
}

impl EventKind {
    /// Every kind there is.
    pub const ALL: [Self; 16] = [
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
    ];

    /// The name by which programs know it, `certificate_failed`.
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
        }
    }
}

/// Who has to act, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nobody: the life of the gateway.
    Info,
    /// Someone, some day: it may mend itself.
    Warning,
    /// Someone, soon: it has not mended itself for long.
    Error,
    /// Someone, now: clients are refused, or soon will be.
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
    pub at: UnixTime,
    pub kind: EventKind,
    pub severity: Severity,
    /// The first name of the certificate; empty where it concerns none.
    pub domain: String,
    /// The issuer by its name in the configuration, `None` where none is concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub issuer: Option<Arc<str>>,
    /// Which attempt this was, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// When the next attempt is made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<UnixTime>,
    /// Until when the certificate concerned is valid.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_after: Option<UnixTime>,
    /// What happened, or why, for people; what to do about it.
    pub message: String,
    /// A page of the CA about it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
}

impl Event {
    /// An event with nothing but these.
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
            attempt: None,
            next: None,
            not_after: None,
            message: message.into(),
            url: None,
        }
    }
}

/// Where events go to. A handle; clones share the events.
#[derive(Clone)]
pub struct EventBus(Arc<Shared>);

struct Shared {
    kept: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            sender: broadcast::Sender::new(BEHIND),
        }))
    }
}

impl EventBus {
    /// Logs an event, keeps it and passes it on.
    pub fn emit(&self, event: Event) {
        log(&event);
        let event = Arc::new(event);
        if !is_passing(&event) {
            let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Arc::clone(&event));
        }
        // An error means that nobody listens.
        let _ = self.0.sender.send(event);
    }

    /// The last events, the oldest first.
    pub fn recent(&self) -> Vec<Arc<Event>> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    /// Every event from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.sender.subscribe()
    }
}

/// Whether an event is of no interest once it is over: what a start with thousands of certificates
/// loads, and what nobody uses any more, must not push out what went wrong.
fn is_passing(event: &Event) -> bool {
    match event.kind {
        EventKind::CertificateProgress | EventKind::CertificateDropped => true,
        EventKind::CertificateLoaded => event.severity == Severity::Info,
        _ => false,
    }
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
                attempt = event.attempt,
                next = event.next.map(rfc3339).as_deref(),
                not_after = event.not_after.map(rfc3339).as_deref(),
                url = event.url.as_deref(),
                "{}",
                event.message
            )
        };
    }
    match event.severity {
        _ if event.kind == EventKind::CertificateProgress => write_with!(debug),
        Severity::Info => write_with!(info),
        Severity::Warning => write_with!(warn),
        Severity::Error | Severity::Critical => write_with!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        Event::new(1, kind, Severity::Info, "a.test", "a message")
    }

    #[test]
    fn the_last_events_are_kept_and_progress_is_not() {
        let bus = EventBus::default();
        let mut subscriber = bus.subscribe();
        bus.emit(event(EventKind::CertificateProgress));
        for at in 0..=KEPT {
            let at = UnixTime::try_from(at).expect("small");
            bus.emit(Event {
                at,
                ..event(EventKind::CertificateFailed)
            });
        }
        let recent = bus.recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent.first().map(|event| event.at), Some(1));
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
