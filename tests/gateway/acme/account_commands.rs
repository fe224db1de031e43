//! `snigate acme account`: what a person does with the accounts at CAs.

use std::fs;
use std::thread;

use serde_json::{Value, json};

use super::{
    RETRY, SECOND, accounts_made, command, config, fake_issuer, insist, issuer, only_file,
    only_file_in, pebble_for, pebble_issuer, presented, press, root, serial, wait_until_served,
};
use crate::support::{CaReply, FakeCa, Gateway, Port, Printed, within};

fn account(gateway: &Gateway, words: &[&str]) -> Printed {
    command(gateway, &[&["acme", "account"], words].concat())
}

#[track_caller]
fn well(printed: &Printed) {
    assert_eq!(printed.code, Some(0), "{printed:?}");
}

#[track_caller]
fn shown(gateway: &Gateway) -> Value {
    let printed = account(gateway, &["show", "--json"]);
    well(&printed);
    serde_json::from_str(&printed.stdout).expect("JSON")
}

fn stored(gateway: &Gateway) -> Value {
    let file = fs::read(only_file(gateway, "accounts")).expect("stored");
    serde_json::from_slice(&file).expect("JSON")
}

#[track_caller]
fn renew(gateway: &Gateway) {
    let before = serial(&presented(gateway, "a.test"));
    well(&command(gateway, &["certs", "renew", "a.test"]));
    within(RETRY, "the new certificate", || {
        (serial(&presented(gateway, "a.test")) != before).then_some(())
    });
}

#[test]
fn an_account_lives_from_its_first_order_to_its_end_and_begins_again() {
    let builder = Gateway::builder();
    let pebble = pebble_for(&builder).start();
    let issuer = pebble_issuer(&pebble, "email: ops@example.com");
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let root = root(&pebble);
    wait_until_served(&gateway, "a.test", &root);
    gateway.wait_until_ready();

    let first = shown(&gateway);
    assert_eq!(first["issuer"], "pebble");
    assert_eq!(first["status"], "valid");
    assert_eq!(first["contacts"], json!(["ops@example.com"]));
    assert!(
        first["url"]
            .as_str()
            .expect("a URL")
            .starts_with("https://")
    );
    let told = account(&gateway, &["show", "--issuer", "pebble"]).stdout;
    assert!(
        told.contains("ops@example.com") && told.contains("valid"),
        "{told}"
    );

    // Another key, with which orders continue, before and after a restart.
    let rolled = account(&gateway, &["rollover"]);
    well(&rolled);
    let second = shown(&gateway);
    assert_eq!(second["url"], first["url"]);
    assert_ne!(second["thumbprint"], first["thumbprint"]);
    let thumbprint = second["thumbprint"].as_str().expect("a text");
    assert!(rolled.stderr.contains(thumbprint), "{rolled:?}");
    assert!(stored(&gateway).get("next_key").is_none());
    renew(&gateway);
    gateway.restart();
    renew(&gateway);
    well(&account(&gateway, &["rollover"]));
    assert_ne!(shown(&gateway)["thumbprint"], second["thumbprint"]);

    well(&account(
        &gateway,
        &["contact", "a@example.com", "b@example.com"],
    ));
    let contacts = json!(["a@example.com", "b@example.com"]);
    assert_eq!(shown(&gateway)["contacts"], contacts);
    let wrong = account(&gateway, &["contact", "nobody"]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let needless = account(&gateway, &["create"]);
    assert_eq!(needless.code, Some(1), "{needless:?}");
    assert!(needless.stderr.contains("already"), "{needless:?}");
    assert_eq!(accounts_made(&pebble), 1);

    // The end is for good, until a person wants another.
    well(&account(&gateway, &["deactivate"]));
    assert_eq!(shown(&gateway)["status"], "deactivated");
    press(&gateway, "a.test");
    let failed = gateway.wait_for_event("failed", |one| one.is("certificate_failed", "a.test"));
    assert!(failed.message.contains("acme account create"), "{failed:?}");
    let again = account(&gateway, &["rollover"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(accounts_made(&pebble), 1);
    well(&account(&gateway, &["create"]));
    assert_eq!(accounts_made(&pebble), 2);
    assert_ne!(shown(&gateway)["url"], first["url"]);
    insist(&gateway, "a.test", &root);
    assert!(
        !gateway.log().contains(
            stored(&gateway)["credentials"]["key_pkcs8"]
                .as_str()
                .expect("a key")
        )
    );
}

/// The CA hears of the new key, and the gateway ends before it has heard whether it was taken.
#[test]
fn after_a_crash_the_key_counts_that_the_ca_knows() {
    for is_taken in [true, false] {
        let fake = FakeCa::start(move |ask| match ask.kind.as_str() {
            "key" => {
                thread::sleep(SECOND * 5);
                Some(CaReply::json(200, &json!({})))
            }
            "account" if ask.payload["onlyReturnExisting"] == true && !is_taken => Some(
                CaReply::problem(400, "accountDoesNotExist", "no account has that key"),
            ),
            _ => None,
        });
        let yaml = config(&fake_issuer(&fake), &["a.test"]);
        let mut gateway = Gateway::builder().config(yaml).spawn();
        let root = fake.root().certificate();
        wait_until_served(&gateway, "a.test", root);
        let key = stored(&gateway)["credentials"]["key_pkcs8"].clone();
        let admin = gateway.admin.to_string();
        let asking = thread::spawn(move || {
            super::snigate(&["acme", "account", "rollover", "--admin", &admin])
        });
        within(RETRY, "the CA to hear of the new key", || {
            fake.asked("key").first().map(|_| ())
        });
        gateway.kill();
        asking.join().expect("it ends");
        let next = stored(&gateway)["next_key"].clone();
        assert!(next.is_string(), "it was stored before");

        gateway.restart();
        renew(&gateway);
        let settled = stored(&gateway);
        assert_eq!(settled["next_key"], Value::Null);
        let wanted = if is_taken { &next } else { &key };
        assert_eq!(
            &settled["credentials"]["key_pkcs8"], wanted,
            "taken: {is_taken}"
        );
        let looked = fake.asked("account");
        let looked = looked
            .iter()
            .filter(|ask| ask.payload["onlyReturnExisting"] == true);
        assert_eq!(looked.count(), 1, "once");
    }
}

#[test]
fn what_the_ca_does_not_do_is_told_and_the_account_goes_on() {
    let fake = FakeCa::start(|ask| match ask.kind.as_str() {
        "key" => Some(CaReply::problem(
            409,
            "malformed",
            "that key is another account's",
        )),
        "account" if ask.payload["contact"].is_array() && ask.path != "/account" => Some(
            CaReply::problem(400, "invalidContact", "that domain takes no mail"),
        ),
        _ => None,
    });
    let yaml = config(&fake_issuer(&fake), &["a.test"]);
    let gateway = Gateway::builder().config(yaml).spawn();
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    for (words, told) in [
        (&["rollover"][..], "that key is another account's"),
        (&["contact", "a@b.example"], "that domain takes no mail"),
        // It answers that the account is valid.
        (&["deactivate"], "did not deactivate"),
    ] {
        let refused = account(&gateway, words);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    let kept = stored(&gateway);
    assert!(
        kept.get("next_key").is_none() && kept.get("deactivated").is_none(),
        "refused"
    );
    assert_eq!(shown(&gateway)["status"], "valid");
    renew(&gateway);
}

#[test]
fn the_issuer_that_is_meant_is_named_where_there_are_several() {
    let dead = Port::take();
    let down = format!("https://127.0.0.1:{}/dir", dead.number());
    let builder = Gateway::builder();
    let ca_file = crate::support::Ca::new("A Root").write(builder.dir());
    let two = [
        issuer("one", &down, &ca_file, ""),
        issuer("two", &down, &ca_file, ""),
    ]
    .concat();
    let gateway = builder.config(config(&two, &["a.test"])).spawn();
    gateway.wait_until_waiting_for("a.test");
    let unclear = account(&gateway, &["show"]);
    assert_eq!(unclear.code, Some(1), "{unclear:?}");
    assert!(unclear.stderr.contains("one, two"), "{unclear:?}");
    let unknown = account(&gateway, &["show", "--issuer", "three"]);
    assert!(unknown.stderr.contains("one, two"), "{unknown:?}");
    let none = account(&gateway, &["show", "--issuer", "two"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("no account"), "{none:?}");
}

/// What the storage has counts: another instance may have changed the key.
#[test]
fn another_instance_learns_of_the_new_key() {
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let (first, second) = (Gateway::builder(), Gateway::builder());
    // Both write what the second answers.
    let pebble = pebble_for(&second).start();
    let issuer = pebble_issuer(&pebble, "");
    let with = |host: &str| {
        let storage = format!("storage: {{ file: {{ path: {data:?} }} }}\n");
        config(&issuer, &[host]) + &storage
    };
    let mut second = second.config(with("a.test")).spawn();
    wait_until_served(&second, "a.test", &root(&pebble));
    second.wait_until_ready();
    let first = first.config(with("b.test")).spawn();
    wait_until_served(&first, "b.test", &root(&pebble));
    let file = only_file_in(&data, "accounts");
    let read = || -> Value {
        let file = fs::read(&file).expect("stored");
        serde_json::from_slice(&file).expect("JSON")
    };
    let key = |account: &Value| account["credentials"]["key_pkcs8"].clone();
    well(&account(&first, &["rollover"]));
    assert_eq!(shown(&second)["thumbprint"], shown(&first)["thumbprint"]);
    renew(&second);
    assert_eq!(second.count("certificate_failed", "a.test"), 0);
    assert_eq!(accounts_made(&pebble), 1);

    // An instance that dies in between leaves both keys, whether the CA has taken the new one or not.
    let before = read();
    well(&account(&first, &["rollover"]));
    let mut left = before.clone();
    left["next_key"] = key(&read());
    fs::write(&file, left.to_string()).expect("writable");
    renew(&second);
    assert!(read().get("next_key").is_none() && key(&read()) == left["next_key"]);
    let mut left = read();
    left["next_key"] = key(&before);
    fs::write(&file, left.to_string()).expect("writable");
    renew(&second);
    assert!(read().get("next_key").is_none() && key(&read()) == key(&left));
    assert_eq!(second.count("certificate_failed", "a.test"), 0);
    assert_eq!(accounts_made(&pebble), 1);
}
