//! TLS where it should not be, and more of it than is wanted.

use std::io::Write;

use openssl::ssl::SslVersion;

use super::{before, others_are_served};
use crate::support::{Origin, TlsClient, connect, exchange};

#[test]
fn no_session_allows_early_data() {
    let origin = Origin::named("x");
    let gateway = before(&origin);
    let mut first = TlsClient::named("a.test")
        .version(SslVersion::TLS1_3)
        .connect(gateway.https);
    assert_eq!(first.get("a.test", "/").status, 200);
    let session = first.session().expect("a ticket");
    assert_eq!(session.max_early_data(), 0);
    let mut second = TlsClient::named("a.test")
        .version(SslVersion::TLS1_3)
        .session(&session)
        .connect(gateway.https);
    assert!(second.resumed());
    assert_eq!(second.get("a.test", "/").status, 200);
}

#[test]
fn tls_at_the_plain_listener_is_refused() {
    let origin = Origin::named("x");
    let gateway = before(&origin);
    let refused = TlsClient::named("a.test").try_connect(gateway.http);
    assert!(refused.is_err());
    let hello = [&[22, 3, 1, 0, 250, 1, 0, 0, 246, 3, 3][..], &[7; 244]].concat();
    let answer = exchange(&mut connect(gateway.http), &hello);
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{}",
        answer.escape_ascii()
    );
    assert!(origin.requests().is_empty());
}

#[test]
fn hellos_of_any_length_are_read_or_refused() {
    let origin = Origin::named("x");
    let gateway = before(&origin);
    // The length of a list of protocols is that of the hello, nearly.
    for count in [1, 100, 500, 1000, 2000, 4000] {
        let protocols: Vec<String> = (0..count)
            .map(|number| format!("protocol-{number:04}"))
            .collect();
        let mut protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
        protocols.push("http/1.1");
        let connected = TlsClient::named("a.test")
            .alpn(&protocols)
            .try_connect(gateway.https);
        if let Ok(mut stream) = connected {
            assert_eq!(stream.get("a.test", "/").status, 200, "{count}");
        } else {
            assert!(count >= 1000, "{count} protocols are refused");
        }
    }
    // Records that are empty, one after the other, and warnings.
    for record in [
        &[22, 3, 1, 0, 0][..],
        &[21, 3, 1, 0, 2, 1, 90],
        &[20, 3, 3, 0, 1, 1],
    ] {
        let mut stream = connect(gateway.https);
        _ = stream.write_all(&record.repeat(1000));
        let answer = exchange(&mut stream, b"");
        assert!(answer.len() <= 14, "no more than an alert: {answer:?}");
    }
    others_are_served(&gateway, "after all");
    assert!(!gateway.log().contains("ERROR"), "{}", gateway.log());
}
