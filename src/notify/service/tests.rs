//! What services get, held to what their documentation allows; and what their answers lead to.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::testing::{entry, hostile, notification, now, one, thousand};
use super::super::{DeliveryError, EntryState};
use super::*;
use crate::clock::SystemClock;
use crate::event::{EventKind, Severity};

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn webhook(url: &str) -> model::ServiceWebhook {
    model::ServiceWebhook {
        url: SecretUrl::new(&secret(url), url.parse().expect("a URL")),
        ca_file: None,
    }
}

fn telegram(url: &str) -> model::Service {
    model::Service::Telegram(model::Telegram {
        token: secret("123456:very-secret-token"),
        chat: "-1001234567890".to_owned(),
        url: Some(url.to_owned()),
        ca_file: None,
    })
}

fn pagerduty(url: &str) -> model::Service {
    model::Service::PagerDuty(model::PagerDuty {
        routing_key: secret("R0123456789ABCDEFGHIJ"),
        url: Some(url.to_owned()),
    })
}

fn alertmanager(url: &str) -> model::Service {
    model::Service::Alertmanager(model::Alertmanager {
        url: url.to_owned(),
        token: None,
        ca_file: None,
    })
}

fn ntfy(url: &str) -> model::Service {
    model::Service::Ntfy(model::Ntfy {
        topic: "alerts".to_owned(),
        token: Some(secret("tk_secret_token")),
        url: Some(url.to_owned()),
        ca_file: None,
    })
}

fn open(config: &model::Service) -> ServiceSender {
    ServiceSender::new(config, Arc::new(SystemClock)).expect("a sender")
}

fn bodies(config: &model::Service, notification: &Notification) -> Vec<Value> {
    let sender = open(config);
    sender.service.bodies(notification, now())
}

/// The only body.
fn body(config: &model::Service, notification: &Notification) -> Value {
    let mut bodies = bodies(config, notification);
    assert_eq!(bodies.len(), 1);
    bodies.remove(0)
}

/// One, a thousand, and a thousand that are as long and as odd as can be.
fn samples() -> [Notification; 3] {
    [one(), thousand(), hostile()]
}

fn members(value: &Value) -> HashSet<&str> {
    value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

fn text_at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{pointer}: {value}"))
}

fn count(text: &str) -> usize {
    text.chars().count()
}

#[test]
fn slack_gets_blocks_within_its_limits_that_call_nobody() {
    let config = model::Service::Slack(webhook("http://127.0.0.1/services/T0/B0/secret-path"));
    for sample in samples() {
        let body = body(&config, &sample);
        assert_eq!(members(&body), ["text", "blocks"].into());
        let blocks = body["blocks"].as_array().expect("blocks");
        assert!((2..=50).contains(&blocks.len()), "{}", blocks.len());
        let mut whole = 0;
        for (index, block) in blocks.iter().enumerate() {
            let text = text_at(block, "/text/text");
            whole += count(text);
            let (kind, most) = if index == 0 {
                assert_eq!(text_at(block, "/type"), "header");
                ("plain_text", 150)
            } else {
                assert_eq!(text_at(block, "/type"), "section");
                ("mrkdwn", 3000)
            };
            assert_eq!(text_at(block, "/text/type"), kind);
            assert!((1..=most).contains(&count(text)), "{text}");
        }
        assert!(whole <= 10_000, "{whole}: above 12,000 it is refused");
        let all = body.to_string();
        for call in ["<!channel>", "<@U1>", "<a", "http://evil|"] {
            assert!(!all.contains(call), "{call}");
        }
    }
    let shown = body(&config, &one()).to_string();
    assert!(
        shown.contains("the CA refuses; choose another CA"),
        "{shown}"
    );
}

#[test]
fn discord_gets_an_embed_within_its_limits_that_calls_nobody() {
    let config = model::Service::Discord(webhook("http://127.0.0.1/api/webhooks/1/secret"));
    for sample in samples() {
        let body = body(&config, &sample);
        assert_eq!(members(&body), ["embeds", "allowed_mentions"].into());
        assert_eq!(body["allowed_mentions"], serde_json::json!({ "parse": [] }));
        let embeds = body["embeds"].as_array().expect("embeds");
        assert_eq!(embeds.len(), 1);
        let (title, text) = (
            text_at(&embeds[0], "/title"),
            text_at(&embeds[0], "/description"),
        );
        assert!((1..=256).contains(&title.encode_utf16().count()), "{title}");
        assert!((1..=4096).contains(&text.encode_utf16().count()));
        assert!(title.encode_utf16().count() + text.encode_utf16().count() <= 6000);
        let color = embeds[0]["color"].as_u64().expect("a number");
        assert!(color <= 0xff_ffff);
        let time = text_at(&embeds[0], "/timestamp");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        // An escaped character is text.
        assert!(
            !text.contains(" *bold*") && !text.contains(" `x`"),
            "{text}"
        );
    }
}

#[test]
fn teams_gets_an_adaptive_card_within_its_limits() {
    let config = model::Service::Teams(webhook("http://127.0.0.1/workflows/x?sig=secret"));
    for sample in samples() {
        let body = body(&config, &sample);
        assert!(
            body.to_string().len() <= 28 * 1024,
            "{}",
            body.to_string().len()
        );
        assert_eq!(members(&body), ["type", "attachments"].into());
        assert_eq!(body["type"], "message");
        let attachments = body["attachments"].as_array().expect("attachments");
        let [attachment] = attachments.as_slice() else {
            panic!("{body}")
        };
        assert_eq!(
            members(attachment),
            ["contentType", "contentUrl", "content"].into()
        );
        assert_eq!(
            attachment["contentType"],
            "application/vnd.microsoft.card.adaptive"
        );
        let card = &attachment["content"];
        assert_eq!(card["type"], "AdaptiveCard");
        let version: f64 = text_at(card, "/version").parse().expect("a version");
        assert!(version <= 1.5, "Teams shows nothing newer");
        let blocks = card["body"].as_array().expect("blocks");
        for block in blocks {
            let known = ["type", "text", "size", "weight", "color", "wrap"];
            assert!(members(block).is_subset(&known.into()), "{block}");
            assert_eq!(block["type"], "TextBlock");
            assert_eq!(block["wrap"], true);
            assert!(!text_at(block, "/text").is_empty());
        }
        let colors = [
            "Default",
            "Dark",
            "Light",
            "Accent",
            "Good",
            "Warning",
            "Attention",
        ];
        assert!(colors.contains(&text_at(&blocks[0], "/color")));
    }
}

#[test]
fn telegram_gets_plain_text_within_its_limit() {
    for sample in samples() {
        let body = body(&telegram("http://127.0.0.1"), &sample);
        assert_eq!(body["chat_id"], -1_001_234_567_890_i64);
        let text = text_at(&body, "/text");
        assert!((1..=4096).contains(&text.encode_utf16().count()));
        assert!(body.get("parse_mode").is_none(), "nothing is markup");
        assert_eq!(body["link_preview_options"]["is_disabled"], true);
    }
    let mut channel = telegram("http://127.0.0.1/");
    if let model::Service::Telegram(telegram) = &mut channel {
        telegram.chat = "@alerts".to_owned();
    }
    assert_eq!(body(&channel, &one())["chat_id"], "@alerts");
    let url = open(&channel).service.url();
    assert_eq!(
        url,
        "http://127.0.0.1/bot123456:very-secret-token/sendMessage"
    );
}

#[test]
fn ntfy_gets_a_message_that_is_not_made_an_attachment() {
    for (sample, priority) in samples().into_iter().zip([5, 5, 4]) {
        let body = body(&ntfy("http://127.0.0.1"), &sample);
        let known = ["topic", "title", "message", "priority", "tags"];
        assert_eq!(members(&body), known.into());
        assert_eq!(body["topic"], "alerts");
        assert!((1..=4096).contains(&text_at(&body, "/message").len()));
        assert!((1..=250).contains(&text_at(&body, "/title").len()));
        assert_eq!(body["priority"], priority);
    }
}

#[test]
fn pagerduty_gets_an_alert_for_each_trouble_and_its_end_and_one_for_the_rest() {
    let config = pagerduty("http://127.0.0.1");
    for sample in samples() {
        let mut keys = HashSet::new();
        for event in bodies(&config, &sample) {
            assert!(event.to_string().len() <= 512 * 1024);
            assert_eq!(event["routing_key"], "R0123456789ABCDEFGHIJ");
            let key = text_at(&event, "/dedup_key");
            assert!((1..=255).contains(&count(key)), "{key}");
            assert!(keys.insert(key.to_owned()), "{key} is of two troubles");
            match text_at(&event, "/event_action") {
                "resolve" => assert_eq!(
                    members(&event),
                    ["routing_key", "event_action", "dedup_key"].into()
                ),
                "trigger" => {
                    let payload = &event["payload"];
                    assert!((1..=1024).contains(&count(text_at(payload, "/summary"))));
                    assert_eq!(text_at(payload, "/source"), "gw1.example.net");
                    let severity = text_at(payload, "/severity");
                    assert!(["critical", "error", "warning", "info"].contains(&severity));
                    let time = text_at(payload, "/timestamp");
                    assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
                    let known = [
                        "summary",
                        "source",
                        "severity",
                        "timestamp",
                        "component",
                        "class",
                        "custom_details",
                    ];
                    assert!(members(payload).is_subset(&known.into()), "{payload}");
                }
                other => panic!("{other}"),
            }
        }
    }
    let events = bodies(&config, &thousand());
    let of = |action: &str| {
        events
            .iter()
            .filter(|one| one["event_action"] == action)
            .count()
    };
    assert_eq!((of("trigger"), of("resolve")), (26, 10));
    let rest = events.last().expect("events");
    let summary = text_at(rest, "/payload/summary");
    assert!(
        summary.contains("75 certificate expired, 790 certificate failed"),
        "{summary}"
    );

    // The end of a trouble has the key of its beginning, whatever the event.
    let first = body(&config, &one());
    let mut over = one();
    over.entries[0].state = EntryState::Recovered;
    over.entries[0].event.kind = EventKind::CertificateRenewed;
    over.entries[0].event.at = now();
    assert_eq!(body(&config, &over)["dedup_key"], first["dedup_key"]);
}

#[test]
fn alertmanager_gets_all_alerts_at_once_and_the_end_of_those_that_are_over() {
    let config = alertmanager("http://127.0.0.1/prefix/");
    let url = open(&config).service.url();
    assert_eq!(url, "http://127.0.0.1/prefix/api/v2/alerts");
    let time = |alert: &Value, name: &str| {
        let text = alert[name].as_str().expect("a time");
        text.parse::<jiff::Timestamp>()
            .expect("RFC 3339")
            .as_second()
    };
    for sample in samples() {
        let body = body(&config, &sample);
        let mut seen = HashSet::new();
        for alert in body.as_array().expect("an array") {
            assert_eq!(
                members(alert),
                ["labels", "annotations", "startsAt", "endsAt"].into()
            );
            assert!(time(alert, "startsAt") <= time(alert, "endsAt"));
            let labels = alert["labels"].as_object().expect("labels");
            assert!(labels.contains_key("alertname"));
            for (name, value) in labels {
                let good = |char: char| char.is_ascii_alphanumeric() || char == '_';
                assert!(name.chars().all(good), "{name}");
                assert!(value.as_str().is_some_and(|value| !value.is_empty()));
            }
            assert!(seen.insert(alert["labels"].to_string()), "twice: {alert}");
        }
    }
    // The one that fires now, and which of its severities are over.
    let firing = |sample: &Notification| -> Vec<String> {
        let body = body(&config, sample);
        let alerts = body.as_array().expect("an array").iter();
        let firing = alerts.filter(|alert| time(alert, "endsAt") > now().as_secs());
        firing.map(|alert| alert["labels"].to_string()).collect()
    };
    let first = one();
    let [label] = &firing(&first)[..] else {
        panic!("{:?}", firing(&first))
    };
    assert!(label.contains("\"critical\""), "{label}");
    let mut over = first;
    over.entries[0].state = EntryState::Recovered;
    over.entries[0].event.severity = Severity::Info;
    over.entries[0].event.kind = EventKind::CertificateRenewed;
    assert_eq!(firing(&over), [""; 0]);
    let ended = body(&config, &over);
    let ended = ended.as_array().expect("an array");
    assert!(
        ended
            .iter()
            .map(|alert| alert["labels"].to_string())
            .any(|labels| labels == *label),
        "what fired has ended: {ended:?}"
    );
    // An end that names less than the beginning ends it all the same.
    let mut down = entry(EventKind::StorageFailed, Severity::Critical, "", "no room");
    down.trouble = Some("storage/".to_owned());
    down.event.domain = "a.example".to_owned();
    let alert = &body(&config, &notification(vec![down]))[0];
    assert!(alert["labels"].get("domain").is_none(), "{alert}");
}

/// A server that gives one answer after the other, and the requests that it has got.
fn server(answers: &'static [(&'static str, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    thread::spawn(move || {
        for (head, body) in answers {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(stream);
            let (mut request, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).expect("a line") <= 2 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a number");
                }
                request.push_str(&line);
            }
            let mut octets = vec![0; length];
            reader.read_exact(&mut octets).expect("a body");
            request.push_str(&String::from_utf8(octets).expect("UTF-8"));
            hears.lock_unpoisoned().push(request);
            let answer = format!(
                "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = reader.get_mut().write_all(answer.as_bytes());
        }
    });
    (url, heard)
}

async fn deliver(config: &model::Service, what: &Notification) -> Result<(), DeliveryError> {
    open(config).deliver(what).await
}

#[tokio::test]
async fn each_service_says_in_its_own_way_when_to_try_again() {
    let after = |seconds| Some(Retry::After(Duration::from_secs(seconds)));
    type Case = (
        fn(&str) -> model::Service,
        &'static [(&'static str, &'static str)],
        Option<Retry>,
        &'static str,
    );
    let slack = |url: &str| model::Service::Slack(webhook(&format!("{url}/services/secret-path")));
    let discord =
        |url: &str| model::Service::Discord(webhook(&format!("{url}/webhooks/hook-secret")));
    let teams =
        |url: &str| model::Service::Teams(webhook(&format!("{url}/workflows?sig=hook-secret")));
    let cases: Vec<Case> = vec![
        (slack, &[("200 OK", "ok")], None, ""),
        (
            slack,
            &[("429 Slow\r\nretry-after: 30", "")],
            after(30),
            "429",
        ),
        (
            slack,
            &[("403 No", "action_prohibited")],
            Some(Retry::Later),
            "action_prohibited",
        ),
        (
            slack,
            &[("404 No", "no_service secret-path")],
            Some(Retry::Later),
            "no_service [redacted]",
        ),
        (discord, &[("204 No Content", "")], None, ""),
        (
            discord,
            &[(
                "429 Slow\r\nretry-after: 9",
                r#"{"message":"limited","retry_after":2.4,"global":false}"#,
            )],
            after(3),
            "limited",
        ),
        (
            discord,
            &[("404 No", r#"{"message":"Unknown Webhook","code":10015}"#)],
            Some(Retry::Later),
            "Unknown Webhook",
        ),
        (teams, &[("202 Accepted", "")], None, ""),
        (
            teams,
            &[(
                "200 OK",
                "Webhook message delivery failed with error: HTTP error 429",
            )],
            Some(Retry::Later),
            "HTTP error 429",
        ),
        (
            teams,
            &[(
                "400 Bad",
                r#"{"error":{"code":"X","message":"the flow is off"}}"#,
            )],
            Some(Retry::Never),
            "the flow is off",
        ),
        (
            telegram,
            &[("200 OK", r#"{"ok":true,"result":{}}"#)],
            None,
            "",
        ),
        (
            telegram,
            &[(
                "429 Slow",
                r#"{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{"retry_after":35}}"#,
            )],
            after(35),
            "Too Many Requests",
        ),
        (
            telegram,
            &[(
                "400 Bad",
                r#"{"ok":false,"description":"upgraded","parameters":{"migrate_to_chat_id":-100987}}"#,
            )],
            Some(Retry::Later),
            "write 'chat: -100987'",
        ),
        (
            telegram,
            &[("401 No", r#"{"ok":false,"description":"Unauthorized"}"#)],
            Some(Retry::Later),
            "Unauthorized",
        ),
        (
            telegram,
            &[("200 OK", "<html>captive portal</html>")],
            Some(Retry::Later),
            "did not confirm",
        ),
        (ntfy, &[("200 OK", "{}")], None, ""),
        (
            ntfy,
            &[(
                "429 Slow",
                r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#,
            )],
            Some(Retry::Later),
            "limit reached",
        ),
        (
            ntfy,
            &[("403 No", r#"{"code":40301,"http":403,"error":"forbidden"}"#)],
            Some(Retry::Later),
            "forbidden",
        ),
        (
            pagerduty,
            &[("202 Accepted", r#"{"status":"success"}"#)],
            None,
            "",
        ),
        (
            pagerduty,
            &[(
                "400 Bad",
                r#"{"status":"invalid event","message":"Event object is invalid","errors":["R0123456789ABCDEFGHIJ is unknown"]}"#,
            )],
            Some(Retry::Never),
            "Event object is invalid; [redacted] is unknown",
        ),
        (
            pagerduty,
            &[("503 Busy", "<html>")],
            Some(Retry::Later),
            "503",
        ),
        (alertmanager, &[("200 OK", "")], None, ""),
        (
            alertmanager,
            &[("400 Bad", r#""start time must be before end time""#)],
            Some(Retry::Never),
            "start time",
        ),
    ];
    for (config, answers, expected, words) in cases {
        let (url, heard) = server(answers);
        let result = deliver(&config(&url), &one()).await;
        let request = heard.lock_unpoisoned().first().cloned().expect("a request");
        assert!(request.starts_with("POST "), "{request}");
        assert!(
            request
                .to_ascii_lowercase()
                .contains("content-type: application/json"),
            "{request}"
        );
        let retry = result.as_ref().err().map(|error| error.retry);
        assert_eq!(retry, expected, "{answers:?}: {result:?}");
        let shown = result.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(shown.contains(words), "{words}: {shown}");
        for secret in ["secret-path", "hook-secret", "very-secret", "R0123456789"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_second_attempt_makes_the_calls_that_were_not_made() {
    let (url, heard) = server(&[
        ("202 Accepted", ""),
        ("400 Bad", r#"{"message":"this one is wrong"}"#),
        ("429 Slow", ""),
        ("202 Accepted", ""),
        ("202 Accepted", ""),
    ]);
    let mut three = thousand();
    three.entries.truncate(4);
    let sender = open(&pagerduty(&url));
    let error = sender.deliver(&three).await.expect_err("too fast");
    assert_eq!(error.retry, Retry::Later);
    sender.deliver(&three).await.expect("delivered");
    let keys: Vec<String> = heard
        .lock_unpoisoned()
        .iter()
        .map(|request| {
            let body = request.split_once('{').expect("a body").1;
            let body: Value = serde_json::from_str(&format!("{{{body}")).expect("JSON");
            text_at(&body, "/dedup_key").to_owned()
        })
        .collect();
    assert_eq!(keys.len(), 5);
    assert_eq!(keys[2], keys[3], "the one that was too fast");
    let different: HashSet<_> = keys.iter().collect();
    assert_eq!(different.len(), 4, "none twice that was accepted: {keys:?}");
}

#[tokio::test]
async fn a_token_is_sent_and_a_server_that_is_away_is_tried_later() {
    let (url, heard) = server(&[("200 OK", "{}")]);
    deliver(&ntfy(&url), &one()).await.expect("delivered");
    let request = heard.lock_unpoisoned()[0].clone();
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    assert!(
        request.contains("authorization: Bearer tk_secret_token\r\n"),
        "{request}"
    );
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    let error = deliver(&telegram(&url), &one()).await.expect_err("away");
    assert_eq!(error.retry, Retry::Later);
    assert!(!error.to_string().contains("very-secret"), "{error}");
}

#[tokio::test]
async fn a_notification_of_which_a_part_was_taken_is_delivered_and_none_otherwise() {
    const GOOD: (&str, &str) = ("202 Accepted", "");
    const BAD: (&str, &str) = ("400 Bad", "no");
    let mut two = thousand();
    two.entries.truncate(2);
    let cases: [(&[_], bool); 3] = [
        (&[GOOD, BAD], true),
        (&[BAD, GOOD], true),
        (&[BAD, BAD], false),
    ];
    for (answers, is_delivered) in cases {
        let (url, _) = server(answers);
        let result = deliver(&pagerduty(&url), &two).await;
        assert_eq!(result.is_ok(), is_delivered, "{answers:?}");
    }
}

#[tokio::test]
async fn a_token_that_a_service_sends_back_is_not_shown_not_even_in_part() {
    let long = format!("{} tk_secret_token", "x".repeat(MAX_SAID - 8)).leak();
    let (url, _) = server(vec![("403 No", &*long)].leak());
    let error = deliver(&ntfy(&url), &one()).await.expect_err("refused");
    assert!(!error.to_string().contains("tk_s"), "{error}");
}

#[test]
fn what_is_no_trouble_raises_no_alert() {
    let mut renewed = entry(
        EventKind::CertificateRenewed,
        Severity::Info,
        "a.test",
        "done",
    );
    renewed.trouble = None;
    let sent = bodies(&pagerduty("http://127.0.0.1"), &notification(vec![renewed]));
    assert_eq!(sent, [Value::Null; 0]);
}

#[test]
fn a_test_leaves_no_alert_open() {
    let mut test = entry(EventKind::NotificationTest, Severity::Info, "", "a test");
    test.trouble = None;
    let sent = bodies(&pagerduty("http://127.0.0.1"), &notification(vec![test]));
    assert_eq!(sent.len(), 2);
    assert_eq!(text_at(&sent[0], "/event_action"), "trigger");
    assert_eq!(text_at(&sent[1], "/event_action"), "resolve");
    assert_eq!(sent[0]["dedup_key"], sent[1]["dedup_key"]);
}
