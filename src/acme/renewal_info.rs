//! Renewal information (RFC 9773): when a CA suggests to renew a certificate.

use http::Uri;
use jiff::Timestamp;
use serde_json::Value;

use super::ca::Ca;
use super::error::{self, Step};
use super::json::{json, member};
use super::problem::{page, words};
use super::refusal::{Refusal, retry_after};
use crate::certificate::TlsCertificate;
use crate::clock::UnixTime;
use crate::schedule::{Failure, FailureClass, RenewalInfo};

/// When `ca`, which issued `certificate`, suggests to renew it; `None` if it does not say.
pub(super) async fn fetch_renewal_info(
    ca: &Ca,
    certificate: &TlsCertificate,
    now: UnixTime,
) -> Result<Option<RenewalInfo>, Failure> {
    let client = ca.client().await?;
    let Some(id) = certificate.renewal_id() else {
        return Ok(None);
    };
    let Some(place) = &client.directory().renewal_info else {
        return Ok(None);
    };
    let url = format!("{}/{id}", place.trim_end_matches('/'));
    let url: Uri = url.parse().map_err(|_| {
        let message = format!(
            "the directory of {} has {place:?} as 'renewalInfo', which is not a URL",
            ca.host
        );
        Failure::new(FailureClass::Internal, message)
    })?;
    let reply = client.get(url).await;
    let reply = reply.map_err(|error| error::unreachable(&ca.host, &error))?;
    if let Some(refusal) = Refusal::of(&reply, now) {
        let step = Step::RenewalInfo;
        return Err(error::refusal_failure(&ca.host, step, &refusal, &[], now));
    }
    let mut info = read_renewal_info(reply.body()).map_err(|why| {
        let message = format!(
            "{} sent invalid renewal information: {why}; the fault is the CA's, and its \
             certificate is renewed without it",
            ca.host
        );
        Failure::new(FailureClass::Internal, message)
    })?;
    info.ask_at = retry_after(reply.headers(), now);
    Ok(Some(info))
}

/// Parses a reply, or says what is wrong with it. Only the window is required (section 4.2).
fn read_renewal_info(body: &[u8]) -> Result<RenewalInfo, String> {
    let answer = json(body);
    let Some(members) = answer.as_ref().and_then(Value::as_object) else {
        let words = words(body).unwrap_or_default();
        return Err(format!("the response is not a JSON object: {words:?}"));
    };
    let window = members.get("suggestedWindow").and_then(Value::as_object);
    let window = window.ok_or("the response has no 'suggestedWindow'")?;
    let edge = |name: &str| {
        let text = member(window, name);
        let text = text.ok_or_else(|| format!("the 'suggestedWindow' has no '{name}'"))?;
        time(&text).ok_or_else(|| format!("{text:?} is not a time"))
    };
    let (start, end) = (edge("start")?, edge("end")?);
    if end <= start {
        return Err(format!(
            "the window ends at {end}, before it begins at {start}"
        ));
    }
    // People see this as a link, so nothing but a URL is let through.
    let url = member(members, "explanationURL");
    Ok(RenewalInfo {
        start: UnixTime::from_secs(start.as_second()),
        end: UnixTime::from_secs(end.as_second()),
        url: url.as_deref().and_then(page),
        ask_at: None,
    })
}

/// A time of RFC 3339, possibly with too many digits of a second, or without an offset, which is
/// UTC then.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.to_ascii_uppercase();
    let short = match text.split_once(['.', ',']) {
        Some((seconds, rest)) => {
            let offset = rest.trim_start_matches(|char: char| char.is_ascii_digit());
            format!("{seconds}{offset}")
        }
        None => text,
    };
    let parsed = short.parse::<Timestamp>();
    parsed.or_else(|_| format!("{short}Z").parse()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    #[test]
    fn the_answer_of_the_rfc_is_read() {
        let body = br#"{ "suggestedWindow": { "start": "2025-01-02T04:00:00Z",
            "end": "2025-01-03T04:00:00Z" },
            "explanationURL": "https://acme.example.com/docs/ari" }"#;
        let info = read_renewal_info(body).expect("well formed");
        assert_eq!(
            (info.start, info.end),
            (unix(1_735_790_400), unix(1_735_876_800))
        );
        let url = info.url.as_deref();
        assert_eq!(url, Some("https://acme.example.com/docs/ari"));
        let offset = br#"{"suggestedWindow":{"start":"2025-01-02T06:00:00+02:00",
            "end":"2025-01-02T05:00:00.5Z"},"explanationURL":"javascript:alert(1)"}"#;
        let info = read_renewal_info(offset).expect("well formed");
        assert_eq!(
            (info.start, info.end),
            (unix(1_735_790_400), unix(1_735_794_000))
        );
        assert_eq!(info.url, None, "no link for people");
    }

    #[test]
    fn members_that_do_not_matter_void_no_window() {
        for (odd, start, end) in [
            (
                r#""explanationURL":17"#,
                "2025-01-02T04:00:00Z",
                "2025-01-03T04:00:00Z",
            ),
            (
                r#""explanationURL":null"#,
                "2025-01-02t04:00:00z",
                "2025-01-03t04:00:00z",
            ),
            (
                r#""explanationURL":{"a":1}"#,
                "2025-01-02T04:00:00+00:00",
                "2025-01-03 04:00:00Z",
            ),
            (
                r#""other":[null]"#,
                "2025-01-02T04:00:00.123456789012Z",
                "2025-01-03T04:00:00.0Z",
            ),
            (
                r#""retryAfter":"soon""#,
                "2025-01-01T23:00:00.1234567890-05:00",
                "2025-01-03T04:00:00",
            ),
        ] {
            let window =
                format!(r#""suggestedWindow":{{"start":"{start}","end":" {end} ","x":1}}"#);
            let body = format!("\u{feff}{{{odd},{window}}}\n\0");
            let info = read_renewal_info(body.as_bytes())
                .unwrap_or_else(|why| panic!("{odd} {start}: {why}"));
            assert_eq!(
                (info.start, info.end),
                (unix(1_735_790_400), unix(1_735_876_800)),
                "{start} {end}"
            );
            assert_eq!(info.url, None, "{odd}");
        }
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
            assert!(read_renewal_info(body.as_bytes()).is_err(), "{body}");
        }
    }
}
