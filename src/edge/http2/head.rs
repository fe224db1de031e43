//! How large the head of a request may be: as large as over HTTP/1.

use http::header::COOKIE;
use pingora_http::RequestHeader;

use crate::edge::http1::{LINE_TOO_LONG, MAX_FIELDS, MAX_REQUEST_LINE, Refusal, TOO_LARGE};

/// What each field adds to the size of a list of fields (RFC 9113, section 6.5.2).
const PER_FIELD: usize = 32;

/// What a request line has around method and target.
const LINE: usize = " ".len() + " HTTP/1.1".len();

/// Checks the size of a head. `max` is the most octets that its fields may have, counted as a client
/// counts them.
///
/// # Errors
/// Where the head is larger than one of HTTP/1 may be.
pub(super) fn check_size(head: &RequestHeader, max: usize) -> Result<(), Refusal> {
    let (method, target) = (head.method.as_str(), head.raw_path());
    if method.len() + target.len() + LINE > MAX_REQUEST_LINE {
        return Err(LINE_TOO_LONG);
    }
    let uri = &head.uri;
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let pseudo = [
        (":method", method.len()),
        (":scheme", uri.scheme_str().map_or(0, str::len)),
        (":authority", authority),
        (":path", target.len()),
    ];
    let pseudo = pseudo.map(|(name, value)| name.len() + value + PER_FIELD);
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + PER_FIELD);
    if pseudo.into_iter().chain(fields).sum::<usize>() > max {
        return Err(TOO_LARGE);
    }
    // Clients may send a Cookie in crumbs, which are one field again further on.
    let crumbs = head.headers.get_all(COOKIE).iter().skip(1).count();
    if head.headers.len() - crumbs > MAX_FIELDS {
        return Err(TOO_LARGE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(path: &str, fields: &[(&'static str, String)], max: usize) -> Option<u16> {
        let uri = format!("https://a.test{path}");
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let refused = check_size(&parts.into(), max).err();
        refused.map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_head_is_limited_in_octets_fields_and_target() {
        let x = |len| ("x", "a".repeat(len));
        // Four pseudo-header fields with names of 29 octets, and one of 33 around its value.
        let rest = "GET".len() + "https".len() + "a.test".len() + "/".len() + 29 + 4 * 32 + 33;
        assert_eq!(status("/", &[x(1024 - rest)], 1024), None);
        assert_eq!(status("/", &[x(1025 - rest)], 1024), Some(431));

        let fields = |count| vec![x(1); count];
        assert_eq!(status("/", &fields(100), 65_536), None);
        assert_eq!(status("/", &fields(101), 65_536), Some(431));
        let crumbs = vec![("cookie", "a=b".to_owned()); 300];
        assert_eq!(status("/", &crumbs, 65_536), None);

        let path = |len: usize| format!("/{}", "a".repeat(len - 1));
        assert_eq!(status(&path(16_384 - 13), &[], 65_536), None);
        assert_eq!(status(&path(16_385 - 13), &[], 65_536), Some(414));
        assert_eq!(status(&path(60_000), &[], 1024), Some(414));
    }
}
