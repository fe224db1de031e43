//! What the response of a server to a notification means.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};

use super::sender::DeliveryError;
use crate::clock::UnixTime;
use crate::config::model::SecretUrl;
use crate::http_client::HttpError;
use crate::printable::one_line;
use crate::program::without_secrets;
use crate::secret::Secret;

/// The most octets of a response that are read.
pub const MAX_ANSWER: usize = 64 << 10;

/// How much of what a server says is shown, in characters.
const MAX_SAID: usize = 200;

/// The outcome of a request to `url`, of which only the host is shown: 2xx is success. Of the others, those
/// that are about the notification itself are final. The rest may resolve itself, or be put right in the
/// configuration or at the server: wrong credentials, a path that is not there yet. What the server says is shown
/// without `secrets`, which it may have sent back.
///
/// # Errors
/// If the response is none of success.
pub fn outcome(
    url: &SecretUrl,
    secrets: &[Secret],
    response: Result<Response<Bytes>, HttpError>,
    now: UnixTime,
) -> Result<Bytes, DeliveryError> {
    let response = match response {
        Ok(response) => response,
        // The response has begun: it is the server's mistake, and would be made again.
        Err(error @ HttpError::TooLong(_)) => {
            return Err(DeliveryError::never(format!("{url}: {error}")));
        }
        Err(error) => return Err(DeliveryError::later(format!("{url}: {error}"))),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let said = redact(&String::from_utf8_lossy(response.body()), url, secrets);
    let said = one_line(&said, MAX_SAID);
    let said = match said.trim() {
        "" => String::new(),
        said => format!(": {said}"),
    };
    let hint = if status.is_redirection() {
        ", which is not followed: configure the new URL"
    } else {
        ""
    };
    let message = format!("{url} responded with {status}{hint}{said}");
    if is_final(status) {
        Err(DeliveryError::never(message))
    } else {
        let after = retry_after(response.headers(), now);
        Err(DeliveryError::retry_after(message, after))
    }
}

/// A server's text without what is secret of its URL, and without `secrets`. To be cut afterwards
/// only: a part of a secret is not found.
pub(super) fn redact(text: &str, url: &SecretUrl, secrets: &[Secret]) -> String {
    without_secrets(&url.redact(text), secrets)
}

/// Returns true if a server that answers so refuses this notification, whoever sends it and whenever.
fn is_final(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::GONE
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    )
}

/// When to try again (RFC 9110, section 10.2.3).
pub fn retry_after(headers: &HeaderMap, now: UnixTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let at = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some((UnixTime::from_secs(0) + at).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::unix;
    use crate::notify::Retry;
    use crate::secret::Secret;

    fn answer(status: u16, retry_after: Option<&str>) -> Result<Bytes, DeliveryError> {
        let mut response = Response::builder().status(status);
        if let Some(after) = retry_after {
            response = response.header(RETRY_AFTER, after);
        }
        let body = Bytes::from_static(b"no\nthanks");
        let response = response.body(body).expect("a response");
        let url = Secret::new("https://a.test/path".to_owned());
        let uri = url.expose().parse().expect("a URL");
        let secrets = [Secret::new("thanks".to_owned())];
        let url = SecretUrl::new(&url, uri);
        outcome(&url, &secrets, Ok(response), unix(784_111_777))
    }

    #[test]
    fn each_status_says_whether_to_try_again() {
        let second = Duration::from_secs(1);
        for (status, after, expected) in [
            (200, None, None),
            (204, None, None),
            (301, None, Some(Retry::Later)),
            (401, None, Some(Retry::Later)),
            (403, Some("7"), Some(Retry::After(second * 7))),
            (404, None, Some(Retry::Later)),
            (413, None, Some(Retry::Never)),
            (400, None, Some(Retry::Never)),
            (410, Some("5"), Some(Retry::Never)),
            (408, None, Some(Retry::Later)),
            (425, None, Some(Retry::Later)),
            (429, Some("7"), Some(Retry::After(second * 7))),
            (500, Some("soon"), Some(Retry::Later)),
            (
                503,
                Some("Sun, 06 Nov 1994 08:49:47 GMT"),
                Some(Retry::After(second * 10)),
            ),
            (
                503,
                Some("Sun, 06 Nov 1994 08:49:30 GMT"),
                Some(Retry::After(Duration::ZERO)),
            ),
        ] {
            let retry = answer(status, after).err().map(|error| error.retry);
            assert_eq!(retry, expected, "{status}");
        }
        let error = answer(400, None).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "https://a.test responded with 400 Bad Request: no [redacted]"
        );
    }
}
