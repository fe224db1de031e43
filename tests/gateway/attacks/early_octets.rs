//! Octets that come before anybody has asked for them: behind an upgrade, behind CONNECT, behind a
//! request whose answer comes first.

use std::io::{Read, Write};

use super::{before, in_front_of, others_are_served};
use crate::support::{
    Act, Frame, Frames, Gateway, H2, Origin, TlsClient, connect, exchange, read_response,
};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\nX-Evil: 1\r\n\r\n";

/// Every request at the origin is one that the gateway has read and sent itself.
#[track_caller]
fn only_own_requests(origin: &Origin, case: &str) {
    for request in origin.requests() {
        let is_own =
            request.header("x-forwarded-for").is_some() && request.header("x-request-id").is_some();
        assert!(is_own, "{case}: {}", request.head);
    }
}

#[test]
fn nothing_behind_an_upgrade_is_taken_for_another_protocol() {
    for status in [101, 200, 400, 426] {
        let origin = Origin::start(move |_| match status {
            101 => vec![Act::send(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
            )],
            status => vec![Act::respond(status, "x")],
        });
        let gateway = before(&origin);
        for protocol in [
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c\r\nConnection: Upgrade",
            "Upgrade: TLS/1.2\r\nConnection: Upgrade",
            "Upgrade: connect-udp\r\nConnection: Upgrade",
            "Upgrade: websocket\r\nConnection: close",
            "Upgrade: websocket, h2c\r\nConnection: Upgrade",
            "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade",
        ] {
            let head = format!("GET /upgrade HTTP/1.1\r\nHost: a.test\r\n{protocol}\r\n\r\n");
            for early in [SMUGGLED.as_bytes(), Frames::PREFACE] {
                let mut stream = TlsClient::named("a.test").connect(gateway.https);
                let all = [head.as_bytes(), early, b"\0\r\n\r\n"].concat();
                let answer = String::from_utf8_lossy(&stream.exchange(&all)).into_owned();
                assert!(!answer.contains("HTTP/1.1 101"), "{protocol}: {answer}");
                only_own_requests(&origin, protocol);
            }
        }
        for request in origin.requests() {
            let upgrade = request.header("upgrade");
            assert!(
                upgrade.is_none_or(|upgrade| upgrade.eq_ignore_ascii_case("websocket")),
                "{}",
                request.head
            );
            assert!(
                request.header("http2-settings").is_none(),
                "{}",
                request.head
            );
        }
    }
}

#[test]
fn nothing_behind_connect_reaches_an_upstream() {
    let origin = Origin::named("x");
    let gateway = before(&origin);
    for target in [
        "a.test:443",
        "a.test",
        "/",
        "127.0.0.1:22",
        "*",
        "http://a.test/",
    ] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: a.test\r\n\r\n{SMUGGLED}");
        let answer = TlsClient::named("a.test")
            .connect(gateway.https)
            .exchange(&request);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 4"), "{target}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{target}: {answer}");
    }
    for fields in [
        &[(":method", "CONNECT"), (":authority", "a.test:443")][..],
        &[
            (":method", "CONNECT"),
            (":authority", "a.test"),
            (":scheme", "https"),
            (":path", "/"),
        ],
        &[(":method", "CONNECT")],
    ] {
        let mut frames = Frames::connect(gateway.https, "a.test", &[]);
        let flags = Frame::END_HEADERS;
        frames.send(&Frame::new(Frame::HEADERS, flags, 1, Frame::fields(fields)));
        _ = frames
            .0
            .write_all(&Frame::new(Frame::DATA, 0, 1, SMUGGLED).bytes());
        let end = frames.until(|frame| {
            frame.kind == Frame::GOAWAY
                || (frame.stream == 1 && matches!(frame.kind, Frame::HEADERS | Frame::RST_STREAM))
        });
        let is_200 =
            end.is_some_and(|end| end.kind == Frame::HEADERS && end.payload.first() == Some(&0x88));
        assert!(!is_200, "{fields:?}");
    }
    assert!(origin.requests().is_empty());
}

/// Sends a request whose body comes only once its answer has.
fn answered_early(gateway: &Gateway, expect: &str, framing: &str, body: &str) {
    let mut stream = connect(gateway.http);
    let head = format!("POST /early HTTP/1.1\r\nHost: plain.test\r\n{expect}\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("taken");
    _ = read_response(&mut stream);
    _ = stream.write_all(body.as_bytes());
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

#[test]
fn a_body_that_follows_its_answer_costs_nobody_else_theirs() {
    // Answers at once and takes what comes next for a request, as servers do that see no body.
    let origin = Origin::early(|request| match request.line().contains("/early") {
        true => vec![Act::respond(401, "no")],
        false => vec![Act::respond(200, request.line())],
    });
    // Pingora's proxy uses such a connection again.
    let gateway = in_front_of(&origin).over_own_lane().start();
    let length = format!("Content-Length: {}", SMUGGLED.len());
    let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    for expect in [
        "Expect: 100-continue",
        "expect: 100-Continue",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Expect: 100-continue, 100-continue",
        "Expect: y 100-continue",
        "Expect: z100-continue",
        "Expect: \x0b100-continue",
        "Expect:\r\n 100-continue",
        "Expect: 200-ok",
        "Expect:",
        "X: none",
    ] {
        answered_early(&gateway, expect, &length, SMUGGLED);
        answered_early(&gateway, expect, "Transfer-Encoding: chunked", &chunk);
        for _ in 0..3 {
            let mut next = connect(gateway.http);
            let plain = "GET /next HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";
            let answer = exchange(&mut next, plain);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with("HTTP/1.1 200"), "{expect}: {answer}");
            assert!(
                answer.ends_with("\r\n\r\nGET /next HTTP/1.1"),
                "{expect}: {answer}"
            );
        }
    }
    let mut h2 = H2::connect(gateway.https, "a.test");
    for expect in [Some("100-continue"), None] {
        let mut request = h2.request("POST", "/early");
        if let Some(expect) = expect {
            request = request.header("expect", expect);
        }
        let (response, mut body) = h2.begin(request.body(()).expect("a request"), true);
        let response = h2.block_on(response).expect("a response");
        assert_eq!(response.status(), 401, "{expect:?}");
        _ = body.send_data(SMUGGLED.into(), true);
        for _ in 0..3 {
            assert_eq!(h2.get("/next").text(), "GET /next HTTP/1.1", "{expect:?}");
        }
    }
    // Nothing of the gateway's comes on a connection after what was no request of its own.
    let requests = origin.requests();
    for forged in requests
        .iter()
        .filter(|request| request.head.contains("X-Evil"))
    {
        let is_last = requests.iter().all(|request| {
            request.connection != forged.connection
                || request.number <= forged.number
                || request.header("x-request-id").is_none()
        });
        assert!(is_last, "{requests:?}");
    }
    others_are_served(&gateway, "after all");
}
