//! Certificates that require an OCSP response (RFC 7633).

use serde_json::Value;

use super::{authority, config, is_stapled, metric, own_signer, wait_until_stapled, with};
use crate::support::{
    Ca, Gateway, OcspResponder, Pair, Says, TlsClient, check, must_staple, responder_at, wait_for,
};

fn serial(pair: &Pair) -> String {
    hex(&pair.certificate)
}

fn hex(certificate: &openssl::x509::X509) -> String {
    let number = certificate.serial_number().to_bn().expect("a number");
    number.to_hex_str().expect("a text").to_string()
}

/// The serial number of what is served; `None` if the handshake is refused.
fn served(gateway: &Gateway, name: &str) -> Option<String> {
    let client = TlsClient::named(name).try_connect(gateway.https).ok()?;
    Some(hex(&client.certificate()))
}

/// What the API says of the certificate for `name`.
fn view(gateway: &Gateway, name: &str) -> Value {
    let view = gateway.ask("GET", &format!("/api/v1/certificates/{name}"));
    serde_json::from_slice(&view.body).expect("JSON")
}

fn strict(ca: &Ca, name: &str, responder: &OcspResponder) -> Pair {
    with(ca, name, &[responder_at(&responder.url()), must_staple()])
}

#[test]
fn it_is_served_only_with_a_response_and_from_the_first_moment_of_a_restart() {
    let builder = Gateway::builder();
    let ca = authority();
    let certs = builder.dir().join("certs");
    let mut responder = OcspResponder::new();
    let pair = strict(&ca, "a.example", &responder);
    pair.write(&certs, "a");
    // Another one for the same name is next best.
    let wildcard = ca.leaf(&["*.example"]).make();
    wildcard.write(&certs, "wildcard");
    let mut gateway = builder.config(config(&["a.example"])).start();
    assert_eq!(served(&gateway, "a.example"), Some(serial(&wildcard)));
    let told = gateway.wait_for_event("no response", |one| one.is("staple_failed", "a.example"));
    assert!(told.message.contains("Must-Staple"), "{told:?}");
    assert_eq!(told.severity, "error", "another one is served");
    responder.start(&ca, &own_signer(&ca), &[(&pair, Says::Good)], 60);
    wait_until_stapled(&gateway, "a.example");
    assert_eq!(served(&gateway, "a.example"), Some(serial(&pair)));
    gateway.wait_for_event("recovered", |one| one.is("staple_recovered", "a.example"));

    responder.stop();
    gateway.restart();
    assert_eq!(served(&gateway, "a.example"), Some(serial(&pair)));
    wait_until_stapled(&gateway, "a.example");
}

#[test]
fn its_successor_waits_for_a_response_while_it_is_served() {
    let builder = Gateway::builder();
    let ca = authority();
    let mut responder = OcspResponder::new();
    let first = strict(&ca, "a.example", &responder);
    first.write(&builder.dir().join("certs"), "a");
    responder.start(&ca, &own_signer(&ca), &[(&first, Says::Good)], 60);
    let gateway = builder.config(config(&["a.example"])).start();
    wait_for("the first", || served(&gateway, "a.example"));
    wait_until_stapled(&gateway, "a.example");

    // The responder does not know it yet.
    let second = strict(&ca, "a.example", &responder);
    second.write(&gateway.dir().join("certs"), "a");
    gateway.wait_for_event("no response", |one| one.is("staple_failed", "a.example"));
    assert_eq!(served(&gateway, "a.example"), Some(serial(&first)));
    let view = view(&gateway, "a.example");
    assert_eq!(view["state"], "withheld", "{view}");
    assert_eq!(view["serial"], serial(&second), "{view}");
    assert_eq!(view["staple"]["served_instead"], serial(&first), "{view}");
    wait_until_stapled(&gateway, "a.example");

    responder.start(&ca, &own_signer(&ca), &[(&second, Says::Good)], 60);
    wait_for("the second", || {
        (served(&gateway, "a.example")? == serial(&second)).then_some(())
    });
    let view = self::view(&gateway, "a.example");
    assert_eq!(view["state"], "valid", "{view}");
    assert_eq!(view["staple"].get("served_instead"), None, "{view}");
    wait_until_stapled(&gateway, "a.example");
}

#[test]
fn one_that_names_no_responder_is_reported_and_never_served() {
    let builder = Gateway::builder();
    let ca = authority();
    let pair = with(&ca, "a.example", &[must_staple()]);
    pair.write(&builder.dir().join("certs"), "a");
    let gateway = builder.config(config(&["a.example"])).spawn();
    let told = gateway.wait_for_event("no response", |one| one.is("staple_failed", "a.example"));
    assert!(told.message.contains("names no OCSP responder"), "{told:?}");
    assert_eq!(told.severity, "critical", "clients are refused");
    let shown = view(&gateway, "a.example");
    assert_eq!(shown["state"], "withheld", "{shown}");
    let withheld = "snigate_certificate_states{state=\"withheld\"}";
    wait_for("the metric", || {
        (metric(&gateway, withheld) >= 1.0).then_some(())
    });
    let checked = check(&gateway.dir().join("snigate.yaml"));
    let warned = format!("{}{}", checked.stdout, checked.stderr);
    assert!(warned.contains("names no responder"), "{checked:?}");
    assert_eq!(served(&gateway, "a.example"), None);
    let readiness = gateway.ask("GET", "/readyz");
    assert_eq!(readiness.status, 503);
    let why = readiness.text();
    assert!(why.contains("a.example requires an OCSP response"), "{why}");
    // Without stapling it is served as it is.
    let mut gateway = gateway;
    gateway.replace_config(config(&["a.example"]) + "revocation: { ocsp: false }\n");
    gateway.reload();
    wait_for("the certificate", || served(&gateway, "a.example"));
    gateway.wait_until_ready();
    gateway.wait_for_event("recovered", |one| one.is("staple_recovered", "a.example"));
}

#[test]
fn switching_stapling_off_and_on_again_leaves_no_gap() {
    let builder = Gateway::builder();
    let ca = authority();
    let mut responder = OcspResponder::new();
    let pair = strict(&ca, "a.example", &responder);
    pair.write(&builder.dir().join("certs"), "a");
    responder.start(&ca, &own_signer(&ca), &[(&pair, Says::Good)], 60);
    // It is ready once there is a response.
    let mut gateway = builder.config(config(&["a.example"])).start();
    wait_until_stapled(&gateway, "a.example");
    responder.stop();
    for _ in 0..2 {
        gateway.replace_config(config(&["a.example"]) + "revocation: { ocsp: false }\n");
        assert_eq!(gateway.reload().0, 200);
        wait_for("no response", || {
            assert!(served(&gateway, "a.example").is_some());
            (!is_stapled(&gateway, "a.example")).then_some(())
        });
        gateway.replace_config(config(&["a.example"]));
        assert_eq!(gateway.reload().0, 200);
        // The stored response serves, though its responder is away.
        assert!(served(&gateway, "a.example").is_some());
        wait_until_stapled(&gateway, "a.example");
    }
    assert_eq!(gateway.count("staple_failed", "a.example"), 0);
    assert_eq!(gateway.ask("GET", "/readyz").status, 200);
}

#[test]
fn a_revoked_one_is_not_served_and_recovers_with_another() {
    let builder = Gateway::builder();
    let ca = authority();
    let mut responder = OcspResponder::new();
    let pair = strict(&ca, "a.example", &responder);
    pair.write(&builder.dir().join("certs"), "a");
    let revoked = Says::Revoked("keyCompromise");
    responder.start(&ca, &own_signer(&ca), &[(&pair, revoked)], 60);
    let gateway = builder.config(config(&["a.example"])).spawn();
    gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.example"));
    assert_eq!(served(&gateway, "a.example"), None);
    let next = strict(&ca, "a.example", &responder);
    responder.start(&ca, &own_signer(&ca), &[(&next, Says::Good)], 60);
    next.write(&gateway.dir().join("certs"), "a");
    wait_until_stapled(&gateway, "a.example");
    gateway.wait_for_event("recovered", |one| {
        one.is("certificate_recovered", "a.example") && one.reason.as_deref() == Some("revoked")
    });
}
