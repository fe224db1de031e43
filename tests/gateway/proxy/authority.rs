//! Whether a connection may ask for a host.

use crate::support::{Gateway, H2, Origin, TlsClient, connect, exchange, serving};

fn gateway() -> Gateway {
    let site = |host: &str| {
        format!(
            "  - {{ hosts: [{host}], routes: [{{ respond: {{ status: 200, body: {host} }} }}] }}\n"
        )
    };
    let sites: String = ["a.test", "b.test", "c.test", "d.test"].map(site).concat();
    serving(
        &[
            &["a.test"],
            &["b.test"],
            &["c.test", "d.test", "unserved.test"],
        ],
        format!("sites:\n{sites}log: {{ access: off }}\n"),
    )
    .start()
}

/// SNI, host asked for, status.
const CASES: [(&str, &str, u16); 9] = [
    ("a.test", "a.test", 200),
    ("a.test", "A.TEST.", 200),
    ("a.test", "b.test", 421),
    ("b.test", "a.test", 421),
    ("a.test", "c.test", 421),
    ("c.test", "d.test", 200),
    ("d.test", "c.test", 200),
    ("a.test", "unknown.test", 421),
    ("a.test", "127.0.0.1", 421),
];

#[test]
fn another_certificates_host_is_misdirected_over_http1() {
    let gateway = gateway();
    for (sni, host, status) in CASES {
        let mut stream = TlsClient::named(sni).connect(gateway.https);
        assert_eq!(stream.get(sni, "/").status, 200);
        let reply = stream.get(host, "/");
        assert_eq!(reply.status, status, "SNI {sni}, Host {host}");
        if status == 200 {
            assert_eq!(
                reply.text(),
                host.to_ascii_lowercase().trim_end_matches('.')
            );
        }
        assert_eq!(
            stream.get(sni, "/").text(),
            sni,
            "the connection stays open"
        );
    }
}

#[test]
fn another_certificates_host_is_misdirected_over_http2() {
    let gateway = gateway();
    for (sni, host, status) in CASES {
        let mut h2 = H2::connect(gateway.https, sni);
        let request = http::Request::get(format!("https://{host}/"));
        let reply = h2.send(request, None).expect("an answer");
        assert_eq!(reply.status, status, "SNI {sni}, :authority {host}");
        if status == 200 {
            assert_eq!(
                reply.text(),
                host.to_ascii_lowercase().trim_end_matches('.')
            );
        }
        assert_eq!(h2.get("/").text(), sni, "the connection stays open");
        // Host and :authority that differ are no request at all.
        let both = http::Request::get(format!("https://{sni}/")).header("host", "b.test");
        if sni != "b.test"
            && let Ok(reply) = h2.send(both, None)
        {
            assert!((400..500).contains(&reply.status), "{}", reply.status);
        }
    }
}

#[test]
fn a_host_of_the_certificate_without_a_site_is_not_found() {
    let gateway = gateway();
    let mut stream = TlsClient::named("c.test").connect(gateway.https);
    let reply = stream.get("unserved.test", "/");
    assert!(matches!(reply.status, 404 | 421), "{}", reply.status);
}

#[test]
fn without_a_name_in_the_handshake_nothing_is_served() {
    let gateway = gateway();
    assert!(TlsClient::nameless().try_connect(gateway.https).is_err());
    // With a default certificate there is a connection, but no site on it.
    let with_default = serving(
        &[&["a.test"], &["b.test"]],
        "tls: { default_certificate: a.test }\n\
         sites: [{ hosts: [a.test, b.test], routes: [{ respond: { status: 200, body: x } }] }]\n",
    )
    .start();
    for client in [TlsClient::nameless(), TlsClient::named("unknown.test")] {
        let mut stream = client.connect(with_default.https);
        assert_eq!(stream.names(), ["a.test"]);
        for host in ["unknown.test", "b.test"] {
            assert_eq!(stream.get(host, "/").status, 421, "{host}");
        }
    }
}

/// The whole response to a request over plain HTTP.
fn exchange_plainly(gateway: &Gateway, request: &str) -> String {
    let response = exchange(&mut connect(gateway.http), request);
    String::from_utf8(response).expect("text")
}

#[test]
fn a_client_of_http_1_0_that_names_no_host_gets_what_there_is_for_any() {
    let origin = Origin::echo();
    let sites = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - {{ hosts: [a.test], routes: [{{ respond: {{ body: a.test }} }}] }}\n\
         - {{ hosts: [\"*\"], tls: off, routes: [{{ upstream: app }}] }}\n\
         log: {{ access: off }}\n",
        origin.address()
    );
    let gateway = serving(&[&["a.test"]], sites).start();
    let response = exchange_plainly(&gateway, "GET /x HTTP/1.0\r\n\r\n");
    assert!(response.contains(" 200 "), "{response}");
    // The server gets the address that the client has connected to.
    let host = format!("\r\nhost: {}\r\n", gateway.http);
    assert!(response.to_ascii_lowercase().contains(&host), "{response}");
    let newer = exchange_plainly(&gateway, "GET /x HTTP/1.1\r\n\r\n");
    assert!(newer.contains(" 400 "), "{newer}");
    let empty = exchange_plainly(&gateway, "GET /x HTTP/1.0\r\nHost:\r\n\r\n");
    assert!(empty.contains(" 400 "), "{empty}");
    // Over TLS it has named a host in its handshake.
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let reply = stream.request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((reply.status, reply.text()), (200, "a.test".to_owned()));

    let plain = "sites: [{ hosts: [b.test], tls: off, routes: [{ respond: {} }] }]\n";
    let gateway = serving(&[&["a.test"]], plain).start();
    let response = exchange_plainly(&gateway, "GET / HTTP/1.0\r\n\r\n");
    assert!(
        response.contains(" 400 "),
        "no site is for any host: {response}"
    );
}
