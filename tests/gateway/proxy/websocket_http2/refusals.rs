//! Requests for WebSockets over HTTP/2 that are refused, by the server or by the gateway.

use super::{ECHO, connect, extended, in_front_of, open, opening};
use crate::support::{Act, H2, H2Reply, Origin, read, serving};

/// What a request for a WebSocket that is not opened gets.
#[track_caller]
fn refusal(h2: &mut H2, request: http::request::Builder) -> H2Reply {
    let request = request.body(()).expect("a request");
    let (answer, _to) = h2.begin(request, true);
    h2.block_on(async { read(answer.await.expect("a response")).await })
        .expect("its body")
}

#[test]
fn a_refusal_of_the_server_is_passed_on() {
    let origin = Origin::start(|request| match request.line().split(' ').nth(1) {
        Some("/403") => vec![Act::respond(403, "no")],
        Some("/302") => vec![Act::send(
            "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        )],
        Some("/200") => vec![Act::respond(200, "a page")],
        Some("/other") => vec![Act::send(
            "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )],
        _ => vec![Act::Close],
    });
    let gateway = in_front_of(&origin);
    let mut h2 = connect(&gateway);
    for (path, status) in [
        ("/403", 403),
        ("/302", 302),
        // For a client of HTTP/2 a success would be an open WebSocket.
        ("/200", 404),
        ("/other", 502),
        ("/closed", 502),
    ] {
        let request = extended(&h2, path, "websocket");
        let reply = refusal(&mut h2, request);
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.cut.is_none(), "{path}");
        if path == "/403" {
            assert_eq!(reply.text(), "no");
        }
    }
}

#[test]
fn what_is_no_websocket_is_refused() {
    let origin = opening(ECHO);
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], routes: [{{ upstream: app }}, \
             {{ path: /page, respond: {{ body: page }} }}, \
             {{ path: /moved, redirect: {{ to: /ws }} }}] }}]\n",
            origin.address()
        ),
    )
    .start();
    let mut h2 = connect(&gateway);
    for (path, protocol, status) in [
        ("/ws", "connect-udp", 405),
        ("/ws", "WebSocket", 405),
        ("/page", "websocket", 404),
        ("/moved", "websocket", 302),
        ("/page/../x", "websocket", 400),
    ] {
        let request = extended(&h2, path, protocol);
        let reply = refusal(&mut h2, request);
        assert_eq!(reply.status, status, "{path} {protocol}");
    }
    let request = extended(&h2, "/ws", "websocket").header("content-length", "3");
    assert_eq!(refusal(&mut h2, request).status, 400);
    let elsewhere = extended(&h2, "/ws", "websocket").uri("https://b.test/ws");
    assert_eq!(refusal(&mut h2, elsewhere).status, 421);
    let plain = http::Request::builder().method("CONNECT").uri("a.test:443");
    assert_eq!(refusal(&mut h2, plain).status, 405);
    assert!(origin.requests().is_empty());
    open(&mut h2, "/ws");
}
