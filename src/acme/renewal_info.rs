//! What a CA advises on renewals (RFC 9773): when a certificate ought to be renewed, and the word
//! in an order for which certificate it takes the place of.

use http::{StatusCode, Uri};
use instant_acme::CertificateIdentifier;
use jiff::Timestamp;
use serde::Deserialize;

use super::ca::Ca;
use super::classify::{self, Step};
use super::job::Job;
use super::session::{Refusal, retry_after};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::schedule::{Failure, FailureClass, RenewalInfo};

/// An answer, as section 4.2 has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    suggested_window: SuggestedWindow,
    #[serde(rename = "explanationURL")]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct SuggestedWindow {
    start: String,
    end: String,
}

/// When `ca`, which issued `certificate`, advises to renew it; `None` where it gives no advice.
pub(super) async fn ask(
    ca: &Ca,
    certificate: &TlsCertificate,
    now: UnixTime,
) -> Result<Option<RenewalInfo>, Failure> {
    let session = ca.session().await?;
    let Some(id) = certificate.renewal_id() else {
        return Ok(None);
    };
    let Some(place) = &session.directory().renewal_info else {
        return Ok(None);
    };
    let url = format!("{}/{id}", place.trim_end_matches('/'));
    let url: Uri = url.parse().map_err(|_| {
        let message = format!(
            "the directory of {} has {place:?} as 'renewalInfo', which is no URL",
            ca.host
        );
        Failure::new(FailureClass::Internal, message)
    })?;
    let reply = session.get(url).await;
    let reply = reply.map_err(|error| classify::unreachable(&ca.host, &error))?;
    if let Some(refusal) = Refusal::of(&reply, now) {
        let step = Step::RenewalInfo;
        return Err(classify::refused(&ca.host, step, &refusal, &[], now));
    }
    let mut info = read(reply.body()).map_err(|why| {
        let message = format!("{} tells when to renew in a wrong way: {why}", ca.host);
        Failure::new(FailureClass::Internal, message)
    })?;
    info.ask_at = retry_after(reply.headers(), now);
    Ok(Some(info))
}

/// What an answer says, or what is wrong with it.
fn read(body: &[u8]) -> Result<RenewalInfo, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let time = |text: &str| {
        let time: Result<Timestamp, _> = text.parse();
        time.map_err(|_| format!("{text:?} is no time"))
    };
    let SuggestedWindow { start, end } = answer.suggested_window;
    let (start, end) = (time(&start)?, time(&end)?);
    if end <= start {
        return Err(format!(
            "the window ends at {end}, and begins only at {start}"
        ));
    }
    // Whatever else is written there ends up in front of people as a link.
    let url = answer.explanation_url.filter(|url| {
        let uri = url.parse::<Uri>();
        uri.is_ok_and(|uri| matches!(uri.scheme_str(), Some("https" | "http")))
    });
    Ok(RenewalInfo {
        start: start.as_second(),
        end: end.as_second(),
        url,
        ask_at: None,
    })
}

impl Job<'_> {
    /// The certificate at hand, as the CA knows it. A staging environment does not.
    pub(super) fn replaced(&self) -> Option<CertificateIdentifier<'_>> {
        let directory = self.session.directory();
        if self.is_rehearsal() || directory.renewal_info.is_none() {
            return None;
        }
        let (authority, serial) = self.request.replaces.as_deref()?.split_once('.')?;
        Some(CertificateIdentifier {
            authority_key_identifier: authority.into(),
            serial: serial.into(),
        })
    }

    /// Whether an order may have been refused for what it replaces: not where it is one too many, or
    /// the CA knows no such account.
    pub(super) fn may_be_for_replacing(&self) -> bool {
        let Some(refusal) = self.session.refusal() else {
            return false;
        };
        let kind = refusal.problem.as_ref().map(|problem| problem.kind());
        let other = ["rateLimited", "accountDoesNotExist"];
        refusal.status != StatusCode::TOO_MANY_REQUESTS
            && !kind.is_some_and(|kind| other.contains(&kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_the_rfc_is_read() {
        let body = br#"{ "suggestedWindow": { "start": "2025-01-02T04:00:00Z",
            "end": "2025-01-03T04:00:00Z" },
            "explanationURL": "https://acme.example.com/docs/ari" }"#;
        let info = read(body).expect("well formed");
        assert_eq!((info.start, info.end), (1_735_790_400, 1_735_876_800));
        let url = info.url.as_deref();
        assert_eq!(url, Some("https://acme.example.com/docs/ari"));
        let offset = br#"{"suggestedWindow":{"start":"2025-01-02T06:00:00+02:00",
            "end":"2025-01-02T05:00:00.5Z"},"explanationURL":"javascript:alert(1)"}"#;
        let info = read(offset).expect("well formed");
        assert_eq!((info.start, info.end), (1_735_790_400, 1_735_794_000));
        assert_eq!(info.url, None, "no link for people");
    }

    #[test]
    fn a_window_that_is_none_is_no_answer() {
        for body in [
            r#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z","end":"2025-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"2025-01-03T04:00:00Z","end":"2025-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"tomorrow","end":"2025-01-02T04:00:00Z"}}"#,
            r#"{"suggestedWindow":{"start":"2025-01-02T04:00:00Z"}}"#,
            "{}",
            "<html>",
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
