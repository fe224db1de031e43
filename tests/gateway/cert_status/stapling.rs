//! Responses of a real responder, as a real client sees them.

use std::sync::Arc;
use std::time::Duration;

use super::{authority, config, is_stapled, metric, own_signer, status, wait_until_stapled, with};
use crate::support::{
    Act, Ca, Gateway, OcspResponder, Origin, PATIENCE, Port, Says, responder_at, s_client,
    wait_for, within,
};

#[test]
fn a_good_response_is_stapled_where_the_client_asks_and_survives_a_restart() {
    let builder = Gateway::builder();
    let ca = authority();
    let mut responder = OcspResponder::new();
    let pair = with(&ca, "a.example", &[responder_at(&responder.url())]);
    let plain = ca.leaf(&["b.example"]).make();
    for (name, pair) in [("a", &pair), ("b", &plain)] {
        pair.write(&builder.dir().join("certs"), name);
    }
    responder.start(&ca, &own_signer(&ca), &[(&pair, Says::Good)], 60);
    let mut gateway = builder.config(config(&["a.example", "b.example"])).start();
    wait_until_stapled(&gateway, "a.example");
    for version in ["-tls1_3", "-tls1_2"] {
        let told = status(&gateway, "a.example", version);
        assert!(told.contains("OCSP Response Status: successful"), "{told}");
        assert!(told.contains("Cert Status: good"), "{version}: {told}");
        let other = status(&gateway, "b.example", version);
        assert!(other.contains("OCSP response: no response sent"), "{other}");
        let unasked = s_client(gateway.https, Some("a.example"), &[version]);
        assert!(!unasked.contains("OCSP Response Status"), "{unasked}");
    }
    wait_for("the metric", || {
        (metric(&gateway, "snigate_ocsp_staples{state=\"good\"}") as i64 == 1).then_some(())
    });
    assert!(metric(&gateway, "snigate_ocsp_first_next_update_seconds") > 1e9);
    let shown = gateway.ask("GET", "/api/v1/certificates/a.example").text();
    assert!(shown.contains("\"staple\""), "{shown}");
    let shown = gateway.ask("GET", "/api/v1/certificates/b.example").text();
    assert!(!shown.contains("\"staple\""), "{shown}");

    // The stored response serves a start whose responder is away.
    responder.stop();
    gateway.restart();
    wait_until_stapled(&gateway, "a.example");
    assert_eq!(metric(&gateway, "snigate_ocsp_requests_total") as i64, 0);
    // Without a responder to ask, or with stapling off, the certificate is served as before.
    gateway.replace_config(config(&["a.example", "b.example"]) + "revocation: { ocsp: false }\n");
    gateway.reload();
    wait_for("no response", || {
        (!is_stapled(&gateway, "a.example")).then_some(())
    });
    let told = status(&gateway, "a.example", "-tls1_3");
    assert!(told.contains("no response sent"), "{told}");
}

#[test]
fn only_the_issuer_and_its_delegate_are_believed() {
    let builder = Gateway::builder();
    let ca = authority();
    let certs = builder.dir().join("certs");
    let mut delegated = OcspResponder::new();
    let mut wrong = OcspResponder::new();
    let mut unfit = OcspResponder::new();
    let pairs: Vec<_> = [
        ("delegated.example", &delegated),
        ("wrong.example", &wrong),
        ("unfit.example", &unfit),
    ]
    .into_iter()
    .map(|(name, responder)| {
        let pair = with(&ca, name, &[responder_at(&responder.url())]);
        pair.write(&certs, name);
        pair
    })
    .collect();
    let signer = ca.leaf(&[]).purpose("OCSPSigning").make();
    delegated.start(&ca, &signer, &[(&pairs[0], Says::Good)], 60);
    let other = Ca::new("Other Root");
    let foreign = other.leaf(&[]).purpose("OCSPSigning").make();
    wrong.start(&ca, &foreign, &[(&pairs[1], Says::Good)], 60);
    // A server's certificate of the same authority may not sign responses.
    let server = ca.leaf(&["server.example"]).make();
    unfit.start(&ca, &server, &[(&pairs[2], Says::Good)], 60);
    let names = ["delegated.example", "wrong.example", "unfit.example"];
    let gateway = builder.config(config(&names)).start();
    wait_until_stapled(&gateway, "delegated.example");
    for name in ["wrong.example", "unfit.example"] {
        let told = gateway.wait_for_event("no response", |one| one.is("staple_failed", name));
        assert!(
            told.message.contains("not signed by the issuer"),
            "{told:?}"
        );
        assert_eq!(told.severity, "warning");
        assert!(!is_stapled(&gateway, name));
    }
    assert_eq!(gateway.count("staple_failed", "delegated.example"), 0);
}

#[test]
fn responders_that_do_not_help_harm_nobody() {
    let builder = Gateway::builder();
    let ca = authority();
    let certs = builder.dir().join("certs");
    let dead = Port::take();
    let slow = Origin::silent();
    let garbage = Origin::start(|_| vec![Act::respond(200, "no response at all")]);
    let endless = Origin::start(|_| vec![Act::respond(200, vec![0x30; 256 * 1024])]);
    let mut unknown = OcspResponder::new();
    let (dead_url, slow_url) = (
        format!("http://{}/", dead.address()),
        format!("http://{}/", slow.address()),
    );
    let garbage_url = format!("http://{}/", garbage.address());
    let endless_url = format!("http://{}/", endless.address());
    for (name, url) in [
        ("dead.example", &dead_url),
        ("slow.example", &slow_url),
        ("garbage.example", &garbage_url),
        ("endless.example", &endless_url),
        ("unknown.example", &unknown.url()),
    ] {
        with(&ca, name, &[responder_at(url)]).write(&certs, name);
    }
    unknown.start(&ca, &own_signer(&ca), &[], 60);
    let names = [
        "dead.example",
        "slow.example",
        "garbage.example",
        "endless.example",
        "unknown.example",
    ];
    let gateway = builder.config(config(&names)).start();
    for (name, words) in [
        ("dead.example", "onnection refused"),
        ("garbage.example", "not one of OCSP"),
        ("endless.example", "longer than 64 KiB"),
        ("unknown.example", "does not know the certificate"),
    ] {
        let told = gateway.wait_for_event("no response", |one| one.is("staple_failed", name));
        assert!(told.message.contains(words), "{told:?}");
        assert!(told.message.contains("clients get none"), "{told:?}");
    }
    for name in names {
        let told = status(&gateway, name, "-tls1_3");
        assert!(told.contains("no response sent"), "{name}: {told}");
        assert_eq!(
            gateway.count("staple_failed", name),
            usize::from(name != "slow.example")
        );
    }
    // Few things at a time, and less and less often.
    assert!(slow.connections() <= 4, "{}", slow.connections());
}

#[test]
fn a_response_is_never_sent_past_its_end_and_another_one_recovers() {
    let builder = Gateway::builder();
    let ca = authority();
    let tools = OcspResponder::new();
    let response = Arc::new(std::sync::Mutex::new(Vec::new()));
    let shown = Arc::clone(&response);
    let origin = Origin::start(move |_| {
        let body = shown.lock().expect("whole").clone();
        vec![Act::respond(200, body)]
    });
    let url = format!("http://{}/", origin.address());
    let pair = with(&ca, "a.example", &[responder_at(&url)]);
    pair.write(&builder.dir().join("certs"), "a");
    let respond = |minutes| tools.respond(&ca, &own_signer(&ca), &pair, Says::Good, minutes);
    *response.lock().expect("whole") = respond(1);
    let gateway = builder.config(config(&["a.example"])).start();
    wait_until_stapled(&gateway, "a.example");
    // The responder has no newer one: that becomes urgent.
    let told = gateway.wait_for_event("late", |one| one.is("staple_failed", "a.example"));
    assert_eq!(told.severity, "warning", "{told:?}");
    within(Duration::from_secs(90), "the end of the response", || {
        (!is_stapled(&gateway, "a.example")).then_some(())
    });
    let told = gateway.wait_for_event("gone", |one| {
        one.is("staple_failed", "a.example") && one.severity == "error"
    });
    assert!(told.message.contains("OCSP response"), "{told:?}");
    *response.lock().expect("whole") = respond(60);
    within(PATIENCE * 2, "another response", || {
        is_stapled(&gateway, "a.example").then_some(())
    });
    gateway.wait_for_event("recovered", |one| one.is("staple_recovered", "a.example"));
}
