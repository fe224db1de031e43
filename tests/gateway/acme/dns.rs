//! Names that are proved over the DNS: the real `knotd` has the records, which the gateway sets by
//! dynamic update, and the real `pebble` reads them there.

mod leftovers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::{RETRY, issued, issuer, orders, pebble_issuer, press, root, serial, wait_until_served};
use crate::support::{
    FakeCa, Features, Gateway, Knot, Pebble, Recursor, TSIG_KEY as KEY, TlsClient, wait_for, within,
};

const PROOF: &str = "_acme-challenge.a.test";

/// A name server with the zones `a.test`, with more records, and `b.test`.
fn knot(records: &str) -> Knot {
    Knot::builder()
        .zone("a.test", records)
        .zone("b.test", "")
        .start()
}

fn pebble(knot: &Knot) -> Pebble {
    Pebble::builder().resolver(knot.address()).start()
}

/// The entry `main`: this name server has the records, and is asked for all else too.
fn dns(knot: &Knot) -> String {
    entry("main", knot, KEY.secret)
}

fn entry(name: &str, knot: &Knot, secret: &str) -> String {
    let server = knot.address();
    format!(
        "  {name}:\n    rfc2136: {{ server: \"{server}\", tsig_name: {}, tsig_algorithm: {}, \
         tsig_secret: {secret} }}\n    resolvers: [\"{server}\"]\n    propagation: {{ servers: \
         [\"{server}\"], interval: 100ms, timeout: 20s }}\n",
        KEY.name, KEY.algorithm,
    )
}

/// A configuration with these issuers, entries of `dns` and certificates, and a site for each host.
fn config(issuers: &str, dns: &str, more: &str, hosts: &[&str]) -> String {
    let config = super::config(issuers, hosts);
    format!("dns:\n{dns}{more}{config}")
}

/// The notes of records that are set.
fn notes(data: &Path) -> usize {
    let notes = std::fs::read_dir(data.join("data/dns/set"));
    notes.map_or(0, |notes| {
        let names = notes.map(|note| note.expect("readable").file_name());
        names
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .count()
    })
}

/// Waits until no record and no note of one is left.
#[track_caller]
fn wait_until_clean(gateway: &Gateway, knot: &Knot, name: &str) {
    wait_for(&format!("{name} to be gone"), || {
        (knot.txt(name).is_empty() && notes(gateway.dir()) == 0).then_some(())
    });
}

/// The names in the certificate that is served for `host`.
fn names(gateway: &Gateway, host: &str) -> Vec<String> {
    TlsClient::named(host).connect(gateway.https).names()
}

#[test]
fn a_wildcard_is_proved_over_the_dns() {
    let knot = knot("");
    let pebble = pebble(&knot);
    let issuer = pebble_issuer(&pebble, "challenges: [dns-01]");
    let yaml = config(&issuer, &dns(&knot), "", &["*.a.test"]);
    let mut gateway = Gateway::builder().config(yaml).spawn();
    let root = root(&pebble);
    let certificate = wait_until_served(&gateway, "x.a.test", &root);
    assert_eq!(names(&gateway, "x.a.test"), ["*.a.test"]);
    let other = wait_until_served(&gateway, "y.a.test", &root);
    assert_eq!(serial(&other), serial(&certificate));
    gateway.wait_until_ready();
    wait_until_clean(&gateway, &knot, PROOF);
    assert_eq!((orders(&pebble), issued(&pebble)), (1, 1));
    assert_eq!(gateway.count("certificate_failed", "*.a.test"), 0);
    assert!(!gateway.log().contains(KEY.secret), "no secret in the log");
    let reply = gateway
        .curl("x.a.test", "/")
        .cacert(&pebble.write_root())
        .send();
    assert_eq!((reply.status, reply.text().as_str()), (200, "*.a.test"));

    // It is renewed by the same way.
    press(&gateway, "*.a.test");
    wait_for("the renewed one", || {
        let now = super::presented(&gateway, "x.a.test");
        (serial(&now) != serial(&certificate)).then_some(())
    });
    wait_until_clean(&gateway, &knot, PROOF);
}

/// With an entry in `dns` and no word about challenges a wildcard just works, other names go the
/// usual way, and sites that the wildcard covers ask for nothing.
#[test]
fn sites_below_a_wildcard_have_none_of_their_own() {
    let knot = knot("");
    let pebble = pebble(&knot);
    let issuer = pebble_issuer(&pebble, "");
    let certificates = "certificates:\n  - { names: [\"*.a.test\"] }\n";
    let hosts = ["x.a.test", "y.a.test"];
    let yaml = config(&issuer, &dns(&knot), certificates, &hosts);
    let mut gateway = Gateway::builder().config(&yaml).spawn();
    let root = root(&pebble);
    for host in hosts {
        wait_until_served(&gateway, host, &root);
        assert_eq!(names(&gateway, host), ["*.a.test"], "{host}");
    }
    gateway.wait_until_ready();
    assert_eq!(orders(&pebble), 1);

    // One that asks for its own by name gets it.
    let asks = yaml.replace(
        "hosts: [\"y.a.test\"]",
        "tls: pebble, hosts: [\"y.a.test\"]",
    );
    let asks = asks.replace(
        "certificates:\n",
        "certificates:\n  - { names: [z.a.test], dns: main }\n",
    );
    gateway.replace_config(&asks);
    assert_eq!(gateway.reload().0, 200);
    within(RETRY, "a certificate that a person names", || {
        (names(&gateway, "z.a.test") == ["z.a.test"]).then_some(())
    });
    assert_eq!(names(&gateway, "x.a.test"), ["*.a.test"]);
    wait_until_clean(&gateway, &knot, "_acme-challenge.z.a.test");
}

#[test]
fn a_domain_and_its_wildcard_share_a_certificate() {
    let knot = knot("");
    let pebble = pebble(&knot);
    let issuer = pebble_issuer(&pebble, "challenges: [dns-01]");
    let certificates = "certificates:\n  - { names: [a.test, \"*.a.test\", b.test] }\n";
    let hosts = ["a.test", "*.a.test", "b.test"];
    let yaml = config(&issuer, &dns(&knot), certificates, &hosts);
    // What somebody else has there stays.
    let own = format!("add {PROOF}. 60 TXT \"mine\"");
    knot.update("a.test", &[&own]);
    let mut gateway = Gateway::builder().config(yaml).spawn();
    let root = root(&pebble);
    let certificate = wait_until_served(&gateway, "a.test", &root);
    for host in ["x.a.test", "b.test"] {
        let other = wait_until_served(&gateway, host, &root);
        assert_eq!(serial(&other), serial(&certificate), "{host}");
    }
    gateway.wait_until_ready();
    wait_for("the proofs to be gone", || {
        (notes(gateway.dir()) == 0).then_some(())
    });
    assert_eq!(knot.txt(PROOF), ["mine"]);
    assert!(knot.txt("_acme-challenge.b.test").is_empty());
    assert_eq!(orders(&pebble), 1);
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
}

/// The zone of the name is not ours to change: an alias leads to one that is.
#[test]
fn a_proof_is_delegated_by_an_alias() {
    let knot = knot("_acme-challenge CNAME proofs.b.test.\n");
    let resolver = Recursor::over(knot.address());
    let pebble = Pebble::builder().resolver(resolver.address()).start();
    let issuer = pebble_issuer(&pebble, "challenges: [dns-01]");
    let yaml = config(&issuer, &dns(&knot), "", &["*.a.test"]);
    let gateway = Gateway::builder().config(yaml).spawn();
    wait_until_served(&gateway, "x.a.test", &root(&pebble));
    wait_until_clean(&gateway, &knot, "proofs.b.test");
    assert_eq!(gateway.count("certificate_failed", "*.a.test"), 0);
}

/// A CA that offers these challenges, and holds each validation until it is let go.
fn holding(challenges: Vec<(&'static str, serde_json::Value)>) -> (FakeCa, Arc<AtomicBool>) {
    let go = Arc::new(AtomicBool::new(false));
    let wait = Arc::clone(&go);
    let features = Features {
        challenges,
        ..Features::default()
    };
    let fake = FakeCa::start_with(features, move |ask| {
        while ask.kind == "challenge" && !wait.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        None
    });
    (fake, go)
}

fn fake_issuer(fake: &FakeCa, more: &str) -> String {
    issuer("fake", &fake.directory(), fake.ca_file(), more)
}

/// Waits until there is a record of this name; its values.
#[track_caller]
fn wait_until_set(knot: &Knot, name: &str) -> Vec<String> {
    within(RETRY, &format!("a record {name}"), || {
        Some(knot.txt(name)).filter(|values| !values.is_empty())
    })
}

/// `dns-account-01` and `dns-01`: the order in `challenges` decides.
#[test]
fn each_account_has_a_label_of_its_own() {
    let knot = knot("");
    let offers = vec![("dns-01", json!({})), ("dns-account-01", json!({}))];
    let (fake, go) = holding(offers);
    let issuers = fake_issuer(&fake, "challenges: [dns-account-01, dns-01]");
    let yaml = config(&issuers, &dns(&knot), "", &["a.test"]);
    let gateway = Gateway::builder().config(yaml).spawn();
    let account = fake.url("/account/0");
    let digest = openssl::sha::sha256(account.as_bytes());
    let label = base32(&digest[..10]);
    let name = format!("_{label}._acme-challenge.a.test");
    let values = wait_until_set(&knot, &name);
    assert_eq!(values[0].len(), 43, "{values:?}");
    assert!(knot.txt(PROOF).is_empty());
    go.store(true, Ordering::SeqCst);
    wait_until_served(&gateway, "a.test", fake.root().certificate());
    wait_until_clean(&gateway, &knot, &name);
    let told = fake.asked("challenge");
    assert!(told.iter().all(|ask| ask.path.ends_with("/1")), "{told:?}");
}

/// By `base32` of coreutils.
fn base32(bytes: &[u8]) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("base32")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coreutils are installed");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(bytes)
        .expect("taken");
    let output = child.wait_with_output().expect("an end");
    let text = String::from_utf8(output.stdout).expect("ASCII");
    text.trim().to_lowercase()
}

#[test]
fn a_lasting_record_is_set_by_hand_and_used() {
    let knot = knot("");
    let offer = json!({ "issuer-domain-names": ["ca.test", "authority.test"] });
    let (fake, go) = holding(vec![("dns-persist-01", offer)]);
    go.store(true, Ordering::SeqCst);
    let issuers = fake_issuer(&fake, "challenges: [dns-persist-01]");
    let yaml = config(&issuers, &dns(&knot), "", &["*.a.test"]);
    let gateway = Gateway::builder().config(yaml).spawn();
    let root = fake.root().certificate();

    // It says what to set, to the letter.
    let failed =
        gateway.wait_for_event("failed", |event| event.is("certificate_failed", "*.a.test"));
    let account = fake.url("/account/0");
    let text = format!("ca.test; accounturi={account}; policy=wildcard");
    let record = format!("_validation-persist.a.test. IN TXT \"{text}\"");
    assert!(failed.message.contains(&record), "{failed:?}\n{record}");
    assert_eq!(fake.asked("challenge").len(), 0, "the CA is not bothered");

    // One that lacks something is distinguished from none.
    let name = "_validation-persist.a.test";
    let plain = format!("add {name}. 60 TXT \"ca.test; accounturi={account}\"");
    knot.update("a.test", &[&plain]);
    press(&gateway, "*.a.test");
    gateway.wait_for_event("another failure", |event| {
        event.is("certificate_failed", "*.a.test")
            && event.message.contains("lacks 'policy=wildcard'")
    });

    let set = format!("add {name}. 60 TXT \"{text}\"");
    knot.update("a.test", &[&set]);
    press(&gateway, "*.a.test");
    wait_until_served(&gateway, "x.a.test", root);
    assert_eq!(knot.txt(name).len(), 2, "records of others stay");
    assert_eq!(gateway.count("validation_expiring", "a.test"), 0);

    // One that ends soon is reported.
    let soon = jiff::Timestamp::now().as_second() + 20 * 86_400;
    let ends = format!("add {name}. 60 TXT \"{text}; persistUntil={soon}\"");
    knot.update("a.test", &[&format!("del {name}. TXT"), &ends]);
    press(&gateway, "*.a.test");
    let told = gateway.wait_for_event("the end", |event| event.is("validation_expiring", "a.test"));
    assert_eq!(told.severity, "warning", "{told:?}");
    assert!(told.message.contains("persistUntil"), "{told:?}");

    // So is that it no longer does.
    gateway.wait_for_event("the renewal", |event| {
        event.is("certificate_renewed", "*.a.test")
    });
    let late = soon + 400 * 86_400;
    let ends = format!("add {name}. 60 TXT \"{text}; persistUntil={late}\"");
    knot.update("a.test", &[&format!("del {name}. TXT"), &ends]);
    press(&gateway, "*.a.test");
    gateway.wait_for_event("its renewal", |event| {
        event.is("certificate_recovered", "a.test") && event.reason.as_deref() == Some("validation")
    });
}

/// What is wrong with the name server or the key is reported, and mended by a reload.
#[test]
fn a_wrong_key_is_told_and_mended_by_a_reload() {
    let knot = knot("");
    let pebble = pebble(&knot);
    let issuer = pebble_issuer(&pebble, "challenges: [dns-01]");
    let wrong = entry(
        "main",
        &knot,
        "bm90IHRoZSBrZXkgdGhhdCB0aGUgc2VydmVyIGhhcw==",
    );
    let mut gateway = Gateway::builder()
        .config(config(&issuer, &wrong, "", &["*.a.test"]))
        .spawn();
    let failed =
        gateway.wait_for_event("failed", |event| event.is("certificate_failed", "*.a.test"));
    for part in ["a.test", "'main'", PROOF, "dns-01"] {
        assert!(failed.message.contains(part), "{part}: {failed:?}");
    }
    gateway.replace_config(config(&issuer, &dns(&knot), "", &["*.a.test"]));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "x.a.test", &root(&pebble));
    wait_until_clean(&gateway, &knot, PROOF);
}

/// Each certificate says by which entry it is proved.
#[test]
fn a_certificate_names_its_entry() {
    let (one, other) = (knot(""), knot(""));
    let pebble = pebble(&other);
    let issuer = pebble_issuer(&pebble, "dns: one");
    let entries = entry("one", &one, KEY.secret) + &entry("two", &other, KEY.secret);
    let certificates = "certificates:\n  - { names: [\"*.a.test\"], dns: two }\n";
    let yaml = config(&issuer, &entries, certificates, &["x.a.test"]);
    let gateway = Gateway::builder().config(yaml).spawn();
    wait_until_served(&gateway, "x.a.test", &root(&pebble));
    wait_until_clean(&gateway, &other, PROOF);
    assert_eq!(gateway.count("certificate_failed", "*.a.test"), 0);
}

/// Where nobody is asked whether the record is there, the CA finds it all the same.
#[test]
fn nothing_is_looked_up_where_propagation_is_off() {
    let knot = knot("");
    let pebble = pebble(&knot);
    let issuer = pebble_issuer(&pebble, "challenges: [dns-01]");
    let whole = dns(&knot);
    let (start, _) = whole.split_once("propagation:").expect("it is written");
    let yaml = config(
        &issuer,
        &format!("{start}propagation: off\n"),
        "",
        &["*.a.test"],
    );
    let gateway = Gateway::builder().config(yaml).spawn();
    wait_until_served(&gateway, "x.a.test", &root(&pebble));
    wait_until_clean(&gateway, &knot, PROOF);
    assert_eq!((orders(&pebble), issued(&pebble)), (1, 1));
    assert_eq!(gateway.count("certificate_failed", "*.a.test"), 0);
}
