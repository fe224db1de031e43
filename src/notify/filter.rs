//! Which events a hook wants.

use super::trouble;
use crate::config::model::Hook;
use crate::event::{Event, EventKind, KindSet, Severity};
use crate::host::Pattern;

/// Steps of normal operation: patterns such as `*` leave them out, unless something is wrong.
const STEPS: [EventKind; 4] = [
    EventKind::CertificateLoaded,
    EventKind::CertificateObtaining,
    EventKind::CertificateProgress,
    EventKind::CertificateDropped,
];

/// The kinds of events that concern a hook: those that it wants, and those that end their troubles or
/// report them in another degree.
pub(super) fn kinds(hook: &Hook) -> KindSet {
    let all = EventKind::ALL.iter().copied();
    let wanted = all.filter(|kind| hook.on.contains(*kind));
    wanted
        .flat_map(|kind| {
            let others = trouble::degrees(kind).iter().copied();
            trouble::enders(kind)
                .into_iter()
                .chain(others)
                .chain([kind])
        })
        .collect()
}

/// Returns true if a hook wants an event.
pub(super) fn is_wanted(hook: &Hook, event: &Event) -> bool {
    let is_step = STEPS.contains(&event.kind) && event.severity == Severity::Info;
    hook.on.contains(event.kind)
        && (!is_step || hook.named.contains(event.kind))
        && event.severity >= hook.severity
        && (hook.sites.is_empty() || hook.sites.iter().any(|site| concerns(event, site)))
}

/// Returns true if an event is about a name that `site` covers.
fn concerns(event: &Event, site: &Pattern) -> bool {
    let domain = event.domain.as_str();
    if domain.is_empty() {
        return false;
    }
    match site {
        Pattern::Any => true,
        // The wildcard itself is a name of certificates.
        Pattern::Wildcard(parent) => {
            site.covers(domain) || domain.strip_prefix("*.") == Some(parent.as_str())
        }
        Pattern::Exact(_) => site.covers(domain),
        Pattern::Ip(_) => domain.parse() == Ok(site.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::notify::samples;

    fn event(kind: EventKind, severity: Severity, domain: &str) -> Event {
        Event::new(unix(1), kind, severity, domain, "")
    }

    #[test]
    fn events_are_filtered_by_kind_severity_and_site() {
        let failed = EventKind::CertificateFailed;
        let mut hook = samples::hook(&[failed, EventKind::StorageFailed]);
        hook.severity = Severity::Error;
        for (kind, severity, wanted) in [
            (failed, Severity::Critical, true),
            (failed, Severity::Error, true),
            (failed, Severity::Warning, false),
            (EventKind::CertificateExpired, Severity::Critical, false),
        ] {
            let event = event(kind, severity, "a.test");
            assert_eq!(is_wanted(&hook, &event), wanted, "{kind:?} {severity}");
        }
        let sites = ["*.a.test", "b.test", "192.0.2.1"];
        hook.sites = sites.map(|site| site.parse().expect("a pattern")).into();
        for (domain, wanted) in [
            ("www.a.test", true),
            ("*.a.test", true),
            ("a.test", false),
            ("b.test", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("c.test", false),
            ("", false),
        ] {
            let event = event(failed, Severity::Error, domain);
            assert_eq!(is_wanted(&hook, &event), wanted, "{domain}");
        }
        hook.sites = [Pattern::Any].into();
        assert!(!is_wanted(
            &hook,
            &event(EventKind::StorageFailed, Severity::Error, "")
        ));
    }

    #[test]
    fn steps_are_left_out_unless_they_are_named_or_went_wrong() {
        let obtaining = EventKind::CertificateObtaining;
        let mut hook = samples::hook(EventKind::ALL);
        hook.named = KindSet::default();
        assert!(!is_wanted(
            &hook,
            &event(obtaining, Severity::Info, "a.test")
        ));
        let loaded = event(EventKind::CertificateLoaded, Severity::Warning, "a.test");
        assert!(is_wanted(&hook, &loaded));
        hook.named.insert(obtaining);
        assert!(is_wanted(
            &hook,
            &event(obtaining, Severity::Info, "a.test")
        ));
    }

    #[test]
    fn the_ends_of_troubles_concern_those_who_want_the_troubles() {
        let kinds = kinds(&samples::hook(&[EventKind::CertificateFailed]));
        assert!(kinds.contains(EventKind::CertificateRenewed));
        assert!(!kinds.contains(EventKind::UpstreamUp));
    }
}
