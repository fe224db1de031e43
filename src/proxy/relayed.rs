//! What trusted proxies say of a request that they relay: who its client is, and how it reached
//! them.
//!
//! Fields are read from the right, since each proxy appends what it knows, up to the first address
//! that is not a trusted proxy's. Whatever stands further left comes from that client, and means
//! nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::request::{Relayed, Request};
use crate::config::model::NetworkSet;
use crate::field::is_token;

impl Relayed {
    /// What the fields of a request say, if it comes from a proxy that is `trusted`.
    pub(super) fn of(request: &Request<'_>, trusted: &NetworkSet) -> Option<Arc<Self>> {
        if trusted.is_empty() {
            return None;
        }
        let peer = request.client?;
        if !trusted.contains(peer) {
            return None;
        }
        let claims = Claims::of(request);
        let mut path = Path {
            client: peer,
            proxies: Vec::new(),
            trusted,
        };
        // Only one of the two is believed: a proxy that writes one may pass on what its client says
        // in the other.
        let (is_tls, port) = if claims.forwarded_for.is_empty() && claims.proto.is_empty() {
            let is_tls = path.follow_forwarded(&claims.forwarded);
            (is_tls, None)
        } else {
            let at = path.follow_addresses(&claims.forwarded_for);
            let is_tls = element_at(&claims.proto, at).and_then(scheme);
            (is_tls, element_at(&claims.port, at).and_then(port))
        };
        let default = is_tls.filter(|is_tls| *is_tls != request.tls.is_some());
        let default = default.map(|is_tls| if is_tls { 443 } else { 80 });
        Some(Arc::new(Self {
            client: path.client,
            is_tls,
            port: port.or(default),
            chain: path.to_chain(),
        }))
    }
}

/// The fields of a request that say something of its client, in their order.
#[derive(Default)]
struct Claims<'a> {
    forwarded_for: Vec<&'a [u8]>,
    proto: Vec<&'a [u8]>,
    port: Vec<&'a [u8]>,
    forwarded: Vec<&'a [u8]>,
}

impl<'a> Claims<'a> {
    fn of(request: &Request<'a>) -> Self {
        let mut claims = Self::default();
        for (name, value) in request.fields.iter() {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            match name.len() {
                9 if is("forwarded") => claims.forwarded.push(value),
                15 if is("x-forwarded-for") => claims.forwarded_for.push(value),
                16 if is("x-forwarded-port") => claims.port.push(value),
                17 if is("x-forwarded-proto") => claims.proto.push(value),
                _ => {}
            }
        }
        claims
    }
}

/// The way of a request back to its client.
struct Path<'a> {
    /// The client, as far as is known by now.
    client: IpAddr,
    /// The proxies from the nearest to the farthest.
    proxies: Vec<IpAddr>,
    trusted: &'a NetworkSet,
}

impl Path<'_> {
    /// Takes `address` for the client, and returns whether it is that of another trusted proxy.
    fn go_to(&mut self, address: IpAddr) -> bool {
        self.proxies.push(self.client);
        self.client = address;
        self.trusted.contains(address)
    }

    /// Follows `X-Forwarded-For`. Returns the place of the client's address, from the right.
    fn follow_addresses(&mut self, values: &[&[u8]]) -> usize {
        let mut place = 0;
        for (at, element) in elements(values, false).enumerate() {
            let Some(address) = node(element) else { break };
            place = at;
            if !self.go_to(address) {
                break;
            }
        }
        place
    }

    /// Follows `Forwarded` (RFC 7239). Returns whether the client speaks TLS, if it says so.
    fn follow_forwarded(&mut self, values: &[&[u8]]) -> Option<bool> {
        let mut is_tls = None;
        for (at, element) in elements(values, true).enumerate() {
            let Some(hop) = Hop::parse(element) else {
                break;
            };
            let Some(address) = hop.client.and_then(node) else {
                if at == 0 {
                    is_tls = hop.proto.and_then(scheme);
                }
                break;
            };
            is_tls = hop.proto.and_then(scheme);
            if !self.go_to(address) {
                break;
            }
        }
        is_tls
    }

    fn to_chain(&self) -> Box<str> {
        let mut chain = self.client.to_string();
        for proxy in self.proxies.iter().rev() {
            chain.push_str(", ");
            chain.push_str(&proxy.to_string());
        }
        chain.into()
    }
}

/// The elements of a list in several fields, from the right. Empty ones are skipped (RFC 9110,
/// section 5.6.1). With `quotes`, a comma in a quoted string does not end an element.
fn elements<'a>(values: &'a [&'a [u8]], quotes: bool) -> impl Iterator<Item = &'a [u8]> {
    let from_right = move |value: &'a [u8]| FromRight {
        rest: Some(value),
        quotes,
    };
    let elements = values.iter().rev().flat_map(move |value| from_right(value));
    elements
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The elements of one value, from the right: what a client has written cannot change how the
/// elements are read that proxies have appended.
struct FromRight<'a> {
    rest: Option<&'a [u8]>,
    quotes: bool,
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        let comma = rest.iter().rposition(|&octet| {
            is_quoted ^= self.quotes && octet == b'"';
            octet == b',' && !is_quoted
        });
        let Some((before, element)) = comma.and_then(|at| rest.split_at_checked(at)) else {
            return Some(rest);
        };
        self.rest = Some(before);
        element.get(1..)
    }
}

/// The element at a place from the right, or the leftmost one if there are fewer.
fn element_at<'a>(values: &'a [&'a [u8]], place: usize) -> Option<&'a [u8]> {
    elements(values, false).take(place.saturating_add(1)).last()
}

/// Whether a scheme is one with TLS. Some proxies name those of WebSocket.
fn scheme(text: &[u8]) -> Option<bool> {
    let is = |other: &[u8]| text.eq_ignore_ascii_case(other);
    if is(b"https") || is(b"wss") {
        return Some(true);
    }
    (is(b"http") || is(b"ws")).then_some(false)
}

fn port(text: &[u8]) -> Option<u16> {
    let is_number = text.iter().all(u8::is_ascii_digit);
    let port = str::from_utf8(text).ok().filter(|_| is_number)?.parse();
    port.ok().filter(|&port| port != 0)
}

/// An address, with or without a port; one of IPv6 that has a port is in brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let is_port = |rest: &str| {
        rest.strip_prefix(':')
            .is_some_and(|digits| port(digits.as_bytes()).is_some())
    };
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']')?;
        let is_good = rest.is_empty() || is_port(rest);
        let address: std::net::Ipv6Addr = address.parse().ok().filter(|_| is_good)?;
        return Some(IpAddr::V6(address).to_canonical());
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, rest) = text.split_at_checked(text.find(':')?)?;
    let address: Ipv4Addr = address.parse().ok().filter(|_| is_port(rest))?;
    Some(address.into())
}

/// What one proxy says in `Forwarded`.
#[derive(Default)]
struct Hop<'a> {
    client: Option<&'a [u8]>,
    proto: Option<&'a [u8]>,
}

impl<'a> Hop<'a> {
    /// Parses an element; `None` if it is malformed.
    fn parse(element: &'a [u8]) -> Option<Self> {
        let mut hop = Self::default();
        let mut is_quoted = false;
        let pairs = element.split(|&octet| {
            is_quoted ^= octet == b'"';
            octet == b';' && !is_quoted
        });
        for pair in pairs.map(<[u8]>::trim_ascii) {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
            // So an element has an even number of quotes.
            if name.is_empty() || !name.iter().copied().all(is_token) {
                return None;
            }
            let value = unquote(value.get(1..)?)?;
            let place = match name {
                _ if name.eq_ignore_ascii_case(b"for") => &mut hop.client,
                _ if name.eq_ignore_ascii_case(b"proto") => &mut hop.proto,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(hop)
    }
}

/// A value without its quotes; `None` if they are not at both ends or something in it is escaped,
/// which neither an address nor a scheme needs.
fn unquote(value: &[u8]) -> Option<&[u8]> {
    let inner = match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"")?,
        None => value,
    };
    let is_plain = |octet: &u8| !matches!(octet, b'"' | b'\\');
    inner.iter().all(is_plain).then_some(inner)
}

#[cfg(test)]
mod tests;
