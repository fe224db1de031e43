//! What a client sees of an upstream that fails.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{PINGORA, VERSIONS, over, passing_to};
use crate::support::{Act, Gateway, H2, Origin, TlsClient, connect, read_response, serving};

/// A gateway for `a.test` in front of this address, with short time-outs.
#[track_caller]
fn impatient(address: std::net::SocketAddr) -> Gateway {
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{address}\"] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ upstream: app, timeout: {{ connect: 1s, read: 400ms }} }}] }}]\n\
             log: {{ access: off }}\n"
        ),
    )
    .start()
}

/// Asks for `/` over both versions, and checks status and page.
#[track_caller]
fn fails_with(gateway: &Gateway, status: u16, within: Duration) {
    for version in VERSIONS {
        for method in ["GET", "POST"] {
            let start = Instant::now();
            let reply = over(version, gateway, "a.test", "/")
                .args(["-X", method])
                .send();
            assert_eq!(reply.status, status, "{method} over {version}");
            assert_eq!(reply.version, version);
            assert!(start.elapsed() < within, "{:?}", start.elapsed());
            let id = reply.header("x-request-id").expect("a name");
            assert!(reply.text().contains(id), "{}", reply.text());
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
    }
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_refused_connection_is_502() {
    let refusing = Origin::refusing();
    fails_with(&impatient(refusing.address()), 502, SOON);
}

#[test]
fn a_head_gets_the_status_of_a_failure_alone() {
    let (refusing, silent) = (Origin::refusing(), Origin::silent());
    for lane in [&[][..], &PINGORA] {
        for (address, status) in [(refusing.address(), 502), (silent.address(), 504)] {
            let builder = passing_to(address, ", timeout: { read: 300ms }").over_own_lane();
            let gateway = builder.run_by(lane).start();
            let mut h2 = H2::connect(gateway.https, "a.test");
            for _ in 0..3 {
                let reply = h2.send(h2.request("HEAD", "/"), None);
                let reply = reply.unwrap_or_else(|error| panic!("{lane:?}: {error}"));
                assert_eq!((reply.status, &*reply.body), (status, &b""[..]), "{lane:?}");
                assert!(reply.cut.is_none(), "{lane:?}: {:?}", reply.cut);
            }
            let reply = over("1.1", &gateway, "a.test", "/").arg("-I").send();
            assert_eq!(reply.status, status, "{lane:?}");
        }
    }
}

#[test]
fn a_reset_is_502() {
    let origin = Origin::resetting();
    fails_with(&impatient(origin.address()), 502, SOON);
    let closing = Origin::start(|_| vec![Act::Close]);
    fails_with(&impatient(closing.address()), 502, SOON);
}

#[test]
fn silence_is_504() {
    let origin = Origin::silent();
    fails_with(&impatient(origin.address()), 504, SOON);
    let slow = Origin::start(|_| vec![Act::send("HTTP/1.1 200 OK\r\nX:"), Act::Silence]);
    fails_with(&impatient(slow.address()), 504, SOON);
}

/// Sends requests that fail with this status; after each, another on the same connection.
#[track_caller]
fn fails_and_goes_on(stream: &mut (impl Read + Write), host: &str, path: &str, status: u16) {
    let own = format!("GET /own HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (method, framing, body) in [
        ("GET", "", ""),
        ("POST", "Content-Length: 5\r\n", "hello"),
        (
            "POST",
            "Transfer-Encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n{body}");
        let mut send = |request: &str| {
            stream.write_all(request.as_bytes()).expect("taken");
            read_response(stream).unwrap_or_else(|error| panic!("{request:?}: {error}"))
        };
        let page = send(&request);
        assert_eq!(page.status, status, "{request:?}");
        // The whole request has arrived: there is no reason to close.
        assert_ne!(page.header("connection"), Some("close"), "{request:?}");
        let reply = send(&own);
        assert_eq!((reply.status, &*reply.text()), (200, "own"), "{request:?}");
    }
}

#[test]
fn a_connection_takes_another_request_after_each_failure() {
    let refusing = Origin::refusing();
    let origins = [
        ("reset", 502, Origin::resetting()),
        ("closed", 502, Origin::start(|_| vec![Act::Close])),
        ("garbage", 502, Origin::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n")),
        ("cut", 502, Origin::raw("HTTP/1.1 200 OK\r\nX: y")),
        ("silent", 504, Origin::silent()),
    ];
    let mut failures = vec![("refused", 502, refusing.address())];
    failures.extend(
        origins
            .iter()
            .map(|(name, status, origin)| (*name, *status, origin.address())),
    );
    let (mut upstreams, mut routes) = (String::new(), String::new());
    for (name, status, address) in &failures {
        let read = if *status == 504 { "400ms" } else { "20s" };
        upstreams += &format!("{name}: {{ servers: [\"{address}\"] }}, ");
        routes += &format!(
            "{{ path: /{name}, upstream: {name}, timeout: {{ connect: 5s, read: {read} }} }}, "
        );
    }
    let routes = format!("[{routes} {{ path: /own, respond: {{ body: own }} }}]");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ {upstreams} }}\n\
             sites:\n\
             - {{ hosts: [a.test], routes: {routes} }}\n\
             - {{ hosts: [plain.test], tls: off, routes: {routes} }}\n\
             log: {{ access: off }}\n"
        ),
    )
    .start();
    let mut plain = connect(gateway.http);
    let mut tls = TlsClient::named("a.test").connect(gateway.https);
    for (name, status, _) in failures {
        let path = format!("/{name}");
        fails_and_goes_on(&mut plain, "plain.test", &path, status);
        fails_and_goes_on(&mut tls, "a.test", &path, status);
    }
}

#[test]
fn an_answer_that_is_not_valid_is_502() {
    for bytes in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 3, 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\0\0\0\0",
    ] {
        let origin = Origin::raw(bytes);
        let gateway = impatient(origin.address());
        for version in VERSIONS {
            let reply = over(version, &gateway, "a.test", "/").send();
            assert_eq!(
                reply.status, 502,
                "{bytes:?} over {version}: {}",
                reply.head
            );
        }
    }
}

#[test]
fn a_head_without_end_is_502() {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for number in 0..40_000 {
        head.extend_from_slice(format!("X-{number}: {}\r\n", "x".repeat(40)).as_bytes());
    }
    let origin = Origin::raw(head);
    fails_with(&impatient(origin.address()), 502, SOON);
}

/// Answers that end too early.
const CUT: [&str; 5] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nab",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
];

#[test]
fn a_cut_answer_is_never_sold_as_complete() {
    for (number, bytes) in CUT.into_iter().enumerate() {
        for end in [Act::Close, Act::Reset, Act::Silence] {
            // Waiting for a time-out takes a while, and is the same for all that are in chunks.
            if number > 1 && matches!(end, Act::Silence) {
                continue;
            }
            let acts = vec![
                Act::send(bytes),
                Act::Pause(Duration::from_millis(100)),
                end.clone(),
            ];
            let origin = Origin::start(move |_| acts.clone());
            let gateway = impatient(origin.address());
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            let all = stream.exchange("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let text = String::from_utf8_lossy(&all);
            // A client must be able to see that something is missing.
            if text.starts_with("HTTP/1.1 200") {
                let (head, body) = text.split_once("\r\n\r\n").expect("a head");
                if head.contains("chunked") {
                    assert!(!body.contains("\r\n0\r\n"), "{bytes:?} {end:?}: {text}");
                } else {
                    assert!(head.contains("Content-Length: 10"), "{text}");
                    assert!(body.len() < 10, "{text}");
                }
            } else {
                assert!(text.starts_with("HTTP/1.1 50"), "{bytes:?} {end:?}: {text}");
            }

            let mut h2 = H2::connect(gateway.https, "a.test");
            match h2.send(h2.request("GET", "/"), None) {
                Ok(reply) if reply.status == 200 => {
                    assert!(reply.cut.is_some(), "{bytes:?} {end:?}: {:?}", reply.body);
                }
                Ok(reply) => assert!(reply.status >= 500, "{}", reply.status),
                Err(error) => panic!("a bare reset for {bytes:?} {end:?}: {error}"),
            }
            assert!(!h2.is_closed(), "other streams continue");
        }
    }
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    let origin = Origin::raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end");
    let gateway = impatient(origin.address());
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!((reply.status, &*reply.text()), (200, "until the end"));
    }
}

#[test]
fn what_follows_an_answer_unasked_reaches_nobody() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = Origin::start(move |_| vec![Act::send(evil)]);
    let gateway = impatient(origin.address());
    for version in VERSIONS {
        for _ in 0..6 {
            let reply = over(version, &gateway, "a.test", "/").send();
            match reply.status {
                200 => assert_eq!(reply.text(), "ok"),
                status => assert_eq!(status, 502),
            }
        }
    }
    let requests = origin.requests();
    assert!(
        requests.iter().all(|request| request.number == 0),
        "a connection with bytes left over is not used again"
    );
}

#[test]
fn an_answer_without_a_body_is_not_framed_as_one_with() {
    for (answer, length) in [
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            None,
        ),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None),
        (
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            Some("5"),
        ),
    ] {
        let origin = Origin::start(move |_| vec![Act::send(answer)]);
        let gateway = impatient(origin.address());
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        for _ in 0..2 {
            let reply = stream.get("a.test", "/");
            assert!(
                matches!(reply.status, 204 | 304),
                "{answer:?}: {}",
                reply.head
            );
            assert_eq!(reply.header("transfer-encoding"), None, "{answer:?}");
            assert_eq!(reply.header("content-length"), length, "{answer:?}");
        }
        let reply = H2::connect(gateway.https, "a.test").get("/");
        assert!(reply.cut.is_none() && matches!(reply.status, 204 | 304));
        assert_eq!(reply.header("content-length"), length, "{answer:?}");
    }
}

#[test]
fn the_log_quotes_nothing_of_an_answer_that_is_not_valid() {
    let secret = "SECRET123";
    let origin = Origin::raw(format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: session={secret}\r\nno colon\r\n\r\n{secret}"
    ));
    let gateway = impatient(origin.address());
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 502);
    gateway.wait_for_log("an upstream failed");
    let log = gateway.log();
    assert!(log.contains("invalid header name"), "{log}");
    assert!(!log.contains(secret), "{log}");
}
