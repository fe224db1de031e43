//! `snigate certs check`: a trial without an order.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{config, issuer};
use crate::support::{
    Ask, FakeCa, Features, Gateway, NameServer, Port, Printed, snigate, wait_for,
};

/// A gateway with one CA that goes by CAA records for `ca.test`, and the name server it asks.
struct Fixture {
    issuers: String,
    ca: FakeCa,
    dns: NameServer,
    gateway: Gateway,
    _port: Port,
}

impl Fixture {
    fn start() -> Self {
        let features = Features {
            meta: json!({ "caaIdentities": ["ca.test"] }),
            ..Features::default()
        };
        let ca = FakeCa::start_with(features, |_| None);
        let port = Port::take();
        let dns = NameServer::start(port.address());
        let more = format!("resolvers: ['{}']", port.address());
        let issuers = issuer("fake", &ca.directory(), ca.ca_file(), &more);
        let gateway = Gateway::builder()
            .config(config(&issuers, &["a.test"]))
            .start();
        Self {
            issuers,
            ca,
            dns,
            gateway,
            _port: port,
        }
    }

    fn check(&self, name: &str, http: SocketAddr, https: SocketAddr) -> (Printed, Value) {
        let printed = snigate(&[
            "certs",
            "check",
            name,
            "--json",
            "--http-port",
            &http.port().to_string(),
            "--https-port",
            &https.port().to_string(),
            "--admin",
            &self.gateway.admin.to_string(),
        ]);
        let view = serde_json::from_str(&printed.stdout).unwrap_or_default();
        (printed, view)
    }
}

/// The verdict and message of one finding of the only issuer.
fn finding(view: &Value, about: &str) -> (String, String) {
    let findings = view["issuers"][0]["findings"].as_array();
    let findings = findings.unwrap_or_else(|| panic!("no findings: {view}"));
    let found = findings.iter().find(|finding| finding["about"] == about);
    let found = found.unwrap_or_else(|| panic!("nothing about {about}: {view}"));
    let text = |key: &str| found[key].as_str().expect("a text").to_owned();
    (text("verdict"), text("message"))
}

#[test]
fn a_trial_tells_what_would_come_of_an_order_and_makes_none() {
    let fixture = Fixture::start();
    let (http, https) = (fixture.gateway.http, fixture.gateway.https);
    let before = fixture.ca.asked("order").len();
    let (printed, view) = fixture.check("new.test", http, https);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(view["would_issue"], true, "{view}");
    for about in ["directory", "limits", "caa", "http-01", "tls-alpn-01"] {
        assert_eq!(finding(&view, about).0, "good", "{view}");
    }
    assert_eq!(fixture.ca.asked("order").len(), before);

    // Another server answers where the name points.
    let other = Port::take();
    let (printed, view) = fixture.check("new.test", other.address(), https);
    assert_eq!(printed.code, Some(0), "one type is enough: {printed:?}");
    let (verdict, message) = finding(&view, "http-01");
    assert_eq!(verdict, "bad");
    assert!(message.contains(&other.address().to_string()), "{message}");
    let (printed, view) = fixture.check("new.test", other.address(), http);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    assert_eq!(view["would_issue"], false, "{view}");
    assert!(printed.stderr.contains("would get no certificate"));

    // For people it is a table.
    let admin = fixture.gateway.admin.to_string();
    let port = https.port().to_string();
    let shown = snigate(&[
        "certs",
        "check",
        "new.test",
        "--https-port",
        &port,
        "--admin",
        &admin,
    ]);
    assert!(shown.stdout.contains("tls-alpn-01"), "{shown:?}");
}

#[test]
fn a_caa_record_that_forbids_the_ca_is_explained_before_it_is_asked() {
    let mut fixture = Fixture::start();
    fixture.dns.forbid("denied.test", "other-ca.test");
    let (http, https) = (fixture.gateway.http, fixture.gateway.https);
    let (printed, view) = fixture.check("www.denied.test", http, https);
    assert_eq!(printed.code, Some(1), "{printed:?}");
    let (verdict, message) = finding(&view, "caa");
    assert_eq!(verdict, "bad", "{view}");
    assert!(
        message.contains("denied.test") && message.contains("other-ca.test"),
        "{message}"
    );

    let yaml = config(&fixture.issuers, &["a.test", "www.denied.test"]);
    fixture.gateway.replace_config(yaml);
    fixture.gateway.reload();
    let reason = wait_for("the order to be refused", || {
        let reason = fixture.gateway.wait_until_waiting_for("www.denied.test");
        reason.contains("CAA").then_some(reason)
    });
    assert!(reason.contains("other-ca.test"), "{reason}");
    let ordered = |ask: &Ask| ask.names.contains(&"www.denied.test".to_owned());
    assert!(!fixture.ca.asked("order").iter().any(ordered));
}

#[test]
fn caa_records_are_gone_by_in_all_that_they_say() {
    let mut fixture = Fixture::start();
    // The account that the first order has made, and one way alone, which is not the first.
    let account = fixture.ca.url("/account/0");
    let bound = format!("ca.test; accounturi={account}; validationmethods=http-01");
    fixture.dns.forbid("bound.test", &bound);
    fixture
        .dns
        .forbid("other.test", "ca.test; accounturi=https://ca.test/acct/7");
    let (http, https) = (fixture.gateway.http, fixture.gateway.https);
    let (printed, view) = fixture.check("bound.test", http, https);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(finding(&view, "caa").0, "good", "{view}");
    let (_, view) = fixture.check("other.test", http, https);
    let (verdict, message) = finding(&view, "caa");
    assert_eq!(verdict, "bad", "{view}");
    assert!(message.contains(&account), "{message}");

    let yaml = config(&fixture.issuers, &["a.test", "bound.test"]);
    fixture.gateway.replace_config(yaml);
    fixture.gateway.reload();
    fixture.gateway.wait_until_ready();
    let asked = fixture.ca.asked("challenge").into_iter();
    let ways: Vec<String> = asked
        .filter(|ask| ask.names == ["bound.test"] && ask.payload.is_object())
        .map(|ask| ask.path)
        .collect();
    let [way] = &*ways else {
        panic!("asked {ways:?}");
    };
    assert!(way.ends_with("/0"), "by http-01, not {way}");
}
