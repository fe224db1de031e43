//! Trailers: they pass between HTTP/1.1 and HTTP/2, both ways, where the other side can have them.

use std::io::{Read, Write};

use bytes::Bytes;
use http::HeaderMap;

use super::{in_front_of_http2, passing_to};
use crate::support::{Act, Call, Gateway, H2, H2Server, Origin, TlsClient, TlsStream};

fn trailers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    fields.collect()
}

/// What a client of HTTP/1.1 that sends `head` gets after the head of a response.
fn body_of(stream: &mut TlsStream, head: &str) -> String {
    stream.write_all(head.as_bytes()).expect("taken");
    let mut got = String::new();
    let mut part = [0; 1024];
    while !got.ends_with("\r\n\r\n") || !got.contains("\r\n0\r\n") {
        match stream.read(&mut part).expect("octets") {
            0 => break,
            count => got.push_str(str::from_utf8(&part[..count]).expect("text")),
        }
    }
    let (_, body) = got.split_once("\r\n\r\n").expect("a head");
    body.to_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
const GET_TE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nConnection: TE\r\n\r\n";

/// The body and the trailers that a client of HTTP/2 gets.
fn over_http2(gateway: &Gateway, sent: Option<HeaderMap>, head: &[(&str, &str)]) -> HeaderMap {
    let mut h2 = H2::connect(gateway.https, "a.test");
    let mut request = h2.request("POST", "/").header("te", "trailers");
    for (name, value) in head {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    let (response, mut stream) = h2.begin(request, sent.is_some());
    h2.block_on(async {
        if let Some(sent) = sent {
            stream.send_data(Bytes::from("sent"), false).expect("open");
            stream.send_trailers(sent).expect("open");
        }
        let mut body = response.await.expect("a head").into_body();
        let mut all = Vec::new();
        while let Some(part) = body.data().await {
            let part = part.expect("no failure");
            let _ = body.flow_control().release_capacity(part.len());
            all.extend_from_slice(&part);
        }
        assert_eq!(String::from_utf8_lossy(&all), "hello");
        body.trailers()
            .await
            .expect("no failure")
            .unwrap_or_default()
    })
}

/// A server of HTTP/2 whose responses have trailers: its own, and the request's with `got-` before
/// their names.
fn http2_server() -> H2Server {
    H2Server::start(async |mut call: Call| {
        let (_, sent) = call.read_body().await;
        let mut end = trailers(&[
            ("x-sum", "1"),
            ("content-length", "7"),
            ("set-cookie", "a=b"),
            ("x-request-id", "theirs"),
        ]);
        for (name, value) in sent {
            let name = format!("got-{}", name.expect("one of each"));
            end.insert(http::HeaderName::try_from(name).expect("a name"), value);
        }
        let mut response = call.send_head(200, &[], false);
        response.send_data("hello".into(), false).expect("open");
        response.send_trailers(end).expect("open");
    })
}

/// A server of HTTP/1.1 whose responses have trailers.
fn http1_server() -> Origin {
    Origin::start(|_| {
        vec![Act::send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\
             X-Sum: 1\r\nContent-Length: 7\r\nSet-Cookie: a=b\r\nX-Request-Id: theirs\r\n\r\n",
        )]
    })
}

fn names(trailers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn those_of_responses_reach_clients_that_take_them() {
    let (http1, http2) = (http1_server(), http2_server());
    let gateways = [
        passing_to(http1.address(), "").over_own_lane().start(),
        in_front_of_http2(&http2),
    ];
    for gateway in &gateways {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        for _ in 0..2 {
            let body = body_of(&mut stream, GET_TE);
            assert_eq!(body, "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n");
            // One that does not ask for them might not expect them.
            assert_eq!(body_of(&mut stream, GET), "5\r\nhello\r\n0\r\n\r\n");
        }
        let end = over_http2(gateway, None, &[]);
        assert_eq!(names(&end), ["x-sum"]);
        assert_eq!(end["x-sum"], "1");
    }
}

#[test]
fn those_of_requests_reach_servers() {
    let server = http2_server();
    let gateway = in_front_of_http2(&server);
    let sent = || {
        trailers(&[
            ("x-check", "2"),
            ("x-forwarded-for", "192.0.2.1"),
            ("authorization", "none"),
        ])
    };
    let end = over_http2(&gateway, Some(sent()), &[]);
    assert_eq!(names(&end), ["got-x-check", "x-sum"]);
    assert_eq!(end["got-x-check"], "2");
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let body = body_of(
        &mut stream,
        "POST / HTTP/1.1\r\nHost: a.test\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nsent\r\n0\r\nX-Check: 2\r\nX-Real-IP: 192.0.2.1\r\n\r\n",
    );
    assert_eq!(
        body,
        "5\r\nhello\r\n0\r\nx-sum: 1\r\ngot-x-check: 2\r\n\r\n"
    );
}

#[test]
fn a_server_of_http1_gets_those_that_were_announced() {
    let origin = http1_server();
    let gateway = passing_to(origin.address(), "").over_own_lane().start();
    let sent = trailers(&[("x-check", "2"), ("x-other", "3")]);
    over_http2(&gateway, Some(sent), &[("trailer", "x-check")]);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    body_of(
        &mut stream,
        "POST / HTTP/1.1\r\nHost: a.test\r\nTrailer: X-Check\r\nTransfer-Encoding: chunked\r\n\
         \r\n4\r\nsent\r\n0\r\nX-Check: 2\r\nX-Other: 3\r\n\r\n",
    );
    let seen = origin.requests();
    assert_eq!(seen.len(), 2);
    for request in seen {
        let body = String::from_utf8_lossy(&request.raw_body).into_owned();
        assert_eq!(body, "4\r\nsent\r\n0\r\nx-check: 2\r\n\r\n");
    }
}
