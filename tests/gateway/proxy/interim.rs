//! Interim responses: they reach the clients that know them, and no others.

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{VERSIONS, in_front_of, over, passing_to};
use crate::support::{
    Act, H2, Origin, TlsClient, interim, next_interim, read, read_head, read_response,
};

const HINTS: &str = "HTTP/1.1 102 Processing\r\n\r\n\
                     HTTP/1.1 103 Early Hints\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
                     Content-Length: 4\r\nLink: </a.css>; rel=preload\r\n\r\n";

/// Sends 102 and 103 before each response, with it or some time before.
fn hinting() -> Origin {
    Origin::start(|request| {
        let mut acts = vec![Act::send(HINTS)];
        if request.line().contains("/later") {
            acts.push(Act::Pause(Duration::from_millis(200)));
        }
        acts.push(Act::respond(200, "done"));
        acts
    })
}

#[test]
fn they_reach_clients_of_http_1_1() {
    let origin = hinting();
    let gateway = in_front_of(&origin);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for path in ["/", "/later", "/"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("taken");
        let mut next = || {
            let head = read_head(&mut stream).expect("octets").expect("a head");
            String::from_utf8(head).expect("text")
        };
        let processing = next();
        assert!(processing.starts_with("HTTP/1.1 102 "), "{processing}");
        let hints = next();
        assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
        let hints = hints.to_ascii_lowercase();
        assert!(hints.contains("\r\nlink: </a.css>; rel=preload\r\n"));
        assert!(!hints.contains("x-hop"), "{hints}");
        assert!(!hints.contains("content-length"), "{hints}");
        let reply = read_response(&mut stream).expect("the final response");
        assert_eq!((reply.status, &*reply.text()), (200, "done"));
    }
}

#[test]
fn they_reach_clients_of_http_2() {
    let origin = hinting();
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    for path in ["/", "/later", "/"] {
        let request = h2.request("GET", path).body(()).expect("a request");
        let (mut answer, _) = h2.begin(request, false);
        let (heads, reply) = h2.block_on(async {
            let heads = interim(&mut answer).await;
            let answer = answer.await.expect("the final response");
            (heads, read(answer).await.expect("its body"))
        });
        let statuses: Vec<u16> = heads.iter().map(|head| head.status().as_u16()).collect();
        assert_eq!(statuses, [102, 103], "{path}");
        let hints = heads[1].headers();
        assert_eq!(hints["link"], "</a.css>; rel=preload");
        assert!(!hints.contains_key("connection") && !hints.contains_key("x-hop"));
        assert_eq!((reply.status, &*reply.text()), (200, "done"));
    }
}

#[test]
fn none_reaches_a_client_of_http_1_0() {
    let origin = hinting();
    let gateway = in_front_of(&origin);
    let get = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
    let post = "POST / HTTP/1.0\r\nHost: a.test\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\nhello";
    for request in [get, post] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let answer = stream.exchange(request);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
        assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
    }
}

#[test]
fn a_client_of_http_2_that_waits_to_continue_is_told_to() {
    let origin = Origin::start(|request| vec![Act::respond(200, &request.body)]);
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    for length in [None, Some(5)] {
        let mut request = h2.request("POST", "/").header("expect", "100-continue");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let request = request.body(()).expect("a request");
        let (mut answer, mut body) = h2.begin(request, true);
        let word = h2.block_on(next_interim(&mut answer));
        let word = word.expect("an interim response");
        assert_eq!(word.status(), 100);
        let sent = h2.block_on(async { body.send_data(Bytes::from_static(b"hello"), true) });
        sent.expect("taken");
        let reply = h2.block_on(async { read(answer.await.expect("a response")).await });
        let reply = reply.expect("its body");
        assert_eq!((reply.status, &*reply.text()), (200, "hello"));
    }
}

#[test]
fn a_client_that_waits_to_continue_is_refused_at_once() {
    let origin = Origin::early(|_| vec![Act::respond(403, "no"), Act::Close]);
    let gateway = in_front_of(&origin);
    let start = Instant::now();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let reply = stream.request(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!((reply.status, &*reply.text()), (403, "no"));
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").header("expect", "100-continue");
    let request = request.body(()).expect("a request");
    let (answer, _body) = h2.begin(request, true);
    let reply = h2.block_on(async { read(answer.await.expect("a response")).await });
    let reply = reply.expect("its body");
    assert_eq!((reply.status, &*reply.text()), (403, "no"));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_endless_row_of_them_is_502() {
    let row = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".repeat(1000);
    let origin = Origin::start(move |_| vec![Act::send(&row), Act::Silence]);
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!(reply.status, 502, "{version}");
    }
}

#[test]
fn a_server_that_neither_asks_for_the_body_nor_responds_is_504() {
    let origin = Origin::early(|_| vec![Act::Silence]);
    let route = ", timeout: { read: 400ms }";
    let gateway = passing_to(origin.address(), route).over_own_lane().start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let reply = stream.request(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(reply.status, 504);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").header("expect", "100-continue");
    let (answer, _body) = h2.begin(request.body(()).expect("a request"), true);
    let answer = h2.block_on(answer).expect("a response");
    assert_eq!(answer.status(), 504);
}
