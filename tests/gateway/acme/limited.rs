//! What a CA limits or refuses, and that everything else continues.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::Value;

use super::{
    RETRY, command, config, fake_issuer, issuer, presented, press, serial, sites, store,
    wait_until_served,
};
use crate::support::{Ask, CaReply, FakeCa, Gateway, Printed, within};

const HOUR: i64 = 3600;

/// What Let's Encrypt says to the sixth certificate of a week with the same names.
const EXACT_SET: &str = "too many certificates (5) already issued for this exact set of \
                         identifiers in the last 168h0m0s, retry after 2025-09-18 09:13:16 UTC: \
                         see https://letsencrypt.org/docs/rate-limits/\
                         #new-certificates-per-exact-set-of-identifiers";

/// The names of all orders that the CA was asked for.
fn ordered(fake: &FakeCa) -> Vec<String> {
    let asked = fake.asked("order");
    asked.iter().map(|ask| ask.names.join(" ")).collect()
}

fn certs(gateway: &Gateway, words: &[&str]) -> Printed {
    let printed = command(gateway, &[&["certs"], words].concat());
    assert_eq!(printed.code, Some(0), "{printed:?}");
    printed
}

/// How the admin interface shows what is done about a name.
fn renewal(gateway: &Gateway, name: &str) -> Value {
    let answer = gateway.ask("GET", &format!("/api/v1/certificates/{name}"));
    let view: Value = serde_json::from_slice(&answer.body).expect("JSON");
    view["renewal"].clone()
}

/// In how many seconds a time is that the admin interface shows.
fn seconds_until(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("a time");
    time.duration_since(jiff::Timestamp::now()).as_secs()
}

/// That nobody is asked for `a.test` for a day, and that everybody can see it.
#[track_caller]
fn assert_held(gateway: &Gateway) {
    let reason = within(RETRY, "the limit at /readyz", || {
        let mut waiting = gateway.waiting().into_iter();
        waiting.find(|reason| reason.contains("a.test") && reason.contains("names until 2"))
    });
    assert!(reason.contains("exact set"), "{reason}");
    assert!(!reason.contains("being asked"), "{reason}");
    let renewal = renewal(gateway, "a.test");
    let held = &renewal["held"];
    assert_eq!(
        (&held["issuer"], &held["scope"]),
        (&"fake".into(), &"set".into())
    );
    for until in [&held["until"], &renewal["next"]] {
        let until = seconds_until(until);
        assert!(
            (32 * HOUR..40 * HOUR).contains(&until),
            "{until}: {renewal}"
        );
    }
    let listed = certs(gateway, &["list"]).stdout;
    let line = listed.lines().find(|line| line.starts_with("a.test"));
    let line = line.expect("it is listed");
    assert!(
        line.contains("in 3") && line.contains("held by the CA"),
        "{listed}"
    );
    let shown = certs(gateway, &["show", "a.test"]).stdout;
    for part in ["held", "at fake", "exact set of names", "already issued"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let gauge = r#"snigate_ca_limited_until_seconds{issuer="fake",scope="set"}"#;
    let until = within(RETRY, "the metric", || gateway.metric(gauge));
    #[allow(clippy::cast_precision_loss, reason = "seconds of this century")]
    let left = until - jiff::Timestamp::now().as_second() as f64;
    assert!((32.0 * 3600.0..35.0 * 3600.0).contains(&left), "{left}");
}

/// One name that was ordered too often costs no other its certificate: neither a new one nor one
/// that is due for its renewal.
#[test]
fn a_limit_on_one_set_of_names_leaves_all_others_alone() {
    let fake = FakeCa::start(|ask| {
        (ask.kind == "order" && ask.names == ["a.test"]).then(|| {
            CaReply::problem(429, "rateLimited", EXACT_SET).header("Retry-After", "122400")
        })
    });
    let builder = Gateway::builder();
    // Half an hour is left of it.
    let due = fake
        .root()
        .leaf(&["c.test"])
        .valid_seconds(-80 * HOUR, HOUR / 2);
    store(
        &builder.dir().join("data"),
        &fake.directory(),
        "c.test",
        &due.make(),
    );
    let issuer = fake_issuer(&fake);
    let mut gateway = builder.config(config(&issuer, &["a.test"])).spawn();
    let limited = gateway.wait_for_event("the limit", |event| event.kind == "ca_limited");
    assert_eq!(limited.issuer.as_deref(), Some("fake"), "{limited:?}");
    assert_eq!(
        (&*limited.domain, &*limited.severity),
        ("a.test", "warning")
    );
    assert!(limited.message.contains("exact set"), "{limited:?}");
    assert!(limited.next.is_some(), "{limited:?}");

    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test"]));
    assert_eq!(gateway.reload().0, 200);
    let root = fake.root().certificate();
    wait_until_served(&gateway, "b.test", root);
    within(RETRY, "the renewal of c.test", || {
        (gateway.count("certificate_renewed", "c.test") > 0).then_some(())
    });
    assert_held(&gateway);
    assert_eq!(gateway.count("certificate_failed", "b.test"), 0);

    // All of it is known after a restart, and new names are ordered still.
    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test", "d.test"]));
    gateway.restart_unready();
    wait_until_served(&gateway, "d.test", root);
    assert_held(&gateway);
    let mut ordered = ordered(&fake);
    ordered.sort();
    assert_eq!(
        ordered,
        ["a.test", "b.test", "c.test", "d.test"],
        "each once"
    );
}

/// A CA that says nothing of what it limits is asked for other names; two that are strangers to each
/// other say that it is the account.
#[test]
fn a_limit_of_which_nothing_is_said_holds_the_account_once_two_strangers_meet_it() {
    let fake = FakeCa::start(|ask| {
        let is_limited = ask.names == ["a.test"] || ask.names == ["b.test"];
        (ask.kind == "order" && is_limited).then(|| {
            CaReply::problem(429, "rateLimited", "slow down").header("Retry-After", "7200")
        })
    });
    let issuer = fake_issuer(&fake);
    let mut gateway = Gateway::builder()
        .config(config(&issuer, &["a.test"]))
        .spawn();
    gateway.wait_for_event("the limit", |event| event.is("ca_limited", "a.test"));
    let root = fake.root().certificate();
    gateway.replace_config(config(&issuer, &["a.test", "c.test"]));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "c.test", root);

    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test"]));
    assert_eq!(gateway.reload().0, 200);
    gateway.wait_for_event("the limit", |event| event.is("ca_limited", ""));
    gateway.replace_config(config(&issuer, &["a.test", "b.test", "c.test", "d.test"]));
    assert_eq!(gateway.reload().0, 200);
    let reason = within(RETRY, "the limit at /readyz", || {
        let mut waiting = gateway.waiting().into_iter();
        waiting.find(|reason| reason.contains("d.test") && reason.contains("slow down"))
    });
    assert!(
        reason.contains("fake: the CA limits this account until"),
        "{reason}"
    );
    assert_eq!(renewal(&gateway, "d.test")["held"]["scope"], "account");
    assert_eq!(renewal(&gateway, "d.test")["failures"], 0);
    assert_eq!(ordered(&fake), ["a.test", "c.test", "b.test"]);
}

/// Whoever has an account orders on while the CA makes no more of them.
#[test]
fn a_limit_on_new_accounts_holds_nobody_who_has_one() {
    let fake = FakeCa::start(|ask| {
        (ask.kind == "account" && ask.payload["contact"][0] == "mailto:b@example.com").then(|| {
            let said = "too many new registrations (10) from this IP address in the last 3h0m0s";
            CaReply::problem(429, "rateLimited", said).header("Retry-After", "7200")
        })
    });
    let of = |name: &str| {
        let email = format!("email: {name}@example.com");
        issuer(name, &fake.directory(), fake.ca_file(), &email)
    };
    let yaml = |hosts: &[(&str, &str)]| {
        let names: Vec<&str> = hosts.iter().map(|(host, _)| *host).collect();
        let mut yaml = config(&format!("{}{}", of("a"), of("b")), &names);
        for (host, issuer) in hosts {
            let site = format!("hosts: [{host:?}]");
            yaml = yaml.replace(&site, &format!("{site}, tls: {issuer}"));
        }
        yaml
    };
    let first = [("a.test", "a"), ("b.test", "b")];
    // The one account is there before the other is refused.
    let mut gateway = Gateway::builder().config(yaml(&first[..1])).spawn();
    let root = fake.root().certificate();
    wait_until_served(&gateway, "a.test", root);
    gateway.replace_config(yaml(&first));
    assert_eq!(gateway.reload().0, 200);
    gateway.wait_for_event("the limit", |event| event.kind == "ca_limited");
    let all = [first[0], first[1], ("c.test", "a"), ("d.test", "b")];
    gateway.replace_config(yaml(&all));
    assert_eq!(gateway.reload().0, 200);
    wait_until_served(&gateway, "c.test", root);
    let held = within(RETRY, "d.test to be held", || {
        let held = renewal(&gateway, "d.test")["held"].clone();
        held.is_object().then_some(held)
    });
    assert_eq!(held["scope"], "registrations");
    assert_eq!(fake.asked("account").len(), 2);
}

/// Of two names one is refused and one is paused at the first CA; then the second is asked.
fn the_second_ca_is_asked(is_reload: bool, turn: &str) {
    let one = FakeCa::start(|ask| match (&*ask.kind, ask.names.first()) {
        ("order", Some(name)) if name == "a.test" => Some(CaReply::problem(
            400,
            "rejectedIdentifier",
            "The ACME server refuses to issue for it",
        )),
        ("order", Some(_)) => Some(CaReply::problem(
            429,
            "rateLimited",
            "Your account is temporarily prevented from requesting certificates for p.test. Please \
             visit: https://portal.ca.example/unpause",
        )),
        _ => None,
    });
    let two = FakeCa::start(|_| None);
    let issuers = format!(
        "{}{}",
        issuer("one", &one.directory(), one.ca_file(), ""),
        issuer("two", &two.directory(), two.ca_file(), "")
    );
    let yaml = |turn: &str| {
        let entry = |name: &str| format!("  - {{ names: [{name}], issuer: [{turn}] }}\n");
        format!(
            "{}certificates:\n{}{}",
            config(&issuers, &["a.test", "p.test"]),
            entry("a.test"),
            entry("p.test")
        )
    };
    let mut gateway = Gateway::builder().config(yaml("one")).spawn();
    for name in ["a.test", "p.test"] {
        gateway.wait_for_event(name, |event| event.is("certificate_failed", name));
    }
    let asked = one.asked("order").len();
    gateway.replace_config(yaml(turn));
    if is_reload {
        assert_eq!(gateway.reload().0, 200);
    } else {
        gateway.restart_unready();
    }
    let root = two.root().certificate();
    for name in ["a.test", "p.test"] {
        wait_until_served(&gateway, name, root);
        assert_eq!(gateway.count("certificate_failed", name), 1);
    }
    assert_eq!(one.asked("order").len(), asked, "its time has not come");
}

#[test]
fn another_ca_is_asked_at_once_after_a_reload() {
    the_second_ca_is_asked(true, "two");
}

#[test]
fn another_ca_is_asked_at_once_after_a_restart() {
    the_second_ca_is_asked(false, "two");
}

#[test]
fn the_next_ca_of_the_list_is_asked_after_a_restart() {
    the_second_ca_is_asked(false, "one, two");
}

/// From a trial to the CA itself, as everybody begins: the directory of an issuer changes while the
/// gateway is down.
#[test]
fn another_directory_is_another_ca_after_a_restart() {
    let trial = FakeCa::start(|ask| {
        (ask.kind == "order").then(|| CaReply::problem(403, "rejectedIdentifier", "not for trials"))
    });
    let real = FakeCa::start(|_| None);
    let of = |fake: &FakeCa| config(&fake_issuer(fake), &["a.test"]);
    let mut gateway = Gateway::builder().config(of(&trial)).spawn();
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    gateway.replace_config(of(&real));
    gateway.restart_unready();
    wait_until_served(&gateway, "a.test", real.root().certificate());
}

/// The key identifier of the external account that an account is to be bound to.
fn key_id(ask: &Ask) -> String {
    let binding = ask.payload["externalAccountBinding"]["protected"].as_str();
    let text = binding
        .unwrap_or_default()
        .replace('-', "+")
        .replace('_', "/");
    let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    let head = openssl::base64::decode_block(&padded).unwrap_or_default();
    let head: Value = serde_json::from_slice(&head).unwrap_or_default();
    head["kid"].as_str().unwrap_or_default().to_owned()
}

/// Keys for binding that are good for once, as Google's: each binding has an account of its own, and
/// none is lost by another.
#[test]
fn accounts_of_several_bindings_stay_beside_each_other() {
    let used = Mutex::new(HashSet::new());
    let fake = FakeCa::start(move |ask| {
        let is_new = ask.kind != "account" || {
            let key_id = key_id(ask);
            key_id.is_empty() || used.lock().expect("whole").insert(key_id)
        };
        (!is_new).then(|| CaReply::problem(403, "unauthorized", "that EAB key was already used"))
    });
    let of = |name: &str, key_id: &str| {
        let eab = format!(
            "email: ops@example.com, eab: {{ key_id: {key_id}, hmac_key: \
             zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W }}"
        );
        issuer(name, &fake.directory(), fake.ca_file(), &eab)
    };
    let yaml = |second: &str| {
        let mut yaml = format!(
            "issuers:\n{}{}{}",
            of("one", "k1"),
            of("two", second),
            sites(&["a.test", "b.test"])
        );
        for (host, issuer) in [("a.test", "one"), ("b.test", "two")] {
            let site = format!("hosts: [{host:?}]");
            yaml = yaml.replace(&site, &format!("{site}, tls: {issuer}"));
        }
        yaml
    };
    let mut gateway = Gateway::builder().config(yaml("k2")).spawn();
    let root = fake.root().certificate();
    let renew = |gateway: &Gateway| {
        for host in ["a.test", "b.test"] {
            let before = serial(&wait_until_served(gateway, host, root));
            press(gateway, host);
            within(RETRY, "the renewal", || {
                (serial(&presented(gateway, host)) != before).then_some(())
            });
        }
    };
    renew(&gateway);
    assert_eq!(fake.asked("account").len(), 2);
    // Another key, and back to the one before.
    for (key_id, accounts) in [("k3", 3), ("k2", 3)] {
        gateway.replace_config(yaml(key_id));
        gateway.restart();
        renew(&gateway);
        assert_eq!(fake.asked("account").len(), accounts, "{key_id}");
    }
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
    assert_eq!(gateway.count("certificate_failed", "b.test"), 0);
}
