//! Renewals by the advice of the CA (RFC 9773), with a scripted one.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use jiff::{Timestamp, ToSpan};
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::{Value, json};

use super::{RETRY, SECOND, config, fake_issuer, serial, wait_until_served};
use crate::support::{Acme2Certifier, Ask, Builder, CaReply, FakeCa, Features, Gateway, within};

/// What the CA says of a certificate, as it is known there.
type Say = dyn Fn(&str) -> CaReply + Send + Sync;

/// A CA that gives advice: `say` on each certificate, and `refuse` where an order is to replace one.
fn advising(
    say: impl Fn(&str) -> CaReply + Send + Sync + 'static,
    refuse: impl Fn(&Ask) -> Option<CaReply> + Send + Sync + 'static,
) -> FakeCa {
    let features = Features {
        directory: json!({ "renewalInfo": "/ari" }),
        ..Features::default()
    };
    let say: Box<Say> = Box::new(say);
    FakeCa::start_with(features, move |ask| match ask.kind.as_str() {
        "ari" => Some(say(ask.path.trim_start_matches("/ari/"))),
        "order" if ask.payload.get("replaces").is_some() => refuse(ask),
        _ => None,
    })
}

/// An answer with a window from and to so many seconds from now.
fn window(from: i64, to: i64) -> Value {
    let at = |seconds: i64| (Timestamp::now() + seconds.seconds()).to_string();
    json!({ "suggestedWindow": { "start": at(from), "end": at(to) } })
}

fn reply(body: &Value, retry_after: u32) -> CaReply {
    CaReply::json(200, body).header("Retry-After", &retry_after.to_string())
}

/// The ids that the CA was asked about.
fn asked_about(ca: &FakeCa) -> Vec<String> {
    let asked = ca.asked("ari").into_iter();
    asked
        .map(|ask| ask.path.trim_start_matches("/ari/").to_owned())
        .collect()
}

/// What each order was said to replace.
fn replaced(ca: &FakeCa) -> Vec<Option<String>> {
    let orders = ca.asked("order").into_iter();
    orders
        .map(|order| order.payload["replaces"].as_str().map(str::to_owned))
        .collect()
}

#[track_caller]
fn wait_until_renewed(gateway: &Gateway, times: usize) {
    within(RETRY, "a renewal", || {
        assert!(gateway.is_running(), "the gateway has ended");
        (gateway.count("certificate_renewed", "a.test") >= times).then_some(())
    });
}

fn view(gateway: &Gateway) -> Value {
    let answer = gateway.ask("GET", "/api/v1/certificates/a.test");
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().expect("a time");
    text.parse().expect("a time")
}

/// The certificate lives for months; the CA wants it replaced in seconds.
#[test]
fn a_renewal_comes_in_the_window_and_says_what_it_replaces() {
    let first: Arc<Mutex<Option<Value>>> = Arc::default();
    let said = Arc::clone(&first);
    let ca = advising(
        move |_| {
            // The window stays, and then that of the next certificate is far off.
            let mut said = said.lock().expect("whole");
            match &*said {
                None => {
                    let body = window(4, 9);
                    *said = Some(body.clone());
                    reply(&body, 21_600)
                }
                Some(_) => reply(&window(5_000_000, 6_000_000), 21_600),
            }
        },
        |_| None,
    );
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&ca), &["a.test"]))
        .spawn();
    let old = wait_until_served(&gateway, "a.test", ca.root().certificate());
    gateway.wait_until_ready();
    let advice = within(SECOND * 4, "the advice to be shown", || {
        let advice = view(&gateway)["renewal"]["advice"].take();
        advice.is_object().then_some(advice)
    });
    let said = first.lock().expect("whole").clone().expect("asked");
    let (start, end) = (time(&advice["start"]), time(&advice["end"]));
    assert_eq!(
        start.as_second(),
        time(&said["suggestedWindow"]["start"]).as_second()
    );
    let drawn = time(&advice["drawn"]);
    assert!(start <= drawn && drawn <= end, "{advice}");
    assert_eq!(time(&view(&gateway)["renewal"]["next"]), drawn);

    wait_until_renewed(&gateway, 1);
    let renewed = gateway.wait_for_event("begun", |event| event.message.contains("CA advises"));
    assert!(renewed.is("certificate_obtaining", "a.test"), "{renewed:?}");
    assert!(Timestamp::now() >= drawn);
    let order = &ca.asked("order")[1];
    let new = wait_until_served(&gateway, "a.test", ca.root().certificate());
    assert_ne!(serial(&new), serial(&old));
    let ids = within(RETRY, "the CA to be asked about the new one", || {
        let ids = asked_about(&ca);
        (ids.len() >= 2).then_some(ids)
    });
    assert_eq!(order.payload["replaces"], json!(ids[0]));
    assert_ne!(ids[0], ids[1], "each has advice of its own");
    // Section 4.1: the key that signed it, and the number.
    let number = old.serial_number().to_bn().expect("a number").to_vec();
    let signer = old
        .authority_key_id()
        .expect("it has one")
        .as_slice()
        .to_vec();
    let id: Vec<Vec<u8>> = ids[0].split('.').map(unbase64).collect();
    assert_eq!(id[0], signer);
    assert_eq!(
        id[1]
            .iter()
            .skip_while(|byte| **byte == 0)
            .copied()
            .collect::<Vec<_>>(),
        number
    );
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
}

fn unbase64(base64url: &str) -> Vec<u8> {
    let mut text = base64url.replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    openssl::base64::decode_block(&text).expect("base64url")
}

/// Whatever a CA has against an order that replaces another, it gets one that does not.
#[test]
fn an_order_that_is_refused_for_what_it_replaces_is_made_without() {
    let refusals = [
        CaReply::problem(409, "alreadyReplaced", "another order has replaced it"),
        CaReply::problem(400, "malformed", "no such certificate"),
        CaReply::problem(404, "malformed", "not found"),
        CaReply::problem(500, "serverInternal", "cannot look that up"),
        CaReply::problem(503, "serverInternal", "not now").header("Retry-After", "3600"),
    ];
    for refusal in refusals {
        let (status, answer) = (refusal.status, refusal.clone());
        let ca = advising(
            |_| reply(&window(-20, -10), 21_600),
            move |_| Some(answer.clone()),
        );
        let gateway = Gateway::builder()
            .config(config(&fake_issuer(&ca), &["a.test"]))
            .spawn();
        wait_until_renewed(&gateway, 1);
        let replaced = replaced(&ca);
        assert_eq!(replaced.len(), 3, "{status}: {replaced:?}");
        assert!(replaced[1].is_some() && replaced[2].is_none(), "{status}");
        assert_eq!(gateway.count("certificate_failed", "a.test"), 0, "{status}");
    }
}

/// A limit is none of them: asking once more at once would be rude.
#[test]
fn a_limit_on_an_order_that_replaces_is_kept() {
    let ca = advising(
        |_| reply(&window(-20, -10), 21_600),
        |_| {
            let problem = CaReply::problem(429, "rateLimited", "too many new orders");
            Some(problem.header("Retry-After", "3600"))
        },
    );
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&ca), &["a.test"]))
        .spawn();
    gateway.wait_for_event("limit", |event| event.is("certificate_failed", "a.test"));
    assert_eq!(replaced(&ca).len(), 2);
}

/// A certificate that is to be revoked is replaced at once, people are told why, and a CA that goes
/// on to say so is not asked for one certificate after another, not even by the next process.
#[test]
fn a_ca_that_always_says_now_is_obeyed_once() {
    let page = "https://ca.example/incident";
    let ca = advising(
        |_| {
            let mut body = window(-20, -10);
            body["explanationURL"] = json!("https://ca.example/incident");
            reply(&body, 1)
        },
        |_| None,
    );
    let mut gateway = Gateway::builder()
        .config(config(&fake_issuer(&ca), &["a.test"]))
        .spawn();
    wait_until_renewed(&gateway, 1);
    let told = gateway.wait_for_event("the page", |event| {
        event.is("certificate_renewal_advised", "a.test")
    });
    assert_eq!(told.url.as_deref(), Some(page), "{told:?}");
    assert_eq!(told.level, "WARN", "{told:?}");
    within(RETRY, "the CA to be asked about the new one", || {
        (asked_about(&ca).len() >= 2).then_some(())
    });
    // What comes of the answer comes at once.
    thread::sleep(SECOND * 2);
    gateway.restart();
    thread::sleep(SECOND * 2);
    assert_eq!(ca.asked("order").len(), 2);
    assert_eq!(asked_about(&ca).len(), 2, "not before a minute is over");
    let next = time(&view(&gateway)["renewal"]["next"]);
    let hours = next.duration_since(Timestamp::now()).as_hours();
    assert!((20..24).contains(&hours), "in {hours} h");
}

/// What a CA says first may change; it is asked again when it wants to be.
#[test]
fn the_ca_is_asked_again_when_it_says() {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let ca = advising(
        move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => reply(&window(5_000_000, 6_000_000), 62),
            1 => reply(&window(-20, -10), 21_600),
            _ => reply(&window(5_000_000, 6_000_000), 21_600),
        },
        |_| None,
    );
    let gateway = Gateway::builder()
        .config(config(&fake_issuer(&ca), &["a.test"]))
        .spawn();
    wait_until_renewed(&gateway, 1);
    let asked = ca.asked("ari");
    let pause = asked[1].at - asked[0].at;
    assert!(pause >= SECOND * 62 && pause < SECOND * 75, "{pause:?}");
    assert_eq!(gateway.count("certificate_renewal_advised", "a.test"), 1);
}

/// Whatever goes wrong with the advice, the certificate is served and nothing fails.
#[test]
fn wrong_advice_changes_nothing() {
    let answers = [
        CaReply::problem(404, "malformed", "no such certificate"),
        CaReply::problem(503, "serverInternal", "down").header("Retry-After", "60"),
        CaReply::json(200, &window(10, -10)),
        CaReply::json(
            200,
            &json!({ "suggestedWindow": { "start": "soon", "end": "later" } }),
        ),
        CaReply {
            status: 200,
            headers: vec![("Content-Type".into(), "text/html".into())],
            body: "<html>".into(),
        },
    ];
    for answer in answers {
        let shown = format!("{answer:?}");
        let ca = advising(move |_| answer.clone(), |_| None);
        let mut gateway = Gateway::builder()
            .config(config(&fake_issuer(&ca), &["a.test"]))
            .start();
        wait_until_served(&gateway, "a.test", ca.root().certificate());
        gateway.wait_for_log("cannot get renewal advice from the CA");
        assert_eq!(view(&gateway)["renewal"]["advice"], Value::Null, "{shown}");
        gateway.restart();
        // Time enough for another question.
        thread::sleep(SECOND);
        assert_eq!(asked_about(&ca).len(), 1, "{shown}");
        assert_eq!(ca.asked("order").len(), 1, "{shown}");
        assert_eq!(gateway.count("certificate_failed", "a.test"), 0, "{shown}");
    }
}

#[test]
fn it_can_be_switched_off() {
    let ca = advising(|_| reply(&window(-20, -10), 1), |_| None);
    let yaml = config(&fake_issuer(&ca), &["a.test"])
        .replace("check_every: 1s", "check_every: 1s, ari: false");
    let gateway = Gateway::builder().config(yaml).start();
    super::press(&gateway, "a.test");
    wait_until_renewed(&gateway, 1);
    assert_eq!(replaced(&ca), [None, None]);
    assert_eq!(asked_about(&ca), Vec::<String>::new());
}

/// A gateway that keeps its data there.
fn sharing(builder: Builder, data: &Path, yaml: &str) -> Gateway {
    let text = format!("{yaml}storage: {{ file: {{ path: {data:?} }} }}\n");
    builder.config(text).spawn()
}

/// Two gateways on one storage: one asks, one renews, both serve what it got.
#[test]
fn two_gateways_ask_once_and_renew_once() {
    let shared = tempfile::tempdir().expect("a directory");
    let data = shared.path().join("data");
    let numbers = AtomicUsize::new(0);
    let ca = advising(
        move |_| match numbers.fetch_add(1, Ordering::SeqCst) {
            0 => reply(&window(10, 14), 21_600),
            _ => reply(&window(5_000_000, 6_000_000), 21_600),
        },
        |_| None,
    );
    let yaml = config(&fake_issuer(&ca), &["a.test"]);
    let one = sharing(Gateway::builder(), &data, &yaml);
    let two = sharing(Gateway::builder(), &data, &yaml);
    let root = ca.root().certificate();
    let old = serial(&wait_until_served(&one, "a.test", root));
    assert_eq!(serial(&wait_until_served(&two, "a.test", root)), old);
    let advice = |gateway: &Gateway| view(gateway)["renewal"]["advice"].take();
    within(RETRY, "the same advice at both", || {
        let (one, two) = (advice(&one), advice(&two));
        (one.is_object() && one == two).then_some(())
    });
    assert_eq!(asked_about(&ca).len(), 1, "one of them asks");

    let new = within(RETRY, "a renewal at both", || {
        let one = serial(&super::presented(&one, "a.test"));
        let two = serial(&super::presented(&two, "a.test"));
        (one == two && one != old).then_some(one)
    });
    assert_ne!(new, old);
    assert_eq!(ca.asked("order").len(), 2, "one of them renews");
    within(RETRY, "the same advice at both", || {
        let (one, two) = (advice(&one), advice(&two));
        (one.is_object() && one == two).then_some(())
    });
    assert_eq!(asked_about(&ca).len(), 2, "and one asks about the new one");
}

/// As the API writes it.
fn fingerprint(certificate: &X509) -> String {
    let digest = certificate
        .digest(MessageDigest::sha256())
        .expect("a digest");
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A real peer. It takes orders that replace a certificate and does not say so: such an order is
/// gone on with, and no other is made.
#[test]
fn acme2certifier_is_obeyed() {
    let ca = Acme2Certifier::start();
    let issuer = super::issuer(
        "peer",
        &ca.directory(),
        ca.ca_file(),
        "email: ops@example.com",
    );
    let gateway = Gateway::builder()
        .config(config(&issuer, &["a.test"]))
        .spawn();
    let old = wait_until_served(&gateway, "a.test", ca.root());
    let (about, advice) = within(RETRY, "the advice to be shown", || {
        let mut view = view(&gateway);
        let advice = view["renewal"]["advice"].take();
        advice
            .is_object()
            .then(|| (view["fingerprint"].take(), advice))
    });
    let drawn = time(&advice["drawn"]);
    assert!(
        time(&advice["start"]) <= drawn && drawn <= time(&advice["end"]),
        "{advice}"
    );
    wait_until_renewed(&gateway, 1);
    // The window begins soon: on a slow machine the advice may be that on the next certificate.
    assert!(about != fingerprint(&old) || Timestamp::now() >= drawn);
    let new = wait_until_served(&gateway, "a.test", ca.root());
    assert_ne!(serial(&new), serial(&old));
    assert_eq!(gateway.count("certificate_failed", "a.test"), 0);
    let log = ca.log();
    let orders = log.matches("POST /acme/neworders").count();
    assert_eq!(orders, 2, "{log}");
}
