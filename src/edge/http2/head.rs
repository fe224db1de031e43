//! What the head of a request must satisfy, beyond what the h2 crate checks: it is no larger than
//! over HTTP/1, and nothing in it can be read differently by another server (RFC 9113, sections
//! 8.1.1 and 8.3.1).

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderValue, Method};
use pingora_http::RequestHeader;

use super::websocket;
use crate::edge::http1::{MAX_FIELDS, MAX_REQUEST_LINE};
use crate::edge::refusal::{CONNECT, LINE_TOO_LONG, Refusal, TOO_LARGE, bad};
use crate::host::NameBuffer;
use crate::proxy::{Authority, is_well_formed};

/// What each field adds to the size of a field list (RFC 9113, section 6.5.2).
const PER_FIELD: usize = 32;

/// What a request line contains besides method and target.
const LINE: usize = " ".len() + " HTTP/1.1".len();

/// Checks a head whose fields may have `max` octets.
///
/// # Errors
/// If it is not that of a request that is served.
pub(super) fn check_head(head: &RequestHeader, max: usize) -> Result<(), Refusal> {
    check_size(head, max)?;
    if head.method == Method::CONNECT && !websocket::is_asked_for(head) {
        return Err(CONNECT);
    }
    let target = head.raw_path();
    let form_is_known =
        target.starts_with(b"/") || (target == b"*" && head.method == Method::OPTIONS);
    if !form_is_known || !is_well_formed(target) {
        return Err(bad("the request target is malformed"));
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(bad("more than one Content-Length"));
    }
    check_authority(head)
}

/// Joins the `Cookie` fields that a client may split (RFC 9113, section 8.2.3) if there are very many:
/// each takes far more memory than what it says, for as long as the request lasts.
pub(super) fn join_crumbs(head: &mut RequestHeader) {
    if head.headers.len() <= MAX_FIELDS {
        return;
    }
    let Ok(empty) = RequestHeader::build_no_case(Method::GET, b"/", None) else {
        return;
    };
    let mut parts = http::request::Parts::from(std::mem::replace(head, empty));
    let crumbs: Vec<&[u8]> = parts
        .headers
        .get_all(COOKIE)
        .iter()
        .map(|crumb| crumb.as_bytes())
        .collect();
    // Values with "; " between them are a value.
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).ok();
    let mut fields = HeaderMap::with_capacity(MAX_FIELDS);
    for (name, value) in &parts.headers {
        if name != COOKIE {
            fields.append(name, value.clone());
        }
    }
    if let Some(joined) = joined {
        fields.insert(COOKIE, joined);
    }
    parts.headers = fields;
    *head = parts.into();
}

/// Checks that a request names one authority, in either of the two places.
fn check_authority(head: &RequestHeader) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    if hosts.next().is_some() {
        return Err(bad("more than one Host field"));
    }
    let authority = head.uri.authority();
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let one = authority
        .or(host)
        .ok_or(bad("no :authority and no Host field"))?;
    if memchr::memchr(b'@', one).is_some() {
        return Err(bad("a user in :authority or the Host field"));
    }
    match host {
        Some(host) if host != one && !is_same(host, one) => {
            Err(bad(":authority and the Host field differ"))
        }
        _ => Ok(()),
    }
}

/// Whether both are the same valid authority, however they are written.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (mut of_one, mut of_other) = (NameBuffer::new(), NameBuffer::new());
    let one = Authority::parse(one, &mut of_one);
    one.is_some() && one == Authority::parse(other, &mut of_other)
}

/// Checks the size of a head. `max` is the most octets that its fields may have, counted as a
/// client counts them.
///
/// # Errors
/// If the head is larger than one of HTTP/1 may be.
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
    // Clients may split Cookie into several fields, which are joined later.
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
    fn a_head_names_one_host_and_one_length() {
        let refused = |method: &str, uri: &str, fields: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method).uri(uri);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let refused = check_head(&parts.into(), 65_536).err();
            refused.map(|refusal| refusal.status.as_u16())
        };
        let uri = "https://a.test/";
        for fields in [
            &[][..],
            &[("host", "a.test")],
            &[("host", "A.test.")],
            &[("content-length", "1")],
        ] {
            assert_eq!(refused("GET", uri, fields), None, "{fields:?}");
        }
        for fields in [
            &[("host", "b.test")][..],
            &[("host", "a.test:443")],
            &[("host", "x@a.test")],
            &[("host", "")],
            &[("host", "a.test"), ("host", "a.test")],
            &[("content-length", "1"), ("content-length", "1")],
        ] {
            assert_eq!(refused("GET", uri, fields), Some(400), "{fields:?}");
        }
        assert_eq!(refused("GET", "/", &[("host", "a.test")]), None);
        assert_eq!(refused("GET", "/", &[]), Some(400));
        assert_eq!(refused("GET", "/", &[("host", "x@a.test")]), Some(400));
        assert_eq!(refused("GET", "https://x@a.test/", &[]), Some(400));
        assert_eq!(refused("GET", "*", &[("host", "a.test")]), Some(400));
        assert_eq!(refused("OPTIONS", "*", &[("host", "a.test")]), None);
        assert_eq!(refused("CONNECT", "a.test:443", &[]), Some(405));
    }

    #[test]
    fn very_many_crumbs_of_a_cookie_become_one() {
        let build = |count: usize| {
            let mut request = http::Request::builder()
                .uri("https://a.test/p?q")
                .method("PUT");
            request = request.header("a", "1").header("a", "2");
            for number in 0..count {
                request = request.header("cookie", format!("c{number}"));
            }
            let (parts, ()) = request
                .header("z", "3")
                .body(())
                .expect("a request")
                .into_parts();
            let mut head = RequestHeader::from(parts);
            join_crumbs(&mut head);
            head
        };
        assert_eq!(build(97).headers.get_all(COOKIE).iter().count(), 97);
        let head = build(1500);
        assert_eq!(
            (head.method.as_str(), head.raw_path()),
            ("PUT", &b"/p?q"[..])
        );
        assert_eq!(head.headers.len(), 4);
        let cookies = head
            .headers
            .get(COOKIE)
            .expect("one")
            .to_str()
            .expect("text");
        assert!(cookies.starts_with("c0; c1; ") && cookies.ends_with("; c1499"));
        let values: Vec<_> = head.headers.get_all("a").iter().collect();
        assert_eq!(values, ["1", "2"]);
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
