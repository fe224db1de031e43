//! What a CA's reply says besides its body, above all when it refuses something.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, LINK, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use instant_acme::Error;

use super::problem::{self, Problem};
use crate::clock::UnixTime;

/// A reply that is not a success.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<UnixTime>,
    /// The problem document, if there is one.
    pub(super) problem: Option<Problem>,
    /// The first words of the body otherwise.
    pub(super) words: Option<String>,
    /// The target of a redirect.
    pub(super) location: Option<String>,
    /// The changed terms of service that have to be agreed to.
    pub(super) terms: Option<String>,
}

impl Refusal {
    /// The refusal in `reply`; `None` if it is a success.
    pub(super) fn of(reply: &Response<Bytes>, now: UnixTime) -> Option<Self> {
        let (status, body) = (reply.status(), reply.body());
        let problem = Problem::read(body);
        (!status.is_success()).then(|| Self {
            status,
            retry_after: retry_after(reply.headers(), now),
            words: problem::words(body).filter(|_| problem.is_none()),
            problem,
            location: header(reply.headers(), LOCATION),
            terms: links(reply.headers(), "terms-of-service")
                .into_iter()
                .next(),
        })
    }

    /// The ACME type of the problem; empty if there is none.
    pub(super) fn kind(&self) -> &str {
        self.problem.as_ref().map_or("", Problem::kind)
    }

    /// As an error of instant-acme.
    pub(super) fn to_error(&self) -> Error {
        let problem = self.problem.clone().unwrap_or_default();
        match serde_json::from_value::<instant_acme::Problem>(problem.to_json()) {
            Ok(problem) => Error::Api(problem),
            Err(error) => Error::Json(error),
        }
    }
}

pub(super) fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// When the CA wants to be asked again: in seconds or as a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: UnixTime) -> Option<UnixTime> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        // Times are whole seconds: `now` may be almost one second old, and CAs reject requests that
        // come too early.
        return Some(now + i64::from(seconds) + 1);
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    Some(UnixTime::from_secs(date.ok()?.as_second()))
}

/// The targets of all links with this relation (RFC 8288); one field may have several.
pub(super) fn links(headers: &HeaderMap, relation: &str) -> Vec<String> {
    let has = |parameters: &str| {
        parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or_default();
            let mut relations = value.trim().trim_matches('"').split(' ');
            name.trim().eq_ignore_ascii_case("rel")
                && relations.any(|one| one.eq_ignore_ascii_case(relation))
        })
    };
    let fields = headers.get_all(LINK).iter();
    let fields = fields.filter_map(|value| value.to_str().ok());
    fields
        .flat_map(|field| field.split('<').skip(1))
        .filter_map(|link| link.split_once('>'))
        .filter(|(_, parameters)| has(parameters.trim_end().trim_end_matches(',')))
        .map(|(target, _)| target.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let mut reply = Response::builder().status(status);
        for (name, value) in headers {
            reply = reply.header(*name, *value);
        }
        reply.body(Bytes::from(body.to_owned())).expect("a reply")
    }

    #[test]
    fn a_refusal_keeps_when_to_come_back_and_why() {
        let body = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"slowly"}"#;
        let refusal = Refusal::of(&reply(429, &[("retry-after", "60")], body), unix(1000));
        let refusal = refusal.expect("a refusal");
        assert_eq!(refusal.retry_after, Some(unix(1061)));
        assert_eq!(refusal.problem.expect("a problem").kind(), "rateLimited");
        let date = "Fri, 31 Dec 1999 23:59:59 GMT";
        let refusal = Refusal::of(&reply(503, &[("retry-after", date)], "<html>"), unix(1000));
        let refusal = refusal.expect("a refusal");
        assert_eq!(refusal.retry_after, Some(unix(946_684_799)));
        assert_eq!(refusal.problem, None);
        assert!(Refusal::of(&reply(201, &[("retry-after", "3")], "{}"), unix(0)).is_none());
    }

    #[test]
    fn changed_terms_are_found_among_the_links() {
        let links = [
            ("link", "<https://ca/dir>;rel=\"index\""),
            ("link", "<https://ca/terms>; rel=\"terms-of-service\""),
        ];
        let refusal = Refusal::of(&reply(403, &links, ""), unix(0)).expect("a refusal");
        assert_eq!(refusal.terms.as_deref(), Some("https://ca/terms"));
    }

    #[test]
    fn other_chains_are_found_in_every_form_of_a_link() {
        let links = [
            ("link", "<https://ca/dir>;rel=\"index\""),
            ("link", "<https://ca/cert/1>;rel=\"alternate\""),
            (
                "link",
                "<https://ca/cert/2>; title=x; rel=alternate, <https://ca/up>;rel=up, \
                 <https://ca/cert/3>; Rel=\"up alternate\"",
            ),
            ("link", "nothing"),
        ];
        let reply = reply(200, &links, "");
        assert_eq!(
            super::links(reply.headers(), "alternate"),
            [
                "https://ca/cert/1",
                "https://ca/cert/2",
                "https://ca/cert/3"
            ]
        );
    }
}
