//! gRPC: calls of every kind, their ends, and what the gateway says itself.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};

use super::{in_front_of_http2, with_upstream};
use crate::support::{Call, Gateway, H2, H2Server, TlsClient, serving, wait_for};

/// A message as it is framed.
fn message(text: &str) -> Bytes {
    let len = u32::try_from(text.len()).expect("short");
    [&[0][..], &len.to_be_bytes(), text.as_bytes()]
        .concat()
        .into()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

fn trailers(status: &'static str) -> HeaderMap {
    let fields = [
        ("grpc-status", status),
        ("grpc-message", "as it is"),
        ("x-own", "1"),
    ];
    let fields = fields.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    fields.into_iter().collect()
}

fn call(h2: &H2, path: &str) -> http::request::Builder {
    let (name, value) = GRPC;
    h2.request("POST", path)
        .header(name, value)
        .header("te", "trailers")
}

fn begin(h2: &mut H2, request: http::request::Builder) -> (ResponseFuture, SendStream<Bytes>) {
    h2.begin(request.body(()).expect("a request"), true)
}

/// The next message.
async fn next(body: &mut RecvStream) -> Option<Bytes> {
    let part = body.data().await?.expect("no failure");
    let _ = body.flow_control().release_capacity(part.len());
    Some(part)
}

/// All that follows the head of a response, and its trailers.
async fn rest(response: Response<RecvStream>) -> (Vec<u8>, HeaderMap) {
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(part) = next(&mut body).await {
        all.extend_from_slice(&part);
    }
    let trailers = body.trailers().await.expect("no failure");
    (all, trailers.unwrap_or_default())
}

#[test]
fn a_unary_call_ends_with_its_trailers() {
    let server = H2Server::start(async |mut call: Call| {
        assert_eq!(call.head.headers["te"], "trailers");
        assert_eq!(call.head.headers["content-type"], "application/grpc");
        let (body, _) = call.read_body().await;
        let mut response = call.send_head(200, &[GRPC], false);
        response.send_data(body.into(), false).expect("open");
        response.send_trailers(trailers("0")).expect("open");
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for _ in 0..3 {
        let request = call(&h2, "/a.Service/Call");
        let (response, mut stream) = begin(&mut h2, request);
        stream.send_data(message("hello"), true).expect("open");
        let (body, trailers) = h2.block_on(async { rest(response.await.expect("a head")).await });
        assert_eq!(body, message("hello"));
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-own"], "1");
    }
}

#[test]
fn messages_of_a_stream_pass_at_once_both_ways() {
    let server = H2Server::start(async |mut call: Call| {
        let mut response = call.send_head(200, &[GRPC], false);
        while let Some(part) = call.next_part().await {
            if !part.is_empty() {
                response.send_data(part, false).expect("open");
            }
        }
        response.send_trailers(trailers("0")).expect("open");
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = call(&h2, "/a.Service/Chat");
    let (response, mut stream) = begin(&mut h2, request);
    h2.block_on(async {
        let mut body = response.await.expect("a head").into_body();
        for number in 0..20 {
            let sent = message(&number.to_string());
            stream.send_data(sent.clone(), false).expect("open");
            assert_eq!(next(&mut body).await, Some(sent));
        }
        stream.send_data(Bytes::new(), true).expect("open");
        assert_eq!(next(&mut body).await, None);
        let end = body
            .trailers()
            .await
            .expect("no failure")
            .expect("trailers");
        assert_eq!(end["grpc-status"], "0");
    });
}

#[test]
fn an_error_of_the_server_in_its_head_passes() {
    let server = H2Server::start(async |mut call: Call| {
        let fields = [GRPC, ("grpc-status", "5"), ("grpc-message", "not%20here")];
        call.send_head(200, &fields, true);
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = call(&h2, "/a.Service/Call");
    let (response, _stream) = begin(&mut h2, request);
    let response = h2.block_on(async { response.await.expect("a head") });
    assert!(response.body().is_end_stream());
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "not%20here");
}

/// How the gateway fails a call itself.
#[track_caller]
fn failure(h2: &mut H2, request: http::request::Builder) -> (String, Duration) {
    let begun = Instant::now();
    let (response, _stream) = begin(h2, request);
    let response = h2.block_on(async { response.await.expect("a head") });
    assert_eq!(response.status(), 200);
    assert!(response.body().is_end_stream());
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(response.headers().contains_key("grpc-message"));
    let status = response.headers()["grpc-status"].to_str().expect("text");
    (status.to_owned(), begun.elapsed())
}

#[test]
fn a_deadline_bounds_a_call() {
    let server = H2Server::start(async |mut call: Call| {
        // The server learns of it too.
        assert_eq!(call.head.headers["grpc-timeout"], "300m");
        call.reset_reason().await;
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = call(&h2, "/a.Service/Call").header("grpc-timeout", "300m");
    let (status, after) = failure(&mut h2, request);
    assert_eq!(status, "4");
    let bounds = Duration::from_millis(300)..Duration::from_secs(5);
    assert!(bounds.contains(&after), "{after:?}");
}

#[test]
fn a_call_that_is_cancelled_is_reset_at_its_server() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = H2Server::start(move |mut call: Call| {
        let tell = tell.clone();
        async move {
            if call.head.uri.path().ends_with("Begun") {
                let mut response = call.send_head(200, &[GRPC], false);
                response.send_data(message("hello"), false).expect("open");
                let reason = poll_fn(|cx| response.poll_reset(cx)).await;
                let _ = tell.send(reason.ok());
            } else {
                let reason = call.reset_reason().await;
                let _ = tell.send(reason);
            }
        }
    });
    let gateway = in_front_of_http2(&server);
    let patience = Duration::from_secs(2);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for path in ["/a.Service/Silent", "/a.Service/Begun"] {
        let before = server.requests();
        let request = call(&h2, path);
        let (response, mut stream) = begin(&mut h2, request);
        wait_for("the call", || (server.requests() > before).then_some(()));
        let _body = path.ends_with("Begun").then(|| h2.block_on(response));
        stream.send_reset(Reason::CANCEL);
        let reason = told.recv_timeout(patience).expect("in time");
        assert_eq!(reason, Some(Reason::CANCEL), "{path}");
    }
    // So is one whose client is gone.
    let before = server.requests();
    let request = call(&h2, "/a.Service/Silent");
    let _call = begin(&mut h2, request);
    wait_for("the call", || (server.requests() > before).then_some(()));
    drop(h2);
    let reason = told.recv_timeout(patience).expect("in time");
    assert_eq!(reason, Some(Reason::CANCEL));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_cut_response_ends_with_a_status_only_where_clients_look_for_it() {
    const NATIVE: &str = "application/grpc+proto";
    let server = H2Server::start(async |mut call: Call| {
        let content_type = call.head.headers["x-respond"].clone();
        let content_type = content_type.to_str().expect("text");
        let mut response = call.send_head(200, &[("content-type", content_type)], false);
        response.send_data(message("hello"), false).expect("open");
        call.body.data().await;
        response.send_reset(Reason::INTERNAL_ERROR);
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for (asked, responded) in [
        (NATIVE, NATIVE),
        (NATIVE, "text/plain"),
        ("application/grpc-web", "application/grpc-web"),
        ("application/grpc-web", NATIVE),
    ] {
        let request = h2.request("POST", "/a.Service/Call");
        let request = request
            .header("content-type", asked)
            .header("x-respond", responded);
        let (response, mut stream) = begin(&mut h2, request);
        let (cut, trailers) = h2.block_on(async {
            let mut body = response.await.expect("a head").into_body();
            assert_eq!(next(&mut body).await, Some(message("hello")));
            stream.send_data("go".into(), false).expect("open");
            match body.data().await {
                Some(part) => (Some(part.expect_err("a cut")), None),
                None => (None, body.trailers().await.expect("no failure")),
            }
        });
        let is_native = (asked, responded) == (NATIVE, NATIVE);
        assert_eq!(cut.is_none(), is_native, "{asked}, {responded}");
        let status = trailers.map(|trailers| trailers["grpc-status"].clone());
        assert_eq!(status.is_some(), is_native, "{asked}, {responded}");
    }
}

fn before_nobody() -> Gateway {
    let config = "upstreams: { app: { servers: [\"127.0.0.1:1\"], protocol: h2 } }\n\
         sites: [{ hosts: [a.test], routes: [\
         { path: /a.Service/, methods: [POST], upstream: app, max_body: 10 }] }]\n";
    serving(&[&["a.test"]], config).start()
}

#[test]
fn what_the_gateway_says_itself_is_a_status_of_grpc() {
    let gateway = before_nobody();
    let mut h2 = H2::connect(gateway.https, "a.test");
    for (method, path, length, expected) in [
        // No server.
        ("POST", "/a.Service/Call", None, "14"),
        // No route.
        ("POST", "/b.Service/Call", None, "12"),
        // A method that is not allowed.
        ("PUT", "/a.Service/Call", None, "2"),
        // A body that is too large.
        ("POST", "/a.Service/Call", Some("11"), "8"),
    ] {
        let mut request = h2.request(method, path).header(GRPC.0, GRPC.1);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let (status, after) = failure(&mut h2, request);
        assert_eq!(status, expected, "{method} {path}");
        assert!(after < Duration::from_secs(2), "{after:?}");
    }
    // What it stands for is counted.
    let refused = "snigate_requests_total{site=\"a.test\",status=\"5xx\"}";
    assert_eq!(
        gateway.metric(refused),
        Some(1.0),
        "a call without a server"
    );
    // Over HTTP/1.1 it is framed as any response.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    for _ in 0..2 {
        let reply = stream.request(
            "POST /b.Service/Call HTTP/1.1\r\nHost: a.test\r\n\
             Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("grpc-status"), Some("12"));
    }
    // Others get their page.
    let reply = h2.get("/b.Service/Call");
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("grpc-status"), None);
}

#[test]
fn a_large_message_is_held_back_by_its_server() {
    let server = H2Server::start(async |mut call: Call| {
        // Takes nothing until it is asked to.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (body, _) = call.read_body().await;
        let mut response = call.send_head(200, &[GRPC], false);
        response
            .send_data(message(&body.len().to_string()), false)
            .expect("open");
        response.send_trailers(trailers("0")).expect("open");
    });
    let keys = format!("servers: [\"{}\"], protocol: h2", server.address());
    let gateway = with_upstream(&keys).start();
    let before = gateway.memory();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request: Request<()> = call(&h2, "/a.Service/Call").body(()).expect("a request");
    let (response, stream) = h2.begin(request, true);
    let body = Bytes::from(vec![b'a'; 32 << 20]);
    let (body, end) = h2.block_on(async {
        tokio::spawn(crate::support::upload(stream, body));
        rest(response.await.expect("a head")).await
    });
    assert_eq!(body, message(&(32 << 20).to_string()));
    assert_eq!(end["grpc-status"], "0");
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} octets");
}

#[test]
fn a_server_is_asked_for_the_health_of_a_service() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    let healthy = Arc::new(AtomicBool::new(true));
    let set = Arc::clone(&healthy);
    let server = H2Server::start(move |mut call: Call| {
        let is_healthy = set.load(Ordering::Relaxed);
        async move {
            assert_eq!(call.head.uri.path(), "/grpc.health.v1.Health/Check");
            assert_eq!(call.read_body().await.0, message("\x0a\x09a.Service"));
            let mut response = call.send_head(200, &[GRPC], false);
            let status = if is_healthy { "\x08\x01" } else { "\x08\x02" };
            response.send_data(message(status), false).expect("open");
            response.send_trailers(trailers("0")).expect("open");
        }
    });
    let address = server.address();
    let gateway = with_upstream(&format!(
        "servers: [\"{address}\"], protocol: h2, \
         health: {{ grpc: a.Service, every: 100ms, healthy: 1, unhealthy: 1 }}"
    ))
    .start();
    wait_for("checks", || (server.requests() > 2).then_some(()));
    for (is_healthy, state) in [(false, "down"), (true, "up")] {
        healthy.store(is_healthy, Ordering::Relaxed);
        super::wait_for_state(&gateway, address, state);
    }
    wait_for("the reason in the log", || {
        gateway
            .log()
            .contains("the service is NOT_SERVING")
            .then_some(())
    });
}

#[test]
fn a_deadline_bounds_the_wait_for_a_server() {
    let server = H2Server::start(async |mut call: Call| {
        call.reset_reason().await;
    });
    let keys = format!("servers: [\"{}\"], protocol: h2", server.address());
    let gateway = with_upstream(&format!("{keys}, max_connections: 1")).start();
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = call(&h2, "/a.Service/Call");
    let _busy = begin(&mut h2, request);
    wait_for("the call", || (server.requests() == 1).then_some(()));
    let request = call(&h2, "/a.Service/Call").header("grpc-timeout", "300m");
    let (status, after) = failure(&mut h2, request);
    assert_eq!(status, "4");
    let bounds = Duration::from_millis(300)..Duration::from_secs(4);
    assert!(bounds.contains(&after), "{after:?}");
    assert_eq!(server.requests(), 1);
}
