//! Recipients of `events` that are read by people, and entries that may object.

use std::time::Duration;

use super::*;
use crate::config::model::{MailTls, Recipient, Service};

/// `KEY | what the message says | what is written`, as an entry of `events`.
const FAULTS: &str = r#"
events[0].slack.url | not a URL of http | on: ["*"], slack: { url: hooks.slack.com }
events[0].teams.url | a user or a password | on: ["*"], teams: { url: "https://u:p@a/" }
events[0].slack.ca_file | has no meaning for a URL of http | on: ["*"], slack: { url: "http://a/", ca_file: roots.pem }
events[0].telegram.token | not the token of a bot | on: ["*"], telegram: { token: abc, chat: "1" }
events[0].telegram.chat | is not a chat | on: ["*"], telegram: { token: "1:a", chat: ops }
events[0].telegram.url | not the URL of a server | on: ["*"], telegram: { token: "1:a", chat: "@ops", url: a }
events[0].ntfy.topic | not the name of a topic | on: ["*"], ntfy: { topic: "a/b" }
events[0].pagerduty.routing_key | not the key of an integration | on: ["*"], pagerduty: { routing_key: "a b" }
events[0].alertmanager.url | the path is added | on: ["*"], alertmanager: { url: "http://a:9093/api/v2/alerts" }
events[0].mail.server | not a server with its port | on: ["*"], mail: { server: localhost, from: a@b.test, to: [a@b.test] }
events[0].mail.from | not a mail address | on: ["*"], mail: { server: "a.test:25", from: nobody, to: [a@b.test] }
events[0].mail.to[0] | not a mail address | on: ["*"], mail: { server: "a.test:25", from: a@b.test, to: ["ü@b.test"] }
events[0].mail.password | 'password' has no meaning without 'user' | on: ["*"], mail: { server: "a.test:25", from: a@b.test, to: [a@b.test], password: x }
events[0].mail.tls | sent in clear | on: ["*"], mail: { server: "127.0.0.1:25", tls: off, from: a@b.test, to: [a@b.test], user: u, password: x }
events[0].mail.tls | only to a server on this machine | on: ["*"], mail: { server: "a.test:25", tls: off, from: a@b.test, to: [a@b.test] }
events[0] | exclude each other | on: ["*"], ntfy: { topic: a }, pagerduty: { routing_key: a }
events[0].veto | cannot object | on: [certificate_obtaining], veto: true, ntfy: { topic: a }
events[0].veto | and nothing else | on: ["*"], veto: true, exec: { command: [/a] }
events[0].veto | too long | on: [certificate_obtaining], veto: true, exec: { command: [/a], timeout: 2m }
events[0].veto | 'digest' has no meaning | on: [certificate_obtaining], veto: true, digest: 1s, exec: { command: [/a] }
"#;

#[test]
fn faults_of_recipients_are_found_each_alone() {
    for row in FAULTS.trim().lines() {
        let [key, words, fault] = row.splitn(3, '|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let found = errors(&format!("events: [{{ {fault} }}]\n{GOOD}"));
        let [error] = found.as_slice() else {
            panic!("{row}\n{found:#?}")
        };
        assert!(
            error.contains(&format!(": {key}: ")) && error.contains(words),
            "{row}\n{error}"
        );
        for secret in ["u:p", "hooks.slack.com"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
}

#[test]
fn recipients_are_read_with_their_defaults() {
    let text = format!(
        "events:\n\
         - {{ on: [\"*\"], mail: {{ server: \"[::1]:25\", from: \"Snigate Wächter <s@größe.test>\", to: [a@b.test] }} }}\n\
         - {{ on: [\"*\"], discord: {{ url: \"https://discord.com/api/webhooks/1/abc\" }} }}\n\
         - {{ on: [certificate_obtaining], veto: true, exec: {{ command: [/bin/true] }} }}\n{GOOD}"
    );
    let config = accept(&text).config;
    let [mail, discord] = config.events.as_slice() else {
        panic!("{:?}", config.events)
    };
    assert_eq!(mail.digest, Duration::from_secs(60));
    let Recipient::Mail(mail) = &mail.recipient else {
        panic!("{mail:?}")
    };
    assert_eq!(
        (&*mail.host, mail.port, mail.tls),
        ("::1", 25, MailTls::StartTls)
    );
    assert_eq!(mail.from.name.as_deref(), Some("Snigate Wächter"));
    assert_eq!(mail.from.address, "s@xn--gre-6ka8i.test");
    assert_eq!(discord.digest, Duration::from_secs(10));
    assert!(matches!(
        &discord.recipient,
        Recipient::Service(Service::Discord(_))
    ));
    assert!(!format!("{discord:?}").contains("abc"));
    let [veto] = config.vetoes.as_slice() else {
        panic!("{:?}", config.vetoes)
    };
    assert_eq!(&*veto.name, "exec");
}
