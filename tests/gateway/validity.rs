//! What is wrong with certificates that are served is reported once, and its end too.

mod pki;

use std::fs;
use std::path::Path;

use serde_json::Value;

use self::pki::Pki;
use crate::support::{Ca, Event, Gateway, KeyType, Pair, check, snigate, wait_for};

/// RSA with the public exponent 3.
const SMALL_EXPONENT: [&str; 6] = [
    "-algorithm",
    "RSA",
    "-pkeyopt",
    "rsa_keygen_bits:2048",
    "-pkeyopt",
    "rsa_keygen_pubexp:3",
];

/// Names a policy that only public CAs assert.
const PUBLIC: &str = "certificatePolicies=2.23.140.1.2.1\n";

/// Says where the certificate of the issuer is available.
const PLACE: &str = "authorityInfoAccess=caIssuers;URI:http://ca.example/i.der\n";

fn config() -> &'static str {
    "log: { format: json, access: off }\n\
     renewal: { check_every: 1s }\n\
     certificates: [{ directory: certs }]\n\
     sites: [{ hosts: [\"*\"], routes: [{ respond: { body: served } }] }]\n"
}

/// Replaces a file by one that is complete from the first moment.
fn replace(pair: &Pair, certs: &Path, name: &str) {
    let beside = certs.parent().expect("a parent").join("beside");
    let (chain, key) = pair.write(&beside, name);
    fs::rename(key, certs.join(format!("{name}.key"))).expect("renamed");
    fs::rename(chain, certs.join(format!("{name}.pem"))).expect("renamed");
}

/// Waits for the one event of this kind about a host with this reason, and these words in its message.
#[track_caller]
fn told(gateway: &Gateway, kind: &str, (host, reason): (&str, &str), words: &[&str]) -> Event {
    let told = gateway.wait_for_event(&format!("{kind} of {host}"), |event| {
        event.is(kind, host) && event.reason.as_deref() == Some(reason)
    });
    for words in words {
        assert!(told.message.contains(words), "{words}: {told:?}");
    }
    told
}

/// Waits until a host is flawed for this reason.
#[track_caller]
fn flawed(gateway: &Gateway, host: &str, reason: &str, words: &[&str]) -> Event {
    told(gateway, "certificate_flawed", (host, reason), words)
}

/// Waits until what was reported of a host is over.
#[track_caller]
fn recovered(gateway: &Gateway, host: &str, reason: &str, words: &str) {
    let over = told(gateway, "certificate_recovered", (host, reason), &[words]);
    assert_eq!(over.severity, "info");
}

/// How many certificates are in this state.
fn in_state(gateway: &Gateway, state: &str) -> Option<f64> {
    gateway.metric(&format!("snigate_certificate_states{{state=\"{state}\"}}"))
}

/// What the admin interface says was found of a certificate.
fn findings(gateway: &Gateway, host: &str) -> Vec<String> {
    let answer = gateway.ask("GET", &format!("/api/v1/certificates/{host}"));
    let view: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let all = view["findings"].as_array().into_iter().flatten();
    all.map(|one| one["state"].as_str().expect("a text").to_owned())
        .collect()
}

/// The line of `certs list` about a host.
fn listed(gateway: &Gateway, host: &str) -> String {
    let admin = gateway.admin.to_string();
    let table = snigate(&["certs", "list", "--admin", &admin]).stdout;
    let line = table.lines().find(|line| line.starts_with(host));
    line.unwrap_or_else(|| panic!("{host} is not in {table}"))
        .to_owned()
}

/// The kinds, domains and reasons of all events about validity.
fn all(gateway: &Gateway) -> Vec<String> {
    let events = gateway.events().into_iter();
    let mut all: Vec<String> = events
        .filter_map(|event| Some(format!("{} {} {}", event.kind, event.domain, event.reason?)))
        .collect();
    all.sort();
    all
}

#[test]
fn what_time_does_to_certificates_is_told_once_and_its_end_too() {
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    let root = Ca::new("Time Root");
    let ca = root.intermediate("Time CA");
    let signer = ca.signer(KeyType::Ecdsa);
    for number in 0..200 {
        let name = format!("fine-{number:03}.test");
        signer.leaf(&[&name]).make().write(&certs, &name);
    }
    ca.leaf(&["soon.test"])
        .valid(-80, 10)
        .make()
        .write(&certs, "soon.test");
    ca.leaf(&["ended.test"])
        .expired()
        .make()
        .write(&certs, "ended.test");
    ca.leaf(&["early.test"])
        .not_yet_valid()
        .make()
        .write(&certs, "early.test");
    ca.leaf(&["moment.test"])
        .valid_seconds(-600, 8)
        .make()
        .write(&certs, "moment.test");
    ca.leaf(&["gone.test"])
        .valid(-80, 10)
        .make()
        .write(&certs, "gone.test");
    // An intermediate that ends before its certificate.
    let short = root.intermediate("Short CA");
    let pair = short.leaf(&["chain.test"]).make();
    let own = String::from_utf8(pair.certificate.to_pem().expect("PEM")).expect("text");
    let pair = Pair {
        chain: own + &short.again_by(&root, 9),
        ..pair
    };
    pair.write(&certs, "chain.test");
    let gateway = builder.config(config()).start();

    for (host, kind, severity, words) in [
        (
            "soon.test",
            "certificate_expiring",
            "warning",
            &["soon.test.pem", "replace its file"][..],
        ),
        ("ended.test", "certificate_expired", "critical", &[]),
        (
            "early.test",
            "certificate_not_yet_valid",
            "error",
            &["clock"],
        ),
        (
            "chain.test",
            "certificate_expiring",
            "warning",
            &["intermediate certificate (CN=Short CA"],
        ),
        // Time moves on.
        ("moment.test", "certificate_expired", "critical", &[]),
    ] {
        let told = told(&gateway, kind, (host, "validity"), words);
        assert_eq!(told.severity, severity, "{host}");
        assert_eq!(told.issuer.as_deref(), Some("directory"), "{host}");
    }
    wait_for("the metrics", || {
        let state = |state| in_state(&gateway, state);
        let is_it = state("valid") == Some(200.0)
            && state("expiring") == Some(3.0)
            && state("expired") == Some(2.0)
            && state("not_yet_valid") == Some(1.0);
        is_it.then_some(())
    });
    assert_eq!(findings(&gateway, "soon.test"), ["expiring"]);
    assert_eq!(findings(&gateway, "fine-007.test"), [""; 0]);
    assert!(listed(&gateway, "soon.test").contains("expiring"));
    assert!(listed(&gateway, "ended.test").contains("expired"));

    let mended = ["soon", "ended", "early", "moment", "chain"].map(|name| format!("{name}.test"));
    for name in &mended {
        replace(&ca.leaf(&[name]).make(), &certs, name);
    }
    fs::remove_file(certs.join("gone.test.pem")).expect("removed");
    fs::remove_file(certs.join("gone.test.key")).expect("removed");
    for name in &mended {
        recovered(&gateway, name, "validity", "is valid");
    }
    recovered(&gateway, "gone.test", "validity", "no longer served");
    wait_for("the metrics", || {
        (in_state(&gateway, "valid") == Some(205.0)).then_some(())
    });
    let events = all(&gateway);
    let (moments, others): (Vec<_>, Vec<_>) = events
        .iter()
        .map(String::as_str)
        .partition(|event| event.contains(" moment.test "));
    // It may have been reported as expiring, by any severity, before it expired.
    assert!((2..=5).contains(&moments.len()), "{events:#?}");
    assert_eq!(
        others,
        [
            "certificate_expired ended.test validity",
            "certificate_expiring chain.test validity",
            "certificate_expiring gone.test validity",
            "certificate_expiring soon.test validity",
            "certificate_not_yet_valid early.test validity",
            "certificate_recovered chain.test validity",
            "certificate_recovered early.test validity",
            "certificate_recovered ended.test validity",
            "certificate_recovered gone.test validity",
            "certificate_recovered soon.test validity",
        ]
    );
}

#[test]
fn when_an_end_is_near_is_for_the_configuration_to_say() {
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    let ca = Ca::new("Near Root");
    ca.leaf(&["near.test"])
        .valid(-50, 40)
        .make()
        .write(&certs, "near.test");
    let mut gateway = builder.config(config()).start();
    wait_for("a pass", || {
        in_state(&gateway, "valid").filter(|count| *count == 1.0)
    });
    assert_eq!(gateway.count("certificate_expiring", "near.test"), 0);
    let before = format!(
        "validity: {{ warn_before: 45d, warn_fraction: 0.5 }}\n{}",
        config()
    );
    gateway.replace_config(before);
    assert_eq!(gateway.reload().0, 200);
    let near = ("near.test", "validity");
    told(&gateway, "certificate_expiring", near, &[]);
    gateway.replace_config(config());
    assert_eq!(gateway.reload().0, 200);
    recovered(&gateway, "near.test", "validity", "is valid");
}

#[test]
fn flaws_of_keys_and_chains_are_told_and_so_is_their_end() {
    let pki = Pki::new();
    pki.root("Root");
    pki.root("Trusted");
    pki.intermediate("First", "Root", &[]);
    pki.intermediate("Second", "First", &[]);
    pki.intermediate("Cubic", "Root", &SMALL_EXPONENT);
    pki.leaf("place.test", "Second", &[], PLACE);
    pki.leaf("public.test", "Second", &[], PUBLIC);
    pki.leaf("private.test", "Root", &[], "");
    pki.leaf("key.test", "Second", &SMALL_EXPONENT, "");
    pki.leaf("cubic.test", "Cubic", &[], "");
    pki.leaf("rooted.test", "Trusted", &[], PUBLIC);
    let builder = Gateway::builder();
    let certs = builder.dir().join("certs");
    // Where this machine keeps the roots that it trusts.
    let roots = pki.read("Trusted.pem");
    fs::write(builder.dir().join("roots.pem"), roots).expect("written");
    let roots = builder.dir().join("roots.pem");
    pki.install(&certs, "place.test", &[]);
    pki.install(&certs, "private.test", &[]);
    pki.install(&certs, "cubic.test", &["Cubic"]);
    pki.install(&certs, "rooted.test", &[]);
    let hosts = "sites:\n  - hosts: [lonely.test]\n    routes: [{ respond: { body: a } }]\n\
                 \x20 - hosts: [\"*\"]\n    routes: [{ respond: { body: served } }]\n";
    let config = config().split("sites:").next().expect("a part").to_owned() + hosts;
    let mut gateway = builder
        .env("SSL_CERT_FILE", roots.to_str().expect("text"))
        .config(config)
        .spawn();

    let place = flawed(&gateway, "place.test", "chain_incomplete", &["(CN=Second)"]);
    assert_eq!(place.severity, "error");
    let words = ["the intermediate (CN=Cubic)", "public exponent 3"];
    flawed(&gateway, "cubic.test", "weak_key", &words);
    let words = ["add a certificate"];
    flawed(&gateway, "lonely.test", "name_not_covered", &words);
    assert_eq!(gateway.metric("snigate_hosts_not_covered"), Some(1.0));
    assert_eq!(findings(&gateway, "place.test"), ["chain_incomplete"]);
    assert!(listed(&gateway, "place.test").contains("chain incomplete"));
    // A private root is not sent, and nobody can tell whether clients have it.
    assert_eq!(findings(&gateway, "private.test"), [""; 0]);
    assert_eq!(findings(&gateway, "rooted.test"), [""; 0]);

    // The second intermediate makes others known, but its own issuer is in no file.
    pki.install(&certs, "key.test", &["Second"]);
    pki.install(&certs, "public.test", &["Second"]);
    let words = ["the key of the certificate is RSA"];
    flawed(&gateway, "key.test", "weak_key", &words);
    flawed(&gateway, "public.test", "chain_incomplete", &["(CN=First)"]);
    let words = "has a complete chain";
    recovered(&gateway, "place.test", "chain_incomplete", words);

    let admin = gateway.admin.to_string();
    let shown = snigate(&["certs", "show", "key.test", "--admin", &admin]).stdout;
    assert!(
        shown.contains("finding       weak key: the key of the certificate"),
        "{shown}"
    );
    let checked = check(&gateway.config);
    let said = checked.stderr + &checked.stdout;
    for part in [
        "the key of the certificate is RSA with the public exponent 3",
        "the key of the intermediate (CN=Cubic) is RSA with the public exponent 3",
        "no certificate covers lonely.test",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    pki.leaf("key.test", "Second", &[], "");
    pki.install(&certs, "key.test", &["Second"]);
    recovered(&gateway, "key.test", "weak_key", "has no weak key");
    pki.leaf("lonely.test", "Root", &[], "");
    pki.install(&certs, "lonely.test", &[]);
    recovered(&gateway, "lonely.test", "name_not_covered", "covers it");
    gateway.wait_until_ready();
    let events = all(&gateway);
    let mut once = events.clone();
    once.dedup();
    assert_eq!(events, once, "each is told once");
}
