use super::*;
use crate::config::model::Network;
use crate::proxy::request::Fields;

fn trusted() -> NetworkSet {
    let networks = ["10.0.0.0/8", "2001:db8:1::/48"];
    let networks = networks.map(|text| text.parse::<Network>().expect("a network"));
    networks.into_iter().collect()
}

/// What fields say of a request from this peer.
fn relayed_by(peer: &str, fields: &str) -> Option<Relayed> {
    let lines = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    let request = Request {
        method: "GET",
        target: b"/",
        authority: b"a",
        version: "HTTP/1.1",
        fields: Fields::Lines(lines.as_bytes()),
        client: peer.parse().ok(),
        port: Some(80),
        tls: None,
        socket: None,
        accepted: None,
        relayed: None,
    };
    let relayed = Relayed::of(&request, &trusted())?;
    Some(Relayed::clone(&relayed))
}

fn client(fields: &str) -> String {
    let relayed = relayed_by("10.0.0.1", fields).expect("trusted");
    relayed.client.to_string()
}

fn chain(fields: &str) -> String {
    let relayed = relayed_by("10.0.0.1", fields).expect("trusted");
    relayed.chain.into()
}

/// Whether the client speaks TLS, and its port.
fn proto(fields: &str) -> (Option<bool>, Option<u16>) {
    let relayed = relayed_by("10.0.0.1", fields).expect("trusted");
    (relayed.is_tls, relayed.port)
}

#[test]
fn only_trusted_proxies_are_believed() {
    let fields = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https";
    for peer in ["192.0.2.7", "11.0.0.1", "2001:db8:2::1", "-"] {
        assert_eq!(relayed_by(peer, fields), None, "{peer}");
    }
    for peer in ["10.9.9.9", "2001:db8:1::1"] {
        let relayed = relayed_by(peer, fields).expect("trusted");
        assert_eq!(relayed.client.to_string(), "192.0.2.1");
        assert_eq!(&*relayed.chain, format!("192.0.2.1, {peer}"));
    }
}

#[test]
fn the_client_is_the_rightmost_that_is_no_trusted_proxy() {
    for (fields, client_is, chain_is) in [
        ("A: b", "10.0.0.1", "10.0.0.1"),
        (
            "X-Forwarded-For: 192.0.2.1",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.1",
        ),
        (
            "x-forwarded-for: 6.6.6.6, 192.0.2.1",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: 6.6.6.6, 10.6.6.6,192.0.2.1 , 10.0.0.3,10.0.0.2",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.3, 10.0.0.2, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.2",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.2, 10.0.0.1",
        ),
        // All of them are trusted: the farthest is the client.
        (
            "X-Forwarded-For: 10.0.0.9, 10.0.0.2",
            "10.0.0.9",
            "10.0.0.9, 10.0.0.2, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: 2001:DB8::7, 2001:db8:1::2",
            "2001:db8::7",
            "2001:db8::7, 2001:db8:1::2, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: ::ffff:192.0.2.1, ::ffff:10.0.0.2",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.2, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: 192.0.2.1:4711",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: [2001:db8::7]:4711",
            "2001:db8::7",
            "2001:db8::7, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: [2001:db8::7]",
            "2001:db8::7",
            "2001:db8::7, 10.0.0.1",
        ),
        (
            "X-Forwarded-For: , ,192.0.2.1,, ",
            "192.0.2.1",
            "192.0.2.1, 10.0.0.1",
        ),
    ] {
        assert_eq!(client(fields), client_is, "{fields}");
        assert_eq!(chain(fields), chain_is, "{fields}");
    }
}

#[test]
fn what_is_malformed_ends_the_search() {
    for entry in [
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:x",
        "192.0.2.1:0",
        "192.0.2.1:99999",
        "192.0.2.01",
        "192.0.2.1 10.0.0.2",
        "\"192.0.2.1\"",
        "for=192.0.2.1",
        "[2001:db8::7",
        "[2001:db8::7]x",
        "[192.0.2.1]",
        "2001:db8::7%eth0",
        "fe80::1%1",
        "\u{e4}",
        "a.example",
        "0x7f000001",
        "-1",
    ] {
        let fields = format!("X-Forwarded-For: 6.6.6.6, {entry}, 10.0.0.2");
        assert_eq!(client(&fields), "10.0.0.2", "{entry}");
        assert_eq!(chain(&fields), "10.0.0.2, 10.0.0.1", "{entry}");
        let fields = format!("X-Forwarded-For: 6.6.6.6, {entry}");
        assert_eq!(client(&fields), "10.0.0.1", "{entry}");
    }
}

#[test]
fn forwarded_is_read_if_there_is_nothing_else() {
    for (value, client_is) in [
        ("for=192.0.2.1", "192.0.2.1"),
        ("FOR=192.0.2.1;Proto=https;by=203.0.113.43", "192.0.2.1"),
        (
            "for=6.6.6.6, for=192.0.2.1; proto=http , for=10.0.0.2",
            "192.0.2.1",
        ),
        ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("for=\"192.0.2.43:47011\"", "192.0.2.43"),
        ("for=\"192.0.2.1\";host=\"a,b;for=6.6.6.6\"", "192.0.2.1"),
        (";for=192.0.2.1;;", "192.0.2.1"),
        // Malformed, or nobody's address.
        ("for=unknown", "10.0.0.1"),
        ("for=_gazonk", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
        ("for", "10.0.0.1"),
        ("for=", "10.0.0.1"),
        ("for=192.0.2.1;for=6.6.6.6", "10.0.0.1"),
        ("for=\"192.0.2.1", "10.0.0.1"),
        ("for=192.0.2.1\"", "10.0.0.1"),
        ("for=\"192.0.2.\\1\"", "10.0.0.1"),
        ("for =192.0.2.1", "10.0.0.1"),
        ("for= 192.0.2.1", "10.0.0.1"),
        ("for=192.0.2.1;a\";host=\"b\"", "10.0.0.1"),
        ("for=192.0.2.1;=b", "10.0.0.1"),
        // Quotes that a client has left open do not reach what its proxy appends.
        ("for=6.6.6.6;x=\", for=192.0.2.1", "192.0.2.1"),
        ("for=6.6.6.6, x=\", for=\"[2001:db8::7]\"", "2001:db8::7"),
        ("for=6.6.6.6;x=\"a\\, for=192.0.2.1", "192.0.2.1"),
        ("for=\"6.6.6.6, for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
        ("for=6.6.6.6, x=\", for=10.0.0.2", "10.0.0.2"),
    ] {
        assert_eq!(client(&format!("Forwarded: {value}")), client_is, "{value}");
    }
    // Whatever a proxy of the other kind lets through is not believed.
    let fields = "Forwarded: for=6.6.6.6;proto=http\r\n";
    assert_eq!(
        client(&format!("{fields}X-Forwarded-For: 192.0.2.1")),
        "192.0.2.1"
    );
    assert_eq!(
        client(&format!("{fields}X-Forwarded-For: unknown")),
        "10.0.0.1"
    );
    let only_proto = format!("{fields}X-Forwarded-Proto: https");
    assert_eq!(client(&only_proto), "10.0.0.1");
    assert_eq!(proto(&only_proto), (Some(true), Some(443)));
    assert_eq!(
        proto(&format!("{fields}X-Forwarded-For: 192.0.2.1")),
        (None, None)
    );
}

#[test]
fn the_scheme_is_the_one_that_the_client_used() {
    let two = "X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.2\r\n";
    for (fields, is_tls, port) in [
        ("X-Forwarded-Proto: https", Some(true), Some(443)),
        ("X-Forwarded-Proto: HTTPS", Some(true), Some(443)),
        ("X-Forwarded-Proto: wss", Some(true), Some(443)),
        ("X-Forwarded-Proto: http", Some(false), None),
        ("X-Forwarded-Proto: ftp", None, None),
        ("X-Forwarded-Proto:", None, None),
        ("X-Forwarded-Proto: http, https", Some(true), Some(443)),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443",
            Some(true),
            Some(8443),
        ),
        (
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 0",
            None,
            None,
        ),
        (
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Port: 81",
            None,
            Some(81),
        ),
        ("Forwarded: proto=https", Some(true), Some(443)),
        (
            "Forwarded: for=192.0.2.1;proto=\"https\"",
            Some(true),
            Some(443),
        ),
        (
            "Forwarded: for=192.0.2.1;proto=https, for=10.0.0.2;proto=http",
            Some(true),
            Some(443),
        ),
        (
            "Forwarded: for=6.6.6.6;proto=https, for=192.0.2.1",
            None,
            None,
        ),
        (
            "Forwarded: proto=https, for=10.0.0.2;proto=http",
            Some(false),
            None,
        ),
    ] {
        assert_eq!(proto(fields), (is_tls, port), "{fields}");
    }
    for (value, is_tls) in [
        // One value for all of them.
        ("https", true),
        // What the farthest proxy saw, not what the nearest one did, nor what the client claims.
        ("https, http", true),
        ("http, https", false),
        ("http, https, http", true),
    ] {
        let fields = format!("{two}X-Forwarded-Proto: {value}");
        assert_eq!(proto(&fields).0, Some(is_tls), "{value}");
    }
}
