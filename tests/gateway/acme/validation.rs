//! While a CA looks: who gets the proof, and who must not notice.

use openssl::x509::X509;

use super::{RETRY, config, fake_issuer, orders, pebble_issuer, root, serial, wait_until_served};
use crate::support::{
    FakeCa, Gateway, Pebble, ROOT, Relay, Switch, TlsClient, s_client, wait_for, within,
};

/// What `openssl s_client` says when it speaks `acme-tls/1` to this host.
fn speak_acme(gateway: &Gateway, host: &str) -> String {
    s_client(gateway.https, Some(host), &["-alpn", "acme-tls/1"])
}

fn is_refused(said: &str) -> bool {
    said.contains("no application protocol") && !said.contains("BEGIN CERTIFICATE")
}

fn is_proof(certificate: &X509) -> bool {
    let text = certificate.to_text().expect("a text");
    let text = String::from_utf8_lossy(&text).into_owned();
    text.contains("1.3.6.1.5.5.7.1.31") || text.contains("acmeIdentifier")
}

#[test]
fn a_site_is_served_as_always_during_validation() {
    let builder = Gateway::builder();
    let relay = Relay::to(builder.https(), Switch::Hold);
    let pebble = Pebble::builder().tls_port(relay.port()).start();
    // Until the CA has looked, the site has a certificate of its own.
    let own = ROOT.leaf(&["a.test"]).make();
    own.write(builder.dir(), "own");
    let issuer = pebble_issuer(&pebble, "challenges: [tls-alpn-01]");
    let yaml = config(&issuer, &["a.test", "b.test"])
        .replace("hosts: [\"a.test\"]", "tls: pebble, hosts: [\"a.test\"]");
    let mut gateway = builder
        .config(format!(
            "certificates: [{{ files: {{ cert: own.pem, key: own.key }} }}]\n{yaml}"
        ))
        .spawn();
    wait_for("the CA to look", || (relay.connections() > 0).then_some(()));
    within(RETRY, "both proofs", || {
        ["a.test", "b.test"]
            .iter()
            .all(|host| !is_refused(&speak_acme(&gateway, host)))
            .then_some(())
    });

    for alpn in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let mut client = TlsClient::named("a.test").trusting(ROOT.certificate());
        if !alpn.is_empty() {
            client = client.alpn(alpn);
        }
        let stream = client.connect(gateway.https);
        assert_eq!(serial(&stream.certificate()), serial(&own.certificate));
        assert_eq!(stream.alpn().as_deref(), alpn.first().copied());
    }
    // Whoever offers it among others is no CA.
    let both = TlsClient::named("a.test")
        .alpn(&["acme-tls/1", "http/1.1"])
        .connect(gateway.https);
    assert!(!is_proof(&both.certificate()));
    assert_eq!(both.alpn().as_deref(), Some("http/1.1"));
    // The CA gets the proof for the name it asks for, in both versions, and nothing else.
    for version in [
        openssl::ssl::SslVersion::TLS1_2,
        openssl::ssl::SslVersion::TLS1_3,
    ] {
        let mut proof = TlsClient::named("a.test")
            .alpn(&["acme-tls/1"])
            .version(version)
            .connect(gateway.https);
        assert!(is_proof(&proof.certificate()), "{version:?}");
        assert_eq!(proof.names(), ["a.test"], "{version:?}");
        assert_eq!(proof.alpn().as_deref(), Some("acme-tls/1"), "{version:?}");
        let said = proof.exchange("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert!(said.is_empty(), "no HTTP is spoken: {said:?}");
    }
    let resumed = TlsClient::named("other.test").alpn(&["acme-tls/1"]);
    assert!(resumed.try_connect(gateway.https).is_err());
    let reply = gateway.curl("a.test", "/").arg("--insecure").send();
    assert_eq!(reply.text(), "a.test");

    relay.turn(Switch::Pass);
    let root = root(&pebble);
    wait_until_served(&gateway, "a.test", &root);
    wait_until_served(&gateway, "b.test", &root);
    gateway.wait_until_ready();
    for host in ["a.test", "b.test"] {
        let said = speak_acme(&gateway, host);
        assert!(is_refused(&said), "the proof is taken back: {said}");
    }
    let left: Vec<_> = walk(&gateway.dir().join("data/challenges"));
    assert!(left.is_empty(), "{left:?}");
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            if entry.path().is_dir() {
                walk(&entry.path())
            } else {
                vec![entry.path()]
            }
        })
        .collect()
}

#[test]
fn acme_tls_is_refused_where_nothing_is_pending() {
    let gateway = crate::support::serving(&[&["a.test"]], super::sites(&["a.test"])).start();
    for host in ["a.test", "unknown.test"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client(gateway.https, Some(host), &["-alpn", "acme-tls/1", version]);
            assert!(
                !said.contains("BEGIN CERTIFICATE"),
                "{host} {version}: {said}"
            );
            assert!(said.contains("alert"), "{host} {version}: {said}");
        }
    }
    assert!(is_refused(&speak_acme(&gateway, "a.test")));
    // Without a name there is nothing to prove.
    let said = s_client(gateway.https, None, &["-alpn", "acme-tls/1"]);
    assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
    assert_eq!(
        TlsClient::named("a.test").connect(gateway.https).names(),
        ["a.test"]
    );
}

#[test]
fn only_known_tokens_are_answered() {
    let builder = Gateway::builder();
    let relay = Relay::to(builder.http(), Switch::Hold);
    let pebble = Pebble::builder().http_port(relay.port()).start();
    let issuer = pebble_issuer(&pebble, "challenges: [http-01]");
    let gateway = builder
        .config(format!(
            "{}  - {{ hosts: [plain.test], tls: off, routes: [{{ respond: {{ body: plain }} }}] }}\n",
            config(&issuer, &["a.test"])
        ))
        .spawn();
    wait_for("the CA to look", || (relay.connections() > 0).then_some(()));
    let path = wait_for("the token", || {
        let log = pebble.log();
        let at = log.find("/.well-known/acme-challenge/")?;
        let rest = log[at..].split_whitespace().next()?;
        (log[at..].contains('\n')).then(|| rest.to_owned())
    });
    let asked = |host: &str, path: &str| gateway.curl_http(host, path).send();
    let known = asked("a.test", &path);
    let token = path.rsplit('/').next().expect("a token").to_owned();
    assert_eq!(known.status, 200);
    assert!(
        known.text().starts_with(&format!("{token}.")),
        "{}",
        known.text()
    );
    assert_eq!(known.header("location"), None, "before any redirect");
    let upper = asked("A.TEST", &path);
    assert_eq!(upper.status, 200, "names have no case");
    for (host, path) in [
        ("a.test", "/.well-known/acme-challenge/unknown".to_owned()),
        ("a.test", "/.well-known/acme-challenge/".to_owned()),
        ("a.test", format!("{path}x")),
        ("a.test", format!("{path}/x")),
        ("a.test", path[..path.len() - 1].to_owned()),
        ("b.test", path.clone()),
        ("plain.test", path.clone()),
    ] {
        let reply = asked(host, &path);
        assert!(
            reply.status != 200 || reply.text() == "plain",
            "{host}{path}: {} {}",
            reply.status,
            reply.text()
        );
    }
    // Other methods are no validation.
    let posted = gateway
        .curl_http("a.test", &path)
        .args(["--data", "x"])
        .send();
    assert_ne!(posted.status, 200);
    relay.turn(Switch::Pass);
    wait_until_served(&gateway, "a.test", &root(&pebble));
    within(RETRY, "the proof to be taken back", || {
        (asked("a.test", &path).status != 200).then_some(())
    });
}

#[test]
fn a_validation_that_fails_is_explained_and_leaves_nothing() {
    let builder = Gateway::builder();
    // Nobody listens where it validates.
    let pebble = Pebble::builder().start();
    let issuer = pebble_issuer(&pebble, "");
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(failed.issuer.as_deref(), Some("pebble"), "{failed:?}");
    assert_eq!(
        (failed.level.as_str(), failed.attempt),
        ("ERROR", Some(1)),
        "nothing is served: {failed:?}"
    );
    assert!(failed.next.is_some(), "{failed:?}");
    assert!(
        failed.message.contains("refused") || failed.message.contains("connect"),
        "what the CA saw: {failed:?}"
    );
    wait_for("the reason at /readyz", || {
        let waiting = gateway.waiting();
        let explains = |reason: &String| reason.contains("a.test") && reason.contains("refused");
        waiting.iter().any(explains).then_some(())
    });
    assert!(orders(&pebble) <= 2, "one order for each type of challenge");
    assert!(walk(&gateway.dir().join("data/challenges")).is_empty());
    let said = speak_acme(&gateway, "a.test");
    assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
}

#[test]
fn authorizations_of_a_failed_order_are_deactivated() {
    let fake = FakeCa::start(|ask| {
        // The second name of the first order cannot be validated.
        let bad = ask.kind == "challenge" && ask.names.get(1).is_some_and(|name| name == "b.test");
        (bad && ask.number >= 1 && ask.payload.is_object())
            .then(|| crate::support::CaReply::problem(400, "unauthorized", "no proof was found"))
    });
    let gateway = Gateway::builder()
        .config(format!(
            "{}certificates:\n  - {{ names: [a.test, b.test], issuer: [fake] }}\n",
            config(&fake_issuer(&fake), &["a.test", "b.test"])
        ))
        .spawn();
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    within(RETRY, "no authorization to be left pending", || {
        let all = fake.authorizations();
        (!all.is_empty() && all.iter().all(|(_, state)| state == "deactivated")).then_some(())
    });
}
