//! TLS to servers: whom the gateway trusts, what it presents, and what it says when that fails.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::thread;

use openssl::ssl::SslVersion;

use super::{VERSIONS, in_front_of_all, over, upstream_config};
use crate::support::{Ca, Pair, TlsOrigin, serving, snigate, wait_for};

/// A server in front of which the gateway has a route, and what becomes of a request.
struct Case {
    server: TlsOrigin,
    /// The upstream's `tls`.
    tls: String,
    /// What the log says, if the request fails.
    said: Option<&'static str>,
}

fn write_root(ca: &Ca, directory: &Path) -> String {
    ca.write(directory).display().to_string()
}

#[test]
fn servers_are_verified_by_name_and_by_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, other) = (Ca::new("Servers"), Ca::new("Others"));
    let root = write_root(&ca, dir.path());
    let foreign = write_root(&other, dir.path());
    let server = |pair: Pair| TlsOrigin::start(&pair);
    let named = |name: &str| server(ca.leaf(&[name]).make());
    let case = |server, tls: String, said| Case { server, tls, said };
    let trusting = |name: &str| format!("{{ server_name: {name}, ca_file: {root} }}");
    let cases = [
        case(named("app.internal"), trusting("app.internal"), None),
        case(named("*.svc.internal"), trusting("app.svc.internal"), None),
        case(named("127.0.0.1"), format!("{{ ca_file: {root} }}"), None),
        case(
            named("app.internal"),
            format!("{{ server_name: app.internal, ca_file: {foreign} }}"),
            Some("give the root of its CA as 'ca_file'"),
        ),
        case(
            named("app.internal"),
            "{ server_name: app.internal }".to_owned(),
            Some("give the root of its CA as 'ca_file'"),
        ),
        case(
            server(ca.leaf(&["app.internal"]).expired().make()),
            trusting("app.internal"),
            Some("certificate has expired; renew it"),
        ),
        case(
            server(ca.leaf(&["app.internal"]).not_yet_valid().make()),
            trusting("app.internal"),
            Some("check the clocks of both machines"),
        ),
        case(
            named("app.internal"),
            trusting("other.internal"),
            Some("it is not for other.internal: give a name that it is for as 'server_name'"),
        ),
        case(
            named("127.0.0.2"),
            format!("{{ ca_file: {root} }}"),
            Some("it is not for the address 127.0.0.1: give"),
        ),
        // A name that looks like the address is none.
        case(
            named("localhost"),
            format!("{{ ca_file: {root} }}"),
            Some("it is not for the address 127.0.0.1: give"),
        ),
        case(
            named("other.internal"),
            "{ verify: false }".to_owned(),
            None,
        ),
    ];
    let upstreams: Vec<String> = cases
        .iter()
        .map(|case| {
            let address = case.server.address();
            format!("servers: [\"{address}\"], tls: {}", case.tls)
        })
        .collect();
    let gateway = in_front_of_all(&upstreams).start();
    for (number, case) in cases.iter().enumerate() {
        let reply = over("1.1", &gateway, "a.test", &format!("/{number}/")).send();
        match case.said {
            None => assert_eq!((reply.status, &*reply.text()), (200, "nobody"), "{number}"),
            Some(said) => {
                assert_eq!(reply.status, 502, "{number}: {}", case.tls);
                gateway.wait_for_log(said);
                assert_eq!(case.server.names(), [], "{number}: a handshake ended well");
            }
        }
    }
    let asked = |number: usize| cases[number].server.names();
    assert_eq!(asked(0), [Some("app.internal".to_owned())]);
    assert_eq!(asked(2), [None], "an address is no name");
}

#[test]
fn what_does_not_speak_tls_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 1]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let keys = format!("servers: [\"{address}\"], tls: {{ verify: false }}");
    let gateway = in_front_of_all(&[keys]).start();
    assert_eq!(over("1.1", &gateway, "a.test", "/0/").send().status, 502);
    gateway.wait_for_log("the server does not speak TLS: check its port");
}

#[test]
fn a_client_certificate_is_presented_where_it_is_demanded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, clients, others) = (Ca::new("Servers"), Ca::new("Clients"), Ca::new("Others"));
    let root = write_root(&ca, dir.path());
    let pair = ca.leaf(&["app.internal"]).make();
    let identity = |ca: &Ca, name: &str| {
        let (cert, key) = ca.leaf(&[name]).for_client().make().write(dir.path(), name);
        format!(", cert: {}, key: {}", cert.display(), key.display())
    };
    let below = clients.intermediate("Below");
    let good = identity(&below, "gateway.internal");
    let foreign = identity(&others, "stranger.internal");
    let versions = [SslVersion::TLS1_2, SslVersion::TLS1_3];
    let servers = versions.map(|version| TlsOrigin::demanding(&pair, &clients, version));
    let mut upstreams = Vec::new();
    for server in &servers {
        for identity in ["", &good, &foreign] {
            upstreams.push(format!(
                "servers: [\"{}\"], tls: {{ server_name: app.internal, ca_file: {root}{identity} }}",
                server.address()
            ));
        }
    }
    let gateway = in_front_of_all(&upstreams).start();
    for (number, expected) in [
        Err("require a client certificate"),
        Ok("gateway.internal"),
        Err("the server does not accept the client certificate: check 'cert'"),
        Err("the server requires a client certificate: give 'cert' and 'key'"),
        Ok("gateway.internal"),
        Err("the server does not accept the client certificate: check 'cert'"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = gateway.log().len();
        for version in VERSIONS {
            let reply = over(version, &gateway, "a.test", &format!("/{number}/")).send();
            match expected {
                Ok(name) => assert_eq!((reply.status, &*reply.text()), (200, name), "{number}"),
                Err(_) => assert_eq!(reply.status, 502, "{number}"),
            }
        }
        if let Err(said) = expected {
            wait_for(said, || {
                gateway.log()[before..].contains(said).then_some(())
            });
        }
    }
    // One that presents nothing of its own is not harmed by servers that ask.
    let asking = TlsOrigin::start(&pair);
    let keys = format!(
        "servers: [\"{}\"], tls: {{ server_name: app.internal, ca_file: {root}{good} }}",
        asking.address()
    );
    let gateway = in_front_of_all(&[keys]).start();
    let reply = over("1.1", &gateway, "a.test", "/0/").send();
    assert_eq!((reply.status, &*reply.text()), (200, "nobody"));
}

#[test]
fn a_new_client_certificate_is_presented_on_new_connections() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, clients) = (Ca::new("Servers"), Ca::new("Clients"));
    let root = write_root(&ca, dir.path());
    let server = TlsOrigin::demanding(
        &ca.leaf(&["127.0.0.1"]).make(),
        &clients,
        SslVersion::TLS1_3,
    );
    let identity = |name: &str| clients.leaf(&[name]).for_client().make();
    let (first, second) = (identity("first.internal"), identity("second.internal"));
    let (cert, key) = first.write(dir.path(), "identity");
    let keys = format!(
        "servers: [\"{}\"], tls: {{ ca_file: {root}, cert: {}, key: {} }}",
        server.address(),
        cert.display(),
        key.display()
    );
    let gateway = serving(&[&["a.test"]], upstream_config(&keys)).start();
    let presented = || over("1.1", &gateway, "a.test", "/").send().text();
    assert_eq!(presented(), "first.internal");
    assert_eq!(presented(), "first.internal");
    assert_eq!(server.names().len(), 1, "the connection is kept");

    // Half of a change is refused, and what was there stays.
    fs::write(&key, &second.key).expect("written");
    let (status, refused) = gateway.reload();
    assert!(status >= 400, "{refused}");
    let refused = refused.to_string();
    assert!(
        refused.contains("does not belong to the certificate"),
        "{refused}"
    );
    assert_eq!(presented(), "first.internal");

    second.write(dir.path(), "identity");
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(presented(), "second.internal");
    assert_eq!(server.names().len(), 2);
}

#[test]
fn files_that_cannot_be_used_are_told_by_check_and_borne_at_a_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ca, clients) = (Ca::new("Servers"), Ca::new("Clients"));
    let root = write_root(&ca, dir.path());
    let server = TlsOrigin::start(&ca.leaf(&["127.0.0.1"]).make());
    let pair = clients.leaf(&["gateway.internal"]).for_client().make();
    let (cert, key) = pair.write(dir.path(), "identity");
    let (cert, key) = (cert.display(), key.display());
    let config = |tls: &str| {
        upstream_config(&format!(
            "servers: [\"{}\"], tls: {{ {tls} }}",
            server.address()
        ))
    };
    let mut gateway = serving(
        &[&["a.test"]],
        config(&format!(
            "ca_file: {root}, cert: {cert}, key: {key}, server_name: app.internal"
        )),
    )
    .start();
    let certificates = "certificates: [{ directory: certs }]\n";
    for (tls, key, said) in [
        (
            "ca_file: none.pem".to_owned(),
            "ca_file",
            "cannot be read: No such file",
        ),
        (
            format!("ca_file: {key}"),
            "ca_file",
            "holds no certificate in PEM",
        ),
        (
            format!("cert: {cert}"),
            "cert",
            "'cert' has no meaning without 'key'",
        ),
        (
            format!("cert: none.pem, key: {key}"),
            "cert",
            "cannot be read: No such file",
        ),
        (
            format!("cert: {cert}, key: {root}"),
            "key",
            "holds no private key in PEM",
        ),
        (
            format!("cert: {root}, key: {key}"),
            "key",
            "does not belong to the certificate",
        ),
    ] {
        gateway.replace_config(format!("{certificates}{}", config(&tls)));
        let checked = snigate(&["check", "--config", &gateway.config.display().to_string()]);
        assert_eq!(checked.code, Some(3), "{tls}: {checked:?}");
        let place = format!("upstreams.app.tls.{key}: ");
        let told = checked.stderr.lines().find(|line| line.contains(&place));
        assert!(told.is_some_and(|line| line.contains(said)), "{checked:?}");
    }
    let broken = format!("ca_file: {root}, cert: {root}, key: {key}");
    gateway.replace_config(format!("{certificates}{}", config(&broken)));
    gateway.restart();
    gateway.wait_for_log("no server of the upstream can be connected to");
    assert_eq!(over("1.1", &gateway, "a.test", "/").send().status, 502);
    gateway.wait_for_log("the client certificate is not usable");
}
