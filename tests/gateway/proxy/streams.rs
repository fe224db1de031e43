//! Responses and requests that take their time: what lives is passed on as it comes, and a server
//! that only trickles is given up.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{VERSIONS, over, passing_to};
use crate::support::{Act, H2, Origin, TlsClient, read, read_head};

const TENTH: Duration = Duration::from_millis(100);

/// Sends some octets at once, and then one in a tenth of a second.
fn dribbling(begin: &'static str, rest: &'static str) -> Origin {
    Origin::start(move |_| {
        let mut acts = vec![Act::send(begin)];
        for octet in rest.as_bytes().chunks(1) {
            acts.extend([Act::Pause(TENTH), Act::send(octet)]);
        }
        acts
    })
}

#[test]
fn a_head_that_trickles_is_504() {
    let origin = dribbling(
        "HTTP/1.1 200 OK\r\n",
        "X-Long: 0123456789012345678901234567890123456789\r\n\r\n",
    );
    let gateway = passing_to(origin.address(), ", timeout: { read: 1s }")
        .over_own_lane()
        .start();
    for version in VERSIONS {
        let start = Instant::now();
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!(reply.status, 504, "{version}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "{version} {took:?}");
    }
}

#[test]
fn each_interim_response_gives_a_server_more_time() {
    let origin = Origin::start(|_| {
        let mut acts = Vec::new();
        for _ in 0..4 {
            acts.extend([
                Act::Pause(TENTH * 6),
                Act::send("HTTP/1.1 102 Processing\r\n\r\n"),
            ]);
        }
        acts.push(Act::respond(200, "done"));
        acts
    });
    let gateway = passing_to(origin.address(), ", timeout: { read: 1s }")
        .over_own_lane()
        .start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!((reply.status, &*reply.text()), (200, "done"), "{version}");
    }
}

#[test]
fn a_body_may_trickle() {
    let origin = dribbling(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1e\r\n",
        "012345678901234567890123456789\r\n0\r\n\r\n",
    );
    let gateway = passing_to(origin.address(), ", timeout: { read: 1s }").start();
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!(reply.text(), "012345678901234567890123456789", "{version}");
    }
}

#[test]
fn a_server_that_accepts_a_request_octet_by_octet_is_504() {
    let origin = Origin::early(|_| {
        let mut acts = Vec::new();
        for _ in 0..200 {
            acts.extend([Act::Take(1), Act::Pause(TENTH)]);
        }
        acts
    });
    let gateway = passing_to(origin.address(), ", timeout: { send: 1s, read: 30s }")
        .over_own_lane()
        .start();
    let body = Bytes::from(vec![7; 16 << 20]);
    let start = Instant::now();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let reply = h2.send(h2.request("POST", "/"), Some(body.clone()));
    assert_eq!(reply.expect("a response").status, 504);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    // The gateway responds, and then takes no more.
    _ = stream
        .tcp()
        .set_write_timeout(Some(Duration::from_secs(10)));
    _ = stream.write_all(&request);
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("a response");
    assert_eq!(&answer, b"HTTP/1.1 504");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
}

/// Sends an event, and another one once it may.
fn events() -> Origin {
    Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        vec![
            Act::send(head),
            Act::send("9\r\ndata: 1\n\n\r\n"),
            Act::Hold,
            Act::send("9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
        ]
    })
}

#[test]
fn an_event_arrives_before_the_next_one_is_sent() {
    let origin = events();
    let gateway = passing_to(origin.address(), "").start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    let head = read_head(&mut stream).expect("octets").expect("a head");
    assert!(head.starts_with(b"HTTP/1.1 200"));
    let mut chunk = [0; 14];
    stream.read_exact(&mut chunk).expect("an event");
    assert_eq!(&chunk, b"9\r\ndata: 1\n\n\r\n");

    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/").body(()).expect("a request");
    let (answer, _) = h2.begin(request, false);
    h2.block_on(async {
        let mut body = answer.await.expect("a response").into_body();
        let event = body.data().await.expect("more").expect("a part");
        assert_eq!(event, "data: 1\n\n");
        origin.release();
        let mut rest = Vec::new();
        while let Some(part) = body.data().await {
            rest.extend_from_slice(&part.expect("a part"));
        }
        assert_eq!(rest, b"data: 2\n\n");
    });
    let mut chunks = [0; 19];
    stream.read_exact(&mut chunks).expect("the rest");
    assert_eq!(&chunks, b"9\r\ndata: 2\n\n\r\n0\r\n\r\n");
}

#[test]
fn a_long_poll_waits_for_its_server() {
    let origin = Origin::start(|_| vec![Act::Hold, Act::respond(200, "news")]);
    let limits = "limits: { header_read: 1s, idle: 1s }";
    let gateway = passing_to(origin.address(), "").server(limits).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/").body(()).expect("a request");
    let (answer, _) = h2.begin(request, false);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .expect("taken");
    origin.wait_for_requests(2);
    // Longer than what a client may do nothing for: it is not the one that is waited for.
    std::thread::sleep(Duration::from_millis(2500));
    origin.release();
    let reply = h2.block_on(async { read(answer.await.expect("a response")).await });
    assert_eq!(reply.expect("its body").text(), "news");
    let head = read_head(&mut stream).expect("octets").expect("a head");
    assert!(head.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn parts_of_a_body_are_the_servers_to_choose() {
    let origin = Origin::start(|request| match request.header("range") {
        Some("bytes=2-5") => vec![Act::send(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/10\r\n\
             ETag: \"a\"\r\nContent-Length: 4\r\n\r\n2345",
        )],
        Some(_) => vec![Act::send(
            "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\n\
             Content-Length: 0\r\n\r\n",
        )],
        None => vec![Act::respond(200, "0123456789")],
    });
    let gateway = passing_to(origin.address(), "").start();
    for version in VERSIONS {
        let get = |range: &str| {
            let get = over(version, &gateway, "a.test", "/");
            get.args(["--range", range, "-H", "If-Range: \"a\""]).send()
        };
        let part = get("2-5");
        assert_eq!((part.status, &*part.text()), (206, "2345"), "{version}");
        assert_eq!(part.header("content-range"), Some("bytes 2-5/10"));
        assert_eq!(part.header("content-length"), Some("4"));
        let none = get("20-");
        assert_eq!(none.status, 416, "{version}");
        assert_eq!(none.header("content-range"), Some("bytes */10"));
    }
    let requests = origin.requests();
    assert_eq!(requests[0].header("if-range"), Some("\"a\""));
}

#[test]
fn curl_waits_to_continue_no_longer_than_the_server() {
    let origin = Origin::start(|request| vec![Act::respond(200, &request.body)]);
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    for version in VERSIONS {
        let start = Instant::now();
        let reply = over(version, &gateway, "a.test", "/")
            .args(["-H", "Expect: 100-continue", "--expect100-timeout", "25"])
            .args(["--data-binary", "hello"])
            .send();
        assert_eq!((reply.status, &*reply.text()), (200, "hello"), "{version}");
        let took = start.elapsed();
        assert!(took < Duration::from_secs(15), "{version} {took:?}");
    }
}

#[test]
fn curl_speaks_http_1_0() {
    let origin = Origin::start(|request| match request.line().contains("/chunked") {
        true => vec![Act::send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )],
        false => vec![Act::respond(200, "hello")],
    });
    let gateway = passing_to(origin.address(), "").start();
    for (path, length) in [("/", Some("5")), ("/chunked", None)] {
        let reply = gateway
            .curl("a.test", path)
            .cacert(&gateway.dir().join("root.pem"))
            .arg("--http1.0")
            .send();
        assert_eq!((reply.status, &*reply.text()), (200, "hello"), "{path}");
        assert_eq!(reply.header("content-length"), length, "{path}");
        assert_eq!(reply.header("transfer-encoding"), None, "{path}");
    }
}
