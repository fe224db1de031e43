//! What is reported of the status of certificates.

use std::sync::Arc;

use super::domain;
use super::query::NO_ISSUER;
use crate::certificate::TlsCertificate;
use crate::certificate::status::{KnownStatus, Staple};
use crate::clock::UnixTime;
use crate::event::{Event, EventKind, Severity};
use crate::host::Pattern;
use crate::printable::Printable as _;

/// After how many failures it is reported that a certificate has no response at all.
pub(super) const FAILURES: u32 = 3;

/// What is reported of a certificate.
pub(crate) enum Notice {
    /// There is no newer response, or none.
    Failed(Arc<TlsCertificate>, Severity),
    /// There is one again, after a report that there was none.
    Recovered(Arc<TlsCertificate>),
    /// It needs none any more, after a report that there was none.
    Dismissed(Arc<TlsCertificate>),
}

impl Notice {
    /// As an event at `now`. `is_covered` says whether a certificate is served for a name: that clients
    /// are refused for want of a response is critical from the first failure on.
    pub(crate) fn event(&self, is_covered: impl Fn(&Pattern) -> bool, now: UnixTime) -> Event {
        let (certificate, kind, severity) = match self {
            Self::Failed(certificate, severity) => {
                let is_refused =
                    certificate.lacks_staple(now) && !certificate.names().iter().all(is_covered);
                let severity = match is_refused {
                    true => Severity::Critical,
                    false => *severity,
                };
                (certificate, EventKind::StapleFailed, severity)
            }
            Self::Recovered(certificate) | Self::Dismissed(certificate) => {
                (certificate, EventKind::StapleRecovered, Severity::Info)
            }
        };
        let status = certificate.status();
        let known = status.map(|status| status.known()).unwrap_or_default();
        let sources = status.map(|status| &**status.sources());
        let is_required = sources.is_some_and(|sources| sources.requires_staple);
        let domain = domain(certificate);
        let place = certificate.source().path();
        let place = place.map_or_else(String::new, |path| format!(" ({})", path.printable()));
        let staple = known.staple.filter(|staple| now < staple.next_update);
        let end = staple.as_ref().map(|staple| staple.next_update);
        let message = match (self, end) {
            (Self::Recovered(_), Some(end)) => format!(
                "there is an OCSP response for the certificate for {domain} again; it is stapled \
                 until {end} at most"
            ),
            (Self::Recovered(_), None) => {
                format!("the status of the certificate for {domain} is known again")
            }
            (Self::Dismissed(_), _) => format!(
                "no OCSP response is needed any more for the certificate for {domain}{place}: it was \
                 replaced or removed, or responders are no longer asked"
            ),
            (Self::Failed(..), end) => {
                let fault = known
                    .fault
                    .as_deref()
                    .unwrap_or("the responder was not asked");
                let then = match (end, is_required) {
                    (Some(end), false) => format!("the present one is stapled until {end}"),
                    (Some(end), true) => format!(
                        "the present one is stapled until {end}, then the certificate, which \
                         requires one (Must-Staple), is no longer served"
                    ),
                    (None, false) => "clients get none".to_owned(),
                    (None, true) => "it requires one (Must-Staple), so another certificate is \
                                     served for its names, or none"
                        .to_owned(),
                };
                let responder = sources.and_then(|sources| sources.responder.as_deref());
                let hint = match responder {
                    // The fault says what to do.
                    Some(_) if fault == NO_ISSUER => String::new(),
                    Some(responder) => format!(
                        "; check that {} can be reached from here over HTTP",
                        responder
                    ),
                    None => "; obtain one without Must-Staple".to_owned(),
                };
                format!(
                    "no OCSP response for the certificate for {domain}{place}: {fault}; {then}{hint}"
                )
            }
        };
        let mut event = Event::new(now, kind, severity, domain, message);
        event.issuer = Some(certificate.source().label().into());
        event.not_after = Some(certificate.not_after());
        event.reason = known.fault.as_deref().map(str::to_owned);
        event
    }
}

/// How urgent it is at `now` that a certificate, of which this is known, has no newer response after
/// so many failures; `None` if nobody has to know. A good response bridges hours or days.
pub(super) fn severity(
    known: &KnownStatus,
    is_required: bool,
    failures: u32,
    now: UnixTime,
) -> Option<Severity> {
    if known.is_revoked() || failures == 0 {
        // A revocation is reported as such.
        return None;
    }
    let last = match is_required {
        true => Severity::Critical,
        false => Severity::Error,
    };
    let Some(staple) = &known.staple else {
        return match (is_required, failures >= FAILURES) {
            (true, true) => Some(Severity::Critical),
            // A CA may take a while until its responders know a new certificate.
            (true, false) => Some(Severity::Error),
            (false, true) => Some(Severity::Warning),
            (false, false) => None,
        };
    };
    let (left, life) = (
        staple.next_update - now,
        staple.next_update - staple.this_update,
    );
    if left.saturating_mul(3) > life {
        None
    } else if left.saturating_mul(6) > life {
        Some(Severity::Warning)
    } else {
        Some(last)
    }
}

/// When that changes by itself while there is no newer response than `staple`.
pub(super) fn turns(staple: &Staple) -> [UnixTime; 3] {
    let life = staple.next_update - staple.this_update;
    let left = [life.div_euclid(3), life.div_euclid(6), 0];
    left.map(|left| staple.next_update - left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn it_becomes_urgent_as_the_time_left_shrinks() {
        let known = KnownStatus {
            staple: Some(Arc::new(Staple {
                response: [].into(),
                this_update: unix(0),
                next_update: unix(600),
            })),
            ..KnownStatus::default()
        };
        let at = |second, is_required| severity(&known, is_required, 9, unix(second));
        for (second, optional, required) in [
            (300, None, None),
            (399, None, None),
            (400, Some(Severity::Warning), Some(Severity::Warning)),
            (500, Some(Severity::Error), Some(Severity::Critical)),
            (700, Some(Severity::Error), Some(Severity::Critical)),
        ] {
            assert_eq!(at(second, false), optional, "{second}");
            assert_eq!(at(second, true), required, "{second}");
        }
        let staple = known.staple.as_deref().expect("there is one");
        assert_eq!(turns(staple), [400, 500, 600].map(unix));
        assert_eq!(severity(&known, true, 0, unix(599)), None, "nothing failed");
        let none = KnownStatus::default();
        let without = |is_required, failures| severity(&none, is_required, failures, unix(0));
        assert_eq!(without(false, 2), None);
        assert_eq!(without(false, 3), Some(Severity::Warning));
        assert_eq!(without(true, 1), Some(Severity::Error));
        assert_eq!(without(true, 3), Some(Severity::Critical));
    }
}
