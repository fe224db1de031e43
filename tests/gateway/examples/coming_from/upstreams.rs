//! The lines about upstreams.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use super::{Bench, Trial, lines, named_echo, try_each};
use crate::support::{Ca, H2Server, TlsOrigin, read_head, serving};

#[test]
fn upstreams() {
    let (app, other) = (named_echo("app"), named_echo("other"));
    let ca = Ca::new("Internal");
    let internal = ca.leaf(&["app.internal"]).make();
    let tls = TlsOrigin::start(&internal);
    let demanding = TlsOrigin::demanding(&internal, &ca, openssl::ssl::SslVersion::TLS1_3);
    let calls = H2Server::start(|mut call| async move {
        let mut body = call.send_head(200, &[], false);
        _ = body.send_data("h2".into(), true);
    });
    let lines = lines("Upstreams");
    let mut yaml = String::from("upstreams:\n");
    let mut sites = String::from("sites:\n");
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("app.sock");
    serve_unix(&socket);
    let behind_proxies = serve_proxied();
    for (number, line) in lines.iter().enumerate() {
        let server = match line.yaml.contains("cert:") {
            true => demanding.address(),
            false => tls.address(),
        };
        let plain = match line.yaml.contains("send_proxy_protocol") {
            true => behind_proxies,
            false => app.address(),
        };
        let upstream = line
            .yaml
            .replace("127.0.0.1:3000", &plain.to_string())
            .replace("127.0.0.1:3001", &other.address().to_string())
            .replace("127.0.0.1:3443", &server.to_string())
            .replace("127.0.0.1:50051", &calls.address().to_string())
            .replace("/run/app.sock", socket.to_str().expect("text"));
        let _ = writeln!(yaml, "  line-{number}: {upstream}");
        let _ = writeln!(
            sites,
            "- {{ hosts: [line-{number}.test], upstream: line-{number} }}"
        );
    }
    let builder = serving(&[&["*.test"]], yaml + &sites);
    fs::write(builder.dir().join("ca.pem"), ca.pem()).expect("a file");
    let client = ca.leaf(&["gateway.internal"]).for_client().make();
    client.write(builder.dir(), "client");
    let bench = Bench::start(builder, app, other);
    try_each(&bench, &lines, UPSTREAMS);
}

/// Answers one request at a time at a Unix socket.
fn serve_unix(path: &Path) {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut octet = [0; 1024];
            if stream.read(&mut octet).is_ok() {
                let response =
                    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nunix";
                _ = stream.write_all(response.as_bytes());
            }
        }
    });
}

/// Answers requests of connections that begin with a header of the PROXY protocol, version 2, with
/// the client's address.
fn serve_proxied() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut header = [0; 28];
            if stream.read_exact(&mut header).is_err() || !header.starts_with(SIGNATURE) {
                continue;
            }
            let client = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
            let (body, head) = (client.to_string(), read_head(&mut stream));
            if head.is_ok() {
                let length = body.len();
                let response = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                _ = stream.write_all(response.as_bytes());
            }
        }
    });
    address
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

const UPSTREAMS: &[(&str, Trial)] = &[
    ("give weights", |bench, host| {
        assert_eq!(bench.shares(host, 6), (2, 4));
    }),
    ("prefer the least busy", |bench, host| {
        bench.received(host, "/", &[]);
    }),
    ("keep clients at a server", |bench, host| {
        assert!([(6, 0), (0, 6)].contains(&bench.shares(host, 6)));
    }),
    ("keep sessions by a cookie", |bench, host| {
        let first = bench.get(host, "/");
        let cookie = first.header("set-cookie").expect("a cookie");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        let name = first.text().lines().next().map(str::to_owned);
        for _ in 0..4 {
            let again = bench.received(host, "/", &["--cookie", &cookie]);
            assert_eq!(again.lines().next().map(str::to_owned), name);
        }
    }),
    ("have a backup", |bench, host| {
        assert_eq!(bench.shares(host, 4), (4, 0));
    }),
    ("limit what a server gets", |bench, host| {
        bench.received(host, "/", &[]);
    }),
    ("check health", |bench, _| {
        crate::support::wait_for("a health check", || {
            let requests = bench.app.requests();
            let mut lines = requests.iter().map(|request| request.line());
            lines
                .any(|line| line.starts_with("GET /healthz "))
                .then_some(())
        });
    }),
    ("leave out what fails", |bench, host| {
        bench.received(host, "/", &[]);
    }),
    ("start a server slowly", |bench, host| {
        bench.received(host, "/", &[]);
    }),
    ("speak TLS to it", |bench, host| {
        assert_eq!(bench.received(host, "/", &[]), "nobody");
    }),
    ("show it a certificate", |bench, host| {
        assert_eq!(bench.received(host, "/", &[]), "gateway.internal");
    }),
    ("speak HTTP/2 without TLS", |bench, host| {
        assert_eq!(bench.received(host, "/", &[]), "h2");
    }),
    ("send the PROXY protocol", |bench, host| {
        assert_eq!(bench.received(host, "/", &[]), "127.0.0.1");
    }),
    ("reach a Unix socket", |bench, host| {
        assert_eq!(bench.received(host, "/", &[]), "unix");
    }),
];
