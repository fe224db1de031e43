//! Accounts: one is made, kept, used by all, bound, and made anew where the CA lost it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::join_all;
use snigate::config::model::ExternalAccount;
use snigate::issuer::Issuer;
use snigate::schedule::FailureClass;
use snigate::secret::Secret;
use snigate::storage::keys;

use super::fixture::{Faulty, Fixture, WebSolver, config, leaf};
use crate::support::Pebble;

const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

fn accounts(pebble: &Pebble) -> usize {
    pebble.log().matches("accounts in memory").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_serves_all_orders_and_the_next_start() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let fixture = Fixture::new(
        config(pebble.directory(), pebble.ca_file()),
        vec![web.clone()],
    );
    let names: Vec<String> = (0..20).map(|number| format!("n{number}.test")).collect();
    let issued = join_all(names.iter().map(|name| async {
        let names = [name.as_str()];
        fixture
            .issue(&names)
            .await
            .map(|issued| leaf(&issued, &names))
    }));
    for issued in issued.await {
        issued.unwrap();
    }
    assert_eq!(accounts(&pebble), 1, "{}", pebble.log());
    assert_eq!(web.visible(), 0, "proofs are taken back");
    // Another process on the same storage.
    let next = Fixture::on(
        Arc::clone(&fixture.storage),
        config(pebble.directory(), pebble.ca_file()),
        vec![web],
    );
    next.issue(&["z.test"]).await.unwrap();
    assert_eq!(accounts(&pebble), 1);
    let stored = next.stored("accounts");
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["contacts"][0], "mailto:ops@example.com");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_ca_has_lost_is_made_anew() {
    let web = WebSolver::start();
    let mut pebble = Pebble::builder().http_port(web.port()).start();
    let fixture = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![web]);
    fixture.issue(&["a.test"]).await.unwrap();
    let before = fixture.stored("accounts");
    pebble.restart();
    let again = join_all((0..5).map(|number| {
        let fixture = &fixture;
        async move {
            fixture
                .issue(&[&format!("n{number}.test")])
                .await
                .map(|_| ())
        }
    }));
    for issued in again.await {
        issued.unwrap();
    }
    assert_eq!(accounts(&pebble), 2, "one before and one after");
    assert_ne!(fixture.stored("accounts"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_a_full_disk_is_stored_later() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let storage = Arc::new(Faulty::default());
    let config = config(pebble.directory(), pebble.ca_file());
    let fixture = Fixture::on(Arc::clone(&storage) as _, config, vec![web]);
    storage.writes_fail.store(true, Ordering::Relaxed);
    for name in ["a.test", "b.test"] {
        let request = fixture.unstored_request(&[name]);
        fixture.issuer.issue(&request).await.unwrap();
    }
    assert!(fixture.stored("accounts").is_empty());
    storage.writes_fail.store(false, Ordering::Relaxed);
    fixture.issue(&["c.test"]).await.unwrap();
    assert_eq!(fixture.stored("accounts").len(), 1);
    assert_eq!(accounts(&pebble), 1, "one for all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_be_read_is_not_replaced() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let storage = Arc::new(Faulty::default());
    let start = || {
        let config = config(pebble.directory(), pebble.ca_file());
        Fixture::on(Arc::clone(&storage) as _, config, vec![web.clone()])
    };
    start().issue(&["a.test"]).await.unwrap();
    let stored = start().stored("accounts");

    let fixture = start();
    storage.reads_fail.store(true, Ordering::Relaxed);
    let failure = fixture.issue(&["b.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Storage, "{failure}");
    assert_eq!(accounts(&pebble), 1);
    // Nor for whoever has no storage at all.
    let request = fixture.unstored_request(&["b.test"]);
    let failure = fixture.issuer.issue(&request).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Storage, "{failure}");
    assert_eq!(accounts(&pebble), 1);

    storage.reads_fail.store(false, Ordering::Relaxed);
    assert_eq!(fixture.stored("accounts"), stored);
    fixture.issue(&["c.test"]).await.unwrap();
    assert_eq!(fixture.stored("accounts"), stored, "it is used again");
    let order = keys::order(fixture.issuer.ca(), "c.test").unwrap();
    let order = fixture.storage.load(&order).unwrap().unwrap();
    let order: serde_json::Value = serde_json::from_slice(&order).unwrap();
    assert_eq!(order["account"], stored[0]["credentials"]["id"]);
    assert_eq!(accounts(&pebble), 1);
    // What is known is used on.
    storage.reads_fail.store(true, Ordering::Relaxed);
    let request = fixture.unstored_request(&["d.test"]);
    fixture.issuer.issue(&request).await.unwrap();
    assert_eq!(accounts(&pebble), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_bound_where_the_ca_asks_for_it() {
    let web = WebSolver::start();
    let pebble = Pebble::builder()
        .http_port(web.port())
        .eab("kid-1", KEY)
        .start();
    let unbound = config(pebble.directory(), pebble.ca_file());
    let fixture = Fixture::new(unbound.clone(), vec![web.clone()]);
    let failure = fixture.issue(&["a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.contains("'eab'"), "{failure}");
    for (id, key, part) in [
        ("kid-1", "no base64", "base64url"),
        ("kid-1", "AAAA", "did not accept the account"),
        ("kid-2", KEY, "did not accept the account"),
    ] {
        let mut wrong = unbound.clone();
        wrong.eab = Some(ExternalAccount {
            key_id: id.to_owned(),
            hmac_key: Secret::new(key.to_owned()),
        });
        let fixture = Fixture::new(wrong, vec![web.clone()]);
        let failure = fixture.issue(&["a.test"]).await.err().unwrap();
        assert_eq!(failure.class, FailureClass::Configuration, "{failure}");
        assert!(failure.message.contains(part), "{failure}");
    }
    let mut bound = unbound;
    bound.eab = Some(ExternalAccount {
        key_id: "kid-1".to_owned(),
        hmac_key: Secret::new(KEY.to_owned()),
    });
    let fixture = Fixture::new(bound, vec![web]);
    fixture.issue(&["a.test"]).await.unwrap();
    assert_eq!(fixture.stored("accounts")[0]["bound_to"], "kid-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_down_or_not_trusted_is_said_to_be() {
    let web = WebSolver::start();
    let mut pebble = Pebble::builder().http_port(web.port()).start();
    let mut strict = config(pebble.directory(), pebble.ca_file());
    strict.ca_file = None;
    let failure = Fixture::new(strict, vec![web.clone()])
        .issue(&["a.test"])
        .await;
    let failure = failure.err().unwrap();
    assert_eq!(failure.class, FailureClass::Network);
    assert!(failure.message.contains("certificate"), "{failure}");
    pebble.stop();
    let fixture = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![web]);
    let failure = fixture.issue(&["a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Network);
    for part in ["a.test", "127.0.0.1", "refused"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    pebble.restart();
    fixture.issue(&["a.test"]).await.unwrap();
}
