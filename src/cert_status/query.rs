//! Asks OCSP responders, and fetches revocation lists.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use super::lists::{ListAnswer, ListQuery, Validators};
use super::ocsp::{self, Answer, OcspFault};
use crate::certificate::TlsCertificate;
use crate::certificate::status::Staple;
use crate::clock::{Clock, UnixTime};
use crate::http_client::{Body, HttpClient};
use crate::issuer::RevocationReason;

/// The longest URL of a request by GET, which caches can answer (RFC 5019, section 5).
const LONGEST_GET: usize = 255;

/// What came of asking for the status of a certificate.
#[derive(Debug)]
pub(crate) enum Outcome {
    Good(Arc<Staple>),
    Revoked {
        reason: RevocationReason,
        /// The `thisUpdate` of the response.
        since: UnixTime,
    },
    /// The responder does not know the certificate.
    Unknown(String),
    /// There is no response that is worth anything, and why.
    Failed(String),
    /// The same, since the responder did not respond: it is no use to ask it for others.
    Unreachable(String),
}

/// Asks the responder of `certificate`.
pub(crate) async fn ask_responder(
    certificate: Arc<TlsCertificate>,
    client: Arc<HttpClient>,
    clock: Arc<dyn Clock>,
) -> Outcome {
    let asked = Arc::clone(&certificate);
    let request = match blocking(move || request(&asked)).await {
        Ok(request) => request,
        Err(fault) => return Outcome::Failed(fault),
    };
    let status = certificate.status();
    let Some(url) = status.and_then(|status| status.sources().responder.clone()) else {
        return Outcome::Failed("the certificate names no responder".to_owned());
    };
    let mut outcome = Outcome::Failed("the responder was not asked".to_owned());
    for (method, url, body) in ways(&url, request) {
        let mut sent = Request::new(Body::from(body));
        let Ok(uri) = url.parse() else {
            return Outcome::Failed("the URL of the responder is malformed".to_owned());
        };
        let is_post = method == Method::POST;
        (*sent.method_mut(), *sent.uri_mut()) = (method, uri);
        if is_post {
            let kind = HeaderValue::from_static("application/ocsp-request");
            sent.headers_mut().insert(CONTENT_TYPE, kind);
        }
        let kind = HeaderValue::from_static("application/ocsp-response");
        sent.headers_mut().insert(ACCEPT, kind);
        let answer = match client.send(sent).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Unreachable(error.to_string()),
        };
        outcome = match answer.status() {
            StatusCode::OK => {
                let (about, now) = (Arc::clone(&certificate), clock.now());
                let octets = answer.into_body();
                let checked = blocking(move || check(&octets, &about, now)).await;
                checked.unwrap_or_else(Outcome::Failed)
            }
            status => Outcome::Failed(format!("the responder says {status}")),
        };
        // A cache may have kept a response for too long: the responder itself is asked then.
        let is_kept = match (&outcome, certificate.status()) {
            (Outcome::Failed(_), _) => true,
            (Outcome::Good(staple), Some(status)) => {
                status.known().has_at_least(staple, clock.now())
            }
            _ => false,
        };
        if !is_kept {
            return outcome;
        }
    }
    outcome
}

/// Runs what reads certificates off the runtime's threads: they may be on disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| Err("it was interrupted by a bug".to_owned()))
}

fn request(certificate: &TlsCertificate) -> Result<Vec<u8>, String> {
    let issuer = certificate.issuer().ok_or(NO_ISSUER)?;
    let leaf = certificate.leaf().map_err(|error| error.to_string())?;
    ocsp::request(&leaf, issuer).map_err(|error| error.to_string())
}

fn check(octets: &Bytes, certificate: &TlsCertificate, now: UnixTime) -> Result<Outcome, String> {
    let issuer = certificate.issuer().ok_or(NO_ISSUER)?;
    let leaf = certificate.leaf().map_err(|error| error.to_string())?;
    match ocsp::check(octets, &leaf, issuer, now) {
        Ok(Answer::Good(staple)) => Ok(Outcome::Good(Arc::new(staple))),
        Ok(Answer::Revoked(reason, since)) => Ok(Outcome::Revoked { reason, since }),
        Err(fault @ (OcspFault::Unknown | OcspFault::Other)) => {
            Ok(Outcome::Unknown(fault.to_string()))
        }
        Err(fault) => Err(fault.to_string()),
    }
}

/// Why there is nothing to ask for.
pub(super) const NO_ISSUER: &str =
    "the intermediate that issued it is not known: put it after the certificate in its file";

/// The ways to ask the responder at `url`, the best first.
fn ways(url: &str, request: Vec<u8>) -> Vec<(Method, String, Vec<u8>)> {
    let mut encoded = String::new();
    for letter in openssl::base64::encode_block(&request).chars() {
        match letter {
            '+' => encoded.push_str("%2B"),
            '/' => encoded.push_str("%2F"),
            '=' => encoded.push_str("%3D"),
            other => encoded.push(other),
        }
    }
    let short = format!("{}/{encoded}", url.trim_end_matches('/'));
    let mut ways = Vec::with_capacity(2);
    if short.len() <= LONGEST_GET && !url.contains('?') {
        ways.push((Method::GET, short, Vec::new()));
    }
    ways.push((Method::POST, url.to_owned(), request));
    ways
}

/// Fetches a revocation list, unless it is the known one.
pub(crate) async fn fetch_list(query: &ListQuery, client: &HttpClient) -> ListAnswer {
    let mut request = Request::new(Body::default());
    match query.url.parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return ListAnswer::Failed("its URL is malformed".to_owned()),
    }
    let known = [
        (IF_NONE_MATCH, &query.known.etag),
        (IF_MODIFIED_SINCE, &query.known.modified),
    ];
    for (name, value) in known {
        if let Some(value) = value {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let answer = match client.send(request).await {
        Ok(answer) => answer,
        Err(error) => return ListAnswer::Failed(error.to_string()),
    };
    match answer.status() {
        StatusCode::OK => {
            let validators = validators(answer.headers());
            ListAnswer::Fetched(answer.into_body(), validators)
        }
        StatusCode::NOT_MODIFIED => ListAnswer::Unchanged,
        status => ListAnswer::Failed(format!("its server says {status}")),
    }
}

fn validators(headers: &HeaderMap) -> Validators {
    Validators {
        etag: headers.get(ETAG).cloned(),
        modified: headers.get(LAST_MODIFIED).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_requests_are_for_caches() {
        let ways = |url, length| ways(url, vec![0xfb; length]);
        let short = ways("http://ocsp.example/", 3);
        assert_eq!(short.len(), 2);
        assert_eq!(
            (&short[0].0, &*short[0].1),
            (&Method::GET, "http://ocsp.example/%2B%2Fv7")
        );
        assert_eq!(
            (&short[1].0, &*short[1].1),
            (&Method::POST, "http://ocsp.example/")
        );
        assert_eq!(ways("http://ocsp.example/", 200).len(), 1);
        assert_eq!(ways("http://ocsp.example/?a", 3).len(), 1);
    }
}
