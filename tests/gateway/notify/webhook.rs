//! `webhook`: requests of which none is lost, to servers in any mood.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use openssl::hash::MessageDigest;
use openssl::memcmp;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::*;
use crate::support::{Act, Port};

#[test]
fn a_receiver_that_fails_half_of_the_time_gets_everything() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        let status = match count.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => 503,
            _ => 204,
        };
        vec![Act::respond(status, "")]
    });
    let gateway = Gateway::start(config(&hook(&origin, "config_reloaded", "")));
    for _ in 0..5 {
        assert_eq!(gateway.reload().0, 200);
    }
    wait_for_deliveries(&gateway, "webhook", 5.0);
    let mut requests: HashMap<String, usize> = HashMap::new();
    for request in origin.requests() {
        let id = request.header("snigate-notification-id").expect("an id");
        assert_eq!(notification(&request)["id"], id);
        assert_eq!(entries(&request), [pair("config_reloaded", "happened")]);
        *requests.entry(id.to_owned()).or_default() += 1;
    }
    assert_eq!(requests.len(), 5, "{requests:?}");
    assert!(requests.values().all(|count| *count == 2), "{requests:?}");
    assert_eq!(attempts(&gateway, "webhook", "failed"), 5.0);
    wait_for("an empty queue", || {
        (waiting(&gateway, "webhook") == 0.0).then_some(())
    });
}

#[test]
fn a_receiver_that_hangs_delays_no_other_and_is_tried_again() {
    let slow = Origin::silent();
    let good = Origin::start(|_| vec![Act::respond(200, "")]);
    let address = slow.address();
    let events = format!(
        "- {{ name: slow, on: [config_reloaded], digest: 0s, webhook: {{ url: \"http://{address}/\", timeout: 1s }} }}\n{}",
        hook(&good, "config_reloaded", ", name: good")
    );
    let mut gateway = Gateway::start(config(&events));
    for _ in 0..3 {
        gateway.reload();
    }
    wait_for_deliveries(&gateway, "good", 3.0);
    gateway.wait_for_log("no response within 1s");
    let ids = slow.wait_for_requests(2);
    let ids: HashSet<_> = ids
        .iter()
        .filter_map(|request| request.header("snigate-notification-id"))
        .collect();
    assert_eq!(ids.len(), 1, "the same notification");
    assert!(gateway.stop().success());
}

#[test]
fn the_signature_covers_time_and_body() {
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let address = origin.address();
    let events = format!(
        "- {{ on: [config_reloaded], digest: 0s, webhook: {{ url: \"http://{address}/hook\", secret: hush-hush, \
         headers: {{ Authorization: Bearer t0ken }} }} }}"
    );
    let gateway = Gateway::start(config(&events));
    gateway.reload();
    let request = origin.wait_for_requests(1).remove(0);
    assert_eq!(request.line(), "POST /hook HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
    let field = request.header("snigate-signature").expect("a signature");
    let (time, code) = field.split_once(",v1=").expect("two parts");
    let time = time.strip_prefix("t=").expect("the time");
    let key = PKey::hmac(b"hush-hush").expect("a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
    signer.update(format!("{time}.").as_bytes()).expect("fed");
    signer.update(&request.body).expect("fed");
    let expected = signer.sign_to_vec().expect("a code");
    let expected: String = expected
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    assert!(memcmp::eq(code.as_bytes(), expected.as_bytes()), "{field}");
    let sent = notification(&request)["at"].as_i64().expect("a time");
    let signed: i64 = time.parse().expect("a time");
    assert!((sent..sent + 60).contains(&signed), "{sent} {signed}");
}

#[test]
fn a_refusal_for_good_is_given_up_and_retry_after_is_heeded() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |_| {
        let answer = match count.fetch_add(1, Ordering::Relaxed) {
            0 => "HTTP/1.1 410 Gone\r\nContent-Length: 7\r\n\r\nno hook",
            1 => "HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        vec![Act::send(answer)]
    });
    let gateway = Gateway::start(config(&hook(&origin, "config_reloaded", "")));
    gateway.reload();
    gateway.wait_for_log("notification given up");
    gateway.wait_for_log("responded with 410 Gone: no hook");
    assert_eq!(attempts(&gateway, "webhook", "given_up"), 1.0);
    gateway.reload();
    let start = std::time::Instant::now();
    wait_for_deliveries(&gateway, "webhook", 1.0);
    assert!(start.elapsed().as_secs_f64() > 2.5, "{:?}", start.elapsed());
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn each_recipient_gets_what_it_asks_for() {
    let origin = |_: &str| Origin::start(|_| vec![Act::respond(200, "")]);
    let (all, errors, sites) = (origin("all"), origin("errors"), origin("sites"));
    let events = [
        hook(&all, "\"*\"", ", name: all"),
        hook(&errors, "\"config_*\"", ", name: errors, severity: error"),
        hook(&sites, "\"*\"", ", name: sites, sites: [\"*.test\"]"),
    ];
    let mut gateway = Gateway::start(config(&events.concat()));
    gateway.reload();
    let good = config(&events.concat());
    gateway.replace_config(format!("{WRONG}events:\n{}", events.concat()));
    wait_for("a refusal", || (gateway.reload().0 == 400).then_some(()));
    wait_for_deliveries(&gateway, "errors", 1.0);
    gateway.replace_config(good);
    wait_for("a reload", || (gateway.reload().0 == 200).then_some(()));
    // It knows of the trouble, so it learns that it is over, whatever severity it asks for.
    wait_for_deliveries(&gateway, "errors", 2.0);
    let requests = errors.requests();
    assert_eq!(entries(&requests[0]), [pair("config_rejected", "happened")]);
    assert_eq!(
        entries(&requests[1]),
        [pair("config_reloaded", "recovered")]
    );
    assert_eq!(
        notification(&requests[0])["entries"][0]["trouble"],
        notification(&requests[1])["entries"][0]["trouble"]
    );
    let message = notification(&requests[0])["entries"][0]["message"].to_string();
    assert!(message.contains("did you mean 'upstream'?"), "{message}");
    assert!(message.contains("snigate.yaml:"), "{message}");
    wait_for_deliveries(&gateway, "all", 2.0);
    assert_eq!(
        entries(&all.requests()[0]),
        [pair("config_reloaded", "happened")]
    );
    assert_eq!(sites.requests(), [], "nothing concerned a name");
}

#[test]
fn a_reload_loses_nothing_of_a_recipient_that_stays() {
    let port = Port::take();
    let address = port.address();
    let entry = |more: &str| {
        format!(
            "- {{ on: [config_reloaded], digest: 0s, webhook: {{ url: \"http://{address}/hook\" }}{more} }}\n"
        )
    };
    let mut gateway = Gateway::start(config(&entry("")));
    gateway.reload();
    wait_for("an attempt", || {
        (attempts(&gateway, "webhook", "failed") >= 1.0).then_some(())
    });
    // Another one before it, and other terms for the one that stays.
    let other = "- { on: [storage_failed], exec: { command: [/bin/true] } }\n";
    gateway.replace_config(config(&format!(
        "{other}{}",
        entry(", severity: info, repeat: off")
    )));
    gateway.reload();
    wait_for("two events", || {
        (waiting(&gateway, "webhook") >= 2.0).then_some(())
    });
    let origin = Origin::start_at(address, |_| vec![Act::respond(200, "")]);
    wait_for_deliveries(&gateway, "webhook", 2.0);
    let requests = origin.requests();
    let first = notification(&requests[0])["at"].as_i64();
    let second = notification(&requests[1])["at"].as_i64();
    assert!(first <= second);
    // One that is gone is forgotten.
    gateway.replace_config(config(other));
    gateway.reload();
    wait_for("the end of its metrics", || {
        let metrics = gateway.ask("GET", "/metrics").text();
        (!metrics.contains("hook=\"webhook\"")).then_some(())
    });
}

#[test]
fn a_test_notification_goes_through_every_recipient() {
    let origin = Origin::start(|_| vec![Act::respond(200, "")]);
    let refusing = Origin::start(|request| {
        let path = request.line().split(' ').nth(1).unwrap_or_default();
        vec![Act::respond(403, format!("{path} is no hook"))]
    });
    let address = refusing.address();
    let events = format!(
        "{}- {{ name: chat, on: [\"*\"], webhook: {{ url: \"http://{address}/services/T0secret\" }} }}\n",
        hook(&origin, "storage_failed", ", name: ops")
    );
    let gateway = Gateway::start(config(&events));
    let admin = gateway.admin.to_string();
    let test = |more: &[&str]| {
        let arguments = [&["events", "test", "--admin", &admin], more].concat();
        snigate(&arguments)
    };
    let printed = test(&["--name", "ops"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("ops  delivered"), "{printed:?}");
    let requests = origin.requests();
    assert_eq!(
        entries(&requests[0]),
        [pair("notification_test", "happened")]
    );
    let printed = test(&[]);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert!(printed.stdout.contains("403"), "{printed:?}");
    assert!(printed.stderr.contains("1 of 2"), "{printed:?}");
    let printed = test(&["--name", "nobody"]);
    assert_eq!(printed.code, Some(1));
    assert!(printed.stderr.contains("nobody"), "{printed:?}");
    // A real one is refused as well, and waits. Nothing shows the path, which is all that the chat
    // asks for.
    gateway.reload();
    gateway.wait_for_log("notification not delivered");
    for text in [gateway.log(), test(&[]).stdout, test(&["--json"]).stdout] {
        assert!(!text.contains("T0secret"), "{text}");
    }
}

#[test]
fn what_a_receiver_sends_back_of_the_request_is_not_shown() {
    let origin = Origin::start(|request| {
        let field = request.header("authorization").unwrap_or_default();
        let signature = "signed with s1gning-key";
        let long = "x".repeat(170);
        vec![Act::respond(
            400,
            format!("{}: {field}: {signature} {long} {field}", request.line()),
        )]
    });
    let address = origin.address();
    let events = format!(
        "- {{ on: [config_reloaded], digest: 0s, webhook: {{ url: \"http://{address}/hook/of-secrets\", \
         secret: s1gning-key, headers: {{ Authorization: Bearer t0ken-of-ops }} }} }}"
    );
    let gateway = Gateway::start(config(&events));
    gateway.reload();
    gateway.wait_for_log("notification given up");
    let log = gateway.log();
    assert!(log.contains("responded with 400"), "{log}");
    for secret in ["t0ken", "s1gning", "of-secrets"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn a_receiver_that_asks_for_days_is_tried_again_nevertheless() {
    let origin = Origin::start(|_| {
        vec![Act::send(
            "HTTP/1.1 503 Busy\r\nRetry-After: 9999999\r\nContent-Length: 0\r\n\r\n",
        )]
    });
    let gateway = Gateway::start(config(&hook(&origin, "config_reloaded", "")));
    gateway.reload();
    wait_for("an attempt", || {
        (attempts(&gateway, "webhook", "failed") >= 1.0).then_some(())
    });
    gateway.wait_for_log("next_in=3600s");
    assert_eq!(attempts(&gateway, "webhook", "given_up"), 0.0);
    assert_eq!(waiting(&gateway, "webhook"), 1.0);
}
