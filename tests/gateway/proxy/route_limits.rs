//! What a route allows a request: the size of its body, and its time.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{VERSIONS, over, passing_to};
use crate::support::{Act, Gateway, H2, Origin, Received, TlsClient, read_response, within};

/// A gateway whose route allows bodies of 1,000 octets.
fn small_bodies(origin: &Origin) -> Gateway {
    passing_to(origin.address(), ", max_body: 1000B")
        .server("limits: { max_body: 10 }")
        .start()
}

#[test]
fn a_body_that_is_declared_too_large_reaches_no_server() {
    let origin = Origin::named("x");
    let gateway = small_bodies(&origin);
    for version in VERSIONS {
        for (size, status) in [(1000, 200), (1001, 413)] {
            let reply = over(version, &gateway, "a.test", "/")
                .args(["-H", "Expect:", "-d"])
                .arg("x".repeat(size))
                .send();
            assert_eq!(reply.status, status, "{size} over {version}");
        }
    }
    assert_eq!(origin.requests().len(), VERSIONS.len());
    // A client that waits for leave gets its answer at once, and keeps its connection.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1001\r\n\
                Expect: 100-continue\r\n\r\n";
    assert_eq!(stream.request(head).status, 413);
}

#[test]
fn a_body_in_chunks_is_cut_once_it_is_too_large() {
    let origin = Origin::named("x");
    let gateway = small_bodies(&origin);
    for (size, status) in [(1000, 200), (1001, 413)] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = "x".repeat(size);
        let request = format!("{head}{size:x}\r\n{body}\r\n0\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        let reply = read_response(&mut stream).expect("an answer");
        assert_eq!(reply.status, status, "{size} in a chunk");

        let mut h2 = H2::connect(gateway.https, "a.test");
        let reply = h2.send(h2.request("POST", "/"), Some(body.into()));
        assert_eq!(
            reply.expect("an answer").status,
            status,
            "{size} over HTTP/2"
        );
    }
    let whole = origin.requests();
    assert!(whole.iter().all(|request| request.body.len() == 1000));
}

#[test]
fn the_server_s_limit_is_that_of_routes_without_their_own() {
    let origin = Origin::named("x");
    let gateway = passing_to(origin.address(), "")
        .server("limits: { max_body: 10 }")
        .start();
    let send = |gateway: &Gateway, size| {
        let sent = over("1.1", gateway, "a.test", "/").arg("-d");
        sent.arg("x".repeat(size)).send().status
    };
    assert_eq!([send(&gateway, 10), send(&gateway, 11)], [200, 413]);
    let text = std::fs::read_to_string(&gateway.config).expect("a file");
    std::fs::write(&gateway.config, text.replace("max_body: 10", "max_body: 0")).expect("a file");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(send(&gateway, 100_000), 200);
}

#[test]
fn a_request_ends_once_its_time_is_up() {
    // It makes progress all the time.
    let dribble = |head: &'static str| {
        move |_: &Received| {
            let mut acts = vec![Act::send(head)];
            for _ in 0..100 {
                acts.extend([Act::Pause(Duration::from_millis(100)), Act::send("x")]);
            }
            acts
        }
    };
    let route = ", timeout: { total: 1s }";
    let slow_head = Origin::start(dribble("HTTP/1.1 200 OK\r\nX: "));
    let gateway = passing_to(slow_head.address(), route).start();
    for version in VERSIONS {
        let start = Instant::now();
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!(reply.status, 504, "{version}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    let slow_body = Origin::start(dribble("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"));
    let gateway = passing_to(slow_body.address(), route).start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    let start = Instant::now();
    let mut all = Vec::new();
    // It is cut, so there is no close_notify.
    stream.read_to_end(&mut all).expect_err("cut");
    assert!(all.starts_with(b"HTTP/1.1 200"));
    assert!(start.elapsed() < Duration::from_secs(5));
    let reply = H2::connect(gateway.https, "a.test").get("/");
    assert!(reply.cut.is_some());
    within(Duration::from_secs(5), "the end of the requests", || {
        (slow_body.open_connections() == 0).then_some(())
    });
}
