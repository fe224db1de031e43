//! Which certificate a server name gets, and which site.

use std::net::SocketAddr;

use super::{gateway, metric_sum, names, refused};
use crate::support::{Ca, Gateway, TlsClient, s_client};

#[test]
fn exact_goes_before_wildcard_and_a_wildcard_covers_one_label() {
    let gateway = gateway("");
    assert_eq!(names(&gateway, "a.example"), ["a.example"]);
    assert_eq!(names(&gateway, "b.example"), ["b.example"]);
    assert_eq!(names(&gateway, "x.wild.example"), ["x.wild.example"]);
    assert_eq!(names(&gateway, "y.wild.example"), ["*.wild.example"]);
    for unknown in [
        "wild.example",
        "a.b.wild.example",
        "c.example",
        "example",
        "a",
    ] {
        let error = refused(&gateway, Some(unknown));
        assert!(error.contains("unrecognized name"), "{unknown}: {error}");
    }
    assert!(refused(&gateway, None).contains("unrecognized name"));
}

#[test]
fn upper_case_and_a_trailing_dot_change_nothing() {
    let gateway = gateway("");
    for name in ["A.EXAMPLE", "a.Example", "a.example.", "A.example."] {
        assert_eq!(names(&gateway, name), ["a.example"], "{name}");
        let mut stream = TlsClient::named(name).connect(gateway.https);
        assert_eq!(stream.get("A.Example.", "/").text(), "a.example", "{name}");
    }
    assert_eq!(names(&gateway, "Y.WILD.example."), ["*.wild.example"]);
    for name in [
        "a.example..",
        ".a.example",
        "a..example",
        "a_b.wild.example",
    ] {
        let outcome = TlsClient::named(name).try_connect(gateway.https);
        let served = outcome.map(|stream| stream.names()).unwrap_or_default();
        assert!(!served.contains(&"a.example".to_owned()), "{name}");
    }
}

#[test]
fn the_default_is_for_those_without_a_name_and_unknown_ones_where_that_is_asked() {
    let gateway = gateway("tls: { default_certificate: a.example }\n");
    for client in [TlsClient::nameless(), TlsClient::named("c.example")] {
        let mut stream = client.connect(gateway.https);
        assert_eq!(stream.names(), ["a.example"]);
        // The certificate, but never another site's content.
        assert_eq!(stream.get("c.example", "/").status, 421);
    }
    // Nor the default's own, for a client that asked for something else.
    let mut stream = TlsClient::named("c.example").connect(gateway.https);
    assert_eq!(stream.get("a.example", "/").status, 421);
    let mut stream = TlsClient::nameless().connect(gateway.https);
    assert_eq!(stream.get("a.example", "/").text(), "a.example");
    assert_eq!(gateway.metric("snigate_tls_unknown_names_total"), Some(2.0));
}

#[test]
fn an_unknown_name_is_rejected_with_alert_112() {
    let gateway = gateway("tls: { default_certificate: a.example, unknown_sni: reject }\n");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(gateway.https, Some("c.example"), &[version]);
        assert!(said.contains("SSL alert number 112"), "{version}: {said}");
        assert!(
            said.contains("no peer certificate available"),
            "{version}: {said}"
        );
    }
    // No name at all still gets the default, and so does an address, which is none.
    let said = s_client(gateway.https, None, &["-brief"]);
    assert!(said.contains("CONNECTION ESTABLISHED"), "{said}");
    assert_eq!(names(&gateway, "127.0.0.1"), ["a.example"]);
    assert_eq!(gateway.metric("snigate_tls_unknown_names_total"), Some(2.0));
    let failed = metric_sum(
        &gateway,
        "snigate_tls_handshakes_total",
        &["result=\"failed\""],
    );
    assert_eq!(failed, 2.0, "{}", gateway.ask("GET", "/metrics").text());
}

#[test]
fn sni_and_host_must_agree() {
    let gateway = gateway("");
    let mut stream = TlsClient::named("a.example").connect(gateway.https);
    assert_eq!(stream.get("b.example", "/").status, 421);
    let mut stream = TlsClient::named("y.wild.example").connect(gateway.https);
    assert_eq!(stream.get("z.wild.example", "/").text(), "*.wild.example");
    let url = format!("https://a.example:{}/", gateway.https.port());
    for version in ["--http1.1", "--http2"] {
        let reply = crate::support::curl(&url)
            .resolve("a.example", gateway.https)
            .args(["--insecure", version, "--header", "Host: b.example"])
            .send();
        assert_eq!(reply.status, 421, "{version}");
    }
}

/// What the certificate is for that a client without SNI gets at this address.
fn nameless(gateway: &Gateway, address: [u8; 4]) -> Vec<String> {
    let address = SocketAddr::from((address, gateway.https.port()));
    let certificate = TlsClient::nameless().connect(address).certificate();
    let names = certificate.subject_alt_names().expect("names");
    let text = |octets: &[u8]| {
        let octets: [u8; 4] = octets.try_into().expect("four octets");
        std::net::Ipv4Addr::from(octets).to_string()
    };
    names
        .iter()
        .filter_map(|name| match (name.dnsname(), name.ipaddress()) {
            (Some(name), _) => Some(name.to_owned()),
            (None, address) => address.map(text),
        })
        .collect()
}

#[test]
fn a_client_without_sni_gets_the_certificate_of_the_address() {
    let builder = Gateway::builder();
    let ca = Ca::new("Address Root");
    let certs = builder.dir().join("certs");
    for (file, host) in [
        ("a", "a.example"),
        ("one", "127.0.0.1"),
        ("two", "127.0.0.2"),
    ] {
        ca.leaf(&[host]).make().write(&certs, file);
    }
    let site = |host: &str| {
        format!("  - {{ hosts: [\"{host}\"], routes: [{{ respond: {{ body: \"{host}\" }} }}] }}\n")
    };
    let sites = ["a.example", "127.0.0.1", "127.0.0.2"].map(site).concat();
    let rest = format!("certificates: [{{ directory: certs }}]\nsites:\n{sites}");
    let mut gateway = builder
        .also_at([127, 0, 0, 2])
        .also_at([127, 0, 0, 3])
        .config(format!("tls: {{ default_certificate: a.example }}\n{rest}"))
        .start();
    assert_eq!(nameless(&gateway, [127, 0, 0, 1]), ["127.0.0.1"]);
    assert_eq!(nameless(&gateway, [127, 0, 0, 2]), ["127.0.0.2"]);
    assert_eq!(nameless(&gateway, [127, 0, 0, 3]), ["a.example"]);
    // A name is looked for by name, wherever the client has come to.
    assert_eq!(names(&gateway, "a.example"), ["a.example"]);
    assert_eq!(names(&gateway, "unknown.example"), ["a.example"]);

    let mut stream = TlsClient::nameless().connect(gateway.https);
    for (host, status) in [
        ("127.0.0.1", 200),
        ("127.0.0.2", 421),
        ("a.example", 421),
        ("127.0.0.1", 200),
    ] {
        let reply = stream.get(host, "/");
        assert_eq!(reply.status, status, "{host}");
        assert!(status != 200 || reply.text() == host);
    }

    // A session is of one address, as it is of one name.
    let session = stream.session().expect("a session");
    let second = SocketAddr::from(([127, 0, 0, 2], gateway.https.port()));
    for (address, resumed) in [(gateway.https, true), (second, false)] {
        let client = TlsClient::nameless().session(&session);
        assert_eq!(client.connect(address).resumed(), resumed, "{address}");
    }

    // Behind a translation of addresses no client comes to the one that it means.
    gateway.replace_config(format!("tls: {{ default_certificate: 127.0.0.2 }}\n{rest}"));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(nameless(&gateway, [127, 0, 0, 1]), ["127.0.0.1"]);
    assert_eq!(nameless(&gateway, [127, 0, 0, 3]), ["127.0.0.2"]);
    let elsewhere = SocketAddr::from(([127, 0, 0, 3], gateway.https.port()));
    let mut stream = TlsClient::nameless().connect(elsewhere);
    assert_eq!(stream.get("127.0.0.2", "/").text(), "127.0.0.2");

    // The local CA issues for addresses.
    let third = site("127.0.0.3");
    gateway.replace_config(format!(
        "issuers: {{ local: {{ local_ca: }} }}\n{rest}{third}"
    ));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(nameless(&gateway, [127, 0, 0, 3]), ["127.0.0.3"]);
    let mut stream = TlsClient::nameless().connect(elsewhere);
    assert_eq!(stream.get("127.0.0.3", "/").text(), "127.0.0.3");
}
