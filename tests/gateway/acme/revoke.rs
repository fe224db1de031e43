//! Certificates that are taken back, and what takes their place.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openssl::x509::X509;
use serde_json::Value;

use super::{
    RETRY, command, config, fake_issuer, only_file, orders, pebble_for, pebble_issuer, presented,
    root, serial, sites, wait_until_served,
};
use crate::support::{Ca, CaReply, FakeCa, Gateway, Pebble, TlsClient, within};

/// Waits until another certificate than this one is served.
#[track_caller]
fn another(gateway: &Gateway, host: &str, before: &X509) -> X509 {
    within(RETRY, "another certificate", || {
        let now = presented(gateway, host);
        (serial(&now) != serial(before)).then_some(now)
    })
}

#[track_caller]
fn assert_revoked(pebble: &Pebble, certificate: &X509, reason: i64) {
    let status = pebble.status(&serial(certificate));
    assert_eq!(status["Status"], "Revoked", "{status}");
    assert_eq!(
        status["Reason"].as_i64().unwrap_or_default(),
        reason,
        "{status}"
    );
}

fn has_same_key(one: &X509, other: &X509) -> bool {
    let key = |certificate: &X509| certificate.public_key().expect("a key");
    key(one).public_eq(&key(other))
}

#[test]
fn a_revoked_certificate_gives_way_to_one_with_another_key() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "reuse_key: true");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    let first = wait_until_served(&gateway, "a.test", &root);
    gateway.wait_until_ready();

    let renewed = command(&gateway, &["certs", "renew", "a.test"]);
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    let second = another(&gateway, "a.test", &first);
    assert!(has_same_key(&first, &second), "as configured");

    let words = ["certs", "revoke", "a.test", "--reason", "superseded"];
    let revoked = command(&gateway, &words);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let shown = format!("{}{}", revoked.stdout, revoked.stderr);
    for step in ["revoked", "superseded", "valid until"] {
        assert!(shown.contains(step), "{step:?} in: {shown}");
    }
    assert_revoked(&pebble, &second, 4);
    let third = another(&gateway, "a.test", &second);
    assert!(!has_same_key(&second, &third), "a new one has a new key");
    let told = gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.test"));
    assert!(told.message.contains("superseded"), "{told:?}");
    assert_eq!(told.severity, "warning");

    // Once and not again, after a restart neither.
    let before = orders(&pebble);
    gateway.restart();
    assert_eq!(
        serial(&wait_until_served(&gateway, "a.test", &root)),
        serial(&third)
    );
    let listed = gateway.ask("GET", "/api/v1/certificates/a.test");
    let view: Value = serde_json::from_slice(&listed.body).expect("JSON");
    assert_eq!(view["state"], "valid");
    assert_eq!(orders(&pebble), before);
}

#[test]
fn a_compromised_key_is_set_aside_and_never_used_again() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "reuse_key: true");
    let gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let first = wait_until_served(&gateway, "a.test", &root(&pebble));
    let key = fs::read_to_string(only_pem(&gateway)).expect("stored");
    let key = key
        .split("-----BEGIN PRIVATE KEY-----")
        .nth(1)
        .expect("a key")
        .to_owned();

    let words = ["certs", "revoke", "a.test", "--reason", "keyCompromise"];
    let revoked = command(&gateway, &words);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert_revoked(&pebble, &first, 1);
    let second = another(&gateway, "a.test", &first);
    assert!(!has_same_key(&first, &second));
    let aside = fs::read_to_string(only_file(&gateway, "compromised")).expect("kept");
    assert!(aside.contains(&key), "it is kept apart");
    let stored = fs::read_to_string(only_pem(&gateway)).expect("stored");
    assert!(!stored.contains(&key), "and nowhere else");
    let told = gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.test"));
    assert_eq!(told.severity, "critical");
    assert!(told.message.contains("never used again"), "{told:?}");
    assert!(!gateway.log().contains("PRIVATE KEY"));
}

/// The stored certificate.
#[track_caller]
fn only_pem(gateway: &Gateway) -> std::path::PathBuf {
    let json = gateway.dir().join("data/certificates");
    let cas = fs::read_dir(json).expect("a directory").flatten();
    let files = cas.flat_map(|ca| fs::read_dir(ca.path()).expect("a directory").flatten());
    let mut pems = files
        .map(|file| file.path())
        .filter(|path| path.extension() == Some("pem".as_ref()));
    pems.next().expect("a certificate")
}

#[test]
fn whoever_the_ca_believes_signs_the_revocation() {
    let fake = FakeCa::start(|ask| {
        (ask.kind == "revoke").then(|| match ask.protected.get("kid") {
            Some(_) => CaReply::problem(
                403,
                "unauthorized",
                "the account is not of that certificate",
            ),
            None => CaReply::json(200, &Value::Null),
        })
    });
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    let first = wait_until_served(&gateway, "a.test", fake.root().certificate());
    let revoked = command(
        &gateway,
        &["certs", "revoke", "a.test", "--reason", "superseded"],
    );
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let second = another(&gateway, "a.test", &first);
    let asked = fake.asked("revoke");
    let by_account: Vec<bool> = asked
        .iter()
        .map(|ask| ask.protected.get("kid").is_some())
        .collect();
    assert_eq!(by_account, [true, false], "the account first");
    assert_eq!(asked[1].payload["reason"], 4);
    assert!(asked[1].protected.get("jwk").is_some());

    // That a key is compromised, the key itself says.
    let revoked = command(
        &gateway,
        &["certs", "revoke", "a.test", "--reason", "key-compromise"],
    );
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    another(&gateway, "a.test", &second);
    let asked = fake.asked("revoke");
    assert_eq!(asked.len(), 3);
    assert!(asked[2].protected.get("jwk").is_some());
    assert_eq!(asked[2].payload["reason"], 1);
}

#[test]
fn a_refusal_is_told_and_changes_nothing_and_a_second_revocation_is_well() {
    let is_revoked = Arc::new(AtomicBool::new(false));
    let before = Arc::clone(&is_revoked);
    let fake = FakeCa::start(move |ask| {
        (ask.kind == "revoke").then(|| match before.load(Ordering::SeqCst) {
            true => CaReply::problem(400, "alreadyRevoked", "it has been"),
            false => CaReply::problem(400, "badRevocationReason", "that is no reason of ours"),
        })
    });
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    let first = wait_until_served(&gateway, "a.test", fake.root().certificate());
    let refused = command(
        &gateway,
        &["certs", "revoke", "a.test", "--reason", "superseded"],
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["that is no reason of ours", "choose another reason"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
    assert_eq!(serial(&presented(&gateway, "a.test")), serial(&first));
    assert_eq!(gateway.count("certificate_revoked", "a.test"), 0);
    assert_eq!(fake.asked("order").len(), 1);

    is_revoked.store(true, Ordering::SeqCst);
    let revoked = command(&gateway, &["certs", "revoke", "a.test"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    another(&gateway, "a.test", &first);

    let wrong = command(&gateway, &["certs", "revoke", "a.test", "--reason", "lost"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let unknown = command(&gateway, &["certs", "revoke", "b.test"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
}

#[test]
fn a_restart_remembers_what_was_revoked() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let fake = FakeCa::start(move |ask| match ask.kind.as_str() {
        "revoke" => Some(CaReply::json(200, &Value::Null)),
        "order" if down.load(Ordering::SeqCst) => {
            Some(CaReply::problem(503, "serverInternal", "later"))
        }
        _ => None,
    });
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    let first = wait_until_served(&gateway, "a.test", fake.root().certificate());
    is_down.store(true, Ordering::SeqCst);
    let revoked = command(&gateway, &["certs", "revoke", "a.test", "--no-wait"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(
        serial(&presented(&gateway, "a.test")),
        serial(&first),
        "better than none"
    );
    gateway.kill();
    // What has failed is forgotten, so that the next start tries at once.
    fs::remove_file(only_file(&gateway, "retry")).expect("there");
    is_down.store(false, Ordering::SeqCst);
    gateway.restart();
    another(&gateway, "a.test", &first);
    assert_eq!(fake.asked("revoke").len(), 1);
}

#[test]
fn files_are_refused_and_the_local_ca_makes_another() {
    let builder = Gateway::builder();
    let ca = Ca::new("A Root");
    let (chain, key) = ca.leaf(&["file.test"]).make().write(builder.dir(), "file");
    let yaml = format!(
        "issuers: {{ local: {{ local_ca: {{ }} }} }}\n\
         certificates: [{{ files: {{ cert: {chain:?}, key: {key:?} }} }}]\n{}",
        sites(&["file.test", "local.test"])
    );
    let gateway = builder.config(yaml).start();
    let refused = command(&gateway, &["certs", "revoke", "file.test"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("replace the file"), "{refused:?}");
    let answer = gateway.ask("POST", "/api/v1/certificates/file.test/revoke");
    assert_eq!(answer.status, 409);

    let served = || {
        TlsClient::named("local.test")
            .connect(gateway.https)
            .certificate()
    };
    let first = served();
    let revoked = command(
        &gateway,
        &["certs", "revoke", "local.test", "--reason", "superseded"],
    );
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(
        revoked.stderr.contains("another certificate"),
        "{revoked:?}"
    );
    let second = served();
    assert_ne!(serial(&first), serial(&second), "at once");
    let told = gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "local.test"));
    assert!(
        told.message.contains("without a revocation list"),
        "{told:?}"
    );
}
