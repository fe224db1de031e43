//! Which events report a trouble, and which report its end.
//!
//! A trouble has a key: the same for all events about it, whatever their kind. `validity/a.example` is
//! that of a certificate that expires soon and of one that has expired.

use crate::event::{Event, EventKind, Severity};

/// Kinds of events that report that a certificate was issued.
const ISSUED: [EventKind; 2] = [
    EventKind::CertificateObtained,
    EventKind::CertificateRenewed,
];

/// Troubles of a certificate that end with another one.
const ENDED_BY_ISSUANCE: [&str; 4] = ["issuance", "overdue", "validity", "revoked"];

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
        EventKind::StorageFailed => format!("storage/{domain}"),
        EventKind::UpstreamDown => upstream(event),
        EventKind::ConfigRejected => "config/".to_owned(),
        EventKind::CertificateLoaded
        | EventKind::CertificateRenewalAdvised
        | EventKind::CertificateObtaining
        | EventKind::CertificateProgress
        | EventKind::CertificateObtained
        | EventKind::CertificateRenewed
        | EventKind::CertificateDropped
        | EventKind::StorageRecovered
        | EventKind::UpstreamUp
        | EventKind::CertificateRecovered
        | EventKind::StapleRecovered
        | EventKind::ConfigReloaded
        | EventKind::NotificationTest => return None,
    })
}

/// The key of what is wrong with a served certificate, by the reason that the event and its end have
/// in common.
fn finding(event: &Event) -> String {
    let domain = &event.domain;
    match event.reason.as_deref().unwrap_or_default() {
        "validity" => format!("validity/{domain}"),
        "revoked" => format!("revoked/{domain}"),
        "renewal_overdue" => format!("overdue/{domain}"),
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
        EventKind::CertificateFailed | EventKind::CertificateVetoed => &ISSUED,
        EventKind::CertificateRenewalOverdue
        | EventKind::CertificateExpiring
        | EventKind::CertificateExpired
        | EventKind::CertificateNotYetValid
        | EventKind::CertificateRevoked => {
            let recovered = EventKind::CertificateRecovered;
            return ISSUED.into_iter().chain([recovered]).collect();
        }
        EventKind::CertificateFlawed => &[EventKind::CertificateRecovered],
        EventKind::StapleFailed => &[EventKind::StapleRecovered],
        EventKind::StorageFailed => &[EventKind::StorageRecovered],
        EventKind::UpstreamDown => &[EventKind::UpstreamUp],
        EventKind::ConfigRejected => &[EventKind::ConfigReloaded],
        _ => &[],
    };
    family.to_vec()
}

/// Returns true if a trouble with this key is emitted once and then lasts, so that the time alone
/// leads to its next report. Others are emitted again and again while they last.
pub(super) fn is_silent(key: &str) -> bool {
    !["issuance/", "ca_limited/"]
        .iter()
        .any(|family| key.starts_with(family))
}

/// Returns true if a trouble with this key that lasts is emitted again soon after a restart.
pub(super) fn is_found_again(key: &str) -> bool {
    is_silent(key)
        && !["staple/", "validation/"]
            .iter()
            .any(|family| key.starts_with(family))
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
    fn what_is_normal_is_no_trouble() {
        let one = event(EventKind::CertificateFailed, Severity::Info, "a.test");
        assert_eq!(key(&one), None);
    }
}
