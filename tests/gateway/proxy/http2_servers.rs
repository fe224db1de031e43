//! Servers of HTTP/2: what of a request and its response reaches the other side.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;

use super::{VERSIONS, in_front_of_http2, over, wait_for_state, with_upstream};
use crate::support::{
    Call, Gateway, H2, H2Server, H2Setup, ROOT, TlsClient, interim, read, wait_for,
};

/// Sends back the head of each request as text, and its body.
async fn echo(mut call: Call) {
    let (body, _) = call.read_body().await;
    let head = &call.head;
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\n", value.to_str().expect("text")));
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&body));
    let fields = [
        ("x-end", "1"),
        ("cache-control", "private"),
        ("content-type", "text/plain"),
    ];
    let mut response = call.send_head(200, &fields, false);
    response.send_data(text.into(), true).expect("open");
}

#[test]
fn clients_of_both_versions_reach_a_server_of_http2() {
    let server = H2Server::start(echo);
    let gateway = in_front_of_http2(&server);
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/x?y=z")
            .args(["--data-binary", "hello"])
            .args(["-H", "X-A: 1"])
            .args(["-H", "X-Real-IP: 192.0.2.1"])
            .args(["-H", "TE: trailers"])
            .send();
        assert_eq!(reply.status, 200, "{version}");
        assert_eq!(reply.header("x-end"), Some("1"));
        assert!(reply.header("x-request-id").is_some());
        assert!(reply.header("date").is_some());
        let text = reply.text();
        let (head, body) = text.split_once("\n\n").expect("both");
        assert_eq!(body, "hello");
        let mut lines = head.lines();
        let authority = format!("a.test:{}", gateway.https.port());
        let first = format!("POST http://{authority}/x?y=z HTTP/2.0");
        assert_eq!(lines.next(), Some(&*first));
        let lines: Vec<&str> = lines.collect();
        for line in [
            "x-a: 1",
            "content-length: 5",
            &format!("x-forwarded-host: {authority}"),
            "x-forwarded-proto: https",
            "x-real-ip: 127.0.0.1",
        ] {
            assert!(lines.contains(&line), "{version}: {line} in {lines:?}");
        }
        let has = |name: &str| lines.iter().any(|line| line.starts_with(name));
        assert!(!has("host: ") && !has("connection: ") && !has("transfer-encoding: "));
        assert_eq!(has("te: trailers"), version == "2");
    }
}

#[test]
fn a_response_without_a_body_ends_with_its_head() {
    let server = H2Server::start(async |mut call: Call| {
        let (status, length) = match call.head.uri.path() {
            "/none" => (204, None),
            "/empty" => (200, None),
            "/old" => (304, Some("7")),
            _ => (200, Some("0")),
        };
        let fields: Vec<_> = length
            .map(|length| ("content-length", length))
            .into_iter()
            .collect();
        call.send_head(status, &fields, true);
    });
    let gateway = in_front_of_http2(&server);
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let mut h2 = H2::connect(gateway.https, "a.test");
    for (path, status, length) in [
        ("/none", 204, None),
        ("/empty", 200, Some("0")),
        ("/old", 304, Some("7")),
        ("/zero", 200, Some("0")),
    ] {
        let reply = stream.get("a.test", path);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-length"), length, "{path}");
        let reply = h2.get(path);
        assert_eq!((reply.status, &*reply.text()), (status, ""), "{path}");
        assert!(reply.cut.is_none());
    }
    // To HEAD a length is declared of what is not sent.
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/old").arg("-I").send();
        assert_eq!(reply.header("content-length"), Some("7"), "{version}");
    }
}

#[test]
fn bodies_go_both_ways_at_once() {
    let server = H2Server::start(async |mut call: Call| {
        let mut response = call.send_head(200, &[], false);
        while let Some(part) = call.next_part().await {
            response.send_data(part, false).expect("open");
        }
        response.send_data(Bytes::new(), true).expect("open");
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("POST", "/").body(()).expect("a request");
    let (response, mut stream) = h2.begin(request, true);
    h2.block_on(async {
        let mut body = response.await.expect("a head").into_body();
        for part in ["one", "two", "three"] {
            stream.send_data(Bytes::from(part), false).expect("open");
            let back = body.data().await.expect("a part").expect("no failure");
            assert_eq!(back, part);
            let _ = body.flow_control().release_capacity(back.len());
        }
        stream.send_data(Bytes::new(), true).expect("open");
        // The end may come in a frame of its own.
        while let Some(part) = body.data().await {
            assert!(part.expect("no failure").is_empty());
        }
    });
}

#[test]
fn interim_responses_come_before_the_response() {
    let server = H2Server::start(async |mut call: Call| {
        for status in [102, 103] {
            let head = http::Response::builder().status(status);
            let head = head.header("link", "</a.css>").body(()).expect("a head");
            call.respond.send_informational(head).expect("open");
        }
        call.send_head(204, &[], true);
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/").body(()).expect("a request");
    let (mut response, _) = h2.begin(request, false);
    let (heads, reply) = h2.block_on(async {
        let heads = interim(&mut response).await;
        let response = response.await.expect("the final response");
        (heads, read(response).await.expect("its end"))
    });
    let statuses: Vec<u16> = heads.iter().map(|head| head.status().as_u16()).collect();
    assert_eq!((statuses, reply.status), (vec![102, 103], 204));
    assert_eq!(heads[0].headers()["link"], "</a.css>");
}

#[test]
fn a_client_that_does_not_read_holds_its_server_back() {
    const ALL: usize = 64 << 20;
    let (count, counted) = std::sync::mpsc::channel();
    let server = H2Server::start(move |mut call: Call| {
        let count = count.clone();
        async move {
            let mut response = call.send_head(200, &[], false);
            let mut left = ALL;
            while left > 0 {
                response.reserve_capacity(left.min(16 << 10));
                let Some(Ok(room)) = poll_fn(|cx| response.poll_capacity(cx)).await else {
                    return;
                };
                left -= room.min(left);
                let part = vec![b'a'; room];
                response.send_data(part.into(), left == 0).expect("open");
                let _ = count.send(ALL - left);
            }
        }
    });
    let gateway = in_front_of_http2(&server);
    let mut h2 = H2::connect(gateway.https, "a.test");
    let request = h2.request("GET", "/").body(()).expect("a request");
    let (response, _) = h2.begin(request, false);
    let mut body = h2.block_on(async { response.await.expect("a head").into_body() });
    let mut sent = 0;
    while let Ok(now) = counted.recv_timeout(Duration::from_secs(1)) {
        sent = now;
    }
    assert!(sent < 1 << 20, "{sent} octets were sent to nobody");
    // Another request is not held up.
    let (other, _) = {
        let request = h2.request("HEAD", "/").body(()).expect("a request");
        h2.begin(request, false)
    };
    h2.block_on(async { other.await.expect("a head") });
    let received = h2.block_on(async {
        let mut received = 0;
        while received < 8 << 20 {
            let part = body.data().await.expect("more").expect("no failure");
            received += part.len();
            let _ = body.flow_control().release_capacity(part.len());
        }
        received
    });
    assert!(received >= 8 << 20);
}

/// A gateway in front of a server with TLS that chooses from this, with these further keys.
fn over_tls(chosen: &'static [u8], keys: &str) -> (H2Server, Gateway) {
    let setup = H2Setup {
        tls: Some((ROOT.leaf(&["origin.test"]).make(), chosen)),
        ..H2Setup::default()
    };
    let server = H2Server::with(setup, echo);
    let address = server.address();
    let gateway = with_upstream(&format!(
        "servers: [\"{address}\"], {keys}, \
         tls: {{ server_name: origin.test, ca_file: root.pem }}"
    ));
    (server, gateway.start())
}

#[test]
fn over_tls_the_server_chooses() {
    const BOTH: &[u8] = b"\x02h2\x08http/1.1";
    const HTTP1: &[u8] = b"\x08http/1.1";
    for (chosen, keys, http2) in [
        (BOTH, "protocol: h2", true),
        (BOTH, "protocol: auto", true),
        (BOTH, "protocol: http1", false),
        (HTTP1, "protocol: auto", false),
    ] {
        let (server, gateway) = over_tls(chosen, keys);
        let mut h2 = H2::connect(gateway.https, "a.test");
        for _ in 0..3 {
            let reply = h2.get("/");
            assert_eq!(reply.status, 200, "{keys}");
            let first = reply.text().lines().next().map(str::to_owned);
            let expected = match http2 {
                true => "GET https://a.test/ HTTP/2.0",
                false => "http1",
            };
            assert_eq!(first.as_deref(), Some(expected), "{keys}");
        }
        assert_eq!(server.connections(), 1, "{keys}");
    }
    let (_server, gateway) = over_tls(HTTP1, "protocol: h2");
    assert_eq!(H2::connect(gateway.https, "a.test").get("/").status, 502);
}

#[test]
fn a_server_that_does_not_speak_http2_is_reported() {
    let origin = crate::support::Origin::echo();
    let keys = format!("servers: [\"{}\"], protocol: h2", origin.address());
    let gateway = with_upstream(&keys).start();
    let reply = H2::connect(gateway.https, "a.test").get("/");
    assert_eq!(reply.status, 502);
    wait_for("the reason in the log", || {
        gateway
            .log()
            .contains("does not speak HTTP/2")
            .then_some(())
    });
}

#[test]
fn a_server_of_http2_is_checked_over_http2() {
    let server = H2Server::start(async |mut call: Call| {
        let is_check = call.head.uri == "http://app.internal/healthz";
        let status = if is_check && call.number > 5 {
            500
        } else {
            204
        };
        call.send_head(status, &[], true);
    });
    let address = server.address();
    let gateway = with_upstream(&format!(
        "servers: [\"{address}\"], protocol: h2, \
         health: {{ path: /healthz, every: 100ms, unhealthy: 1, host: app.internal }}"
    ))
    .start();
    wait_for_state(&gateway, address, "down");
    assert!(server.requests() > 5);
    // There is no other server, so it is tried all the same.
    assert_eq!(H2::connect(gateway.https, "a.test").get("/").status, 204);
}
