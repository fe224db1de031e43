//! The redirect of plain requests to TLS.

use http::{HeaderValue, StatusCode};

use crate::proxy::authority::Authority;
use crate::proxy::redirect::escape_url;
use crate::proxy::response::LocalResponse;

/// The redirect of a plain request to TLS. It keeps the method (308).
pub(super) fn redirect_to_tls(authority: Authority<'_>, port: u16, target: &[u8]) -> LocalResponse {
    let host = Authority {
        port: (port != 443).then_some(port),
        ..authority
    };
    let location = [b"https://", host.to_string().as_bytes(), target].concat();
    HeaderValue::try_from(escape_url(location)).map_or_else(
        |_| LocalResponse::status(StatusCode::BAD_REQUEST),
        |to| LocalResponse::redirect(StatusCode::PERMANENT_REDIRECT, to),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::NameBuffer;

    #[test]
    fn a_redirect_to_tls_keeps_host_path_and_query() {
        let mut buffer = NameBuffer::new();
        let authority = Authority::parse(b"A.example:8080", &mut buffer).expect("valid");
        let to = |port| redirect_to_tls(authority, port, b"/x?y=z");
        let expected = |to: &'static str| {
            LocalResponse::redirect(StatusCode::PERMANENT_REDIRECT, HeaderValue::from_static(to))
        };
        assert_eq!(to(443), expected("https://a.example/x?y=z"));
        assert_eq!(to(8443), expected("https://a.example:8443/x?y=z"));
        let odd = redirect_to_tls(authority, 443, "/\u{e4}\"".as_bytes());
        assert_eq!(odd, expected("https://a.example/%C3%A4%22"));
    }
}
