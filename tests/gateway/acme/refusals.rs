//! What CAs say to those who ask too often, or for what they may not have.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{RETRY, SECOND, config, fake_issuer, insist, press, wait_until_served};
use crate::support::{CaReply, FakeCa, Gateway, within};

/// Nobody is asked before the time that the CA gave, for any name.
#[test]
fn a_rate_limit_is_kept() {
    let fake = FakeCa::start(|ask| {
        (ask.kind == "order" && ask.number == 0).then(|| {
            CaReply::problem(429, "rateLimited", "too many new orders recently")
                .header("Retry-After", "8")
        })
    });
    let hosts = ["a.test", "b.test", "c.test"];
    let yaml = format!(
        "issuers:\n{}renewal: {{ check_every: 1s }}\n{}",
        super::issuer(
            "fake",
            &fake.directory(),
            fake.ca_file(),
            "limit: { orders: 1, per: 1s }"
        ),
        super::sites(&hosts)
    );
    let gateway = Gateway::builder().config(yaml).spawn();
    let limited = within(RETRY, "the first order", || {
        fake.asked("order").first().cloned()
    });
    let failed = gateway.wait_for_event("failed", |event| event.kind == "certificate_failed");
    assert!(
        failed.message.contains("too many new orders recently"),
        "{failed:?}"
    );
    assert!(failed.next.is_some(), "{failed:?}");
    for host in hosts {
        wait_until_served(&gateway, host, fake.root().certificate());
    }
    let asked = fake.asked("order");
    assert_eq!(asked.len(), 1 + hosts.len());
    for order in &asked[1..] {
        let after = order.at - limited.at;
        assert!(after >= SECOND * 8, "asked {after:?} after the limit");
    }
}

/// The internal limiter: no more orders than configured in any period.
#[test]
fn no_more_orders_are_begun_than_configured() {
    let fake = FakeCa::start(|_| None);
    let hosts: Vec<String> = (0..9).map(|n| format!("n{n}.test")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let yaml = format!(
        "issuers:\n{}renewal: {{ check_every: 1s }}\n{}",
        super::issuer(
            "fake",
            &fake.directory(),
            fake.ca_file(),
            "limit: { orders: 3, per: 3s }"
        ),
        super::sites(&hosts)
    );
    let gateway = Gateway::builder().config(yaml).spawn();
    for host in &hosts {
        wait_until_served(&gateway, host, fake.root().certificate());
    }
    let asked = fake.asked("order");
    assert_eq!(asked.len(), hosts.len());
    for window in asked.windows(4) {
        let span = window[3].at - window[0].at;
        // The requests arrive a little earlier or later than they were let go.
        assert!(
            span >= Duration::from_millis(2800),
            "four orders in {span:?}"
        );
    }
}

#[test]
fn a_paused_account_is_left_alone_until_somebody_acts() {
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let fake = FakeCa::start(move |ask| {
        (ask.kind == "order" && !opened.load(Ordering::SeqCst)).then(|| {
            let mut reply = CaReply::problem(
                429,
                "rateLimited",
                "Your account is temporarily prevented from requesting certificates for a.test and \
                 possibly others. Please visit: https://portal.ca.example/sfe/v1/unpause?jwt=abc",
            );
            reply = reply.header("Link", "<https://ca.example/docs/pause>;rel=\"help\"");
            reply
        })
    });
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    let failed = gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(failed.severity, "critical", "{failed:?}");
    let link = "https://portal.ca.example/sfe/v1/unpause?jwt=abc";
    assert!(
        failed.url.as_deref() == Some(link) || failed.message.contains(link),
        "{failed:?}"
    );
    // Time enough for another order, here and after the restart.
    thread::sleep(SECOND * 3);
    assert_eq!(fake.asked("order").len(), 1);
    gateway.restart_unready();
    gateway.wait_until_waiting_for("a.test");
    thread::sleep(SECOND * 2);
    assert_eq!(fake.asked("order").len(), 1, "nor after a restart");

    // Somebody has acted, and says so.
    open.store(true, Ordering::SeqCst);
    press(&gateway, "a.test");
    wait_until_served(&gateway, "a.test", fake.root().certificate());
}

#[test]
fn faults_of_the_ca_are_tried_again_soon() {
    for fault in [
        CaReply::problem(500, "serverInternal", "something broke"),
        CaReply {
            status: 502,
            headers: vec![("Content-Type".into(), "text/html".into())],
            body: "<html>bad gateway</html>".into(),
        },
        CaReply::problem(503, "serverInternal", "down for maintenance").header("Retry-After", "2"),
    ] {
        let answer = fault.clone();
        let fake = FakeCa::start(move |ask| {
            (ask.kind == "order" && ask.number == 0).then(|| answer.clone())
        });
        let gateway = Gateway::builder()
            .config(config(&fake_issuer(&fake), &["a.test"]))
            .spawn();
        let failed =
            gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
        let next = failed.next.expect("a next try");
        let until = next.duration_since(jiff::Timestamp::now()).as_secs();
        assert!(until <= 75, "{until} s: {failed:?}");
        insist(&gateway, "a.test", fake.root().certificate());
        assert_eq!(fake.asked("order").len(), 2);
    }
}

/// Whatever the CA writes ends up as text, not as lines of the log.
#[test]
fn what_a_ca_says_cannot_forge_the_log() {
    let fake = FakeCa::start(|ask| {
        let detail =
            "no\nERROR forged \u{1b}[31mred \u{202e}tset\u{200b}.a\u{2028}\u{2066}x\u{feff}";
        (ask.kind == "order").then(|| CaReply::problem(403, "rejectedIdentifier", detail))
    });
    let yaml = config(&fake_issuer(&fake), &["a.test"]).replace("format: json", "format: text");
    let gateway = Gateway::builder().config(yaml).spawn();
    gateway.wait_for_log("certificate_failed");
    let log = gateway.log();
    let is_odd = |char: char| matches!(u32::from(char), 0x200b..=0x202e | 0x2066 | 0xfeff);
    assert!(log.contains("forged") && !log.contains(is_odd), "{log:?}");
    assert!(
        !log.lines().any(|line| line.starts_with("ERROR forged")),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "no escape sequences");
}

/// A CA that answers with a flood is cut short.
#[test]
fn an_endless_answer_is_cut_short() {
    let fake = FakeCa::start(|ask| {
        (ask.kind == "order").then(|| CaReply {
            status: 201,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: "x".repeat(64 * 1024 * 1024).into(),
        })
    });
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&fake), &["a.test"]))
        .spawn();
    gateway.wait_for_event("failed", |event| event.is("certificate_failed", "a.test"));
    let memory = gateway.memory();
    assert!(memory < 120 * 1024 * 1024, "{} MiB", memory / 1024 / 1024);
}
