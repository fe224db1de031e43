//! No session, connection or request gets from a site with one policy to another.

use std::time::Duration;

use openssl::ssl::SslVersion;

use super::{Fixture, client, presenting, status, with_certificate};
use crate::support::{H2, TlsClient};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

#[test]
fn sessions_do_not_cross_from_one_policy_to_another() {
    let fixture = Fixture::start("");
    let address = fixture.address();
    let pair = client(&fixture.clients);
    for version in VERSIONS {
        let from = |host: &str, pair| {
            let client = presenting(host, pair).version(version);
            let mut stream = client.connect(address);
            assert_eq!(stream.get(host, "/").status, 200, "{host}");
            stream.session()
        };
        let open = from("open.example", None).expect("a session");
        let maybe = from("maybe.example", None).expect("a session");
        for (session, home) in [(&open, "open.example"), (&maybe, "maybe.example")] {
            let client = TlsClient::named(home).version(version).session(session);
            let mut stream = client.connect(address);
            assert_eq!(stream.get(home, "/").status, 200);
            assert!(
                stream.resumed(),
                "{version:?} {home}: without a certificate"
            );
            for other in ["open.example", "maybe.example", "strict.example"] {
                let client = TlsClient::named(other).version(version).session(session);
                let resumed = client.try_connect(address).map(|stream| stream.resumed());
                assert_eq!(resumed.unwrap_or(false), other == home, "{home} {other}");
            }
            let client = TlsClient::named("strict.example")
                .version(version)
                .session(session);
            assert_eq!(
                status(client, address, "strict.example"),
                0,
                "{version:?} {home}"
            );
        }
        // A certificate is verified in each handshake: there is no session that would skip it.
        for host in ["strict.example", "maybe.example"] {
            let session = from(host, Some(&pair));
            if let Some(session) = session {
                let client = presenting(host, Some(&pair))
                    .version(version)
                    .session(&session);
                let mut stream = client.connect(address);
                assert_eq!(stream.get(host, "/").status, 200);
                assert!(!stream.resumed(), "{version:?} {host}");
                let client = TlsClient::named(host).version(version).session(&session);
                let expected = if host == "strict.example" { 0 } else { 200 };
                assert_eq!(status(client, address, host), expected, "{version:?}");
            }
        }
    }
}

#[test]
fn sessions_end_with_the_policy_that_they_were_made_under() {
    let sites = "  - { hosts: [maybe.example], client_auth: { mode: optional, ca: clients.pem }, routes: [ROUTE] }\n";
    let mut fixture = Fixture::with_sites(sites, "");
    let (address, host) = (fixture.address(), "maybe.example");
    for version in VERSIONS {
        let session = {
            let mut stream = TlsClient::named(host).version(version).connect(address);
            assert_eq!(stream.get(host, "/").status, 200);
            stream.session().expect("a session")
        };
        let resumes = || {
            let client = TlsClient::named(host).version(version).session(&session);
            let mut stream = client.connect(address);
            assert_eq!(stream.get(host, "/").status, 200);
            stream.resumed()
        };
        assert!(resumes());
        assert_eq!(fixture.gateway.reload().0, 200);
        assert!(resumes(), "nothing has changed");
        let config = std::fs::read_to_string(&fixture.gateway.config).expect("readable");
        let rest = config.split_once("certificates:").expect("certificates").1;
        let (old, new) = match version {
            SslVersion::TLS1_2 => ("ca: clients.pem", "ca: others.pem"),
            _ => ("ca: others.pem", "ca: others.pem, depth: 3"),
        };
        let rest = format!("certificates:{}", rest.replace(old, new));
        fixture.gateway.replace_config(rest);
        assert_eq!(fixture.gateway.reload().0, 200);
        assert!(!resumes(), "{version:?}: made under another policy");
    }
}

#[test]
fn requests_do_not_cross_from_one_policy_to_another() {
    let fixture = Fixture::start("");
    let address = fixture.address();
    let pair = client(&fixture.clients);
    for (name, host, expected) in [
        ("open.example", "open.example", 200),
        ("open.example", "strict.example", 421),
        ("open.example", "maybe.example", 421),
        ("strict.example", "strict.example", 200),
        ("strict.example", "also.example", 200),
        ("strict.example", "open.example", 421),
        ("strict.example", "maybe.example", 421),
        ("strict.example", "other.example", 421),
        ("strict.example", "deep.example", 421),
        ("maybe.example", "strict.example", 421),
    ] {
        for version in VERSIONS {
            let client = presenting(name, Some(&pair)).version(version);
            let status = status(client, address, host);
            assert_eq!(status, expected, "{name} {host} {version:?}");
        }
    }
    // Over HTTP/2, where browsers reuse connections for all that a certificate covers.
    let mut connection = H2::connect(address, "open.example");
    for (host, expected) in [
        ("open.example", 200),
        ("strict.example", 421),
        ("maybe.example", 421),
        ("open.example", 200),
    ] {
        let request = http::Request::get(format!("https://{host}/"));
        let reply = connection.send(request, None);
        assert_eq!(reply.expect("a response").status, expected, "{host}");
    }
}

#[test]
fn clients_without_sni_meet_the_policy_of_the_default_certificate() {
    let strict = Fixture::start("tls: { default_certificate: strict.example }\n");
    let pair = client(&strict.clients);
    let nameless = |pair| with_certificate(TlsClient::nameless(), pair);
    let address = strict.address();
    assert_eq!(status(nameless(None), address, "strict.example"), 0);
    assert_eq!(status(nameless(None), address, "open.example"), 0);
    assert_eq!(
        status(nameless(Some(&pair)), address, "strict.example"),
        200
    );
    assert_eq!(status(nameless(Some(&pair)), address, "open.example"), 421);

    let open = Fixture::start("tls: { default_certificate: open.example }\n");
    let address = open.address();
    assert_eq!(status(nameless(None), address, "open.example"), 200);
    for host in ["strict.example", "maybe.example"] {
        assert_eq!(status(nameless(None), address, host), 421, "{host}");
    }
}

#[test]
fn all_sites_ask_for_certificates_unless_they_say_otherwise() {
    let sites = "
  - { hosts: [strict.example], routes: [ROUTE] }
  - { hosts: [open.example], client_auth: off, routes: [ROUTE] }
";
    let rest = "tls: { client_auth: { mode: required, ca: clients.pem }, default_certificate: open.example }\n";
    let fixture = Fixture::with_sites(sites, rest);
    let pair = client(&fixture.clients);
    let address = fixture.address();
    for (name, pair, expected) in [
        ("strict.example", None, 0),
        ("strict.example", Some(&pair), 200),
        ("open.example", None, 200),
        // A name without a site, which gets the default certificate.
        ("unknown.example", None, 0),
        ("unknown.example", Some(&pair), 421),
    ] {
        let status = status(presenting(name, pair), address, name);
        assert_eq!(status, expected, "{name}");
    }
    let status = status(TlsClient::named("open.example"), address, "strict.example");
    assert_eq!(status, 421);
}

#[test]
fn each_site_has_its_versions_ciphers_and_protocols() {
    let sites = "
  - { hosts: [open.example], routes: [ROUTE] }
  - { hosts: [strict.example], tls: { profile: modern }, routes: [ROUTE] }
  - { hosts: [also.example], tls: { versions: { max: \"1.2\" } }, routes: [ROUTE] }
  - { hosts: [maybe.example], tls: { ciphers: [ECDHE-ECDSA-AES256-GCM-SHA384, TLS_CHACHA20_POLY1305_SHA256] }, routes: [ROUTE] }
  - { hosts: [other.example], tls: { alpn: [http/1.1] }, routes: [ROUTE] }
  - { hosts: [deep.example], tls: { alpn: [http/1.1, h2] }, routes: [ROUTE] }
";
    let fixture = Fixture::with_sites(sites, "");
    let address = fixture.address();
    for (host, old, new) in [
        ("open.example", 200, 200),
        ("strict.example", 0, 200),
        ("also.example", 200, 0),
        ("maybe.example", 200, 200),
    ] {
        for (version, expected) in [(SslVersion::TLS1_2, old), (SslVersion::TLS1_3, new)] {
            let client = TlsClient::named(host).version(version);
            let status = status(client, address, host);
            assert_eq!(status, expected, "{host} {version:?}");
        }
    }
    let cipher = |version| {
        let client = TlsClient::named("maybe.example").version(version);
        let stream = client.connect(address);
        let cipher = stream.ssl().current_cipher().expect("a cipher");
        cipher.name().to_owned()
    };
    assert_eq!(cipher(SslVersion::TLS1_2), "ECDHE-ECDSA-AES256-GCM-SHA384");
    assert_eq!(cipher(SslVersion::TLS1_3), "TLS_CHACHA20_POLY1305_SHA256");
    let weak = TlsClient::named("maybe.example")
        .version(SslVersion::TLS1_2)
        .with(|builder| {
            let list = "ECDHE-ECDSA-AES128-GCM-SHA256";
            builder.set_cipher_list(list).expect("a list");
        });
    assert!(weak.try_connect(address).is_err());
    let alpn = |host: &str, offer: &[&str]| {
        let client = TlsClient::named(host).alpn(offer);
        client.try_connect(address).map(|stream| stream.alpn())
    };
    let both = ["h2", "http/1.1"];
    let chosen = |host: &str| alpn(host, &both).expect("a handshake").unwrap_or_default();
    assert_eq!(chosen("open.example"), "h2");
    assert_eq!(chosen("other.example"), "http/1.1");
    assert_eq!(chosen("deep.example"), "http/1.1");
    assert!(alpn("other.example", &["h2"]).is_err());
    // What one site refuses, no other opens.
    for host in ["strict.example", "also.example", "other.example"] {
        let status = status(TlsClient::named("open.example"), address, host);
        assert_eq!(status, 421, "{host}");
    }
}

#[test]
fn a_connection_that_a_reload_has_outdated_ends_after_its_refusal() {
    let site = "  - { hosts: [open.example], routes: [ROUTE] }\n";
    let mut fixture = Fixture::with_sites(site, "");
    let address = fixture.address();
    let mut http2 = H2::connect(address, "open.example");
    assert_eq!(http2.get("/").status, 200);
    let config = std::fs::read_to_string(&fixture.gateway.config).expect("readable");
    let rest = config.split_once("certificates:").expect("certificates").1;
    let auth = "hosts: [open.example], client_auth: { mode: required, ca: clients.pem }";
    let rest = rest.replace("hosts: [open.example]", auth);
    fixture
        .gateway
        .replace_config(format!("certificates:{rest}"));
    assert_eq!(fixture.gateway.reload().0, 200);
    assert_eq!(http2.get("/").status, 421);
    http2.wait_until_closed(Duration::from_secs(10));
    let pair = client(&fixture.clients);
    let again = presenting("open.example", Some(&pair));
    assert_eq!(status(again, address, "open.example"), 200);
}

#[test]
fn all_sites_have_the_general_versions_ciphers_and_protocols() {
    let sites = "
  - { hosts: [open.example], routes: [ROUTE] }
  - { hosts: [strict.example], tls: { profile: intermediate, ciphers: [ECDHE-ECDSA-AES128-GCM-SHA256, TLS_AES_128_GCM_SHA256], alpn: [h2] }, routes: [ROUTE] }
";
    let rest = "tls: { versions: { max: \"1.2\" }, ciphers: [ECDHE-ECDSA-CHACHA20-POLY1305], alpn: [http/1.1] }\n";
    let fixture = Fixture::with_sites(sites, rest);
    let address = fixture.address();
    let negotiated = |host: &str| {
        let client = TlsClient::named(host).alpn(&["h2", "http/1.1"]);
        let stream = client.connect(address);
        let cipher = stream.ssl().current_cipher().expect("a cipher").name();
        let alpn = stream.alpn().unwrap_or_default();
        (stream.ssl().version_str(), cipher.to_owned(), alpn)
    };
    let (version, cipher, alpn) = negotiated("open.example");
    assert_eq!(
        (version, &*cipher, &*alpn),
        ("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", "http/1.1")
    );
    let (version, cipher, alpn) = negotiated("strict.example");
    assert_eq!(
        (version, &*cipher, &*alpn),
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "h2")
    );
}
