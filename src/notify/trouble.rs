//! Which events report a trouble, and which report its end.
//!
//! A trouble has a key: the same for all events about it, whatever their kind. `validity/a.example` is
//! that of a certificate that expires soon and of one that has expired.

use std::time::Duration;

use crate::event::{Event, EventKind, Severity, Survey};

/// How long after a start it is clear that a configuration is in use again.
const CONFIRMED: Duration = Duration::from_secs(120);

/// How long after a start a trouble is kept at most that has not been found again.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Kinds of events that report that a certificate was issued.
const ISSUED: [EventKind; 2] = [
    EventKind::CertificateObtained,
    EventKind::CertificateRenewed,
];

/// Troubles of a certificate that end with another one. The others end when all certificates that
/// are served have been checked: another one of the same name may still be in trouble.
const ENDED_BY_ISSUANCE: [&str; 2] = ["issuance", "revoked"];

/// Kinds of events that report the same trouble in different degrees.
const VALIDITY: [EventKind; 3] = [
    EventKind::CertificateExpiring,
    EventKind::CertificateExpired,
    EventKind::CertificateNotYetValid,
];

/// The key of the trouble that an event reports; `None` if it reports none.
pub(super) fn key(event: &Event) -> Option<String> {
    if event.severity == Severity::Info {
        return None;
    }
    let domain = &event.domain;
    Some(match event.kind {
        EventKind::CertificateFailed | EventKind::CertificateVetoed => format!("issuance/{domain}"),
        EventKind::CertificateRenewalOverdue => format!("overdue/{domain}"),
        EventKind::CertificateExpiring
        | EventKind::CertificateExpired
        | EventKind::CertificateNotYetValid => format!("validity/{domain}"),
        EventKind::CertificateFlawed => finding(event),
        EventKind::CertificateRevoked => format!("revoked/{domain}"),
        EventKind::StapleFailed => format!("staple/{domain}"),
        EventKind::ValidationExpiring => format!("validation/{domain}"),
        EventKind::CaLimited => {
            let issuer = event.issuer.as_deref().unwrap_or_default();
            format!("ca_limited/{issuer}/{domain}")
        }
        // Otherwise it is about one value, and over at once.
        EventKind::StorageFailed if event.severity == Severity::Critical => "storage/".to_owned(),
        EventKind::UpstreamDown => upstream(event),
        EventKind::ConfigRejected => "config/".to_owned(),
        EventKind::CertificateLoaded
        | EventKind::CertificateRenewalAdvised
        | EventKind::CertificateObtaining
        | EventKind::CertificateProgress
        | EventKind::CertificateObtained
        | EventKind::CertificateRenewed
        | EventKind::CertificateDropped
        | EventKind::StorageFailed
        | EventKind::StorageRecovered
        | EventKind::UpstreamUp
        | EventKind::CertificateRecovered
        | EventKind::StapleRecovered
        | EventKind::ConfigReloaded
        | EventKind::NotificationTest => return None,
    })
}

/// The key of what is wrong with a certificate, by the reason that the event and its end have in
/// common.
fn finding(event: &Event) -> String {
    let domain = &event.domain;
    match event.reason.as_deref().unwrap_or_default() {
        "validity" => format!("validity/{domain}"),
        "revoked" => format!("revoked/{domain}"),
        "renewal_overdue" => format!("overdue/{domain}"),
        "issuance" => format!("issuance/{domain}"),
        "validation" => format!("validation/{domain}"),
        reason => format!("flaw/{domain}/{reason}"),
    }
}

fn upstream(event: &Event) -> String {
    let upstream = event.upstream.as_deref().unwrap_or_default();
    let server = event.server.as_deref().unwrap_or_default();
    format!("upstream/{upstream}/{server}")
}

/// The troubles that an event ends.
pub(super) enum Ended {
    /// Those with these keys.
    Keys(Vec<String>),
    /// Those whose keys begin so.
    Prefix(&'static str),
}

/// What an event ends.
pub(super) fn ended(event: &Event) -> Ended {
    let domain = &event.domain;
    let of_domain = |families: &[&str]| {
        let keys = families.iter().map(|family| format!("{family}/{domain}"));
        Ended::Keys(keys.collect())
    };
    match event.kind {
        EventKind::CertificateObtained | EventKind::CertificateRenewed => {
            of_domain(&ENDED_BY_ISSUANCE)
        }
        EventKind::CertificateRecovered => Ended::Keys(vec![finding(event)]),
        EventKind::StapleRecovered => of_domain(&["staple"]),
        EventKind::UpstreamUp => Ended::Keys(vec![upstream(event)]),
        EventKind::StorageRecovered => Ended::Prefix("storage/"),
        EventKind::ConfigReloaded => Ended::Prefix("config/"),
        _ => Ended::Keys(Vec::new()),
    }
}

/// The kinds of events that end a trouble reported by an event of this kind.
pub(super) fn enders(kind: EventKind) -> Vec<EventKind> {
    let family: &[EventKind] = match kind {
        EventKind::CertificateFailed
        | EventKind::CertificateVetoed
        | EventKind::CertificateRevoked => {
            let recovered = EventKind::CertificateRecovered;
            return ISSUED.into_iter().chain([recovered]).collect();
        }
        EventKind::CertificateRenewalOverdue
        | EventKind::CertificateExpiring
        | EventKind::CertificateExpired
        | EventKind::CertificateNotYetValid
        | EventKind::CertificateFlawed
        | EventKind::ValidationExpiring => &[EventKind::CertificateRecovered],
        EventKind::StapleFailed => &[EventKind::StapleRecovered],
        EventKind::StorageFailed => &[EventKind::StorageRecovered],
        EventKind::UpstreamDown => &[EventKind::UpstreamUp],
        EventKind::ConfigRejected => &[EventKind::ConfigReloaded],
        _ => &[],
    };
    family.to_vec()
}

/// The other kinds of events that report the same trouble in another degree.
pub(super) fn degrees(kind: EventKind) -> &'static [EventKind] {
    match VALIDITY.contains(&kind) {
        true => &VALIDITY,
        false => &[],
    }
}

/// Returns true if a trouble with this key is emitted once and then lasts, however long nothing is
/// heard of it. Others are emitted again and again while they last, some only after days.
pub(super) fn is_silent(key: &str) -> bool {
    confirmation(key) != Confirmation::Emission
}

/// How it is known after a start that a trouble is over which was reported before it, and which no
/// event has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// It is not known: the trouble is emitted again and again, some time.
    Emission,
    /// It has not been emitted when this is complete.
    Survey(Survey),
    /// It has not been emitted within this time.
    Within(Duration),
    /// It has not been emitted within the time that the health checks of its upstream need.
    HealthChecks,
}

/// How it is known after a start that a trouble with this key is over.
pub(super) fn confirmation(key: &str) -> Confirmation {
    let (family, _) = key.split_once('/').unwrap_or((key, ""));
    match family {
        "issuance" | "ca_limited" | "validation" => Confirmation::Emission,
        "validity" | "flaw" | "overdue" => Confirmation::Survey(Survey::Certificates),
        "storage" => Confirmation::Survey(Survey::Storage),
        "upstream" => Confirmation::HealthChecks,
        // Responders and lists are asked one by one, and may not answer.
        "revoked" | "staple" => Confirmation::Within(DAY),
        _ => Confirmation::Within(CONFIRMED),
    }
}

/// Returns true if the severity of a trouble with this key does not rise unless it is raised here.
pub(super) fn is_flat(key: &str) -> bool {
    !["issuance/", "overdue/", "staple/", "validity/"]
        .iter()
        .any(|family| key.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn event(kind: EventKind, severity: Severity, domain: &str) -> Event {
        Event::new(unix(1), kind, severity, domain, "")
    }

    #[test]
    fn every_trouble_that_an_event_ends_is_among_its_enders() {
        for kind in EventKind::ALL {
            let Some(key) = key(&event(*kind, Severity::Critical, "a.test")) else {
                assert!(enders(*kind).is_empty(), "{kind:?}");
                continue;
            };
            // What is wrong with a certificate ends for the reason that it was reported for.
            let reason = match kind {
                EventKind::CertificateRenewalOverdue => Some("renewal_overdue"),
                EventKind::CertificateRevoked => Some("revoked"),
                EventKind::CertificateFlawed => None,
                EventKind::CertificateFailed | EventKind::CertificateVetoed => Some("issuance"),
                EventKind::ValidationExpiring => Some("validation"),
                _ => Some("validity"),
            };
            for ender in EventKind::ALL {
                let mut end = event(*ender, Severity::Info, "a.test");
                end.reason = reason.map(str::to_owned);
                let ends = match ended(&end) {
                    Ended::Keys(keys) => keys.contains(&key),
                    Ended::Prefix(prefix) => key.starts_with(prefix),
                };
                assert_eq!(ends, enders(*kind).contains(ender), "{kind:?} {ender:?}");
            }
        }
    }

    #[test]
    fn the_end_of_one_flaw_is_not_that_of_another() {
        let mut flaw = event(EventKind::CertificateFlawed, Severity::Error, "a.test");
        flaw.reason = Some("weak_key".to_owned());
        let mut end = event(EventKind::CertificateRecovered, Severity::Info, "a.test");
        for (reason, ends) in [
            ("weak_key", true),
            ("chain_order", false),
            ("validity", false),
        ] {
            end.reason = Some(reason.to_owned());
            let Ended::Keys(keys) = ended(&end) else {
                panic!("they have keys")
            };
            let key = key(&flaw).expect("a trouble");
            assert_eq!(keys.contains(&key), ends, "{reason}");
        }
    }

    #[test]
    fn what_is_normal_or_over_at_once_is_no_trouble() {
        let one = event(EventKind::CertificateFailed, Severity::Info, "a.test");
        assert_eq!(key(&one), None);
        // One value could not be stored: nothing will say that it is over.
        let one = event(EventKind::StorageFailed, Severity::Error, "");
        assert_eq!(key(&one), None);
    }
}
