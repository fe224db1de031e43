//! Orders: finished by whoever comes next, on to the next type of challenge, nothing left pending.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::join_all;
use openssl::pkey::Id;
use snigate::challenge::ChallengeSolver;
use snigate::clock::{Clock, ManualClock, SystemClock};
use snigate::config::model::{ChallengeType, KeyType, OrderLimit};
use snigate::issuer::Issuer;
use snigate::schedule::{Failure, FailureClass, Intent, WaitReason};
use snigate::storage::keys;

use super::authorizations::pending;
use super::fixture::{Fixture, Liar, WebSolver, config, leaf};
use crate::support::{Pebble, wait_for};

pub(super) fn orders(pebble: &Pebble) -> usize {
    pebble.log().matches("Added order").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_type_of_key_is_made_or_its_refusal_shown() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    for (kind, id, bits) in [
        (KeyType::P256, Id::EC, 256),
        (KeyType::P384, Id::EC, 384),
        (KeyType::Rsa2048, Id::RSA, 2048),
        (KeyType::Ed25519, Id::ED25519, 256),
    ] {
        let mut config = config(pebble.directory(), pebble.ca_file());
        config.key_type = kind;
        let fixture = Fixture::new(config, vec![web.clone()]);
        match fixture.issue(&["a.test", "b.test"]).await {
            Ok(issued) => {
                let leaf = leaf(&issued, &["a.test", "b.test"]);
                let key = leaf.public_key().unwrap();
                assert_eq!((key.id(), key.bits()), (id, bits));
            }
            Err(failure) => {
                assert_eq!(kind, KeyType::Ed25519, "{failure}");
                assert_eq!(failure.class, FailureClass::Configuration, "{failure}");
                assert!(failure.message.contains("key_type"), "{failure}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_new_unless_they_are_to_be_kept() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let mut config = config(pebble.directory(), pebble.ca_file());
    let renew = async |config, kind: KeyType| {
        let fixture = Fixture::new(config, vec![web.clone()]);
        let first = fixture.issue(&["a.test"]).await.unwrap();
        let mut request = fixture.request(&["b.test"]);
        request.previous_key = Some(first.key.clone());
        let second = fixture.issuer.issue(&request).await.unwrap();
        leaf(&second, &["b.test"]);
        let _ = kind;
        first.key == second.key
    };
    assert!(!renew(config.clone(), KeyType::P256).await);
    config.reuse_key = true;
    assert!(renew(config, KeyType::P256).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_type_of_challenge_is_tried_where_one_fails() {
    let (web, liar) = (WebSolver::start(), Arc::new(Liar::default()));
    let pebble = Pebble::builder().http_port(web.port()).start();
    let mut config = config(pebble.directory(), pebble.ca_file());
    config.challenges = vec![ChallengeType::TlsAlpn01, ChallengeType::Http01];
    let fixture = Fixture::new(config, vec![web.clone(), liar.clone()]);
    let issued = fixture.issue(&["a.test"]).await.unwrap();
    leaf(&issued, &["a.test"]);
    assert_eq!(orders(&pebble), 2, "one for each type");
    assert_eq!(liar.presented.load(Ordering::Relaxed), 1);
    assert_eq!(liar.cleaned.load(Ordering::Relaxed), 1);
    assert_eq!(web.visible(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_pending_after_a_failure() {
    let (web, liar) = (WebSolver::start(), Arc::new(Liar::default()));
    let pebble = Pebble::builder().http_port(web.port()).start();
    let fixture = Fixture::new(
        config(pebble.directory(), pebble.ca_file()),
        vec![web.clone()],
    );
    // The second name leads nowhere; what is left of the third is given up.
    pebble.resolve("nowhere.test", &[]);
    let names = ["a.test", "nowhere.test", "c.test"];
    let failure = fixture.issue(&names).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Validation);
    for part in ["a.test: ", "nowhere.test", "http-01"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert_eq!(pending(&fixture, &pebble).await, Vec::<String>::new());
    assert!(fixture.stored("orders").is_empty(), "no order is kept");
    assert_eq!(web.visible(), 0, "proofs are taken back");
    // A CA that offers nothing that we can do.
    let mut config = config(pebble.directory(), pebble.ca_file());
    config.challenges = vec![ChallengeType::Http01];
    let fixture = Fixture::on(Arc::clone(&fixture.storage), config, vec![liar]);
    let failure = fixture.issue(&["d.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.contains("http-01"), "{failure}");
    assert_eq!(pending(&fixture, &pebble).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_names_are_shown_with_what_the_ca_said() {
    let web = WebSolver::start();
    let pebble = Pebble::builder()
        .http_port(web.port())
        .blocked("blocked.test")
        .start();
    let fixture = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![web]);
    let failure = fixture.issue(&["blocked.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Refused, "{failure}");
    assert!(failure.message.contains("blocked.test"), "{failure}");
    let failure = fixture.issue(&["*.a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Configuration, "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_finished_by_whoever_comes_next() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let start = |storage| {
        let config = config(pebble.directory(), pebble.ca_file());
        Fixture::on(storage, config, vec![web.clone()])
    };
    let storage = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![]).storage;
    let mut expected = 0;
    for (number, point) in ["order created", "validates", "asking", "downloaded"]
        .into_iter()
        .enumerate()
    {
        let name = format!("n{number}.test");
        let names = [name.as_str()];
        let killed = start(Arc::clone(&storage));
        // On a busy machine it comes further than it is meant to.
        web.hangs.store(point == "order created", Ordering::Relaxed);
        match point {
            // All is done, and nobody has been told that it is.
            "downloaded" => drop(killed.issue(&names).await.unwrap()),
            _ => killed.issue_until(&names, point).await,
        }
        expected += 1;
        web.hangs.store(false, Ordering::Relaxed);
        let fixture = start(Arc::clone(&storage));
        let key = fixture.stored("orders")[0]["key"]
            .as_str()
            .unwrap()
            .to_owned();
        let request = fixture.request(&names);
        let issued = fixture.issuer.issue(&request).await.unwrap();
        leaf(&issued, &names);
        assert_eq!(orders(&pebble), expected, "{point}: the same order");
        assert_eq!(issued.key.as_slice(), key.as_bytes(), "{point}");
        fixture.issuer.on_stored(&request).await;
        assert!(fixture.stored("orders").is_empty(), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_that_the_ca_may_look_for_stay() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let start = || {
        let config = config(pebble.directory(), pebble.ca_file());
        Fixture::new(config, vec![web.clone()])
    };
    // It has not been told to look.
    web.hangs.store(true, Ordering::Relaxed);
    let fixture = start();
    let presented = async {
        while web.presented.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = presented => {}
        issued = fixture.issue(&["a.test"]) => panic!("{:?}", issued.err()),
    }
    wait_for("half a proof to be taken back", || {
        (web.cleaned.load(Ordering::Relaxed) == 1).then_some(())
    });
    web.hangs.store(false, Ordering::Relaxed);
    // It has, and nobody waits for what it finds.
    let fixture = start();
    fixture.issue_until(&["b.test"], "validates").await;
    assert_eq!((web.visible(), web.cleaned.load(Ordering::Relaxed)), (1, 1));
    fixture.issue(&["b.test"]).await.unwrap();
    // Whether it had looked by then or not; what is left of the proof expires.
    assert_eq!(orders(&pebble), 2, "the order is finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_stored_is_not_given_again() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let fixture = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![web]);
    let first = fixture.issue(&["a.test"]).await.unwrap();
    // Not stored yet: the same order gives the same certificate.
    let again = fixture.issue(&["a.test"]).await.unwrap();
    assert_eq!((orders(&pebble), &first.chain), (1, &again.chain));
    // Stored, and the process was killed before it could settle the order.
    let place = keys::certificate(fixture.issuer.ca(), "a.test").unwrap();
    fixture.storage.store(&place, &first.chain).unwrap();
    let renewed = fixture.issue(&["a.test"]).await.unwrap();
    assert_eq!(orders(&pebble), 2);
    assert_ne!(first.chain, renewed.chain);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_costs_one_order() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let config = config(pebble.directory(), pebble.ca_file());
    let storage = Fixture::new(config.clone(), vec![]).storage;
    // Nothing that the CA issues is valid by it.
    let ahead = SystemClock.now() + 10 * 365 * 86_400;
    let mut first = None;
    for start in 0..3 {
        let clock = Arc::new(ManualClock::at(ahead + start * 3600));
        let solvers: Vec<Arc<dyn ChallengeSolver>> = vec![web.clone()];
        let fixture = Fixture::with_clock(Arc::clone(&storage), clock, config.clone(), solvers);
        let request = fixture.request(&["a.test"]);
        let issued = fixture.issuer.issue(&request).await.unwrap();
        let failure = Failure::new(FailureClass::Clock, "it has expired");
        fixture.issuer.on_rejected(&request, &failure).await;
        let other = ["b.test".parse().unwrap()];
        let wait = fixture.issuer.ready(&Intent::new(&other)).unwrap_err();
        assert_eq!(wait.reason, WaitReason::Clock("it has expired".to_owned()));
        assert_eq!(orders(&pebble), 1, "it is kept");
        let first = first.get_or_insert_with(|| issued.chain.clone());
        assert_eq!(*first, issued.chain);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_cannot_be_gone_on_with_are_given_up() {
    let web = WebSolver::start();
    let mut pebble = Pebble::builder().http_port(web.port()).start();
    let fixture = Fixture::new(
        config(pebble.directory(), pebble.ca_file()),
        vec![web.clone()],
    );
    // On a busy machine it comes further than it is meant to.
    web.hangs.store(true, Ordering::Relaxed);
    fixture.issue_until(&["a.test"], "order created").await;
    web.hangs.store(false, Ordering::Relaxed);
    let place = keys::order(fixture.issuer.ca(), "a.test").unwrap();
    let mut record = fixture.stored("orders").remove(0);
    record["created"] = 1.into();
    fixture
        .storage
        .store(&place, record.to_string().as_bytes())
        .unwrap();
    fixture.issue(&["a.test"]).await.unwrap();
    assert_eq!(orders(&pebble), 2);
    assert_eq!(pending(&fixture, &pebble).await, Vec::<String>::new());
    // An account and an order that the CA has lost.
    fixture.issue_until(&["b.test"], "order created").await;
    pebble.restart();
    fixture.issue(&["b.test"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_wait_for_their_turn() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let mut config = config(pebble.directory(), pebble.ca_file());
    config.order_limit = OrderLimit {
        orders: 2,
        per: Duration::from_secs(2),
    };
    let fixture = Fixture::new(config, vec![web]);
    let start = Instant::now();
    let issued = join_all((0..5).map(|number| {
        let fixture = &fixture;
        async move {
            fixture
                .issue(&[&format!("n{number}.test")])
                .await
                .map(|_| ())
        }
    }));
    for issued in issued.await {
        issued.unwrap();
    }
    // Seconds of the clock: the second and third pair begin 2 s later each, less a part of one.
    assert!(
        start.elapsed() > Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
}
