//! Notifications for tests.

use super::{Entry, EntryState, Notification};
use crate::clock::{UnixTime, unix};
use crate::event::{Event, EventKind, Severity};

pub(super) const NOW: i64 = 1_790_000_000;

/// An event that is the first report of a trouble.
pub(super) fn entry(kind: EventKind, severity: Severity, domain: &str, message: &str) -> Entry {
    Entry {
        event: Event::new(unix(NOW - 60), kind, severity, domain, message),
        state: EntryState::Happened,
        trouble: Some(format!("issuance/{domain}")),
        since: unix(NOW - 3600),
        repeats: 0,
    }
}

pub(super) fn notification(entries: Vec<Entry>) -> Notification {
    let severity = entries.iter().map(|entry| entry.event.severity).max();
    Notification {
        id: "01JC3Z".to_owned(),
        at: unix(NOW),
        gateway: "gw1.example.net".to_owned(),
        severity: severity.expect("entries"),
        entries,
        omitted: 0,
    }
}

/// One trouble with everything that an event can have.
pub(super) fn one() -> Notification {
    let kind = EventKind::CertificateFailed;
    let message = "no new certificate for a.example: the CA refuses; choose another CA";
    let mut one = entry(kind, Severity::Critical, "a.example", message);
    one.state = EntryState::Ongoing;
    one.repeats = 3;
    one.event.issuer = Some("letsencrypt".into());
    one.event.attempt = Some(4);
    one.event.next = Some(unix(NOW + 600));
    one.event.not_after = Some(unix(NOW + 86_400));
    one.event.url = Some("https://letsencrypt.org/docs/caa/".to_owned());
    notification(vec![one])
}

/// A thousand troubles of three kinds, of which some are over.
pub(super) fn thousand() -> Notification {
    let mut entries = Vec::new();
    for number in 0..1000 {
        let (kind, severity) = match number % 10 {
            0 => (EventKind::CertificateExpired, Severity::Critical),
            1 => (EventKind::CertificateExpiring, Severity::Warning),
            _ => (EventKind::CertificateFailed, Severity::Error),
        };
        let domain = format!("site-{number}.customer.example");
        let message = format!("no new certificate for {domain}: the CA cannot be reached");
        let mut entry = entry(kind, severity, &domain, &message);
        if number % 100 == 99 {
            entry.state = EntryState::Recovered;
            entry.event.severity = Severity::Info;
        }
        entries.push(entry);
    }
    notification(entries)
}

/// Names and messages that try to be something else than text, and are as long as can be.
pub(super) fn hostile() -> Notification {
    let markup =
        "<!channel> <@U1> @everyone *bold* _it_ ~no~ `x` [a](http://evil) & \"q\" \\ \u{202e}";
    let entries = (0..1000).map(|number| {
        let message = format!("{markup}\n\r\u{1b}[31m{}", "🔒<&>*\"\\".repeat(200));
        let domain = format!("*.x_{number}.example");
        let mut entry = entry(
            EventKind::CertificateFailed,
            Severity::Error,
            &domain,
            &message,
        );
        entry.trouble = Some(format!("issuance/{domain}/{}", "y".repeat(300)));
        entry
    });
    notification(entries.collect())
}

pub(super) fn now() -> UnixTime {
    unix(NOW + 5)
}
