//! Bodies in both directions, large and small.

use std::io::{Read, Write};

use bytes::Bytes;

use super::in_front_of;
use crate::support::{Act, H2, Origin, TlsClient, read_head, read_response, serving};

const SIZE: usize = 10 * 1024 * 1024;

/// Bytes that tell where they are.
fn large() -> Vec<u8> {
    (0..SIZE / 8)
        .flat_map(|number| (number as u64).to_be_bytes())
        .collect()
}

/// Answers with the body that came: in chunks where the path says so.
fn mirror() -> Origin {
    Origin::start(|request| {
        if !request.line().contains("/chunked") {
            return vec![Act::respond(200, &request.body)];
        }
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in request.body.chunks(50_000) {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        vec![Act::send(bytes)]
    })
}

#[test]
fn large_bodies_pass_over_http1() {
    let origin = mirror();
    let gateway = in_front_of(&origin);
    let body = large();
    for path in ["/length", "/chunked"] {
        for chunked in [false, true] {
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            let framing = if chunked {
                "Transfer-Encoding: chunked".to_owned()
            } else {
                format!("Content-Length: {SIZE}")
            };
            let head = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("taken");
            if chunked {
                for chunk in body.chunks(100_000) {
                    let size = format!("{:X};a=b\r\n", chunk.len());
                    stream.write_all(size.as_bytes()).expect("taken");
                    stream.write_all(chunk).expect("taken");
                    stream.write_all(b"\r\n").expect("taken");
                }
                stream.write_all(b"0\r\n\r\n").expect("taken");
            } else {
                stream.write_all(&body).expect("taken");
            }
            let reply = read_response(&mut stream).expect("an answer");
            assert_eq!(reply.status, 200);
            assert!(reply.body == body, "{path} {chunked}: {}", reply.body.len());
            assert_eq!(stream.get("a.test", "/").status, 200, "the next request");
        }
    }
}

#[test]
fn large_bodies_pass_over_http2() {
    let origin = mirror();
    let gateway = in_front_of(&origin);
    let body = Bytes::from(large());
    let mut h2 = H2::connect(gateway.https, "a.test");
    for path in ["/length", "/chunked"] {
        for length in [false, true] {
            let mut request = h2.request("POST", path);
            if length {
                request = request.header("content-length", SIZE);
            }
            let reply = h2.send(request, Some(body.clone())).expect("an answer");
            assert_eq!(reply.status, 200);
            assert!(reply.cut.is_none());
            assert!(reply.body == body, "{path} {length}: {}", reply.body.len());
        }
    }
}

#[test]
fn a_client_that_waits_to_continue_is_told_to() {
    let origin = mirror();
    let gateway = in_front_of(&origin);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for path in ["/length", "/chunked"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("taken");
        let interim = read_head(&mut stream).expect("bytes").expect("a head");
        assert!(
            interim.starts_with(b"HTTP/1.1 100"),
            "{}",
            interim.escape_ascii()
        );
        stream.write_all(b"hello").expect("taken");
        let reply = read_response(&mut stream).expect("an answer");
        assert_eq!((reply.status, &*reply.text()), (200, "hello"));
    }
    // One that does not wait is served as well.
    let reply = stream.request(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    );
    assert_eq!((reply.status, &*reply.text()), (200, "hello"));
    let refused = stream.request(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: a-miracle\r\n\r\n",
    );
    assert_eq!(refused.status, 417);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::start(|request| {
        // The first ones take longest.
        let pause = match request.line().split(' ').nth(1) {
            Some("/0") => 60,
            Some("/1") => 30,
            _ => 0,
        };
        let body = [request.line().as_bytes(), b" ", &request.body].concat();
        vec![
            Act::Pause(std::time::Duration::from_millis(pause)),
            Act::respond(200, body),
        ]
    });
    let gateway = in_front_of(&origin);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let mut requests = String::new();
    for number in 0..20 {
        requests += &match number % 3 {
            0 => format!("GET /{number} HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            1 => format!("POST /{number} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\nabc"),
            _ => format!(
                "POST /{number} HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nxyz\r\n0\r\n\r\n"
            ),
        };
    }
    stream.write_all(requests.as_bytes()).expect("taken");
    for number in 0..20 {
        let reply = read_response(&mut stream).expect("an answer");
        let expected = match number % 3 {
            0 => format!("GET /{number} HTTP/1.1 "),
            1 => format!("POST /{number} HTTP/1.1 abc"),
            _ => format!("POST /{number} HTTP/1.1 xyz"),
        };
        assert_eq!(reply.text(), expected);
    }
    // The origin never saw two at once.
    let requests = origin.requests();
    assert_eq!(requests.len(), 20);
}

#[test]
fn an_answer_before_the_body_is_not_waited_for() {
    let origin = Origin::named("unused");
    let gateway = in_front_of(&origin);
    // Misdirected, so that the gateway itself answers, with a body that is still to come.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 100000000\r\n\r\nabc")
        .expect("taken");
    let reply = read_response(&mut stream).expect("an answer");
    assert_eq!(reply.status, 421);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "the connection is not used again");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_server_may_wait_for_the_body_for_longer_than_for_its_own_answer() {
    let origin = mirror();
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [\
             {{ upstream: app, timeout: {{ connect: 1s, read: 500ms }} }}] }}]\n",
            origin.address()
        ),
    )
    .start();
    let part = [b'x'; 100];
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2000\r\n\r\n")
        .expect("taken");
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").body(()).expect("a request");
    let (answer, mut upload) = h2.begin(request, true);
    for left in (0..20).rev() {
        std::thread::sleep(std::time::Duration::from_millis(100));
        stream.write_all(&part).expect("taken");
        let part = Bytes::copy_from_slice(&part);
        upload.send_data(part, left == 0).expect("taken");
    }
    assert_eq!(read_response(&mut stream).expect("an answer").status, 200);
    let answer = h2.block_on(answer).expect("an answer");
    assert_eq!(answer.status(), 200);
}
