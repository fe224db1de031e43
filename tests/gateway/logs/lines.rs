//! What lines of the access log have.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::Value;

use super::{lines_with, logging};
use crate::support::{H2, Origin, TlsClient, serving};

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

/// The last line that has this, as JSON.
fn last_with(gateway: &crate::support::Gateway, what: &str) -> Value {
    let lines = lines_with(gateway, "access.log", what);
    let line = lines.iter().rfind(|line| line.contains(what));
    parsed(line.expect("a line"))
}

#[test]
fn a_line_of_json_says_how_a_request_went() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: access.log, format: json").start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = format!(
        "POST /first?a=b HTTP/1.1\r\nHost: a.test\r\nContent-Length: 7\r\n\
         traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n\r\n1234567"
    );
    assert_eq!(stream.request(&request).status, 200);
    let line = last_with(&gateway, "/first");
    for (name, value) in [
        ("site", "a.test"),
        ("sni", "a.test"),
        ("tls_version", "TLSv1.3"),
        ("certificate", "a.test"),
        ("upstream_name", "app"),
        ("trace_id", trace),
        ("target", "/first?a=b"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!(line["route"], 0);
    assert_eq!(line["attempts"], 1);
    assert_eq!(line["received"], 7);
    assert_eq!(line["bytes"], 5);
    assert_eq!(line["tls_resumed"], false);
    let seconds = |name: &str| line[name].as_f64().expect("seconds");
    assert!(seconds("first_byte_time") <= seconds("duration"), "{line}");
    assert!(
        line["tls_group"]
            .as_str()
            .is_some_and(|group| group != "none")
    );
    assert!(
        line["tls_cipher"]
            .as_str()
            .is_some_and(|cipher| cipher.starts_with("TLS_"))
    );
    let mut h2 = H2::connect(gateway.https, "a.test");
    assert_eq!(h2.get("/second").status, 200);
    let line = last_with(&gateway, "/second");
    assert_eq!(line["alpn"], "h2");
    assert_eq!(line.get("received"), None);
    assert_eq!(line.get("trace_id"), None);
}

#[test]
fn a_format_of_ones_own_is_followed_and_reloaded() {
    let origin = Origin::named("hello");
    let format = |text: &str| format!("access: access.log, access_format: '{text}'");
    let builder = logging(
        &origin,
        &format("{method} {path}|{query}|{status} \"{user_agent}\" {header:X-Id} {user}"),
    );
    let gateway = builder.start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let request = "GET /one?two HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a b\r\nX-Id: 7 \"8\r\n\r\n";
    assert_eq!(stream.request(request).status, 200);
    let lines = lines_with(&gateway, "access.log", "/one");
    assert_eq!(lines, ["GET /one|two|200 \"a b\" 7_\\x228 -"]);
    let text = std::fs::read_to_string(&gateway.config).expect("readable");
    let start = text.find("access_format").expect("there");
    let end = text
        .get(start..)
        .and_then(|rest| rest.find(" }"))
        .expect("there")
        + start;
    let mut next = text;
    next.replace_range(
        start..end,
        "access_format: json, access_fields: { remove: [query], request_headers: [X-Id] }",
    );
    std::fs::write(&gateway.config, next).expect("writable");
    gateway.signal(nix::sys::signal::Signal::SIGHUP);
    gateway.wait_for_log("reloaded");
    let request = request.replace("/one", "/three");
    assert_eq!(stream.request(&request).status, 200);
    let line = last_with(&gateway, "/three");
    assert_eq!(line["target"], "/three");
    assert_eq!(line["header_x_id"], "7 \"8");
    assert_eq!(lines_with(&gateway, "access.log", "/three").len(), 2);
}

#[test]
fn each_refusal_has_a_line_that_explains_it() {
    let origin = Origin::named("hello");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n  - hosts: [a.test]\n    routes: [{{ path: /app/, upstream: app }}]\n\
             tls: {{ unknown_sni: reject }}\n\
             log: {{ access: access.log, format: json }}\n",
            origin.address()
        ),
    )
    .start();
    // A bad head.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let reply = stream.request("GET /bad HTTP/1.1\r\nHost: a.test\r\nX y: z\r\n\r\n");
    assert_eq!(reply.status, 400);
    let line = last_with(&gateway, "invalid");
    assert_eq!(
        (&line["refused"], &line["status"]),
        (&"invalid".into(), &400.into())
    );
    assert!(
        line["reason"].as_str().is_some_and(|why| !why.is_empty()),
        "{line}"
    );
    // No route, and another host than that of the connection.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(stream.get("a.test", "/nothing").status, 404);
    let line = last_with(&gateway, "/nothing");
    assert_eq!(
        (&line["refused"], &line["site"]),
        (&"no_route".into(), &"a.test".into())
    );
    assert!(matches!(
        stream.get("b.test", "/elsewhere").status,
        404 | 421
    ));
    let line = last_with(&gateway, "/elsewhere");
    assert!(line["refused"].is_string(), "{line}");
    // A handshake for an unknown name, and what is none.
    assert!(
        TlsClient::named("unknown.test")
            .try_connect(gateway.https)
            .is_err()
    );
    let line = last_with(&gateway, "unknown.test");
    assert_eq!(line["refused"], "handshake_failed");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["version"], "TLS");
    let mut stream = TcpStream::connect(gateway.https).expect("connected");
    stream
        .write_all(b"GET / HTTP/1.1\r\n\"\r\n\r\n")
        .expect("written");
    crate::support::wait_for("another line", || {
        let lines = lines_with(&gateway, "access.log", "handshake_failed");
        let failed = lines.iter().map(|line| parsed(line));
        let failed = failed.filter(|line| line["refused"] == "handshake_failed");
        (failed.count() == 2).then_some(())
    });
}

#[test]
fn a_hello_that_never_ends_has_a_line_where_connections_are_passed_through() {
    let origin = Origin::named("hello");
    let gateway = serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites: [{{ hosts: [a.test], upstream: app }}, \
             {{ hosts: [raw.test], pass_through: app }}]\n\
             log: {{ access: access.log, access_format: '{{refused}} {{failed}} {{reason}}' }}\n",
            origin.address()
        ),
    )
    .server("limits: { handshake: 1s }")
    .start();
    // One on which nothing is sent has none.
    let silent = TcpStream::connect(gateway.https).expect("connected");
    let mut begun = TcpStream::connect(gateway.https).expect("connected");
    begun
        .write_all(b"\x16\x03\x01\x02\x00\x01")
        .expect("written");
    let failed = "snigate_tls_handshake_failures_total{reason=\"timeout\"}";
    crate::support::wait_for("both to end", || {
        (gateway.metric(failed) == Some(2.0)).then_some(())
    });
    drop((silent, begun));
    let lines = lines_with(&gateway, "access.log", "timeout");
    assert_eq!(lines, ["handshake_timeout timeout -"]);
}

#[test]
fn floods_of_failed_handshakes_are_sampled() {
    let origin = Origin::named("hello");
    let gateway = logging(&origin, "access: access.log, format: json").start();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(gateway.https).expect("connected");
        _ = stream.write_all(b"\x16\x03\x01 what\r\n\r\n");
    }
    crate::support::wait_for("a line that says what was left out", || {
        let mut stream = TcpStream::connect(gateway.https).ok()?;
        stream.write_all(b"garbage that is no handshake\r\n").ok()?;
        let path = gateway.dir().join("access.log");
        let log = std::fs::read_to_string(path).ok()?;
        log.contains("held_back").then_some(())
    });
}
