//! What people and programs are told of a finding, and of its end.

use super::pass::{Found, Pass, Subject};
use crate::certificate::finding::describe;
use crate::certificate::{Finding, Reason};
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};
use crate::host::Pattern;
use crate::printable::Printable as _;
use crate::renewal::MonitoredCert;
use crate::schedule::RenewedBy;

/// The event that reports a finding about `name`. Reads the certificate if it is not in memory.
pub(super) fn begun(name: &Pattern, found: &Found, now: UnixTime) -> Event {
    let finding = &found.finding;
    let mut event = match &found.subject {
        Subject::Certificate(watched) => of_certificate(name, finding, watched, now),
        Subject::Host(why) => {
            let message = format!("no certificate is served that covers {name}: {why}");
            Event::new(
                now,
                finding.kind,
                finding.severity,
                name.to_string(),
                message,
            )
        }
    };
    event.reason = Some(finding.reason.as_str().to_owned());
    event
}

fn of_certificate(
    name: &Pattern,
    finding: &Finding,
    watched: &MonitoredCert,
    now: UnixTime,
) -> Event {
    let MonitoredCert {
        certificate,
        facts,
        retry,
        ..
    } = watched;
    let place = certificate
        .source()
        .path()
        .map_or_else(String::new, |path| format!(" ({})", path.printable()));
    let what = describe(finding, certificate, facts);
    let then = what_follows(finding, watched).map_or_else(String::new, |then| format!("; {then}"));
    let message = format!("the certificate for {name}{place} {what}{then}");
    let mut event = Event::new(
        now,
        finding.kind,
        finding.severity,
        name.to_string(),
        message,
    );
    event.issuer = Some(certificate.source().label().into());
    event.not_after = Some(certificate.served_until());
    if let Some(retry) = retry {
        event.attempt = Some(retry.failures);
        event.next = retry.next;
        event.url.clone_from(&retry.url);
    }
    event
}

/// What happens next, or what is to be done about it.
fn what_follows(finding: &Finding, watched: &MonitoredCert) -> Option<String> {
    let MonitoredCert {
        certificate,
        facts,
        retry,
        delay,
        ..
    } = watched;
    let chain_end = certificate.chain_end();
    let chain_ends_first = chain_end.is_some_and(|(end, _)| end < certificate.not_after());
    let is_by_hand = facts.renewed_by == RenewedBy::ByHand;
    let is_in_file = certificate.source().path().is_some();
    match finding.kind {
        // The flaw says what to do about it in a file.
        EventKind::CertificateFlawed if is_by_hand => None,
        EventKind::CertificateFlawed => {
            Some("a new one may be better: run 'snigate certs renew'".to_owned())
        }
        EventKind::CertificateRevoked => Some("a replacement is being obtained".to_owned()),
        EventKind::CertificateRenewalOverdue => delay.clone(),
        EventKind::CertificateNotYetValid if retry.is_none() => {
            Some("clients refuse it until then: is the clock of this machine right?".to_owned())
        }
        _ if is_by_hand && is_in_file => {
            Some("replace its file; the new one is loaded at once".to_owned())
        }
        _ if is_by_hand => Some("replace it".to_owned()),
        _ => Some(match retry {
            Some(retry) => {
                let often = match retry.failures {
                    ..=1 => "once".to_owned(),
                    more => format!("{more} times"),
                };
                format!("its renewal has failed {often}: {}", retry.message)
            }
            None if chain_ends_first => {
                "a new certificate may come with a current one: run 'snigate certs renew'"
                    .to_owned()
            }
            None => "its renewal is due".to_owned(),
        }),
    }
}

/// The event that says that a finding about `name` is over.
pub(super) fn over(name: &Pattern, finding: &Finding, pass: &Pass) -> Event {
    let served = match name {
        Pattern::Exact(host) => pass.map.lookup(host.as_str()),
        other => pass.map.get(other),
    };
    let served = served.and_then(|set| set.by_kind.first());
    let message = match served {
        None if finding.reason == Reason::NameNotCovered => {
            format!("{name} needs no certificate any more: it is no longer configured")
        }
        None => format!(
            "the certificate for {name} is no longer served: what was reported of it is over"
        ),
        Some(served) => {
            let what = match finding.reason {
                Reason::Validity => "is valid",
                Reason::Revoked => "is not revoked",
                Reason::ChainIncomplete => "has a complete chain",
                Reason::ChainOrder => "has a chain in the right order",
                Reason::NameNotCovered => "covers it",
                Reason::WeakSignature => "has no weak signature in its chain",
                Reason::WeakKey => "has no weak key in its chain",
                Reason::RenewalOverdue => "is not overdue for renewal",
                Reason::NoMustStaple => "is as its issuer is asked for it",
            };
            let end = served.served_until();
            format!("the certificate that is served for {name} now {what}; it is valid until {end}")
        }
    };
    let kind = EventKind::CertificateRecovered;
    let mut event = Event::new(pass.now, kind, Severity::Info, name.to_string(), message);
    event.reason = Some(finding.reason.as_str().to_owned());
    if let Some(served) = served {
        event.issuer = Some(served.source().label().into());
        event.not_after = Some(served.served_until());
    }
    event
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::certificate::finding::findings;
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::certificate::{Loader, RenewalFacts};
    use crate::schedule::{Failure, FailureClass, Retry, WarnFrom};

    /// What is reported of a certificate that is valid from `from` to `to` days after now.
    fn told(from: i64, to: i64, renewed_by: RenewedBy, retry: Option<Retry>) -> String {
        let loader = Loader::new().expect("a loader");
        let (from, to) = (NOW + from * DAY, NOW + to * DAY);
        let facts = RenewalFacts {
            renewed_by,
            ..RenewalFacts::BY_HAND
        };
        let certificate = TestCa::new("told").certificate(&loader, &["a.test"], from, to);
        let found = findings(&certificate, &facts, WarnFrom::default(), NOW);
        let watched = MonitoredCert {
            retry,
            ..MonitoredCert::new(certificate, facts)
        };
        let found = Found {
            finding: found[0],
            subject: Subject::Certificate(Arc::new(watched)),
        };
        begun(&"a.test".parse().expect("a name"), &found, NOW).message
    }

    #[test]
    fn one_that_is_not_valid_yet_is_a_matter_of_the_clock() {
        let renewed = RenewedBy::Renewed {
            window: 1.0 / 3.0,
            failures: 0,
        };
        for renewed_by in [renewed, RenewedBy::ByHand] {
            assert_eq!(
                told(1, 90, renewed_by, None),
                "the certificate for a.test is not valid before 2025-09-16T00:00:00Z; clients \
                 refuse it until then: is the clock of this machine right?"
            );
        }
        let failure = Failure::new(FailureClass::Network, "the CA is away");
        let retry = Retry::after(None, &failure, None, None, NOW, &mut fastrand::Rng::new());
        let text = told(1, 90, renewed, Some(retry));
        assert!(text.contains("is not valid before 2025-09-16"), "{text}");
        assert!(text.ends_with("has failed once: the CA is away"), "{text}");
        let text = told(-90, 1, renewed, None);
        assert!(
            text.ends_with("expires at 2025-09-16T00:00:00Z; its renewal is due"),
            "{text}"
        );
        let text = told(-90, 1, RenewedBy::ByHand, None);
        assert!(text.ends_with("replace it"), "{text}");
    }
}
