//! `snigate certs`: the certificates of the running gateway, for people and for programs.
//!
//! All its information comes from the admin interface. `table` and `detail` show it, `watch`
//! follows an issuer's work; the command line is in `arguments`.

mod arguments;
mod detail;
mod preflight;
mod table;
mod time;
mod watch;

use anyhow::{Context, anyhow};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json as value;

pub(super) use self::arguments::{AskArgs, CertsVerb, Name, Within};
use self::arguments::{ListArgs, RevokeArgs, ShowArgs};
use self::watch::Question;
use super::client::{self, Client};
use super::failure::Failure;
use super::output::Output;
use crate::admin::{CertificateState, CertificateView};
use crate::clock::{Clock, SystemClock, UnixTime};

/// The path of all certificates.
const PATH: &str = "/api/v1/certificates";

/// Carries out the command.
pub(super) fn certs(output: &Output, verb: CertsVerb) -> Result<(), Failure> {
    let now = SystemClock.now();
    match verb {
        CertsVerb::Revoke(arguments) => revoke(output, arguments),
        CertsVerb::List(arguments) => list(output, arguments, now),
        CertsVerb::Show(arguments) => show(output, arguments, now),
        CertsVerb::Obtain(arguments) => request_renewal(output, arguments, "obtain"),
        CertsVerb::Renew(arguments) => request_renewal(output, arguments, "renew"),
        CertsVerb::Check(arguments) => preflight::check(output, arguments),
    }
}

fn list(output: &Output, arguments: ListArgs, now: UnixTime) -> Result<(), Failure> {
    let client = super::connect(output, arguments.remote)?;
    let mut views: Vec<CertificateView> = client.get(PATH)?.decode()?;
    // A missing certificate is most urgent.
    views.sort_by(|a, b| (a.served_until(), &a.name).cmp(&(b.served_until(), &b.name)));
    if arguments.json {
        output.data(json(&views)?)?;
    } else if views.is_empty() {
        output.note("there are no certificates, and no site needs one");
    } else {
        output.data(table::table(&views, now, output.style(), output.width()))?;
    }
    match arguments.fail_within {
        Some(within) => alarm(output, &views, within, now),
        None => Ok(()),
    }
}

/// Fails if something needs attention within this time.
fn alarm(
    output: &Output,
    views: &[CertificateView],
    within: Within,
    now: UnixTime,
) -> Result<(), Failure> {
    const MOST: usize = 10;
    let found: Vec<String> = views
        .iter()
        .filter(|view| is_alarming(view, within, now))
        .map(|view| format!("{} ({})", view.name, table::state(view)))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let mut told: Vec<&str> = found.iter().take(MOST).map(String::as_str).collect();
    let more = format!("{} more", found.len().saturating_sub(MOST));
    if found.len() > MOST {
        told.push(&more);
    }
    output.warning(format!(
        "not valid, or not for another {within}: {}",
        told.join(", ")
    ));
    Err(Failure::Found)
}

/// Returns true if a certificate expires within this time, is missing, or has failed.
fn is_alarming(view: &CertificateView, within: Within, now: UnixTime) -> bool {
    let ends = view
        .served_until()
        .is_none_or(|end| end - now < within.seconds());
    ends || match view.state {
        CertificateState::Valid | CertificateState::Due | CertificateState::Obtaining => false,
        CertificateState::Missing
        | CertificateState::Failed
        | CertificateState::Paused
        | CertificateState::Revoked
        | CertificateState::Withheld
        | CertificateState::Expired
        | CertificateState::NotYetValid => true,
    }
}

fn show(output: &Output, arguments: ShowArgs, now: UnixTime) -> Result<(), Failure> {
    let client = super::connect(output, arguments.remote)?;
    let view = view(&client, &arguments.name)?;
    if arguments.pem {
        let chain = view.chain.ok_or_else(|| {
            anyhow!(
                "there is no certificate for {} yet: it is {}",
                view.name,
                view.state
            )
        })?;
        return output.data(chain);
    }
    if arguments.json {
        return output.data(json(&view)?);
    }
    output.data(detail::detail(&view, now, output.style()))
}

fn request_renewal(output: &Output, arguments: AskArgs, verb: &str) -> Result<(), Failure> {
    let AskArgs {
        name,
        no_wait,
        timeout,
        remote,
    } = arguments;
    let question = Question {
        name: &name,
        path: &path(&name, verb),
        body: None,
        taken: &|view| format!("requested a certificate for {}", view.name),
        needless: &watch::needless,
    };
    let client = super::connect(output, remote)?;
    send_request(output, &client, &question, (!no_wait).then_some(timeout))
}

/// Sends a request to the gateway, and watches the result for a while.
fn send_request(
    output: &Output,
    client: &Client,
    question: &Question<'_>,
    watched: Option<Within>,
) -> Result<(), Failure> {
    if let Some(timeout) = watched {
        return watch::watch(output, client, question, timeout);
    }
    let asked = client.send_request(Method::POST, question.path, question.body);
    let answer = client::runtime()?.block_on(asked)?;
    let view: CertificateView = answer.decode()?;
    if answer.status == StatusCode::ACCEPTED {
        let (taken, name) = ((question.taken)(&view), &view.name);
        output.note(format!("{taken}; see `snigate certs show {name}`"));
    } else {
        output.note((question.needless)(&view));
    }
    Ok(())
}

fn revoke(output: &Output, arguments: RevokeArgs) -> Result<(), Failure> {
    let RevokeArgs {
        reason,
        ask:
            AskArgs {
                name,
                no_wait,
                timeout,
                remote,
            },
    } = arguments;
    let body = value!({ "reason": reason });
    let taken = |view: &CertificateView| {
        format!(
            "revoked the certificate for {}; a replacement is being obtained",
            view.name
        )
    };
    let needless = |view: &CertificateView| match &view.renewal {
        Some(_) => format!("revoked; another certificate for {} is served", view.name),
        None => format!("revoked; no other certificate for {} is needed", view.name),
    };
    let question = Question {
        name: &name,
        path: &path(&name, "revoke"),
        body: Some(&body),
        taken: &taken,
        needless: &needless,
    };
    let client = super::connect(output, remote)?;
    send_request(output, &client, &question, (!no_wait).then_some(timeout))
}

fn view(client: &Client, name: &Name) -> Result<CertificateView, Failure> {
    client.get(&format!("{PATH}/{name}"))?.decode()
}

fn path(name: &Name, verb: &str) -> String {
    format!("{PATH}/{name}/{verb}")
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).context("cannot encode the response")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod testing {
    use crate::admin::{CertificateState, CertificateView, RenewalView};
    use crate::clock::UnixTime;

    pub(super) const NOW: UnixTime = UnixTime::from_secs(1_757_894_400);
    pub(super) const DAY: i64 = 86_400;

    /// An issued certificate, with this many days left of 90.
    pub(super) fn issued(name: &str, left: i64) -> CertificateView {
        CertificateView {
            state: CertificateState::Valid,
            source: "letsencrypt".to_owned(),
            issuer: Some("CN=R11, O=Let's Encrypt, C=US".to_owned()),
            not_before: Some(NOW + (left - 90) * DAY),
            not_after: Some(NOW + left * DAY),
            days_left: Some(left),
            key: Some("ecdsa".to_owned()),
            serial: Some("0A".to_owned()),
            fingerprint: Some("ab".repeat(32)),
            renewal: Some(RenewalView {
                subject: name.to_owned(),
                issuers: vec!["letsencrypt".to_owned(), "zerossl".to_owned()],
                obtaining: false,
                on_demand: false,
                next: Some(NOW + (left - 30) * DAY),
                held: None,
                unread: None,
                advice: None,
                failures: 0,
                last_failure: None,
            }),
            ..CertificateView::missing(vec![name.to_owned()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{NOW, issued};
    use super::*;

    #[test]
    fn alarming_is_what_ends_soon_and_what_is_not_there() {
        let within: Within = "14d".parse().expect("a duration");
        let of = |view: &CertificateView| is_alarming(view, within, NOW);
        assert!(!of(&issued("a.example", 14)));
        assert!(of(&issued("a.example", 13)));
        assert!(of(&CertificateView::missing(vec!["a.example".to_owned()])));
        for (state, alarming) in [
            (CertificateState::Due, false),
            (CertificateState::Obtaining, false),
            (CertificateState::Failed, true),
            (CertificateState::Paused, true),
            (CertificateState::Withheld, true),
            (CertificateState::NotYetValid, true),
        ] {
            let view = CertificateView {
                state,
                ..issued("a.example", 60)
            };
            assert_eq!(of(&view), alarming, "{state}");
        }
    }
}
