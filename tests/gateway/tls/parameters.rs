//! Versions, ciphers, groups and protocols.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use openssl::ssl::SslVersion;

use super::{gateway, metric_sum};
use crate::support::{Ca, Gateway, KeyType, TlsClient, s_client};

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
    let gateway = gateway("");
    for (version, good) in [
        (SslVersion::TLS1, false),
        (SslVersion::TLS1_1, false),
        (SslVersion::TLS1_2, true),
        (SslVersion::TLS1_3, true),
    ] {
        let client = TlsClient::named("a.example")
            .version(version)
            .with(|builder| builder.set_cipher_list("ALL:@SECLEVEL=0").expect("a list"));
        let outcome = client.try_connect(gateway.https);
        assert_eq!(outcome.is_ok(), good, "{version:?}: {:?}", outcome.err());
        if let Err(error) = outcome {
            assert!(error.contains("protocol version"), "{version:?}: {error}");
        }
    }
    let ok = metric_sum(&gateway, "snigate_tls_handshakes_total", &["result=\"ok\""]);
    assert_eq!(ok, 2.0);
    let failed = metric_sum(
        &gateway,
        "snigate_tls_handshakes_total",
        &["result=\"failed\""],
    );
    assert_eq!(failed, 2.0);
}

#[test]
fn modern_is_tls_1_3_alone() {
    let gateway = gateway("tls: { profile: modern }\n");
    let said = s_client(gateway.https, Some("a.example"), &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    let said = s_client(gateway.https, Some("a.example"), &["-tls1_3", "-brief"]);
    assert!(said.contains("Protocol version: TLSv1.3"), "{said}");
}

#[test]
fn only_ecdhe_with_aead_is_spoken_in_tls_1_2() {
    let builder = Gateway::builder();
    let ca = Ca::new("Cipher Root");
    let certs = builder.dir().join("certs");
    for key in [KeyType::Rsa, KeyType::Ecdsa] {
        let name = format!("{key:?}");
        ca.leaf(&["a.example"]).key(key).make().write(&certs, &name);
    }
    let gateway = builder
        .config("certificates: [{ directory: certs }]\n")
        .start();
    for (cipher, good) in [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", true),
        ("ECDHE-RSA-AES128-GCM-SHA256", true),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", true),
        ("ECDHE-RSA-CHACHA20-POLY1305", true),
        ("ECDHE-ECDSA-AES128-SHA256", false),
        ("ECDHE-RSA-AES256-SHA", false),
        ("ECDHE-RSA-AES256-SHA384", false),
        ("AES128-GCM-SHA256", false),
        ("AES256-SHA", false),
        ("DHE-RSA-AES128-GCM-SHA256", false),
        ("DHE-RSA-CHACHA20-POLY1305", false),
        ("ECDHE-ECDSA-AES128-CCM8", false),
        ("AECDH-AES128-SHA", false),
        ("ECDHE-RSA-NULL-SHA", false),
    ] {
        let list = format!("{cipher}:@SECLEVEL=0");
        let arguments = ["-tls1_2", "-cipher", &list];
        let said = s_client(gateway.https, Some("a.example"), &arguments);
        let got = said.contains(&format!("Cipher is {cipher}"));
        assert_eq!(got, good, "{cipher}: {said}");
        assert_eq!(
            said.contains("handshake failure"),
            !good,
            "{cipher}: {said}"
        );
    }
    let all = ["-tls1_2", "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"];
    let said = s_client(gateway.https, Some("a.example"), &all);
    assert!(said.contains("Cipher is ECDHE-ECDSA-"), "{said}");
    assert!(said.contains("Compression: NONE"), "{said}");
    assert!(
        said.contains("Secure Renegotiation IS supported"),
        "RFC 5746: {said}"
    );
    assert!(!said.contains("Max Early Data: 1"), "{said}");
}

#[test]
fn x25519mlkem768_is_used_whenever_the_client_offers_it() {
    let gateway = gateway("");
    let group = |groups: &str| {
        let client = TlsClient::named("a.example").version(SslVersion::TLS1_3);
        let set = |builder: &mut openssl::ssl::SslConnectorBuilder| {
            builder.set_groups_list(groups).expect("known groups");
        };
        let mut stream = client.with(set).connect(gateway.https);
        assert_eq!(stream.get("a.example", "/").status, 200);
    };
    let counted = |name: &str| {
        let label = format!("group=\"{name}\"");
        metric_sum(
            &gateway,
            "snigate_tls_handshakes_total",
            &["result=\"ok\"", &label],
        )
    };
    group("X25519MLKEM768:X25519");
    // Last on the client's list and without a share for it: asked for all the same.
    group("X25519:P-256:X25519MLKEM768");
    let text = gateway.ask("GET", "/metrics").text();
    assert_eq!(counted("X25519MLKEM768"), 2.0, "{text}");
    group("X25519");
    group("P-256");
    let text = gateway.ask("GET", "/metrics").text();
    let handshakes = || {
        text.lines()
            .filter(|line| line.contains("handshakes_total{"))
    };
    assert_eq!(counted("X25519MLKEM768"), 2.0);
    assert!(
        handshakes().any(|line| line.to_lowercase().contains("group=\"x25519\"")),
        "{text}"
    );
    assert!(
        !text.contains("a.example\",result"),
        "no name that a client chose: {text}"
    );
}

#[test]
fn a_client_cannot_renegotiate() {
    let gateway = gateway("");
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.https.to_string()])
        .args(["-servername", "a.example", "-tls1_2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A line that is just R asks s_client for a renegotiation.
    stdin.write_all(b"R\n").expect("taken");
    stdin.flush().expect("taken");
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut said)
        .expect("text");
    child.wait().expect("an end");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
}

#[test]
fn alpn_chooses_http_2_then_http_1_1_and_refuses_the_rest() {
    let gateway = gateway("");
    let chosen = |protocols: &[&str]| {
        let stream = TlsClient::named("a.example")
            .alpn(protocols)
            .connect(gateway.https);
        stream.alpn()
    };
    assert_eq!(chosen(&["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(chosen(&["http/1.1", "h2"]).as_deref(), Some("h2"));
    assert_eq!(chosen(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(chosen(&["spdy/3", "http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(
        chosen(&["http/1.0", "http/1.1"]).as_deref(),
        Some("http/1.1")
    );
    assert_eq!(chosen(&["http/1.0"]).as_deref(), Some("http/1.0"));
    let mut stream = TlsClient::named("a.example").connect(gateway.https);
    assert_eq!(stream.alpn(), None);
    assert_eq!(stream.get("a.example", "/").status, 200);
    for unknown in ["http/0.9", "h2c", "imap", "acme-tls/1", "\0"] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let client = TlsClient::named("a.example")
                .version(version)
                .alpn(&[unknown]);
            let error = client.try_connect(gateway.https).err().unwrap_or_default();
            assert!(
                error.contains("no application protocol"),
                "{unknown}: {error}"
            );
        }
    }
    let said = s_client(gateway.https, Some("a.example"), &["-alpn", "acme-tls/1"]);
    assert!(said.contains("SSL alert number 120"), "{said}");
}
