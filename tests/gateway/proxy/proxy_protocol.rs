//! The PROXY protocol to servers: they learn the client's address from each connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use super::{VERSIONS, over, wait_for_state, with_upstream};
use crate::support::{Act, Ca, Gateway, Nginx, Origin, TlsClient};

/// What nginx says of a request from an address, and the port that the client had.
#[track_caller]
fn seen_from(gateway: &Gateway, version: &str, client: &str) -> (String, Vec<String>) {
    let reply = over(version, gateway, "a.test", "/")
        .args(["--interface", client])
        .send();
    let text = reply.text();
    assert_eq!(reply.status, 200, "{text}");
    let words = text.split(' ').map(str::to_owned).collect();
    (text, words)
}

#[test]
fn servers_learn_the_address_of_each_client() {
    let ca = Ca::new("Servers");
    let dir = tempfile::tempdir().expect("a directory");
    let root = ca.write(dir.path());
    let pair = ca.leaf(&["127.0.0.1"]).make();
    for tls in [false, true] {
        let nginx = Nginx::reading_proxy_protocol(tls.then_some(&pair));
        for protocol in ["v1", "v2"] {
            let tls = match tls {
                true => format!(", tls: {{ ca_file: {} }}", root.display()),
                false => String::new(),
            };
            let gateway = with_upstream(&format!(
                "servers: [\"{}\"], send_proxy_protocol: {protocol}{tls}",
                nginx.address()
            ))
            .start();
            let listener = gateway.https.port().to_string();
            for client in ["127.0.0.5", "127.0.0.6", "127.0.0.5"] {
                for version in VERSIONS {
                    let (text, words) = seen_from(&gateway, version, client);
                    let [ip, port, to, to_port, requests] = &words[..] else {
                        panic!("{protocol}: {text}")
                    };
                    assert_eq!((&**ip, &**to), (client, "127.0.0.1"), "{protocol}: {text}");
                    assert_eq!(*to_port, listener, "{protocol}: {text}");
                    assert!(port.parse::<u16>().is_ok_and(|port| port != 0), "{text}");
                    assert_eq!(requests, "1", "{protocol}: a connection was used again");
                }
            }
        }
    }
}

#[test]
fn each_request_has_a_connection_of_its_own() {
    let origin = Origin::start(|request| {
        let header = request.line().to_owned();
        vec![Act::respond(200, header)]
    });
    let gateway = with_upstream(&format!(
        "servers: [\"{}\"], send_proxy_protocol: v1",
        origin.address()
    ))
    .start();
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let first = stream.get("a.test", "/").text();
    assert!(
        first.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{first}"
    );
    for _ in 0..3 {
        assert_eq!(stream.get("a.test", "/").text(), first, "the same client");
    }
    let mut other = TlsClient::named("a.test").connect(gateway.https);
    assert_ne!(other.get("a.test", "/").text(), first, "another port");
    assert_eq!(origin.connections(), 5);
}

#[test]
fn health_checks_name_no_client() {
    let origin = Origin::start(|request| {
        let is_check = request.head.contains("GET /healthz");
        let status = match is_check == request.line().starts_with("PROXY UNKNOWN") {
            true => 200,
            false => 500,
        };
        vec![Act::respond(status, "x")]
    });
    let keys = |protocol: &str, address| {
        format!(
            "servers: [\"{address}\"], send_proxy_protocol: {protocol}, \
             health: {{ path: /healthz, every: 100ms }}"
        )
    };
    let gateway = with_upstream(&keys("v1", origin.address())).start();
    origin.wait_for_requests(5);
    wait_for_state(&gateway, origin.address(), "up");
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);

    let nginx = Nginx::reading_proxy_protocol(None);
    let gateway = with_upstream(&keys("v2", nginx.address())).start();
    wait_for_state(&gateway, nginx.address(), "up");
    let (text, words) = seen_from(&gateway, "1.1", "127.0.0.7");
    assert_eq!(words[0], "127.0.0.7", "{text}");
    assert!(!gateway.log().contains("upstream_down"));
}

#[test]
fn a_server_on_a_unix_socket_learns_the_address_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") || received.len() <= 16 {
            let mut octet = [0];
            stream.read_exact(&mut octet).expect("more of the head");
            received.push(octet[0]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .expect("taken");
        received
    });
    let gateway = with_upstream(&format!(
        "servers: [\"unix:{}\"], send_proxy_protocol: v2",
        path.display()
    ))
    .start();
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 200);
    let received = server.join().expect("no panic");
    assert_eq!(received[..12], *b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(received[12..20], [0x21, 0x11, 0, 12, 127, 0, 0, 1]);
    assert_eq!(received[26..28], gateway.https.port().to_be_bytes());
    assert!(received[28..].starts_with(b"GET / HTTP/1.1\r\n"));
}
