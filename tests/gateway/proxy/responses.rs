//! Responses of upstreams in unusual forms: each arrives as the same message, or as 502.

use super::{VERSIONS, in_front_of, over, passing_to};
use crate::support::{Act, Gateway, H2, Origin, TlsClient, connect, exchange};

/// Sends these octets to each request and keeps its connection.
fn sending(octets: impl AsRef<[u8]>) -> Origin {
    let octets = octets.as_ref().to_vec();
    Origin::start(move |_| vec![Act::send(&octets)])
}

/// The octets of the response to a GET over HTTP/1.1, until the connection ends.
fn raw(gateway: &Gateway) -> String {
    let request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    String::from_utf8(stream.exchange(request)).expect("text")
}

#[test]
fn it_does_not_matter_how_the_octets_are_cut() {
    for response in [
        "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n\
         HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let origin = Origin::start(move |_| {
            let octets = response.bytes();
            octets.map(|octet| Act::Send(vec![octet])).collect()
        });
        let gateway = in_front_of(&origin);
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let mut h2 = H2::connect(gateway.https, "a.test");
        for _ in 0..2 {
            let reply = stream.get("a.test", "/");
            assert_eq!((reply.status, &*reply.text()), (200, "hello"));
            assert_eq!(reply.header("x"), Some("y"), "{}", reply.head);
            let reply = h2.get("/");
            assert_eq!((reply.status, &*reply.text()), (200, "hello"));
            assert_eq!(reply.header("x"), Some("y"));
            assert!(reply.cut.is_none());
        }
    }
}

#[test]
fn a_head_is_passed_on_up_to_64_kib() {
    for (size, status) in [(60, 200), (70, 502)] {
        let field = "y".repeat(size * 1024);
        let origin = sending(format!(
            "HTTP/1.1 200 OK\r\nX: {field}\r\nContent-Length: 2\r\n\r\nok"
        ));
        let gateway = passing_to(origin.address(), "").over_own_lane().start();
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.get("a.test", "/");
        assert_eq!(reply.status, status, "{size} KiB");
        let reply = H2::connect(gateway.https, "a.test").get("/");
        assert_eq!(reply.status, status, "{size} KiB");
        if status == 200 {
            assert_eq!(reply.header("x"), Some(&*field));
        }
    }
}

#[test]
fn a_folded_field_is_never_passed_on_folded() {
    for fold in ["\r\n b", "\r\n\tb", "\r\n  \r\n b"] {
        let origin = sending(format!(
            "HTTP/1.1 200 OK\r\nX: a{fold}\r\nContent-Length: 2\r\n\r\nok"
        ));
        let gateway = in_front_of(&origin);
        let answer = raw(&gateway);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let folded = head.lines().any(|line| line.starts_with([' ', '\t']));
        assert!(!folded, "{fold:?}: {head}");
        let reply = H2::connect(gateway.https, "a.test").get("/");
        if head.starts_with("HTTP/1.1 200 ") {
            assert_eq!(body, "ok", "{fold:?}");
            let value = reply.header("x").expect("a field");
            let words: Vec<&str> = value.split_whitespace().collect();
            assert_eq!(words, ["a", "b"], "{fold:?}: {value:?}");
        } else {
            assert!(head.starts_with("HTTP/1.1 502 "), "{fold:?}: {head}");
            assert_eq!(reply.status, 502, "{fold:?}");
        }
    }
}

#[test]
fn a_bare_line_feed_is_never_passed_on() {
    for response in [
        "HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\nok",
    ] {
        let origin = Origin::raw(response);
        let gateway = in_front_of(&origin);
        let answer = raw(&gateway);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(!head.replace("\r\n", "").contains('\n'), "{response:?}");
        let reply = H2::connect(gateway.https, "a.test").get("/");
        if head.starts_with("HTTP/1.1 200 ") {
            assert!(head.to_ascii_lowercase().contains("\r\nx: y\r\n"), "{head}");
            assert_eq!((body, &*reply.text()), ("ok", "ok"), "{response:?}");
        } else {
            assert!(head.starts_with("HTTP/1.1 502 "), "{response:?}: {head}");
            assert_eq!(reply.status, 502, "{response:?}");
        }
    }
}

#[test]
fn chunks_rule_over_a_length() {
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 100",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ] {
        let origin = sending(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{chunks}"));
        let gateway = in_front_of(&origin);
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        for _ in 0..2 {
            let reply = stream.get("a.test", "/");
            if reply.status == 502 {
                continue;
            }
            assert_eq!((reply.status, &*reply.text()), (200, "hello"), "{fields:?}");
            let length = reply.header("content-length");
            let coding = reply.header("transfer-encoding");
            assert_eq!((length, coding), (None, Some("chunked")), "{fields:?}");
        }
        let reply = H2::connect(gateway.https, "a.test").get("/");
        assert!(reply.cut.is_none(), "{fields:?}: {:?}", reply.cut);
        assert!(reply.status == 502 || reply.text() == "hello", "{fields:?}");
    }
}

#[test]
fn extensions_of_chunks_and_trailers_are_no_part_of_a_body() {
    for chunks in [
        "5;a=b\r\nhello\r\n0;c=\"d\"\r\n\r\n",
        "00005\r\nhello\r\n000\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Trailer: v\r\nContent-Length: 9\r\n\r\n",
    ] {
        let origin = sending(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        ));
        let gateway = in_front_of(&origin);
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let mut h2 = H2::connect(gateway.https, "a.test");
        for _ in 0..3 {
            let reply = stream.get("a.test", "/");
            assert_eq!((reply.status, &*reply.text()), (200, "hello"), "{chunks:?}");
            let reply = h2.get("/");
            assert!(reply.cut.is_none(), "{chunks:?}: {:?}", reply.cut);
            assert_eq!((reply.status, &*reply.text()), (200, "hello"), "{chunks:?}");
        }
    }
}

#[test]
fn octets_after_a_response_cost_its_connection_and_nothing_else() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore",
    ] {
        let origin = sending(response);
        let gateway = in_front_of(&origin);
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let mut h2 = H2::connect(gateway.https, "a.test");
        for _ in 0..3 {
            let reply = stream.get("a.test", "/");
            assert_eq!((reply.status, &*reply.text()), (200, "ok"), "{response:?}");
            let reply = h2.get("/");
            assert_eq!((reply.status, &*reply.text()), (200, "ok"), "{response:?}");
        }
        assert_eq!(origin.connections(), 6, "{response:?}");
    }
}

#[test]
fn the_end_of_a_connection_ends_a_body_for_each_client_in_its_way() {
    let origin = Origin::raw("HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil the end");
    let gateway = passing_to(origin.address(), "").start();
    // With chunks the client's own connection stays open.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..2 {
        let reply = stream.get("a.test", "/");
        assert_eq!((reply.status, &*reply.text()), (200, "until the end"));
        assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
        assert_eq!(reply.header("content-length"), None);
    }
    for _ in 0..2 {
        let old = exchange(
            &mut connect(gateway.http),
            "GET / HTTP/1.0\r\nHost: plain.test\r\n\r\n",
        );
        let old = String::from_utf8(old).expect("text");
        let (head, body) = old.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, "until the end");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert!(!head.contains("keep-alive"), "{head}");
    }
    let reply = H2::connect(gateway.https, "a.test").get("/");
    assert!(reply.cut.is_none());
    assert_eq!((reply.status, &*reply.text()), (200, "until the end"));
}

#[test]
fn a_server_of_http_1_0_is_understood() {
    let origin = Origin::raw("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold");
    let gateway = in_front_of(&origin);
    for version in VERSIONS {
        for _ in 0..3 {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!((reply.status, &*reply.text()), (200, "old"), "{version}");
        }
    }
    let requests = origin.requests();
    assert!(
        requests.iter().all(|request| request.number == 0),
        "its connection is not used again"
    );
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let origin = sending("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let gateway = passing_to(origin.address(), "").start();
    let head = "HEAD / HTTP/1.1\r\nHost: plain.test\r\n\r\n";
    let last = "HEAD / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";
    let all = exchange(&mut connect(gateway.http), [head, head, last].concat());
    let all = String::from_utf8(all).expect("text").to_ascii_lowercase();
    assert_eq!(all.matches("http/1.1 200 ").count(), 3, "{all}");
    assert_eq!(all.matches("content-length: 5\r\n").count(), 3, "{all}");
    assert_eq!(all.matches("\r\n\r\n").count(), 3, "{all}");
    assert!(all.ends_with("\r\n\r\n"), "{all}");
}
