//! Requests a certificate, and follows the issuers' work until its end.
//!
//! Events show the steps. The gateway itself is asked, also from time to time, whether it is over,
//! so a missed event costs only a moment.

use std::time::Duration;

use anyhow::anyhow;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::arguments::{Name, Within};
use super::time::{span, until};
use super::{PATH, detail};
use crate::admin::{CertificateView, EventView, FailureView, RenewalView, time};
use crate::cli::client::{self, Client, Events};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Progress};
use crate::clock::{Clock, SystemClock, UnixTime};
use crate::event::EventKind;
use crate::schedule::FailureClass;

/// How often to ask the gateway whether it is over.
const LOOK: Duration = Duration::from_secs(2);

/// How often a terminal shows that time passes.
const TICK: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Debug, PartialEq)]
enum End {
    /// There is a new certificate, valid until then.
    Given(Option<UnixTime>),
    /// No issuer issued one; this is its state now.
    Failed(Box<CertificateView>),
    /// The gateway has ended the stream.
    Gone,
    /// It took longer than the user wanted to wait.
    TimedOut,
    Interrupted,
}

/// A request to the gateway.
pub(super) struct Question<'a> {
    /// The name of the certificate.
    pub(super) name: &'a Name,
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
    /// What to say if an issuer is asked.
    pub(super) taken: &'a dyn Fn(&CertificateView) -> String,
    /// What to say if none is.
    pub(super) needless: &'a dyn Fn(&CertificateView) -> String,
}

/// Sends the request, and shows what the gateway does about the certificate.
pub(super) fn watch(
    output: &Output,
    client: &Client,
    question: &Question<'_>,
    patience: Within,
) -> Result<(), Failure> {
    let name = question.name;
    client::runtime()?.block_on(async {
        let before = fetch_view(client, name).await?;
        // Before the request, so that no step is missed.
        let stream = format!("/api/v1/events?domain={name}&live=true");
        let events = client.events(&stream).await?;
        let answer = client
            .send_request(Method::POST, question.path, question.body)
            .await?;
        let view: CertificateView = answer.decode()?;
        if answer.status != StatusCode::ACCEPTED {
            output.note((question.needless)(&view));
            return Ok(());
        }
        let mut watch = Watch {
            client,
            name,
            before,
            events,
            progress: output.progress(),
        };
        watch.progress.step((question.taken)(&view));
        let end = tokio::select! {
            end = watch.follow() => end?,
            _ = tokio::signal::ctrl_c() => End::Interrupted,
            () = sleep(patience.duration()) => End::TimedOut,
        };
        drop(watch.progress);
        report_end(output, &view.name, end, patience, SystemClock.now())
    })
}

/// Why nothing was requested.
pub(super) fn needless(view: &CertificateView) -> String {
    let end = view
        .not_after
        .map_or_else(String::new, |end| format!(" until {}", time(end)));
    format!(
        "nothing to do: the certificate for {} is valid{end}; run `snigate certs renew {}` for a \
         new one",
        view.name, view.name
    )
}

struct Watch<'a> {
    client: &'a Client,
    name: &'a Name,
    /// The state before the request.
    before: CertificateView,
    events: Events,
    progress: Progress,
}

impl Watch<'_> {
    async fn follow(&mut self) -> Result<End, Failure> {
        let mut look_again = interval(LOOK);
        look_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = interval(TICK);
        loop {
            tokio::select! {
                event = self.events.next() => match event? {
                    None => return Ok(End::Gone),
                    Some(event) => {
                        if let Some(end) = self.apply_event(&event) {
                            return Ok(end);
                        }
                        if event.kind == EventKind::CertificateFailed {
                            look_again.reset_immediately();
                        }
                    }
                },
                _ = look_again.tick() => {
                    let now = fetch_view(self.client, self.name).await?;
                    if let Some(end) = outcome(&self.before, now) {
                        return Ok(end);
                    }
                }
                _ = ticks.tick() => self.progress.tick(),
            }
        }
    }

    /// Shows an event, which may be the last.
    fn apply_event(&mut self, event: &EventView) -> Option<End> {
        match event.kind {
            EventKind::CertificateObtained | EventKind::CertificateRenewed => {
                return Some(End::Given(event.not_after));
            }
            EventKind::CertificateObtaining
            | EventKind::CertificateProgress
            | EventKind::CertificateRevoked
            | EventKind::CertificateDropped
            | EventKind::CaLimited
            | EventKind::CertificateFailed => self.progress.step(step_text(event)),
            _ => {}
        }
        None
    }
}

/// The text of a step.
fn step_text(event: &EventView) -> String {
    let issuer = event.issuer.as_deref();
    let who = issuer.map_or_else(String::new, |issuer| format!("{issuer}: "));
    let which = match event.attempt {
        Some(attempt) if attempt > 1 && event.kind == EventKind::CertificateObtaining => {
            format!(" (attempt {attempt})")
        }
        _ => String::new(),
    };
    format!("{who}{}{which}", event.message)
}

/// Whether it is over, judging by the states before and now.
fn outcome(before: &CertificateView, now: CertificateView) -> Option<End> {
    if now.fingerprint.is_some() && now.fingerprint != before.fingerprint {
        return Some(End::Given(now.not_after));
    }
    let failed = |view: &CertificateView| {
        let renewal = view.renewal.as_ref();
        renewal.map(|renewal| (renewal.failures, renewal.last_failure.clone()))
    };
    let over = now
        .renewal
        .as_ref()
        .is_some_and(|it| !it.obtaining && it.failures > 0);
    (over && failed(&now) != failed(before)).then(|| End::Failed(Box::new(now)))
}

async fn fetch_view(client: &Client, name: &Name) -> Result<CertificateView, Failure> {
    client
        .send_request(Method::GET, &format!("{PATH}/{name}"), None)
        .await?
        .decode()
}

fn report_end(
    output: &Output,
    name: &str,
    end: End,
    patience: Within,
    now: UnixTime,
) -> Result<(), Failure> {
    let goes_on = format!("the gateway continues; see `snigate certs show {name}`");
    match end {
        End::Given(until) => {
            let until = until.map_or_else(String::new, |end| {
                let left = span(end - now);
                format!(", valid until {} ({left})", time(end))
            });
            output.note(format!("obtained: a certificate for {name}{until}"));
            Ok(())
        }
        End::Failed(view) => Err(failure(&view, now)),
        End::Gone => Err(Failure::hinted(
            anyhow!("the gateway at the other end has stopped"),
            "what was obtained until then is kept; start it again to continue",
        )),
        End::TimedOut => Err(Failure::hinted(
            anyhow!("no certificate for {name} within {patience}"),
            goes_on,
        )),
        End::Interrupted => Err(Failure::hinted(
            anyhow!("no longer watching, and there is no certificate for {name} yet"),
            goes_on,
        )),
    }
}

/// What the CA said, and when it is asked again.
fn failure(view: &CertificateView, now: UnixTime) -> Failure {
    let renewal = view.renewal.as_ref();
    let last = renewal.and_then(|renewal| renewal.last_failure.as_ref());
    let why = match last {
        Some(last) => format!(": {}", detail::last_failure(last, now)),
        None => String::new(),
    };
    Failure::hinted(
        anyhow!("no certificate for {}{why}", view.name),
        what_next(&view.name, renewal, last, now),
    )
}

fn what_next(
    name: &str,
    renewal: Option<&RenewalView>,
    last: Option<&FailureView>,
    now: UnixTime,
) -> String {
    match renewal.and_then(|renewal| renewal.next) {
        _ if last.is_some_and(|last| last.class == FailureClass::Paused) => format!(
            "the gateway does not retry automatically: do what the CA asks for, then `snigate \
             certs renew {name}`"
        ),
        Some(next) => format!(
            "the gateway will retry {} ({}); see `snigate certs show {name}`",
            until(next, now),
            time(next)
        ),
        None => format!("see `snigate certs show {name}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, issued};
    use super::*;
    use crate::admin::FailureView;
    use crate::event::Severity;

    fn failed(mut view: CertificateView, failures: u32) -> CertificateView {
        if let Some(renewal) = &mut view.renewal {
            renewal.failures = failures;
            renewal.next = Some(NOW + 720);
            renewal.last_failure = Some(FailureView {
                at: NOW - 1 + i64::from(failures),
                issuer: Some("letsencrypt".to_owned()),
                class: FailureClass::Validation,
                message: "nobody answers at 192.0.2.1".to_owned(),
                url: None,
                retry_after: None,
            });
        }
        view
    }

    #[test]
    fn it_is_over_with_another_certificate_or_another_failure() {
        let before = failed(issued("a.example", 20), 2);
        assert_eq!(outcome(&before, before.clone()), None);

        let mut given = issued("a.example", 90);
        given.fingerprint = Some("cd".repeat(32));
        assert_eq!(
            outcome(&before, given.clone()),
            Some(End::Given(given.not_after))
        );

        let again = failed(issued("a.example", 20), 3);
        let end = outcome(&before, again.clone());
        assert_eq!(end, Some(End::Failed(Box::new(again.clone()))));

        // The first issuer failed, and the next is being asked.
        let mut goes_on = again;
        if let Some(renewal) = &mut goes_on.renewal {
            renewal.obtaining = true;
        }
        assert_eq!(outcome(&before, goes_on), None);

        // The failures were cleared, and nothing has happened since.
        assert_eq!(outcome(&before, issued("a.example", 20)), None);
    }

    #[test]
    fn a_failure_is_told_with_what_comes_next() {
        let told = |view: &CertificateView| match failure(view, NOW) {
            Failure::Failed { error, hint } => (error.to_string(), hint.expect("a hint")),
            other => panic!("{other:?}"),
        };
        let mut view = failed(issued("a.example", 20), 1);
        let (error, hint) = told(&view);
        assert!(error.contains("nobody answers at 192.0.2.1"), "{error}");
        assert!(error.contains("at letsencrypt"), "{error}");
        assert!(hint.contains("will retry in 12 min"), "{hint}");
        if let Some(last) = view
            .renewal
            .as_mut()
            .and_then(|it| it.last_failure.as_mut())
        {
            last.class = FailureClass::Paused;
        }
        assert!(
            told(&view).1.contains("does not retry"),
            "{:?}",
            told(&view)
        );
    }

    #[test]
    fn steps_name_who_is_asked() {
        let event = |kind, attempt| EventView {
            at: NOW,
            kind,
            severity: Severity::Info,
            domain: "a.example".to_owned(),
            issuer: Some("zerossl".to_owned()),
            upstream: None,
            server: None,
            reason: None,
            attempt,
            next: None,
            not_after: None,
            message: "asking for a certificate".to_owned(),
            url: None,
        };
        let obtaining = EventKind::CertificateObtaining;
        assert_eq!(
            step_text(&event(obtaining, Some(3))),
            "zerossl: asking for a certificate (attempt 3)"
        );
        assert_eq!(
            step_text(&event(EventKind::CertificateProgress, Some(3))),
            "zerossl: asking for a certificate"
        );
    }
}
