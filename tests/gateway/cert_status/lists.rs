//! Revocation lists that the test serves.

use std::sync::{Arc, Mutex};

use super::{authority, config, is_stapled, metric, own_signer, wait_until_stapled, with};
use crate::support::{
    Act, Ca, Gateway, OcspResponder, Origin, Pair, Says, TlsClient, delta_list, list_at,
    responder_at, revocation_list, wait_for,
};

/// A server of one list, which the test may replace.
pub(super) struct ListServer {
    origin: Origin,
    list: Arc<Mutex<Vec<u8>>>,
}

impl ListServer {
    pub(super) fn new() -> Self {
        let list = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&list);
        let origin = Origin::start(move |_| {
            let body = shown.lock().expect("whole").clone();
            vec![Act::respond(200, body)]
        });
        Self { origin, list }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/list.crl", self.origin.address())
    }

    pub(super) fn show(&self, ca: &Ca, revoked: &[&Pair], until: i64) {
        let list = revocation_list(ca, revoked, until);
        *self.list.lock().expect("whole") = list.to_der().expect("DER");
    }

    /// Serves no list from now on.
    pub(super) fn break_down(&self) {
        self.list.lock().expect("whole").clear();
    }
}

#[test]
fn a_certificate_on_the_list_of_its_issuer_is_reported() {
    let builder = Gateway::builder();
    let ca = authority();
    let certs = builder.dir().join("certs");
    let server = ListServer::new();
    let good = with(&ca, "good.example", &[list_at(&server.url())]);
    let bad = with(&ca, "bad.example", &[list_at(&server.url())]);
    good.write(&certs, "good");
    bad.write(&certs, "bad");
    server.show(&ca, &[&bad], 30);
    let gateway = builder
        .config(config(&["good.example", "bad.example"]))
        .start();
    let told = gateway.wait_for_event("revoked", |one| {
        one.is("certificate_revoked", "bad.example")
    });
    assert_eq!(told.severity, "critical");
    assert!(told.message.contains("/list.crl"), "{told:?}");
    assert_eq!(gateway.count("certificate_revoked", "good.example"), 0);
    assert_eq!(
        metric(&gateway, "snigate_crl_fetches_total{result=\"ok\"}") as i64,
        1
    );
    assert_eq!(server.origin.requests().len(), 1, "one fetch for both");
}

#[test]
fn what_a_list_calls_revoked_gets_no_response_and_recovers_with_another() {
    let builder = Gateway::builder();
    let ca = authority();
    let certs = builder.dir().join("certs");
    let server = ListServer::new();
    let mut responder = OcspResponder::new();
    let both = [responder_at(&responder.url()), list_at(&server.url())];
    let pair = with(&ca, "a.example", &both);
    pair.write(&certs, "a");
    // The same certificate for another site.
    pair.write(&certs, "b");
    let next = with(&ca, "a.example", &both);
    let listed = [(&pair, Says::Good), (&next, Says::Good)];
    responder.start(&ca, &own_signer(&ca), &listed, 60);
    server.show(&ca, &[&pair], 30);
    let gateway = builder.config(config(&["a.example"])).start();
    gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.example"));
    // Its responder may say what it likes.
    wait_for("the answer of its responder", || {
        let good = metric(&gateway, "snigate_ocsp_requests_total{result=\"good\"}");
        (good >= 1.0).then_some(())
    });
    wait_for("the metric", || {
        let revoked = metric(&gateway, "snigate_ocsp_staples{state=\"revoked\"}");
        (revoked >= 1.0).then_some(())
    });
    assert!(!is_stapled(&gateway, "a.example"));
    assert_eq!(gateway.count("certificate_revoked", "a.example"), 1);
    for name in ["a", "b"] {
        next.write(&gateway.dir().join("certs"), name);
    }
    wait_until_stapled(&gateway, "a.example");
    gateway.wait_for_event("recovered", |one| {
        one.is("certificate_recovered", "a.example") && one.reason.as_deref() == Some("revoked")
    });
}

#[test]
fn lists_that_do_not_count_revoke_nothing() {
    for (name, words) in [
        ("wrong", "not signed by the issuer"),
        ("expired", "has expired"),
        ("long", "longer than"),
        ("garbage", "not a revocation list"),
        ("foreign", "of another issuer"),
        ("delta", "a delta list"),
    ] {
        let builder = Gateway::builder();
        let root = Ca::new("Status Root");
        let ca = root.intermediate("Status Intermediate");
        let server = ListServer::new();
        let pair = with(&ca, "a.example", &[list_at(&server.url())]);
        pair.write(&builder.dir().join("certs"), "a");
        match name {
            // Another authority of the same name.
            "wrong" => server.show(&root.intermediate("Status Intermediate"), &[&pair], 30),
            "expired" => server.show(&ca, &[&pair], -1),
            "foreign" => server.show(&root, &[&pair], 30),
            "delta" => {
                let list = delta_list(&ca, &[&pair], 30);
                *server.list.lock().expect("whole") = list.to_der().expect("DER");
            }
            "long" => *server.list.lock().expect("whole") = vec![0x30; (10 << 20) + 1],
            _ => *server.list.lock().expect("whole") = b"nothing".to_vec(),
        }
        let gateway = builder.config(config(&["a.example"])).start();
        wait_for("the failed fetch", || {
            let failed = metric(&gateway, "snigate_crl_fetches_total{result=\"failed\"}");
            (failed >= 1.0).then_some(())
        });
        gateway.wait_for_log(words);
        assert_eq!(
            gateway.count("certificate_revoked", "a.example"),
            0,
            "{name}"
        );
        TlsClient::named("a.example").connect(gateway.https);
    }
}

#[test]
fn a_list_is_left_alone_where_that_is_configured() {
    let builder = Gateway::builder();
    let ca = authority();
    let server = ListServer::new();
    let pair = with(&ca, "a.example", &[list_at(&server.url())]);
    pair.write(&builder.dir().join("certs"), "a");
    server.show(&ca, &[&pair], 30);
    let off = config(&["a.example"]) + "revocation: { crl: false }\n";
    let mut gateway = builder.config(off).start();
    TlsClient::named("a.example").connect(gateway.https);
    assert!(server.origin.requests().is_empty());
    gateway.replace_config(config(&["a.example"]));
    gateway.reload();
    gateway.wait_for_event("revoked", |one| one.is("certificate_revoked", "a.example"));
}
