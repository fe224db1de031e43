//! Names of fields of HTTP messages: which belong to one connection, and which a gateway vouches
//! for. And what may stand in `Host`.

use std::net::Ipv6Addr;

/// Whether a field belongs to one connection whatever `Connection` says (RFC 9110, section 7.6.1).
/// `Trailer` does because not all trailers are passed on.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 => is("te"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        14 => is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

/// Whether a field may follow a body (RFC 9110, section 6.5.1). One that frames or routes a message,
/// authenticates its sender, or changes how it is read may not.
pub(crate) fn is_trailer(name: &[u8]) -> bool {
    const HEAD_ONLY: [&[u8]; 29] = [
        b"accept",
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"host",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"location",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
        b"x-http-method-override",
    ];
    let is_of_head = HEAD_ONLY.iter().any(|of| name.eq_ignore_ascii_case(of));
    !is_of_head && !is_hop_by_hop(name)
}

/// Whether a client's field is kept from upstreams because it claims something that the gateway
/// vouches for.
///
/// Servers turn names into variables, in which every octet other than letters and digits may become
/// `_`. So a name with any other octet than `-` could be confused with one that the gateway vouches
/// for.
pub(crate) fn is_claim(name: &[u8]) -> bool {
    /// Longer than every name that is known.
    const LONGEST: usize = 32;
    let mut lower = [0; LONGEST];
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    let begin = lower.get(..name.len().min(LONGEST)).unwrap_or_default();
    !has_plain_name(name) || is_known_claim(begin)
}

/// Whether the gateway writes a field into every request for an upstream. Routes may set other
/// fields that clients may not.
pub(crate) fn is_vouched_for(name: &[u8]) -> bool {
    const NAMES: [&str; 7] = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    ];
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    NAMES.into_iter().any(is)
}

/// Whether an octet may stand in a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet)
}

/// Whether a name has letters, digits and `-` only, so that no server takes it for another one.
pub(crate) fn has_plain_name(name: &[u8]) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    name.iter().copied().all(is_plain)
}

/// Whether a field, its name in lower case, claims something about the client, or about how a
/// request arrived, that servers believe if a proxy sends it.
fn is_known_claim(name: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 6] = [
        b"forwarded-",
        b"x-forwarded-",
        b"x-original-",
        b"x-rewrite-",
        // `Proxy` becomes HTTP_PROXY in servers that turn fields into variables (CVE-2016-5385).
        b"proxy-",
        b"x-proxyuser-",
    ];
    // Most names begin with another letter.
    if !matches!(name.first(), Some(b'c' | b'f' | b'p' | b't' | b'w' | b'x')) {
        return false;
    }
    matches!(
        name,
        b"forwarded"
            | b"x-forwarded"
            | b"x-forward-for"
            | b"x-real-ip"
            | b"x-request-id"
            | b"proxy"
            | b"client-ip"
            | b"x-client-ip"
            | b"x-cluster-client-ip"
            | b"x-remote-ip"
            | b"x-remote-addr"
            | b"x-originating-ip"
            | b"true-client-ip"
            | b"cf-connecting-ip"
            | b"cf-connecting-ipv6"
            | b"fastly-client-ip"
            | b"fly-client-ip"
            | b"wl-proxy-client-ip"
            | b"x-azure-clientip"
            | b"x-azure-socketip"
            | b"x-envoy-external-address"
            | b"x-appengine-user-ip"
            | b"x-host"
            | b"x-scheme"
            | b"x-url-scheme"
            | b"front-end-https"
    ) || BEGINNINGS.iter().any(|begin| name.starts_with(begin))
}

/// Whether a text is a host with or without a port, as it may stand in `Host`. A name may have `_`,
/// as names of containers do.
pub(crate) fn is_authority(text: &[u8]) -> bool {
    let is_name = |octet: &u8| octet.is_ascii_alphanumeric() || b"-._".contains(octet);
    let (host_is_good, port) = if let Some(bracketed) = text.strip_prefix(b"[") {
        let end = memchr::memchr(b']', bracketed).unwrap_or(bracketed.len());
        let (address, rest) = bracketed.split_at_checked(end).unwrap_or_default();
        let address = str::from_utf8(address).ok();
        let is_address = address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        (is_address, rest.strip_prefix(b"]").unwrap_or(b"-"))
    } else {
        let end = memchr::memchr(b':', text).unwrap_or(text.len());
        let (host, rest) = text.split_at_checked(end).unwrap_or_default();
        (!host.is_empty() && host.iter().all(is_name), rest)
    };
    let port_is_good = match port.strip_prefix(b":") {
        None => port.is_empty(),
        Some(digits) => {
            let digits = str::from_utf8(digits).ok();
            let digits = digits.filter(|digits| digits.bytes().all(|one| one.is_ascii_digit()));
            digits.is_some_and(|digits| digits.parse::<u16>().is_ok())
        }
    };
    host_is_good && port_is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_claims_is_dropped_in_every_spelling() {
        for name in [
            "forwarded",
            "x-forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_proto",
            "x.forwarded.prefix",
            "x-forwarded~ssl",
            "x-forwarded-",
            "x-forwarded-anything",
            "x-real-ip",
            "x*real+ip",
            "x-request-id",
            "x-original-url",
            "x-rewrite-url",
            "true-client-ip",
            "front-end-https",
            "proxy",
            "proxy-auth",
            "remote_user",
            "content.length",
        ] {
            assert!(is_claim(name.as_bytes()), "{name}");
        }
        for name in [
            "forward",
            "x-real",
            "proxied",
            "via",
            "x-forwardedfor",
            "x-http-method-override",
            "x-auth-user",
            "sec-ch-ua",
        ] {
            assert!(!is_claim(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn trailers_neither_frame_nor_route_nor_authenticate() {
        for name in [
            "Content-Length",
            "transfer-encoding",
            "host",
            "Authorization",
            "set-cookie",
            "te",
            "trailer",
            "connection",
        ] {
            assert!(!is_trailer(name.as_bytes()), "{name}");
        }
        for name in ["grpc-status", "grpc-message", "X-Checksum", "etag"] {
            assert!(is_trailer(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for good in [
            "app.internal",
            "my_app",
            "a:8080",
            "127.0.0.1:80",
            "[::1]",
            "[2001:db8::1]:443",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:b", "a:99999", "a b", "a@b", "a/b", "a?b", "a\r\nb", "a:+1", "::1",
            "[::1", "[::1]x", "[a]", "[]", "ä",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
    }
}
