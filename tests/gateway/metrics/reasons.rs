//! Each reason for a failure is counted for what it is, and nothing else is.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use openssl::ssl::SslVersion;
use serde_json::Value;

use super::wait_for_count;
use crate::support::{
    Ca, Gateway, Origin, TlsClient, TlsOrigin, connect, exchange, serving, wait_for,
};

/// Does what makes something fail.
type Cause<'a, T> = Box<dyn Fn() -> T + 'a>;

/// The counts of a metric by reason.
fn by_reason(gateway: &Gateway, metric: &str) -> BTreeMap<String, f64> {
    let text = gateway.ask("GET", "/metrics").text();
    let start = format!("{metric}{{reason=\"");
    let lines = text.lines().filter_map(|line| line.strip_prefix(&*start));
    let pairs = lines.filter_map(|line| line.split_once("\"} "));
    pairs
        .map(|(reason, count)| (reason.to_owned(), count.parse().expect("a number")))
        .collect()
}

/// Runs `cause`, and waits until one more is counted. Returns by which reason.
#[track_caller]
fn reason_of<T>(gateway: &Gateway, metric: &str, cause: impl FnOnce() -> T) -> (String, T) {
    let before = by_reason(gateway, metric);
    let caused = cause();
    let grown = wait_for("a count", || {
        let after = by_reason(gateway, metric);
        let grown = after
            .into_iter()
            .filter(|(reason, count)| count > &before[reason]);
        let grown: Vec<_> = grown.collect();
        (!grown.is_empty()).then_some(grown)
    });
    assert_eq!(grown.len(), 1, "{grown:?}");
    let (reason, count) = grown.into_iter().next().expect("one");
    assert_eq!(count, before[&reason] + 1.0, "{reason}");
    (reason, caused)
}

/// Waits until the access log has so many lines, and returns the last one.
#[track_caller]
fn last_line(gateway: &Gateway, count: usize) -> Value {
    let line = wait_for("a line of the access log", || {
        let log = fs::read_to_string(gateway.dir().join("access.log")).ok()?;
        let lines: Vec<_> = log.lines().collect();
        assert!(lines.len() <= count, "{log}");
        lines
            .get(count.checked_sub(1)?)
            .map(|line| (*line).to_owned())
    });
    serde_json::from_str(&line).expect("JSON")
}

/// What a client sends first.
fn hello(client: TlsClient) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let client = thread::spawn(move || client.try_connect(address).is_ok());
    let (mut stream, _) = listener.accept().expect("a client");
    let mut octets = vec![0; 5];
    stream.read_exact(&mut octets).expect("a record");
    let length = usize::from(u16::from_be_bytes([octets[3], octets[4]]));
    octets.resize(5 + length, 0);
    stream.read_exact(&mut octets[5..]).expect("the record");
    drop(stream);
    assert!(!client.join().expect("no panic"));
    octets
}

/// Sends octets and waits until the gateway closes.
fn send(gateway: &Gateway, octets: &[u8]) {
    let mut stream = connect(gateway.https);
    stream.write_all(octets).expect("taken");
    _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn each_handshake_that_fails_has_its_reason() {
    let clients = Ca::new("Clients Root");
    let builder = serving(
        &[&["a.test"], &["strict.test"]],
        "tls: { unknown_sni: reject }\n\
         log: { access: access.log, format: json }\n\
         sites:\n\
         - { hosts: [a.test], routes: [{ respond: { body: x } }] }\n\
         - { hosts: [strict.test], client_auth: { ca: clients.pem }, routes: [{ respond: { body: x } }] }\n",
    );
    fs::write(builder.dir().join("clients.pem"), clients.pem()).expect("written");
    let gateway = builder.server("limits: { handshake: 1s }").start();
    let address = gateway.https;
    let named = |name: &str| TlsClient::named(name);
    let fails = |client: TlsClient| {
        // With TLS 1.3 a client may learn it later.
        drop(
            client
                .try_connect(address)
                .map(|mut stream| stream.exchange("")),
        );
    };
    let begun = |octets: &[u8]| {
        let mut stream = connect(address);
        stream.write_all(octets).expect("taken");
        stream
    };
    let whole = hello(named("a.test"));
    let garbage = [&whole[..], &[23, 3, 3, 0, 40], &[7; 40]].concat();
    // Its message is shorter than it says.
    let cut = [22, 3, 1, 0, 8, 1, 0, 0, 4, 3, 3, 7, 7];
    let causes: Vec<(&str, Cause<'_, ()>)> = vec![
        ("client_gone", Box::new(|| drop(connect(address)))),
        ("client_gone", Box::new(|| drop(begun(&whole[..50])))),
        (
            "client_gone",
            Box::new(|| {
                let mut stream = begun(&whole);
                stream.read_exact(&mut [0; 5]).expect("an answer");
                stream.shutdown(Shutdown::Write).expect("open");
                _ = stream.read_to_end(&mut Vec::new());
            }),
        ),
        ("timeout", Box::new(|| send(&gateway, &whole[..50]))),
        ("unknown_name", Box::new(|| fails(named("other.test")))),
        (
            "no_shared_version",
            Box::new(|| fails(named("a.test").version(SslVersion::TLS1_1))),
        ),
        (
            "no_shared_cipher",
            Box::new(|| {
                let client = named("a.test").version(SslVersion::TLS1_2);
                fails(client.with(|tls| tls.set_cipher_list("AES128-SHA").expect("known")));
            }),
        ),
        (
            "no_shared_group",
            Box::new(|| {
                fails(named("a.test").with(|tls| tls.set_groups_list("P-521").expect("known")));
            }),
        ),
        (
            "no_shared_signature",
            Box::new(|| {
                fails(
                    named("a.test")
                        .with(|tls| tls.set_sigalgs_list("RSA-PSS+SHA256").expect("known")),
                );
            }),
        ),
        (
            "no_application_protocol",
            Box::new(|| fails(named("a.test").alpn(&["mqtt"]))),
        ),
        (
            "client_certificate",
            Box::new(|| fails(named("strict.test"))),
        ),
        (
            "refused_by_client",
            Box::new(|| fails(named("a.test").trusting(clients.certificate()))),
        ),
        (
            "not_tls",
            Box::new(|| send(&gateway, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")),
        ),
        (
            "not_tls",
            Box::new(|| send(&gateway, b"SSH-2.0-OpenSSH_9.2\r\n")),
        ),
        ("malformed", Box::new(|| send(&gateway, &cut))),
        ("malformed", Box::new(|| send(&gateway, &garbage))),
    ];
    let metric = "snigate_tls_handshake_failures_total";
    for (number, (expected, cause)) in causes.iter().enumerate() {
        let (reason, ()) = reason_of(&gateway, metric, cause);
        assert_eq!(reason, *expected, "number {number}");
        // The first one has sent nothing, and has no line.
        if number > 0 {
            let line = last_line(&gateway, number);
            assert_eq!(line["failed"], reason, "{line}");
            let said = line["reason"].as_str().unwrap_or_default();
            let is_in = |part: &&str| said.contains(*part) || said.starts_with(' ');
            let parts = ["context:", "error:", "routines", "accept()"];
            assert_eq!(parts.iter().find(|part| is_in(part)), None, "{line}");
        }
    }
    let text = gateway.ask("GET", "/metrics").text();
    let failed: f64 = text
        .lines()
        .filter(|line| line.starts_with("snigate_tls_handshakes_total{"))
        .filter(|line| !line.contains("result=\"ok\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(failed, causes.len() as f64, "both metrics have each");
}

/// The status of a response, 0 for none.
fn status(octets: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(octets);
    let status = text.split(' ').nth(1);
    status
        .and_then(|status| status.parse().ok())
        .unwrap_or_default()
}

#[test]
fn each_request_that_fails_has_its_reason() {
    let origin = Origin::named("app");
    let (refusing, resetting, silent) = (Origin::refusing(), Origin::resetting(), Origin::silent());
    let garbage = Origin::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let cut = Origin::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc");
    let stranger = TlsOrigin::start(&Ca::new("Another Root").leaf(&["127.0.0.1"]).make());
    let upstreams = [
        ("app", origin.address().to_string(), ""),
        ("drained", origin.address().to_string(), ""),
        ("refusing", refusing.address().to_string(), ""),
        ("mute", silent.address().to_string(), ", tls: on"),
        ("stranger", stranger.address().to_string(), ", tls: on"),
        ("resetting", resetting.address().to_string(), ""),
        ("silent", silent.address().to_string(), ""),
        ("left", silent.address().to_string(), ""),
        ("garbage", garbage.address().to_string(), ""),
        ("cut", cut.address().to_string(), ""),
        ("unresolved", "nowhere.invalid:80".to_owned(), ""),
    ];
    let log = "log: { access: access.log, format: json }";
    let mut yaml = format!("{log}\nupstreams:\n");
    for (name, server, more) in &upstreams {
        yaml.push_str(&format!("  {name}: {{ servers: [{server:?}]{more} }}\n"));
    }
    yaml.push_str("sites:\n- hosts: [plain.test]\n  tls: off\n  routes:\n");
    for (name, ..) in &upstreams {
        let read = if *name == "left" { "30s" } else { "400ms" };
        yaml.push_str(&format!(
            "  - {{ path: /{name}, upstream: {name}, max_body: 8, \
             timeout: {{ connect: 500ms, read: {read} }} }}\n"
        ));
    }
    let gateway = Gateway::start(yaml);
    let drain = format!(
        "/api/v1/upstreams/drained/servers/{}/drain",
        origin.address()
    );
    assert_eq!(gateway.ask("POST", &drain).status, 200);
    let post = |path: &str, rest: &str| {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n{rest}");
        exchange(&mut connect(gateway.http), head)
    };
    let empty = |path: &str| post(path, "Content-Length: 0\r\n\r\n");
    let leave = || {
        let before = silent.requests().len();
        let mut stream: TcpStream = connect(gateway.http);
        let head = "POST /left HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("taken");
        wait_for("the request", || {
            (silent.requests().len() > before).then_some(())
        });
        Vec::new()
    };
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let causes: Vec<(&str, u16, Cause<'_, Vec<u8>>)> = vec![
        ("client_gone", 0, Box::new(leave)),
        (
            "body_timeout",
            408,
            Box::new(|| post("/app", "Content-Length: 5\r\n\r\n")),
        ),
        (
            "body_too_large",
            413,
            Box::new(|| post("/app", &format!("{chunked}9\r\n123456789\r\n0\r\n\r\n"))),
        ),
        (
            "invalid_body",
            400,
            Box::new(|| post("/app", &format!("{chunked}zz\r\n"))),
        ),
        ("connect_failed", 502, Box::new(|| empty("/refusing"))),
        ("connect_timeout", 504, Box::new(|| empty("/mute"))),
        ("untrusted", 502, Box::new(|| empty("/stranger"))),
        ("reset", 502, Box::new(|| empty("/resetting"))),
        ("reset", 200, Box::new(|| empty("/cut"))),
        ("timeout", 504, Box::new(|| empty("/silent"))),
        ("invalid_response", 502, Box::new(|| empty("/garbage"))),
        ("unresolved", 502, Box::new(|| empty("/unresolved"))),
        ("unavailable", 503, Box::new(|| empty("/drained"))),
    ];
    for (number, (expected, code, cause)) in causes.iter().enumerate() {
        let metric = "snigate_requests_failed_total";
        let (reason, response) = reason_of(&gateway, metric, cause);
        assert_eq!((&*reason, status(&response)), (*expected, *code));
        let line = last_line(&gateway, number + 1);
        assert_eq!(line["failed"], reason, "{line}");
    }
    // All but one have ended with a status of the gateway or of the server.
    for (class, count) in [("2xx", 1), ("4xx", 4), ("5xx", 8)] {
        let name = format!("snigate_requests_total{{site=\"plain.test\",status={class:?}}}");
        wait_for_count(&gateway, &name, count);
    }
}
