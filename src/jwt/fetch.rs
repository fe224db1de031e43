//! One fetch of the keys of a server.

use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode, Uri};

use super::keys::KeySet;
use crate::http_client::{Body, HttpClient};

/// Fetches a set of keys; `None` if it is what is known already. The error says why there is none.
pub(super) async fn fetch(
    client: &HttpClient,
    url: &Uri,
    known: Option<&KeySet>,
) -> Result<Option<KeySet>, String> {
    let mut request = Request::new(Body::default());
    *request.uri_mut() = url.clone();
    let accepted = HeaderValue::from_static("application/jwk-set+json, application/json");
    request.headers_mut().insert(ACCEPT, accepted);
    let answer = client.send(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("it responded with {}", answer.status()));
    }
    let octets = answer.body();
    if known.is_some_and(|known| known.is_of(octets)) {
        return Ok(None);
    }
    let parsed = KeySet::parse_published(octets);
    parsed
        .map(Some)
        .map_err(|error| format!("its response {error}"))
}
