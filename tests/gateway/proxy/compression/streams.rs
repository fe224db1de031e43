//! Compressed responses that come slowly, or not to their end.

use std::io::{Read, Write};

use super::{CODINGS, compressing, decode, text};
use crate::proxy::{VERSIONS, over, passing_to};
use crate::support::{Act, H2, Origin, TlsClient, TlsStream, interim, read_head};

/// Reads chunks until what has been decoded is what is expected.
fn read_until(stream: &mut TlsStream, coding: &str, encoded: &mut Vec<u8>, expected: &str) {
    while decode(coding, encoded) != expected.as_bytes() {
        let mut size = Vec::new();
        while !size.ends_with(b"\r\n") {
            let mut octet = [0];
            stream.read_exact(&mut octet).expect("a size");
            size.extend_from_slice(&octet);
        }
        let size = str::from_utf8(&size).expect("text").trim();
        let size = usize::from_str_radix(size, 16).expect("a size");
        assert_ne!(size, 0, "the end, with {} octets", encoded.len());
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).expect("a chunk");
        encoded.extend_from_slice(&chunk[..size]);
    }
}

#[test]
fn what_comes_slowly_is_not_delayed() {
    let origin = Origin::start(|request| {
        let media = match request.line().contains("/events") {
            true => "text/event-stream",
            false => "text/plain",
        };
        let fields = format!("Content-Type: {media}\r\nTransfer-Encoding: chunked");
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        vec![
            Act::send(head),
            Act::send("9\r\ndata: 1\n\n\r\n"),
            Act::Hold,
            Act::send("9\r\ndata: 2\n\n\r\n0\r\n\r\n"),
        ]
    });
    let compress = ", compress: { types: [text/*, text/event-stream] }";
    for coding in CODINGS {
        for path in ["/events", "/text"] {
            let gateway = passing_to(origin.address(), compress).start();
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nAccept-Encoding: {coding}\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("taken");
            let head = read_head(&mut stream).expect("octets").expect("a head");
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            assert!(
                head.contains(&format!("content-encoding: {coding}")),
                "{head}"
            );
            // The server waits, and sends no more.
            read_until(&mut stream, coding, &mut Vec::new(), "data: 1\n\n");
        }
    }
    let gateway = passing_to(origin.address(), compress).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/events").header("accept-encoding", "br");
    let (mut answer, _) = h2.begin(request.body(()).expect("a request"), false);
    h2.block_on(async {
        assert!(interim(&mut answer).await.is_empty());
        let mut body = answer.await.expect("a response").into_body();
        let mut encoded = Vec::new();
        while decode("br", &encoded) != b"data: 1\n\n" {
            encoded.extend_from_slice(&body.data().await.expect("more").expect("a part"));
        }
        origin.release();
        while let Some(part) = body.data().await {
            encoded.extend_from_slice(&part.expect("a part"));
        }
        assert_eq!(decode("br", &encoded), b"data: 1\n\ndata: 2\n\n");
    });
}

#[test]
fn a_response_that_is_cut_is_not_complete() {
    let origin = Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9000\r\n\r\n";
        vec![Act::send(head.to_owned() + &text(5_000)), Act::Close]
    });
    let gateway = compressing(&origin);
    for version in VERSIONS {
        for coding in CODINGS {
            let accept = format!("Accept-Encoding: {coding}");
            let cut = over(version, &gateway, "a.test", "/")
                .args(["-H", &accept])
                .try_send();
            assert!(cut.is_err(), "{version} {coding}");
        }
    }
}
