//! `events`: what an entry becomes, and what is wrong with it.

use std::time::Duration;

use super::*;
use crate::config::model::{Hook, Recipient};
use crate::event::{EventKind, Severity};

/// `KEY | what the message says | what is written`.
const FAULTS: &str = r#"
events[0].on[0] | did you mean 'certificate_failed' | events: [{ on: [certificate_failing], exec: { command: [/a] } }]
events[0].on[0] | there is no event 'cert_*' | events: [{ on: [cert_*], exec: { command: [/a] } }]
events[0].webhook.url | not a URL of http | events: [{ on: ["*"], webhook: { url: alerts.example } }]
events[0].webhook.url | a user or a password | events: [{ on: ["*"], webhook: { url: "http://u:p@a/" } }]
events[0].exec.command[0] | begins with a program | events: [{ on: [config_rejected], exec: { command: [""] } }]
events[0].exec.command[0] | not an absolute path | events: [{ on: ["*"], exec: { command: [a] } }]
events[0] | no recipient | events: [{ on: [config_reloaded] }]
events[0] | exclude each other | events: [{ on: ["*"], webhook: { url: "http://a/" }, exec: { command: [/a] } }]
events[0].repeat | is too short | events: [{ on: ["*"], repeat: 1s, exec: { command: [/a] } }]
events[0].digest | is too long | events: [{ on: ["*"], digest: 2h, exec: { command: [/a] } }]
events[0].sites[0] | character | events: [{ on: ["*"], sites: ["a b"], exec: { command: [/a] } }]
events[0].name | not a valid name | events: [{ on: ["*"], name: "a b", exec: { command: [/a] } }]
"#;

fn hooks(events: &str) -> Vec<std::sync::Arc<Hook>> {
    accept(&format!("events:\n{events}\n{GOOD}")).config.events
}

#[test]
fn faults_are_found_each_alone() {
    for row in FAULTS.trim().lines() {
        let [key, words, fault] = row.splitn(3, '|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let found = errors(&format!("{fault}\n{GOOD}"));
        let [error] = found.as_slice() else {
            panic!("{row}\n{found:#?}")
        };
        assert!(
            error.contains(&format!(": {key}: ")) && error.contains(words),
            "{row}\n{error}"
        );
    }
}

#[test]
fn names_are_unique_and_fields_of_requests_are_checked() {
    let entry = "{ on: [\"*\"], name: ops, exec: { command: [/a] } }";
    let found = errors(&format!("events: [{entry}, {entry}]\n{GOOD}"));
    assert!(
        found[0].contains("two entries are named 'ops'"),
        "{found:?}"
    );
    for (field, words) in [
        ("Host: a", "cannot be set"),
        ("\"a b\": c", "not the name of a header field"),
        ("X-A: \"a\\nb\"", "control character"),
    ] {
        let events = format!(
            "events: [{{ on: [\"*\"], webhook: {{ url: \"http://a/\", headers: {{ {field} }} }} }}]"
        );
        let found = errors(&format!("{events}\n{GOOD}"));
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }
}

#[test]
fn defaults_and_patterns() {
    let hooks = hooks(
        "- { on: [storage_*, config_rejected], webhook: { url: \"https://h.test/${SECRET}\" } }\n\
         - { on: [\"*\"], name: all, severity: error, repeat: off, digest: 0s, sites: [\"*.a.test\"], exec: { command: [/bin/a, b], env: { K: \"${SECRET}\" } } }\n\
         - { on: [upstream_down], webhook: { url: \"https://h.test/other\" } }",
    );
    let names: Vec<&str> = hooks.iter().map(|hook| &*hook.name).collect();
    assert_eq!(names, ["webhook", "all", "webhook-2"]);
    let [first, second, _] = hooks.as_slice() else {
        panic!("{hooks:?}")
    };
    assert!(first.on.contains(EventKind::StorageFailed));
    assert!(first.on.contains(EventKind::StorageRecovered));
    assert!(!first.on.contains(EventKind::ConfigReloaded));
    assert!(first.named.contains(EventKind::ConfigRejected));
    assert!(!first.named.contains(EventKind::StorageFailed));
    assert_eq!(first.severity, Severity::Info);
    assert_eq!(first.repeat, Some(Duration::from_secs(3600)));
    assert_eq!(first.digest, Duration::from_secs(10));
    assert_eq!((second.severity, second.repeat), (Severity::Error, None));
    assert_eq!(second.digest, Duration::ZERO);
    assert_eq!(second.sites.len(), 1);
    assert!(matches!(&second.recipient, Recipient::Exec(exec) if exec.arguments == ["b"]));
    // Nothing shows a secret.
    let shown = format!("{hooks:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_queue_belongs_to_its_recipient_wherever_the_entry_stands() {
    let one = "- { on: [\"*\"], webhook: { url: \"https://h.test/one\" } }";
    let other = "- { on: [\"*\"], webhook: { url: \"https://h.test/other\" } }";
    let changed = "- { on: [\"config_*\"], severity: error, webhook: { url: \"https://h.test/one\", timeout: 5s } }";
    let named = "- { on: [\"*\"], name: ops, webhook: { url: \"https://h.test/one\" } }";
    let ids = |events: &[&str]| {
        let hooks = hooks(&events.join("\n"));
        let ids = hooks.iter().map(|hook| hook.id.to_string());
        ids.collect::<Vec<_>>()
    };
    let before = ids(&[one, other]);
    let after = ids(&[other, changed]);
    assert_eq!(before[0], after[1]);
    assert_eq!(before[1], after[0]);
    let twice = ids(&[one, one, named]);
    assert_eq!(twice[0], before[0]);
    assert_ne!(twice[1], twice[0]);
    assert_ne!(twice[2], twice[0]);
    assert_eq!(ids(&[&named.replace("one", "new")]), [twice[2].clone()]);
}

#[test]
fn each_address_of_an_entry_for_mail_has_a_queue_of_its_own() {
    let mail = |name: &str, to: &str| {
        let entry = format!(
            "- {{ on: [\"*\"], {name}mail: {{ server: \"a.test:25\", from: a@b.test, to: [{to}] }} }}"
        );
        let hooks = hooks(&entry);
        let queues = hooks.iter().map(|hook| {
            let Recipient::Mail(mail) = &hook.recipient else {
                panic!("mail")
            };
            assert!(["mail", "ops"].contains(&&*hook.name), "{}", hook.name);
            (mail.to.address.clone(), hook.id.to_string())
        });
        queues.collect::<Vec<_>>()
    };
    for name in ["", "name: ops, "] {
        let before = mail(name, "x@b.test, y@b.test, X <x@b.test>");
        assert_eq!(before.len(), 2, "{before:?}");
        assert_ne!(before[0].1, before[1].1);
        let after = mail(name, "z@b.test, y@b.test");
        assert_eq!(after[1], before[1]);
    }
}
