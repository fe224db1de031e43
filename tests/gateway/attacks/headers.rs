//! Headers of the PROXY protocol that lie, come twice, or come from anybody.

use std::io::{Read, Write};

use super::in_front_of;
use crate::support::{Balancer, Gateway, Origin, connect, exchange, is_end};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";

/// A header of version 2 that says to have `length` octets.
fn binary(length: u16, content: &[u8]) -> Vec<u8> {
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    octets.extend(length.to_be_bytes());
    octets.extend(content);
    octets
}

/// 192.0.2.1:56324 to 198.51.100.7:443, and these fields.
fn with_fields(fields: &[u8]) -> Vec<u8> {
    let content = [&[192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 4, 1, 0xbb], fields].concat();
    binary(u16::try_from(content.len()).expect("short"), &content)
}

/// Sends what a balancer should not, ends its side, and reads the answer.
fn answer(gateway: &Gateway, octets: &[u8]) -> String {
    let mut stream = Balancer::connect(gateway.http);
    _ = stream.write_all(octets);
    _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(is_end(&error), "neither an answer nor an end: {error}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn headers_that_lie_get_no_request_through() {
    let origin = Origin::named("x");
    let gateway = in_front_of(&origin)
        .server("proxy_protocol: { trusted: [\"127.0.0.77\"] }")
        .start();
    let whole = with_fields(&[]);
    for (name, octets) in [
        ("twice", [LINE, LINE, REQUEST].concat()),
        ("twice, in both versions", [LINE, &whole, REQUEST].concat()),
        (
            "twice, in the other order",
            [&whole, LINE, REQUEST].concat(),
        ),
        ("twice in version 2", [&whole[..], &whole, REQUEST].concat()),
        (
            "a length that takes the request along",
            [&binary(0xffff, &whole[16..]), REQUEST].concat(),
        ),
        (
            "a length of nothing",
            [&binary(0, &whole[16..]), REQUEST].concat(),
        ),
        (
            "a length too short",
            [&binary(11, &whole[16..]), REQUEST].concat(),
        ),
        (
            "a field longer than its header",
            [&with_fields(&[4, 0xff, 0xff]), REQUEST].concat(),
        ),
        (
            "a field cut short",
            [&with_fields(&[4, 0]), REQUEST].concat(),
        ),
        (
            "a checksum of two octets",
            [&with_fields(&[3, 0, 2, 0, 0]), REQUEST].concat(),
        ),
        ("a line of 108 octets", [&[b'P'; 108], REQUEST].concat()),
        (
            "an address that is none",
            [b"PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", REQUEST].concat(),
        ),
        (
            "two spaces",
            [b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", REQUEST].concat(),
        ),
        (
            "a port too large",
            [b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", REQUEST].concat(),
        ),
        (
            "a line end in an address",
            [b"PROXY TCP4 1.2.3.4\n1.2.3.4 1 2\r\n", REQUEST].concat(),
        ),
        (
            "lower case",
            [b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", REQUEST].concat(),
        ),
    ] {
        let answer = answer(&gateway, &octets);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{name}: {answer}"
        );
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
    // One that is right is taken.
    let right = [&with_fields(&[4, 0, 1, 0]), REQUEST].concat();
    assert!(answer(&gateway, &right).starts_with("HTTP/1.1 200"));
    assert_eq!(
        origin.requests()[0].header("x-forwarded-for"),
        Some("192.0.2.1")
    );
    // And none is from anybody else.
    for header in [LINE, &whole] {
        let all = [header, REQUEST].concat();
        let answer = exchange(&mut connect(gateway.http), &all);
        assert!(
            answer.starts_with(b"HTTP/1.1 400"),
            "{}",
            answer.escape_ascii()
        );
    }
    assert_eq!(origin.requests().len(), 1);
}
