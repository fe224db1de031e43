//! How long servers take, and how much passes.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::wait_for_count;
use crate::support::{
    Act, Call, Gateway, H2Server, Origin, Received, connect, read_response, serving_app, wait_for,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n";

/// A histogram of the times of the upstream.
fn histogram(gateway: &Gateway, name: &str) -> (f64, f64) {
    let part = |part: &str| {
        let sample = format!("snigate_upstream_{name}_seconds_{part}{{upstream=\"app\"}}");
        gateway.metric(&sample).expect("a sample")
    };
    (part("count"), part("sum"))
}

/// Waits until so many responses are counted as complete.
#[track_caller]
fn wait_until_ended(gateway: &Gateway, count: usize) {
    let ended = r#"snigate_upstream_duration_seconds_count{upstream="app"}"#;
    wait_for_count(gateway, ended, count);
}

/// A response with parts that come one after another.
fn in_parts(_: &Received) -> Vec<Act> {
    let mut acts = vec![Act::send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    )];
    for _ in 0..5 {
        acts.push(Act::Pause(Duration::from_millis(40)));
        acts.push(Act::send("1\r\nx\r\n"));
    }
    acts.push(Act::send("0\r\n\r\n"));
    acts
}

#[test]
fn a_response_has_one_head_however_many_parts_it_has() {
    let origin = Origin::start(in_parts);
    let gateway = serving_app(origin.address()).start();
    for _ in 0..2 {
        let reply = gateway.curl_http("plain.test", "/").send();
        assert_eq!(reply.text(), "xxxxx");
    }
    wait_until_ended(&gateway, 2);
    let (heads, to_heads) = histogram(&gateway, "first_byte");
    let (_, to_ends) = histogram(&gateway, "duration");
    assert_eq!(heads, 2.0);
    assert!(to_ends >= 0.4, "{to_ends}");
    assert!(to_heads <= to_ends - 0.3, "{to_heads} {to_ends}");
}

#[test]
fn a_websocket_has_one_head_however_much_passes() {
    let origin = Origin::early(|_| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\n\r\n";
        vec![Act::send(switch), Act::Echo(5), Act::Close]
    });
    let gateway = serving_app(origin.address()).start();
    let mut stream = connect(gateway.http);
    let head = "GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("taken");
    let reply = read_response(&mut stream).expect("a response");
    assert_eq!(reply.status, 101);
    for _ in 0..5 {
        stream.write_all(b"x").expect("taken");
        let mut echo = [0];
        stream.read_exact(&mut echo).expect("an echo");
    }
    drop(stream);
    let ended = r#"snigate_requests_total{site="plain.test",status="1xx"}"#;
    wait_for_count(&gateway, ended, 1);
    assert_eq!(histogram(&gateway, "first_byte").0, 1.0);
    assert_eq!(histogram(&gateway, "duration").0, 0.0);
}

/// What a client takes to send a body is not the server's time.
#[test]
fn a_slow_client_makes_no_slow_server() {
    let origin = Origin::named("app");
    let gateway = serving_app(origin.address()).start();
    let mut stream = connect(gateway.http);
    let head = "POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("taken");
    wait_for("the connection to the server", || {
        (origin.connections() > 0).then_some(())
    });
    // The client is slow.
    thread::sleep(Duration::from_millis(600));
    stream.write_all(b"hello").expect("taken");
    let reply = read_response(&mut stream).expect("a response");
    assert_eq!(reply.status, 200);
    wait_until_ended(&gateway, 1);
    for name in ["first_byte", "duration"] {
        let (count, sum) = histogram(&gateway, name);
        assert!(count == 1.0 && sum < 0.5, "{name}: {count} {sum}");
    }
    let whole = r#"snigate_request_duration_seconds_sum{site="plain.test"}"#;
    assert!(gateway.metric(whole).is_some_and(|sum| sum >= 0.6));
    let received = r#"snigate_request_bytes_total{site="plain.test"}"#;
    assert_eq!(gateway.metric(received), Some(5.0));
    let sent = r#"snigate_response_bytes_total{site="plain.test"}"#;
    assert_eq!(gateway.metric(sent), Some(3.0));
}

/// A server may respond before it has the request.
#[test]
fn an_early_response_is_timed_from_the_connection() {
    let origin = Origin::early(|_| vec![Act::respond(413, "no"), Act::Close]);
    let gateway = serving_app(origin.address()).start();
    let mut stream = connect(gateway.http);
    let head = "POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("taken");
    let reply = read_response(&mut stream).expect("a response");
    assert_eq!(reply.status, 413);
    drop(stream);
    let ended = r#"snigate_requests_total{site="plain.test",status="4xx"}"#;
    wait_for_count(&gateway, ended, 1);
    assert_eq!(histogram(&gateway, "first_byte").0, 1.0);
}

#[test]
fn a_response_that_is_cut_has_no_duration() {
    let origin = Origin::start(|request| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        match request.line().contains("held") {
            true => vec![Act::send(head), Act::Hold],
            false => vec![Act::send(head), Act::Close],
        }
    });
    let gateway = serving_app(origin.address()).start();
    let cut = gateway.curl_http("plain.test", "/").try_send();
    assert!(cut.is_err());
    wait_for_count(
        &gateway,
        r#"snigate_requests_failed_total{reason="reset"}"#,
        1,
    );
    let mut stream = connect(gateway.http);
    let request = "GET /held HTTP/1.1\r\nHost: plain.test\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("taken");
    let mut octet = [0];
    stream.read_exact(&mut octet).expect("the head");
    drop(stream);
    wait_for_count(
        &gateway,
        r#"snigate_requests_failed_total{reason="client_gone"}"#,
        1,
    );
    assert_eq!(histogram(&gateway, "first_byte").0, 2.0);
    assert_eq!(histogram(&gateway, "duration").0, 0.0);
}

#[test]
fn requests_over_a_kept_connection_have_no_time_to_connect() {
    let origin = Origin::named("app");
    let gateway = serving_app(origin.address()).start();
    let mut stream = connect(gateway.http);
    let head = "HEAD / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";
    for request in [GET, GET, head] {
        stream.write_all(request.as_bytes()).expect("taken");
        if request == GET {
            let reply = read_response(&mut stream).expect("a response");
            assert_eq!(reply.status, 200);
        }
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end");
    assert!(rest.starts_with(b"HTTP/1.1 200"));
    wait_until_ended(&gateway, 3);
    assert_eq!(histogram(&gateway, "first_byte").0, 3.0);
    assert_eq!(
        histogram(&gateway, "connect").0,
        origin.connections() as f64
    );
}

/// An attempt that is retried because of the status of its response is not timed.
#[test]
fn the_response_that_is_passed_on_is_timed() {
    let failing = Origin::start(|_| vec![Act::respond(503, "busy")]);
    let app = Origin::named("app");
    let gateway = Gateway::start(format!(
        "upstreams: {{ app: {{ servers: [\"{}\", \"{}\"] }} }}\n\
         sites:\n- hosts: [plain.test]\n  tls: off\n  routes:\n\
         \x20 - {{ upstream: app, retries: {{ on: [503] }} }}\n",
        failing.address(),
        app.address()
    ));
    for _ in 0..4 {
        let reply = gateway.curl_http("plain.test", "/").send();
        assert_eq!(reply.text(), "app");
    }
    wait_until_ended(&gateway, 4);
    assert!(!failing.requests().is_empty());
    assert_eq!(histogram(&gateway, "first_byte").0, 4.0);
}

/// The same over HTTP/2.
#[test]
fn a_response_over_http2_has_one_head() {
    let server = H2Server::start(async |mut call: Call| {
        let mut response = call.send_head(200, &[], false);
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            response
                .send_data(Bytes::from_static(b"x"), false)
                .expect("open");
        }
        response.send_data(Bytes::new(), true).expect("open");
    });
    let gateway = Gateway::start(format!(
        "upstreams: {{ app: {{ servers: [\"{}\"], protocol: h2 }} }}\n\
         sites: [{{ hosts: [plain.test], tls: off, upstream: app }}]\n",
        server.address()
    ));
    let reply = gateway.curl_http("plain.test", "/").send();
    assert_eq!(reply.status, 200);
    wait_until_ended(&gateway, 1);
    assert_eq!(histogram(&gateway, "first_byte").0, 1.0);
}
