//! A CA that gives something else than was asked for.

use std::fs;
use std::sync::{Arc, Mutex};

use openssl::pkey::{PKey, Public};
use serde_json::{Value, json};

use super::{config, fake_issuer, stored_at, try_served};
use crate::support::{Ca, CaReply, FakeCa, Features, Gateway, KeyType, csr_key};

/// The certificate that comes is not what was asked for: it is neither stored nor served.
fn not_taken(what: &str, make: impl Fn(&Ca, &PKey<Public>) -> String + Send + Sync + 'static) {
    // The script needs the key of the request, which the CA knows only once it runs.
    let key: Arc<Mutex<Option<PKey<Public>>>> = Arc::default();
    let seen = Arc::clone(&key);
    let root = Ca::new("Wrong Root");
    let root_certificate = root.certificate().clone();
    let fake = FakeCa::start(move |ask| {
        if ask.kind == "finalize" {
            let csr = csr_key(ask);
            *seen.lock().expect("not poisoned") = csr;
        }
        if ask.kind != "cert" {
            return None;
        }
        let key = seen.lock().expect("not poisoned").clone()?;
        Some(CaReply::chain(make(&root, &key)))
    });
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    eprintln!("{what}: {}", failed.message);
    let file = stored_at(&gateway.dir().join("data"), &fake.directory(), "a.test");
    assert!(!file.exists(), "{what}: stored");
    assert!(
        try_served(&gateway, "a.test", &root_certificate).is_err(),
        "{what}: served"
    );
    gateway.wait_until_waiting_for("a.test");
    assert_eq!(gateway.count("certificate_obtained", "a.test"), 0, "{what}");
}

#[test]
fn a_certificate_for_other_names_is_not_taken() {
    not_taken("other name", |ca, key| ca.leaf(&["b.test"]).sign(key).0);
}

#[test]
fn a_certificate_for_another_key_is_not_taken() {
    not_taken("other key", |ca, _| {
        let other = KeyType::Ecdsa.generate();
        let der = other.public_key_to_der().expect("a key");
        let other = PKey::public_key_from_der(&der).expect("a key");
        ca.leaf(&["a.test"]).sign(&other).0
    });
}

#[test]
fn a_certificate_that_has_ended_is_not_taken() {
    not_taken("ended", |ca, key| {
        ca.leaf(&["a.test"]).expired().sign(key).0
    });
}

#[test]
fn a_chain_that_does_not_hang_together_is_not_taken() {
    not_taken("chain", |ca, key| {
        let stranger = Ca::new("Stranger").intermediate("Strange Intermediate");
        format!("{}{}", ca.leaf(&["a.test"]).sign(key).0, stranger.pem())
    });
}

#[test]
fn no_certificate_at_all_is_not_taken() {
    not_taken("garbage", |_, _| "not a certificate\n".to_owned());
}

/// Members that do not matter are null, absent or odd, and what the CA has made is not there at once:
/// the certificate is served, and has cost one order and one account.
#[test]
fn what_does_not_matter_costs_nothing() {
    let fake = FakeCa::start_mangled(Features::default(), |ask, mut reply| {
        match (ask.kind.as_str(), ask.number) {
            ("nonce", _) => return CaReply::plain(204, ""),
            ("orders" | "authz", 0) => return CaReply::problem(404, "malformed", "no such thing"),
            ("cert", 0) => {
                return CaReply::json(403, &json!({ "detail": "certificate is pending" }));
            }
            ("cert", 1) => return CaReply::plain(202, ""),
            _ => {}
        }
        let Ok(Value::Object(mut body)) = serde_json::from_slice(&reply.body) else {
            return reply;
        };
        match ask.kind.as_str() {
            "account" => drop(body.insert("contact".into(), Value::Null)),
            "order" => drop(body.insert("replaces".into(), json!(""))),
            "orders" => drop(body.insert("authorizations".into(), Value::Null)),
            "authz" => {
                body.insert("wildcard".into(), Value::Null);
                body.insert("expires".into(), json!(17));
            }
            "finalize" => {
                body.remove("finalize");
                body.insert("error".into(), json!({}));
            }
            _ => {}
        }
        reply.body = Value::Object(body).to_string().into();
        reply
    });
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    super::wait_until_served(&gateway, "a.test", fake.root().certificate());
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
    for (kind, count) in [("account", 1), ("order", 1), ("finalize", 1), ("cert", 3)] {
        assert_eq!(fake.asked(kind).len(), count, "{kind}");
    }
}

/// What was there is kept while the CA gives nonsense.
#[test]
fn a_wrong_renewal_leaves_the_old_one() {
    let fake = FakeCa::start(|ask| {
        (ask.kind == "cert" && ask.number >= 1).then(|| CaReply::chain("nonsense".to_owned()))
    });
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    let root = fake.root().certificate();
    let before = super::wait_until_served(&gateway, "a.test", root);
    gateway.wait_until_ready();
    let file = stored_at(&gateway.dir().join("data"), &fake.directory(), "a.test");
    let stored = fs::read(&file).expect("stored");
    super::press(&gateway, "a.test");
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(fs::read(&file).expect("stored"), stored);
    let after = super::presented(&gateway, "a.test");
    assert_eq!(super::serial(&after), super::serial(&before));
}
