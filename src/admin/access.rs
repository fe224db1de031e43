//! Who may use the admin interface: the token, and the protection against requests that a browser
//! was tricked into.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, HOST, ORIGIN};
use http::header::{HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use openssl::sha::sha256;

use super::{AdminState, Problem};
use crate::secret::Secret;

/// The maximum size of a request body: a reason for a revocation, or the contacts of an account.
pub(super) const MAX_BODY: usize = 64 * 1024;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where the interface listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    /// A socket in the file system, which no browser can reach.
    Unix,
}

/// Whether a request is trusted; only probes are answered otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trusted(pub(super) bool);

/// Lets trusted requests through, and probes always.
pub(super) async fn guard(
    State(state): State<AdminState>,
    mut request: Request,
    next: Next,
) -> Response {
    let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    let checked = check(state.place, state.control.token().as_ref(), &request);
    let mut response = match checked {
        Err(problem) if !probe => problem.into_response(),
        checked => {
            request.extensions_mut().insert(Trusted(checked.is_ok()));
            next.run(request).await
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn check(place: Place, token: Option<&Secret>, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    match (token, place) {
        (Some(token), _) => authorize(token, headers)?,
        // The configuration may omit the token only for loopback addresses. But a new address takes
        // effect at the next start, and a removed token immediately.
        (None, Place::Tcp(listen)) if !listen.ip().to_canonical().is_loopback() => {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "the admin interface still listens where others can reach it, but its token was \
                 removed: restart the gateway, or configure a token again",
            ));
        }
        (None, Place::Tcp(listen)) => refuse_rebinding(listen, request)?,
        (None, Place::Unix) => {}
    }
    if !request.method().is_safe() {
        refuse_cross_site(headers)?;
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_BODY) {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a body may have at most {MAX_BODY} bytes"),
        ));
    }
    Ok(())
}

/// Compares digests, so neither the time nor the length reveals how close a guess was.
fn authorize(token: &Secret, headers: &HeaderMap) -> Result<(), Problem> {
    let shown = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().split_at_checked(7))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let Some((_, shown)) = shown else {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "a token is needed: Authorization: Bearer TOKEN",
        ));
    };
    if openssl::memcmp::eq(
        &sha256(shown.trim_ascii()),
        &sha256(token.expose().as_bytes()),
    ) {
        Ok(())
    } else {
        Err(Problem::new(StatusCode::UNAUTHORIZED, "the token is wrong"))
    }
}

/// A page can point its own name to this address and then read responses as its own; the name in
/// `Host` gives it away.
fn refuse_rebinding(listen: SocketAddr, request: &Request) -> Result<(), Problem> {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => request
            .headers()
            .get(HOST)
            .and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    };
    if host.is_some_and(|host| is_own_name(listen, host.host())) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "without a token the admin interface answers only to its own address and to loopback \
         names in Host",
    ))
}

fn is_own_name(listen: SocketAddr, host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == listen.ip(),
        Err(_) => {
            let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// A browser says where a request comes from; programs do not.
fn refuse_cross_site(headers: &HeaderMap) -> Result<(), Problem> {
    let same_site = headers
        .get(SEC_FETCH_SITE)
        .is_none_or(|site| site == "same-origin" || site == "none");
    let same_origin = headers.get(ORIGIN).is_none_or(|origin| {
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        matches!((origin, host), (Some((_, origin)), Some(host)) if origin == host)
    });
    if same_site && same_origin {
        Ok(())
    } else {
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "a page of another site must not change anything here",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_loopback_and_the_listener() {
        let listen: SocketAddr = "192.0.2.7:9180".parse().expect("an address");
        for own in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.8.0.1",
            "[::1]",
            "192.0.2.7",
        ] {
            assert!(is_own_name(listen, own), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "192.0.2.8",
            "notlocalhost",
            "",
        ] {
            assert!(!is_own_name(listen, foreign), "{foreign}");
        }
    }
}
