//! Validations by CAs, answered on the listeners that serve everyone else, and sites that are
//! served without TLS until they have a certificate.

mod fixture;

use std::fs;
use std::sync::Arc;

use openssl::sha::sha256;
use openssl::ssl::SslVersion;
use openssl::x509::X509;
use snigate::challenge::{Challenge, ChallengeSolver, ChallengeType, Challenges, Http01Solver};
use snigate::clock::SystemClock;

use crate::support::{Ca, H2, TlsClient, TlsOrigin};
use fixture::Fixture;

const ACME: &str = "acme-tls/1";

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

fn validating(name: &str) -> TlsClient {
    TlsClient::named(name).alpn(&[ACME])
}

/// Whether a certificate has the digest of the validation that [`Fixture::begin`] begins.
fn has_digest(certificate: &X509) -> bool {
    let extension = [
        b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20".as_slice(),
        &sha256(b"Token_-1.thumbprint"),
    ]
    .concat();
    let der = certificate.to_der().expect("DER");
    memchr::memmem::find(&der, &extension).is_some()
}

#[test]
fn a_first_certificate_is_validated_by_tls_before_the_name_has_any() {
    for rest in ["", "tls: { unknown_sni: reject }"] {
        let fixture = Fixture::start(rest);
        let refused = |client: TlsClient, alert: &str| {
            let error = client.try_connect(fixture.https).err().expect("refused");
            assert!(error.contains(alert), "{error}");
        };
        refused(validating("a.example"), "no application protocol");
        let challenge = fixture.begin(ChallengeType::TlsAlpn01, "a.example");
        for version in VERSIONS {
            let mut seen = validating("A.Example")
                .version(version)
                .connect(fixture.https);
            assert_eq!(seen.alpn().as_deref(), Some(ACME));
            assert_eq!(seen.names(), ["a.example"]);
            assert!(has_digest(&seen.certificate()));
            // The gateway closes, in order, and says nothing in HTTP.
            assert_eq!(seen.exchange(""), b"");
            assert!(seen.session().is_none(), "no ticket");
            refused(
                validating("b.example").version(version),
                "no application protocol",
            );
            refused(
                TlsClient::nameless().alpn(&[ACME]).version(version),
                "no application protocol",
            );
            refused(
                TlsClient::named("a.example").version(version),
                "unrecognized name",
            );
        }
        assert_eq!(fixture.handshakes("challenge"), 2);
        assert_eq!(fixture.handshakes("ok"), 0);
        fixture.end(&challenge);
        refused(validating("a.example"), "no application protocol");
    }
}

#[test]
fn everyone_else_on_a_name_is_served_as_always_while_it_is_validated() {
    let fixture = Fixture::start("");
    fixture.present(&["a.example", "b.example"]);
    let challenge = fixture.begin(ChallengeType::TlsAlpn01, "a.example");
    for version in VERSIONS {
        for protocols in [&["http/1.1"][..], &[ACME, "http/1.1"], &["http/1.1", ACME]] {
            let client = TlsClient::named("a.example").alpn(protocols);
            let mut seen = client.version(version).connect(fixture.https);
            assert_eq!(seen.alpn().as_deref(), Some("http/1.1"));
            assert!(!has_digest(&seen.certificate()));
            assert_eq!(seen.get("a.example", "/").text(), "the site");
        }
        let mut seen = TlsClient::named("a.example").connect(fixture.https);
        assert_eq!(
            (seen.alpn(), has_digest(&seen.certificate())),
            (None, false)
        );
        assert_eq!(seen.get("a.example", "/").text(), "the site");
        let both = TlsClient::named("a.example").alpn(&[ACME, "h2"]);
        assert_eq!(both.connect(fixture.https).alpn().as_deref(), Some("h2"));
        for protocols in [&[ACME, "other"][..], &[ACME, ACME]] {
            let client = TlsClient::named("a.example").alpn(protocols);
            let error = client.version(version).try_connect(fixture.https).err();
            assert!(error.expect("refused").contains("no application protocol"));
        }
        let validated = validating("a.example")
            .version(version)
            .connect(fixture.https);
        assert!(has_digest(&validated.certificate()));
        let error = validating("b.example")
            .version(version)
            .try_connect(fixture.https);
        let error = error.err().expect("refused");
        assert!(error.contains("no application protocol"), "{error}");
    }
    fixture.end(&challenge);
    let error = validating("a.example").try_connect(fixture.https).err();
    assert!(error.expect("refused").contains("no application protocol"));
}

#[test]
fn a_name_that_is_passed_through_is_validated_here_only_if_the_gateway_asked() {
    let ca = Ca::new("Behind");
    let origin = TlsOrigin::start(&ca.leaf(&["a.behind", "b.behind"]).make());
    let fixture = Fixture::with_site(
        "- { hosts: [\"*.behind\"], pass_through: app }",
        &format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}",
            origin.address()
        ),
    );
    let challenge = fixture.begin(ChallengeType::TlsAlpn01, "a.behind");
    for version in VERSIONS {
        let seen = validating("A.behind")
            .version(version)
            .connect(fixture.https);
        assert!(has_digest(&seen.certificate()));
        assert_eq!(seen.names(), ["a.behind"]);
    }
    assert_eq!(origin.names().len(), 0);
    // Whoever is no CA, and other names.
    let behind = |client: TlsClient| {
        let client = client.trusting(ca.certificate());
        let seen = client.connect(fixture.https);
        seen.names() == ["a.behind", "b.behind"]
    };
    assert!(behind(TlsClient::named("a.behind")));
    assert!(behind(TlsClient::named("a.behind").alpn(&[ACME, "h2"])));
    assert!(behind(validating("b.behind")));
    fixture.end(&challenge);
    assert!(behind(validating("a.behind")));
}

#[test]
fn no_session_leads_from_a_visit_to_a_validation_or_back() {
    let fixture = Fixture::start("");
    fixture.present(&["a.example"]);
    let _challenge = fixture.begin(ChallengeType::TlsAlpn01, "a.example");
    for version in VERSIONS {
        let visit = || TlsClient::named("a.example").version(version);
        let mut first = visit().connect(fixture.https);
        first.get("a.example", "/");
        let session = first.session().expect("a ticket");
        assert!(visit().session(&session).connect(fixture.https).resumed());
        let mut validated = validating("a.example")
            .version(version)
            .session(&session)
            .connect(fixture.https);
        assert!(!validated.resumed(), "{version:?}");
        assert!(has_digest(&validated.certificate()));
        assert_eq!(validated.exchange(""), b"");
        assert!(validated.session().is_none(), "{version:?}");
    }
}

#[test]
fn a_pending_token_is_answered_on_every_listener_before_all_else() {
    let fixture = Fixture::start("");
    fixture.present(&["a.example", "b.example"]);
    let path = "/.well-known/acme-challenge/Token_-1";
    assert_eq!(fixture.ask("GET", "a.example", path).status, 308);
    let challenge = fixture.begin(ChallengeType::Http01, "a.example");

    for host in ["a.example", "A.Example.", "a.example:8080"] {
        let answer = fixture.ask("GET", host, path);
        assert_eq!(
            (answer.status, &*answer.text()),
            (200, "Token_-1.thumbprint")
        );
        let field = |name| answer.header(name).map(str::to_owned);
        assert_eq!(
            field("content-type").as_deref(),
            Some("application/octet-stream")
        );
        assert_eq!(field("cache-control").as_deref(), Some("no-store"));
    }
    let head = fixture.ask("HEAD", "a.example", path);
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("19"))
    );
    // A front may have sent the CA to TLS.
    let mut tls = TlsClient::named("a.example").connect(fixture.https);
    assert_eq!(tls.get("a.example", path).text(), "Token_-1.thumbprint");
    assert_eq!(tls.get("a.example", "/").text(), "the site");
    let mut h2 = H2::connect(fixture.https, "a.example");
    assert_eq!(h2.get(path).text(), "Token_-1.thumbprint");

    // Whatever else goes the way of all requests.
    for (host, path) in [
        ("b.example", path),
        ("a.example", "/.well-known/acme-challenge/Token_-2"),
        ("a.example", "/.well-known/acme-challenge/token_-1"),
        ("a.example", "/.well-known/acme-challenge/Token_-1/"),
        ("a.example", "/.well-known/acme-challenge/"),
        ("a.example", "/x/../.well-known/acme-challenge/Token_-1"),
    ] {
        assert_eq!(fixture.ask("GET", host, path).status, 308, "{host} {path}");
    }
    assert_eq!(fixture.ask("POST", "a.example", path).status, 308);
    assert_eq!(fixture.ask("GET", "unknown.example", path).status, 404);
    assert_eq!(fixture.ask("GET", "plain.example", path).text(), "backend");
    assert_eq!(fixture.ask("GET", "127.0.0.1", path).status, 404);

    fixture.end(&challenge);
    assert_eq!(fixture.ask("GET", "a.example", path).status, 308);
    let lines = crate::support::wait_for("the access log", || {
        let text = fs::read_to_string(fixture.dir.path().join("access.log")).ok()?;
        (text.lines().count() >= 18).then_some(text)
    });
    let answered = lines
        .lines()
        .filter(|line| line.contains("Token_-1") && line.contains("200"));
    assert!(answered.count() >= 6, "{lines}");
}

#[test]
fn a_token_that_another_instance_has_just_stored_is_answered() {
    let fixture = Fixture::start("");
    let path = "/.well-known/acme-challenge/Token_-1";
    assert_eq!(fixture.ask("GET", "a.example", path).status, 308);
    // This one gets no notification: it looks.
    let other = Http01Solver::new(
        Challenges::default(),
        Arc::clone(&fixture.storage),
        Arc::new(SystemClock),
    );
    let challenge = Challenge {
        kind: ChallengeType::Http01,
        domain: "a.example".parse().expect("a name"),
        token: "Token_-1".to_owned(),
        key_authorization: "Token_-1.thumbprint".to_owned(),
        dns: None,
    };
    let presented = other.present(&challenge);
    fixture.runtime.block_on(presented).expect("presented");
    for (host, path) in [
        ("b.example", path),
        ("a.example", "/.well-known/acme-challenge/1"),
    ] {
        assert_eq!(fixture.ask("GET", host, path).status, 308, "{host} {path}");
    }
    assert_eq!(fixture.ask("POST", "a.example", path).status, 308);
    assert_eq!(
        fixture.ask("GET", "a.example", path).text(),
        "Token_-1.thumbprint"
    );
}

#[test]
fn a_site_without_a_certificate_is_served_plainly_only_where_tls_is_optional() {
    let plain = |fixture: &Fixture, host: &str| {
        let answer = fixture.ask("GET", host, "/x?y");
        assert!(answer.header("strict-transport-security").is_none());
        (answer.status, answer.text())
    };
    let moved = |answer: (u16, String)| assert_eq!(answer.0, 308);
    let fixture = Fixture::start("");
    moved(plain(&fixture, "a.example"));

    let fixture = Fixture::start("server: { https_optional: true }");
    assert_eq!(plain(&fixture, "a.example"), (200, "the site".to_owned()));
    assert_eq!(plain(&fixture, "b.example"), (200, "another".to_owned()));
    assert_eq!(plain(&fixture, "unknown.example").0, 404);
    fixture.present(&["a.example"]);
    moved(plain(&fixture, "a.example"));
    moved(plain(&fixture, "A.example.:80"));
    assert_eq!(plain(&fixture, "b.example"), (200, "another".to_owned()));
    let mut tls = TlsClient::named("a.example").connect(fixture.https);
    assert_eq!(tls.get("a.example", "/").text(), "the site");
    fixture.present(&["a.example", "*.example"]);
    moved(plain(&fixture, "b.example"));
}
