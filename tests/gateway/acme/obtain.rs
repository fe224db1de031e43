//! From nothing to a certificate.

use std::time::Instant;

use super::{
    RETRY, SECOND, config, issued, orders, pebble_for, pebble_issuer, root, serial,
    wait_until_served,
};
use crate::support::{Gateway, Pebble, TlsClient, wait_for, within};

/// One challenge type alone, from the start to a reply over HTTPS.
fn end_to_end(challenge: &str) {
    let builder = Gateway::builder();
    let mut begun = Pebble::builder()
        .env("PEBBLE_ALTERNATE_ROOTS", "2")
        .env("PEBBLE_CHAIN_LENGTH", "2");
    begun = match challenge {
        "http-01" => begun.http_port(builder.http().port()),
        _ => begun.tls_port(builder.https().port()),
    };
    let pebble = begun.start();
    let issuer = pebble_issuer(&pebble, &format!("challenges: [{challenge}]"));
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    within(RETRY, "a certificate to be issued", || {
        (issued(&pebble) > 0).then_some(())
    });
    let start = Instant::now();
    let certificate = wait_until_served(&gateway, "a.test", &root);
    let took = start.elapsed();
    assert!(took < SECOND, "served {took:?} after the issue");
    gateway.wait_until_ready();

    let stream = TlsClient::named("a.test")
        .trusting(&root)
        .connect(gateway.https);
    assert_eq!(stream.names(), ["a.test"]);
    let chain = stream
        .ssl()
        .peer_cert_chain()
        .map_or(0, |chain| chain.len());
    assert_eq!(
        chain, 3,
        "the leaf and both intermediates, without the root"
    );
    assert!(pebble.log().contains(&serial(&certificate)));
    let reply = gateway
        .curl("a.test", "/")
        .cacert(&pebble.write_root())
        .send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "a.test"));
    let reply = gateway.curl_http("a.test", "/").send();
    assert_eq!(reply.status / 100, 3, "plain HTTP leads to HTTPS");

    assert_eq!((orders(&pebble), issued(&pebble)), (1, 1));
    for kind in ["certificate_obtaining", "certificate_obtained"] {
        let event = gateway.wait_for_event(kind, |event| event.is(kind, "a.test"));
        assert_eq!(event.issuer.as_deref(), Some("pebble"), "{event:?}");
        assert_eq!(event.severity, "info", "{event:?}");
    }
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
    let listed = gateway.ask("GET", "/api/v1/certificates").text();
    assert!(
        listed.contains("a.test") && listed.contains("\"pebble\""),
        "{listed}"
    );

    // What was stored is served again, and asked of nobody.
    gateway.restart();
    let again = wait_until_served(&gateway, "a.test", &root);
    assert_eq!(serial(&again), serial(&certificate));
    assert_eq!(orders(&pebble), 1);
    let loaded = gateway.wait_for_event("loaded", |event| event.is("certificate_loaded", "a.test"));
    assert_eq!(loaded.issuer.as_deref(), Some("pebble"), "{loaded:?}");
}

#[test]
fn http_01_end_to_end() {
    end_to_end("http-01");
}

#[test]
fn tls_alpn_01_end_to_end() {
    end_to_end("tls-alpn-01");
}

#[test]
fn every_second_nonce_is_rejected() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder)
        .env("PEBBLE_WFE_NONCEREJECT", "50")
        .start();
    let hosts = ["a.test", "b.test", "c.test", "d.test", "e.test"];
    let issuer = pebble_issuer(&pebble, "");
    let gateway = builder.config(config(&issuer, &hosts)).spawn();
    let root = root(&pebble);
    for host in hosts {
        wait_until_served(&gateway, host, &root);
        assert_eq!(gateway.count("certificate_failed", host), 0, "{host}");
    }
    assert_eq!(orders(&pebble), hosts.len());
}

/// Both types are wanted, and the CA can reach only the second.
fn falls_back(first: &str, second: &str) {
    let builder = Gateway::builder();
    let begun = Pebble::builder();
    let begun = match second {
        "http-01" => begun.http_port(builder.http().port()),
        _ => begun.tls_port(builder.https().port()),
    };
    let pebble = begun.start();
    let issuer = pebble_issuer(&pebble, &format!("challenges: [{first}, {second}]"));
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    wait_until_served(&gateway, "a.test", &root(&pebble));
    assert_eq!(
        gateway.count("certificate_failed", "a.test"),
        0,
        "the other type is tried before the attempt is given up"
    );
    assert!(orders(&pebble) <= 2, "one order for each type");
}

#[test]
fn http_01_where_tls_alpn_01_fails() {
    falls_back("tls-alpn-01", "http-01");
}

#[test]
fn tls_alpn_01_where_http_01_fails() {
    falls_back("http-01", "tls-alpn-01");
}

#[test]
fn several_names_in_one_certificate() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "key_type: p384");
    let gateway = builder
        .config(format!(
            "{}certificates:\n  - {{ names: [a.test, www.a.test, b.test], issuer: [pebble] }}\n",
            config(&issuer, &["a.test", "www.a.test", "b.test"])
        ))
        .spawn();
    let root = root(&pebble);
    let certificate = wait_until_served(&gateway, "www.a.test", &root);
    for host in ["a.test", "b.test"] {
        let same = wait_until_served(&gateway, host, &root);
        assert_eq!(serial(&same), serial(&certificate), "{host}");
    }
    let key = certificate.public_key().expect("a key");
    assert_eq!((key.bits(), key.ec_key().is_ok()), (384, true));
    wait_for("all to be settled", || {
        gateway.waiting().is_empty().then_some(())
    });
    assert_eq!(orders(&pebble), 1, "sites that are covered ask for nothing");
}

#[test]
fn every_kind_of_key() {
    for (kind, bits) in [("p256", 256), ("rsa2048", 2048)] {
        let builder = Gateway::builder();
        let pebble = pebble_for(&builder).start();
        let issuer = pebble_issuer(&pebble, &format!("key_type: {kind}"));
        let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
        let certificate = wait_until_served(&gateway, "a.test", &root(&pebble));
        let key = certificate.public_key().expect("a key");
        assert_eq!(key.bits(), bits, "{kind}");
    }
}

#[test]
fn a_site_that_comes_with_a_reload_is_obtained() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    wait_until_served(&gateway, "a.test", &root);
    gateway.wait_until_ready();
    gateway.replace_config(config(&issuer, &["a.test", "b.test"]));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "b.test", &root);
    gateway.wait_until_ready();
    assert_eq!(orders(&pebble), 2);

    // A site that goes takes nothing with it that it would have to be asked for again.
    gateway.replace_config(config(&issuer, &["b.test"]));
    assert_eq!(gateway.reload().0, 200);
    gateway.replace_config(config(&issuer, &["a.test", "b.test"]));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "a.test", &root);
    assert_eq!(orders(&pebble), 2);
}
