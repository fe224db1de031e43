//! The loop that watches the validity of all certificates, whoever issued them.
//!
//! It reports each certificate that expires soon, has expired, or is not valid yet, once for as long
//! as that lasts. It renews nothing: that is planned elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Engine, blocking};
use crate::certificate::Fingerprint;
use crate::clock::UnixTime;
use crate::event::{Event, EventKind};
use crate::printable::Printable as _;
use crate::renewal::MonitoredCert;
use crate::schedule::{Alert, RenewedBy, Watch};
use crate::shutdown::requested;

/// How often certificates are checked if the life of one is counted in minutes.
const OFTEN: Duration = Duration::from_secs(5);

/// Runs until the engine stops.
pub(super) async fn run(engine: Arc<Engine>) {
    let mut stopping = engine.stopping();
    let mut watch = Watch::default();
    loop {
        let checking = Arc::clone(&engine);
        let checked = blocking(move || {
            let shortest = check_validity(&checking, &mut watch);
            (shortest, watch)
        });
        let shortest;
        (shortest, watch) = checked.await.unwrap_or_default();
        let every = engine.publication.check_every();
        // Often enough for the certificate with the shortest life.
        let pause = shortest.map_or(every, |life| every.min(life / 20).max(OFTEN.min(every)));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = requested(&mut stopping) => return,
        }
    }
}

/// Emits an event for each certificate whose validity has become another matter. Returns the shortest
/// life among them.
fn check_validity(engine: &Engine, watch: &mut Watch<Fingerprint>) -> Option<Duration> {
    let now = engine.clock.now();
    let all = engine.lock().monitored_certs();
    let lives = all.iter().map(|one| {
        let key = one.certificate.fingerprint();
        (key, one.certificate.served_lifetime(), one.renewed_by)
    });
    let alerts: HashMap<_, _> = watch.check_item(lives, now).into_iter().collect();
    if !alerts.is_empty() {
        for one in &all {
            if let Some(alert) = alerts.get(&one.certificate.fingerprint()) {
                engine.events().emit(event(one, *alert, now));
            }
        }
    }
    let lengths = all.iter().map(|one| one.certificate.lifetime().length());
    let shortest = lengths
        .chain(engine.lock().cert_files().shortest_life())
        .min()?;
    Some(Duration::from_secs(
        u64::try_from(shortest).unwrap_or_default(),
    ))
}

fn event(watched: &MonitoredCert, alert: Alert, now: UnixTime) -> Event {
    let MonitoredCert {
        certificate,
        renewed_by,
        retry,
    } = watched;
    let domain = certificate
        .names()
        .first()
        .map_or_else(String::new, ToString::to_string);
    // A chain that ends before its certificate makes clients refuse it as early.
    let chain = certificate
        .chain_end()
        .filter(|(end, _)| *end < certificate.not_after());
    let end = certificate.served_until();
    let place = certificate
        .source()
        .path()
        .map_or_else(String::new, |path| format!(" ({})", path.printable()));
    let what = match (alert.kind, &chain) {
        (EventKind::CertificateNotYetValid, _) => {
            format!("is not valid before {}", certificate.not_before())
        }
        (EventKind::CertificateExpired, None) => {
            format!("expired at {end} but is still served")
        }
        (EventKind::CertificateExpired, Some((_, subject))) => {
            format!("is served with an intermediate certificate ({subject}) that expired at {end}")
        }
        (_, None) => format!("expires at {end}"),
        (_, Some((_, subject))) => {
            format!("is served with an intermediate certificate ({subject}) that expires at {end}")
        }
    };
    let then = match (renewed_by, retry) {
        (_, None) if alert.kind == EventKind::CertificateNotYetValid => {
            "clients refuse it until then: is the clock of this machine right?".to_owned()
        }
        (RenewedBy::ByHand, _) => "replace its file; the new one is loaded at once".to_owned(),
        (RenewedBy::Renewed { .. }, None) if chain.is_some() => {
            "a new certificate may come with a current one: run 'snigate certs renew'".to_owned()
        }
        (RenewedBy::Renewed { .. }, None) => "its renewal is due".to_owned(),
        (RenewedBy::Renewed { .. }, Some(retry)) => format!(
            "its renewal has failed {} times: {}",
            retry.failures, retry.message
        ),
    };
    let message = format!("the certificate for {domain}{place} {what}; {then}");
    let mut event = Event::new(now, alert.kind, alert.severity, domain, message);
    event.issuer = Some(certificate.source().label().into());
    event.not_after = Some(certificate.served_until());
    if let Some(retry) = retry {
        event.attempt = Some(retry.failures);
        event.next = retry.next;
        event.url.clone_from(&retry.url);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Loader;
    use crate::certificate::testing::{DAY, NOW, TestCa};
    use crate::schedule::{Failure, FailureClass, Retry};

    /// What is reported of a certificate that is valid from `from` to `to` days after now.
    fn told(from: i64, to: i64, renewed_by: RenewedBy, retry: Option<Retry>) -> String {
        let loader = Loader::new().expect("a loader");
        let (from, to) = (NOW + from * DAY, NOW + to * DAY);
        let watched = MonitoredCert {
            certificate: TestCa::new("told").certificate(&loader, &["a.test"], from, to),
            renewed_by,
            retry,
        };
        let life = watched.certificate.served_lifetime();
        let alert = Alert::for_lifetime(&life, renewed_by, NOW).expect("an alert");
        event(&watched, alert, NOW).message
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
        assert!(
            text.ends_with("has failed 1 times: the CA is away"),
            "{text}"
        );
        let text = told(-90, 1, renewed, None);
        assert!(
            text.ends_with("expires at 2025-09-16T00:00:00Z; its renewal is due"),
            "{text}"
        );
        let text = told(-90, 1, RenewedBy::ByHand, None);
        assert!(
            text.ends_with("replace its file; the new one is loaded at once"),
            "{text}"
        );
    }
}
