//! The PROXY protocol from balancers: the gateway learns the client's address from each connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::VERSIONS;
use crate::support::{
    Act, Balancer, Builder, CurlReply, Gateway, H2, Origin, Sending, TlsClient, connect, curl,
    exchange, read_response, serving, wait_for,
};

const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";

/// A header of version 2.
fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short");
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    octets.extend([command, family]);
    octets.extend(length.to_be_bytes());
    octets.extend(content);
    octets
}

/// 192.0.2.1:56324 to 198.51.100.7:443.
const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0xdc, 0x04, 0x01, 0xbb];

/// The same with fields that end with a checksum, which other code has computed.
fn with_checksum() -> Vec<u8> {
    let fields = [1, 0, 2, b'h', b'2', 0xea, 0, 3, 1, b'v', b'p', 3, 0, 4];
    let sum = CHECKSUM.to_be_bytes();
    binary(0x21, 0x11, &[&V4[..], &fields, &sum].concat())
}

const CHECKSUM: u32 = 0xc268_ae07;

/// 2001:db8::1 port 1 to 2001:db8::2 port 443.
fn v6() -> Vec<u8> {
    let mut content = [0; 36];
    content[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    content[16..20].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    content[15] = 1;
    content[31] = 2;
    content[33] = 1;
    content[34..].copy_from_slice(&443u16.to_be_bytes());
    binary(0x21, 0x21, &content)
}

/// An origin that says whom it was named as the client, and the port that the client connected to.
fn naming() -> Origin {
    Origin::start(|request| {
        let field = |name| request.header(name).unwrap_or("-").to_owned();
        let names = [
            "X-Forwarded-For",
            "X-Real-IP",
            "X-Client",
            "X-Forwarded-Port",
        ];
        vec![Act::respond(200, names.map(field).join(" "))]
    })
}

/// Begins a gateway that expects the header from balancers, in front of `origin`.
fn behind_balancers(origin: &Origin) -> Builder {
    let routes = "routes: [{ upstream: app, \
                  request_headers: { set: { X-Client: \"{client_ip}\" } } }]";
    serving(
        &[&["a.test"]],
        format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
             sites:\n\
             - {{ hosts: [a.test], {routes} }}\n\
             - {{ hosts: [plain.test], tls: off, {routes} }}\n\
             log: {{ access: access.log, level: debug }}\n",
            origin.address()
        ),
    )
    .server("proxy_protocol: { trusted: [\"127.0.0.77\"] }")
}

fn send_plain(balancer: &Balancer) -> CurlReply {
    let port = balancer.address().port();
    let url = format!("http://plain.test:{port}/");
    curl(&url).resolve("plain.test", balancer.address()).send()
}

fn send_tls(gateway: &Gateway, balancer: &Balancer, version: &str) -> CurlReply {
    let port = balancer.address().port();
    let url = format!("https://a.test:{port}/");
    let version = match version {
        "1.1" => "--http1.1",
        _ => "--http2",
    };
    curl(&url)
        .resolve("a.test", balancer.address())
        .cacert(&gateway.dir().join("root.pem"))
        .arg(version)
        .send()
}

/// How many connections were refused for this reason.
fn refused(gateway: &Gateway, reason: &str) -> f64 {
    let name = format!("snigate_proxy_protocol_refused_total{{reason=\"{reason}\"}}");
    gateway.metric(&name).unwrap_or(0.0)
}

#[test]
fn clients_are_who_their_balancer_says() {
    let origin = naming();
    let gateway = behind_balancers(&origin).start();
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.7 1 80\r\n";
    let long = [&V4[..], &[4, 0x40, 0], &[0; 0x4000]].concat();
    for (header, client, port) in [
        (LINE.to_vec(), "192.0.2.1", "443"),
        (binary(0x21, 0x11, &V4), "192.0.2.1", "443"),
        (v6(), "2001:db8::1", "443"),
        (with_checksum(), "192.0.2.1", "443"),
        (mapped.to_vec(), "203.0.113.9", "80"),
        (binary(0x21, 0x11, &long), "192.0.2.1", "443"),
    ] {
        let expected = format!("{client} {client} {client} {port}");
        for sending in [Sending::First, Sending::Together, Sending::Crumbs] {
            if sending == Sending::Crumbs && header.len() > 1000 {
                continue;
            }
            let plain = Balancer::start(gateway.http, &header, sending);
            assert_eq!(send_plain(&plain).text(), expected, "{sending:?}");
            let tls = Balancer::start(gateway.https, &header, sending);
            for version in VERSIONS {
                let reply = send_tls(&gateway, &tls, version);
                assert_eq!(reply.text(), expected, "{version} {sending:?}");
            }
        }
    }
    let log = gateway.dir().join("access.log");
    wait_for("the access log", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = |client| text.matches(client).count();
        (lines("192.0.2.1") >= 33 && lines("2001:db8::1") >= 9 && !text.contains("127.0.0.77"))
            .then_some(())
    });
}

#[test]
fn the_balancers_own_connections_keep_its_address() {
    let origin = naming();
    let gateway = behind_balancers(&origin).start();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 192.0.2.1 198.51.100.7 1 2\r\n".to_vec(),
        binary(0x20, 0x00, &[]),
        binary(0x20, 0x11, &V4),
        binary(0x21, 0x00, &[0; 7]),
        binary(0x21, 0x31, &[b'/'; 216]),
    ] {
        let (https, http) = (gateway.https, gateway.http);
        let expected = |port: u16| format!("127.0.0.77 127.0.0.77 127.0.0.77 {port}");
        let plain = Balancer::start(http, &header, Sending::First);
        assert_eq!(send_plain(&plain).text(), expected(http.port()));
        let tls = Balancer::start(https, &header, Sending::Together);
        for version in VERSIONS {
            let text = send_tls(&gateway, &tls, version).text();
            assert_eq!(text, expected(https.port()));
        }
    }
}

#[test]
fn what_follows_a_header_is_complete_and_the_connection_stays_open() {
    let origin = naming();
    let gateway = behind_balancers(&origin).start();
    let mut stream = Balancer::connect(gateway.http);
    let request = b"GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n";
    // Two requests come with the header.
    let all = [LINE, request, request].concat();
    stream.write_all(&all).expect("taken");
    for _ in 0..2 {
        let response = read_response(&mut stream).expect("a response");
        assert!(response.text().starts_with("192.0.2.1 "));
    }
    stream.write_all(request).expect("taken");
    let response = read_response(&mut stream).expect("a response");
    assert!(response.text().starts_with("192.0.2.1 "));
    // A header belongs to the beginning only.
    let again = exchange(&mut stream, LINE);
    assert!(again.starts_with(b"HTTP/1.1 400"), "{again:?}");
}

#[test]
fn a_balancer_without_a_header_is_refused() {
    let origin = naming();
    let gateway = behind_balancers(&origin).start();
    let request = &b"GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n"[..];
    let mut wrong_sum = with_checksum();
    *wrong_sum.last_mut().expect("octets") ^= 1;
    let mut count = 0.0;
    for (octets, reason) in [
        (request, "missing"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "missing"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.7 1\r\n", "malformed"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n", "malformed"),
        (
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 100]].concat(),
            "malformed",
        ),
        (&binary(0x21, 0x41, &V4), "malformed"),
        (&binary(0x31, 0x11, &V4), "malformed"),
        (&binary(0x21, 0x21, &V4), "malformed"),
        (&wrong_sum, "checksum"),
    ] {
        for address in [gateway.http, gateway.https] {
            let before = refused(&gateway, reason);
            let answer = exchange(&mut Balancer::connect(address), octets);
            assert_eq!(answer, b"", "{octets:?}");
            wait_for("the metric", || {
                (refused(&gateway, reason) > before).then_some(())
            });
            count += 1.0;
        }
    }
    let total = ["missing", "malformed", "checksum"].map(|reason| refused(&gateway, reason));
    assert!((total.iter().sum::<f64>() - count).abs() < 0.1);
    gateway.wait_for_log("refused a connection without a PROXY protocol header");
    assert_eq!(origin.requests().len(), 0);
    // One that only checks the port is no news.
    drop(Balancer::connect(gateway.http));
    let mut begun = Balancer::connect(gateway.http);
    begun.write_all(b"PROXY").expect("taken");
    drop(begun);
    wait_for("both", || (refused(&gateway, "closed") > 1.5).then_some(()));
}

#[test]
fn others_that_send_a_header_get_what_garbage_gets() {
    let origin = naming();
    let gateway = behind_balancers(&origin).start();
    let request = b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";
    for header in [LINE.to_vec(), binary(0x21, 0x11, &V4)] {
        let all = [&header[..], request].concat();
        let answer = exchange(&mut connect(gateway.http), &all);
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
        let answer = exchange(&mut connect(gateway.https), &all);
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
        assert!(answer.len() < 16, "no more than an alert: {answer:?}");
    }
    assert_eq!(origin.requests().len(), 0);
    // Without one they are served as ever.
    let answer = exchange(&mut connect(gateway.http), request);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("127.0.0.1 127.0.0.1 127.0.0.1"), "{answer}");
    let reply = TlsClient::named("a.test")
        .connect(gateway.https)
        .get("a.test", "/");
    assert!(reply.text().starts_with("127.0.0.1 "), "{}", reply.text());
}

#[test]
fn a_header_has_to_arrive_in_time() {
    let origin = naming();
    let gateway = behind_balancers(&origin)
        .server("limits: { handshake: 1s, header_read: 1s }")
        .start();
    for address in [gateway.http, gateway.https] {
        for part in [
            &b""[..],
            b"PROXY TCP4 192.0.2.1",
            &binary(0x21, 0x11, &V4)[..20],
        ] {
            let start = Instant::now();
            let answer = exchange(&mut Balancer::connect(address), part);
            let took = start.elapsed();
            assert_eq!(answer, b"");
            assert!(took > Duration::from_millis(900), "{took:?}");
            assert!(took < Duration::from_secs(6), "{took:?}");
        }
    }
    wait_for("the metric", || {
        (refused(&gateway, "timeout") > 5.5).then_some(())
    });
}

#[test]
fn clients_are_limited_and_not_their_balancer() {
    let origin = naming();
    let gateway = behind_balancers(&origin)
        .server("limits: { max_connections_per_ip: 1 }")
        .start();
    let open = |client: &str| -> (TcpStream, bool) {
        let mut stream = Balancer::connect(gateway.http);
        let all = format!(
            "PROXY TCP4 {client} 198.51.100.7 1 80\r\n\
             GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n"
        );
        stream.write_all(all.as_bytes()).expect("taken");
        let is_served = read_response(&mut stream).is_ok();
        (stream, is_served)
    };
    let clients: Vec<_> = (1..5)
        .map(|last| open(&format!("192.0.2.{last}")))
        .collect();
    assert!(clients.iter().all(|(_, is_served)| *is_served));
    let (mut second, is_served) = open("192.0.2.1");
    assert!(!is_served, "one client, two connections");
    assert!(matches!(second.read(&mut [0]), Ok(0) | Err(_)));
    drop(clients);
    wait_for("room again", || open("192.0.2.1").1.then_some(()));
    let limited = "snigate_connections_limited_total{limit=\"max_connections_per_ip\"}";
    assert!(gateway.metric(limited).is_some_and(|count| count >= 1.0));
}

#[test]
fn whose_connections_have_a_header_changes_with_a_reload() {
    let origin = naming();
    let mut gateway = behind_balancers(&origin).start();
    let balancer = Balancer::start(gateway.https, LINE, Sending::First);
    let mut kept = H2::connect(balancer.address(), "a.test");
    assert!(kept.get("/").text().starts_with("192.0.2.1 "));
    let config = std::fs::read_to_string(&gateway.config).expect("a file");
    gateway.write("snigate.yaml", &config.replace("127.0.0.77", "127.0.0.78"));
    assert_eq!(gateway.reload().0, 200);
    // Open connections stay as they are.
    assert!(kept.get("/").text().starts_with("192.0.2.1 "));
    let request = "GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n";
    let announced = [LINE, request.as_bytes()].concat();
    let answer = exchange(&mut Balancer::connect(gateway.http), &announced);
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    let answer = exchange(&mut Balancer::connect(gateway.http), request);
    assert!(String::from_utf8_lossy(&answer).contains("127.0.0.77 "));
    assert!(gateway.stop().success());
}

#[test]
fn curl_announces_itself() {
    let origin = naming();
    let gateway = behind_balancers(&origin).start();
    for client in ["127.0.0.77", "127.0.0.78"] {
        let tls = gateway
            .curl("a.test", "/")
            .cacert(&gateway.dir().join("root.pem"));
        for request in [tls, gateway.curl_http("plain.test", "/")] {
            let sent = request
                .args(["--interface", client])
                .arg("--haproxy-protocol")
                .try_send();
            // It names the address that it has; only one of the two may.
            match client {
                "127.0.0.77" => {
                    let text = sent.expect("a response").text();
                    assert!(text.starts_with("127.0.0.77 "), "{text}");
                }
                _ => assert!(sent.is_err() || sent.is_ok_and(|reply| reply.status == 400)),
            }
        }
    }
}

#[test]
fn one_gateway_announces_clients_to_another() {
    let origin = naming();
    let second = behind_balancers(&origin).start();
    for version in ["v1", "v2"] {
        // It connects from an address that the second one does not trust unless it says so.
        let config = std::fs::read_to_string(&second.config).expect("a file");
        second.write("snigate.yaml", &config.replace("127.0.0.77", "127.0.0.1"));
        assert_eq!(second.reload().0, 200);
        let first = serving(
            &[&["plain.test"]],
            format!(
                "upstreams: {{ next: {{ servers: [\"{}\"], send_proxy_protocol: {version} }} }}\n\
                 sites: [{{ hosts: [plain.test], upstream: next }}]\n\
                 log: {{ access: off }}\n",
                second.http
            ),
        )
        .start();
        let reply = first
            .curl("plain.test", "/")
            .cacert(&first.dir().join("root.pem"))
            .args(["--interface", "127.0.0.9"])
            .send();
        let port = first.https.port();
        assert_eq!(
            reply.text(),
            format!("127.0.0.9 127.0.0.9 127.0.0.9 {port}"),
            "{version}"
        );
    }
}
