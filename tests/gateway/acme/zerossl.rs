//! ZeroSSL: its API gives the key that binds the account at its CA.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{config, insist, only_file, pebble_for, press, root, wait_until_served};
use crate::support::{CaReply, FakeCa, Features, Gateway};

/// 32 octets, base64url.
const MAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const API_KEY: &str = "0123456789abcdef0123456789abcdef";

/// The issuer `zerossl`, known by `login`, with its API and its directory here.
fn issuer(api: &FakeCa, directory: &str, ca_file: &std::path::Path, login: &str) -> String {
    let endpoint = api.url("");
    format!(
        "  zerossl: {{ zerossl: {{ {login}, endpoint: {endpoint:?}, directory: {directory:?}, \
         ca_file: {ca_file:?}, limit: {{ orders: 1000, per: 1s }} }} }}\n"
    )
}

fn given() -> CaReply {
    let body = json!({ "success": 1, "eab_kid": "kid-1", "eab_hmac_key": MAC_KEY });
    CaReply::json(200, &body)
}

#[test]
fn an_account_is_bound_by_what_the_api_gives() {
    for (login, path) in [
        (
            format!("api_key: {API_KEY}"),
            format!("/acme/eab-credentials?access_key={API_KEY}"),
        ),
        (
            "email: ops@example.com".to_owned(),
            "/acme/eab-credentials-email".to_owned(),
        ),
    ] {
        let api = FakeCa::start(|ask| (ask.kind == "acme").then(given));
        let builder = Gateway::builder();
        // The CA verifies the binding.
        let mut pebble = pebble_for(&builder).eab("kid-1", MAC_KEY).start();
        let both = builder.dir().join("roots.pem");
        let roots = [api.ca_file(), pebble.ca_file()].map(|file| fs::read(file).expect("a file"));
        fs::write(&both, roots.concat()).expect("written");
        let issuer = issuer(&api, &pebble.directory(), &both, &login);
        let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
        wait_until_served(&gateway, "a.test", &root(&pebble));
        let asked = api.asked("acme");
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].path, path);
        gateway.wait_until_ready();

        // It is kept, for nobody else to read, and used again where the CA has lost the account.
        let kept = only_file(&gateway, "external_accounts");
        let mode = fs::metadata(&kept).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        pebble.restart();
        gateway.restart();
        press(&gateway, "a.test");
        wait_until_served(&gateway, "a.test", &root(&pebble));
        assert_eq!(api.asked("acme").len(), 1, "it gives so many a day");
        for secret in [API_KEY, MAC_KEY] {
            assert!(!gateway.log().contains(secret));
        }
    }
}

#[test]
fn a_failure_that_comes_as_success_is_explained() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let fake = FakeCa::start(move |ask| {
        let fault =
            json!({ "success": false, "error": { "code": 101, "type": "invalid_access_key" } });
        (ask.kind == "acme").then(|| match mended.load(Ordering::SeqCst) {
            true => given(),
            false => CaReply::json(200, &fault),
        })
    });
    let issuer = issuer(
        &fake,
        &fake.directory(),
        fake.ca_file(),
        &format!("api_key: {API_KEY}"),
    );
    let gateway = Gateway::builder()
        .config(config(&issuer, &["a.test"]))
        .spawn();
    let failed = gateway.wait_for_event("failed", |one| one.is("certificate_failed", "a.test"));
    for part in ["invalid_access_key", "101", "'api_key'"] {
        assert!(failed.message.contains(part), "{failed:?}");
    }
    assert!(!failed.message.contains(API_KEY));
    let until = failed
        .next
        .map(|next| next.duration_since(jiff::Timestamp::now()));
    assert!(
        until.is_some_and(|until| until.as_secs() >= 300),
        "{failed:?}"
    );
    assert!(fake.asked("account").is_empty());
    is_mended.store(true, Ordering::SeqCst);
    insist(&gateway, "a.test", fake.root().certificate());
}

#[test]
fn a_binding_that_is_no_longer_taken_is_got_anew() {
    let features = Features {
        meta: json!({ "externalAccountRequired": true }),
        ..Features::default()
    };
    let refuses = Arc::new(AtomicBool::new(false));
    let refused = Arc::clone(&refuses);
    let refused = move || refused.load(Ordering::SeqCst);
    let fake = FakeCa::start_with(features, move |ask| match ask.kind.as_str() {
        "acme" => {
            let kid = format!("kid-{}", ask.number);
            let body = json!({ "success": true, "eab_kid": kid, "eab_hmac_key": MAC_KEY });
            Some(CaReply::json(200, &body))
        }
        "account" if ask.path == "/account" && (ask.number == 1 || refused()) => Some(
            CaReply::problem(403, "unauthorized", "that key identifier is used up"),
        ),
        _ => None,
    });
    let issuer = issuer(
        &fake,
        &fake.directory(),
        fake.ca_file(),
        &format!("api_key: {API_KEY}"),
    );
    let mut gateway = Gateway::builder()
        .config(config(&issuer, &["a.test"]))
        .spawn();
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    gateway.wait_until_ready();
    fs::remove_file(only_file(&gateway, "accounts")).expect("there");
    let kept = only_file(&gateway, "external_accounts");
    let mut binding: Value = serde_json::from_slice(&fs::read(&kept).expect("kept")).expect("JSON");
    let given = binding["given"].as_i64().expect("when it was given");
    assert!((0..600).contains(&(jiff::Timestamp::now().as_second() - given)));
    binding["given"] = json!(given - 86_400);
    fs::write(&kept, binding.to_string()).expect("writable");
    gateway.restart();
    press(&gateway, "a.test");
    gateway.wait_for_event("renewed", |one| one.is("certificate_renewed", "a.test"));
    let kids: Vec<String> = fake.asked("account").iter().filter_map(bound).collect();
    assert_eq!(kids, ["kid-0", "kid-0", "kid-1"], "the kept one first");

    // What was given just now is not given back.
    fs::remove_file(only_file(&gateway, "accounts")).expect("there");
    refuses.store(true, Ordering::SeqCst);
    gateway.restart();
    press(&gateway, "a.test");
    let failed = gateway.wait_for_event("failed", |one| one.is("certificate_failed", "a.test"));
    assert!(failed.message.contains("used up"), "{failed:?}");
    assert_eq!(fake.asked("acme").len(), 2);
}

/// The key identifier that a new account is bound by.
fn bound(ask: &crate::support::Ask) -> Option<String> {
    let protected = ask.payload["externalAccountBinding"]["protected"].as_str()?;
    let mut text = protected.replace('-', "+").replace('_', "/");
    while text.len() % 4 != 0 {
        text.push('=');
    }
    let header = openssl::base64::decode_block(&text).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    Some(header["kid"].as_str()?.to_owned())
}
