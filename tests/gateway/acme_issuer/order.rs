//! Orders: finished by whoever comes next, on to the next type of challenge, nothing left pending.

use std::fs;
use std::path::Path;
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
use tempfile::NamedTempFile;

use super::authorizations::pending;
use super::fixture::{Fixture, Liar, WebSolver, config, leaf};
use crate::support::{CaReply, FakeCa, Pebble, wait_for};

/// One file of roots for both.
fn roots(files: [&Path; 2]) -> NamedTempFile {
    let roots = NamedTempFile::new().unwrap();
    let both = files.map(|file| fs::read_to_string(file).unwrap()).concat();
    fs::write(roots.path(), both).unwrap();
    roots
}

fn orders(pebble: &Pebble) -> usize {
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
        let bench = Fixture::new(config, vec![web.clone()]);
        match bench.issue(&["a.test", "b.test"]).await {
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
        let bench = Fixture::new(config, vec![web.clone()]);
        let first = bench.issue(&["a.test"]).await.unwrap();
        let mut request = bench.request(&["b.test"]);
        request.previous_key = Some(first.key.clone());
        let second = bench.issuer.issue(&request).await.unwrap();
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
    let bench = Fixture::new(config, vec![web.clone(), liar.clone()]);
    let issued = bench.issue(&["a.test"]).await.unwrap();
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
    let bench = Fixture::new(
        config(pebble.directory(), pebble.ca_file()),
        vec![web.clone()],
    );
    // The second name leads nowhere; what is left of the third is given up.
    pebble.resolve("nowhere.test", &[]);
    let names = ["a.test", "nowhere.test", "c.test"];
    let failure = bench.issue(&names).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Validation);
    for part in ["a.test: ", "nowhere.test", "http-01"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert_eq!(pending(&bench, &pebble).await, Vec::<String>::new());
    assert!(bench.stored("orders").is_empty(), "no order is kept");
    assert_eq!(web.visible(), 0, "proofs are taken back");
    // A CA that offers nothing that we can do.
    let mut config = config(pebble.directory(), pebble.ca_file());
    config.challenges = vec![ChallengeType::Http01];
    let bench = Fixture::on(Arc::clone(&bench.storage), config, vec![liar]);
    let failure = bench.issue(&["d.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.contains("http-01"), "{failure}");
    assert_eq!(pending(&bench, &pebble).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_names_are_shown_with_what_the_ca_said() {
    let web = WebSolver::start();
    let pebble = Pebble::builder()
        .http_port(web.port())
        .blocked("blocked.test")
        .start();
    let bench = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![web]);
    let failure = bench.issue(&["blocked.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Refused, "{failure}");
    assert!(failure.message.contains("blocked.test"), "{failure}");
    let failure = bench.issue(&["*.a.test"]).await.err().unwrap();
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
    for (number, point) in ["order made", "validates", "asking", "downloaded"]
        .into_iter()
        .enumerate()
    {
        let name = format!("n{number}.test");
        let names = [name.as_str()];
        let killed = start(Arc::clone(&storage));
        // On a busy machine it comes further than it is told to.
        web.hangs.store(point == "order made", Ordering::Relaxed);
        match point {
            // All is done, and nobody has been told that it is.
            "downloaded" => drop(killed.issue(&names).await.unwrap()),
            _ => killed.issue_until(&names, point).await,
        }
        expected += 1;
        web.hangs.store(false, Ordering::Relaxed);
        let bench = start(Arc::clone(&storage));
        let key = bench.stored("orders")[0]["key"]
            .as_str()
            .unwrap()
            .to_owned();
        let request = bench.request(&names);
        let issued = bench.issuer.issue(&request).await.unwrap();
        leaf(&issued, &names);
        assert_eq!(orders(&pebble), expected, "{point}: the same order");
        assert_eq!(issued.key.as_slice(), key.as_bytes(), "{point}");
        bench.issuer.on_stored(&request).await;
        assert!(bench.stored("orders").is_empty(), "{point}");
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
    let bench = start();
    let presented = async {
        while web.presented.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = presented => {}
        issued = bench.issue(&["a.test"]) => panic!("{:?}", issued.err()),
    }
    wait_for("half a proof to be taken back", || {
        (web.cleaned.load(Ordering::Relaxed) == 1).then_some(())
    });
    web.hangs.store(false, Ordering::Relaxed);
    // It has, and nobody waits for what it finds.
    let bench = start();
    bench.issue_until(&["b.test"], "validates").await;
    assert_eq!((web.visible(), web.cleaned.load(Ordering::Relaxed)), (1, 1));
    bench.issue(&["b.test"]).await.unwrap();
    // Whether it had looked by then or not; what is left of the proof expires.
    assert_eq!(orders(&pebble), 2, "the order is finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_stored_is_not_given_again() {
    let web = WebSolver::start();
    let pebble = Pebble::builder().http_port(web.port()).start();
    let bench = Fixture::new(config(pebble.directory(), pebble.ca_file()), vec![web]);
    let first = bench.issue(&["a.test"]).await.unwrap();
    // Not stored yet: the same order gives the same certificate.
    let again = bench.issue(&["a.test"]).await.unwrap();
    assert_eq!((orders(&pebble), &first.chain), (1, &again.chain));
    // Stored, and the process was killed before it could settle the order.
    let place = keys::certificate(bench.issuer.ca(), "a.test").unwrap();
    bench.storage.store(&place, &first.chain).unwrap();
    let renewed = bench.issue(&["a.test"]).await.unwrap();
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
        let bench = Fixture::with_clock(Arc::clone(&storage), clock, config.clone(), solvers);
        let request = bench.request(&["a.test"]);
        let issued = bench.issuer.issue(&request).await.unwrap();
        let failure = Failure::new(FailureClass::Clock, "it has expired");
        bench.issuer.on_rejected(&request, &failure).await;
        let other = ["b.test".parse().unwrap()];
        let wait = bench.issuer.ready(&Intent::new(&other)).unwrap_err();
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
    let bench = Fixture::new(
        config(pebble.directory(), pebble.ca_file()),
        vec![web.clone()],
    );
    // On a busy machine it comes further than it is told to.
    web.hangs.store(true, Ordering::Relaxed);
    bench.issue_until(&["a.test"], "order made").await;
    web.hangs.store(false, Ordering::Relaxed);
    let place = keys::order(bench.issuer.ca(), "a.test").unwrap();
    let mut record = bench.stored("orders").remove(0);
    record["created"] = 1.into();
    bench
        .storage
        .store(&place, record.to_string().as_bytes())
        .unwrap();
    bench.issue(&["a.test"]).await.unwrap();
    assert_eq!(orders(&pebble), 2);
    assert_eq!(pending(&bench, &pebble).await, Vec::<String>::new());
    // An account and an order that the CA has lost.
    bench.issue_until(&["b.test"], "order made").await;
    pebble.restart();
    bench.issue(&["b.test"]).await.unwrap();
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
    let bench = Fixture::new(config, vec![web]);
    let start = Instant::now();
    let issued = join_all((0..5).map(|number| {
        let bench = &bench;
        async move { bench.issue(&[&format!("n{number}.test")]).await.map(|_| ()) }
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

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_staging_comes_first() {
    let web = WebSolver::start();
    let production = Pebble::builder().http_port(web.port()).start();
    let mut staging = Pebble::builder()
        .http_port(web.port())
        .blocked("never.test")
        .start();
    let roots = roots([production.ca_file(), staging.ca_file()]);
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let bench = Fixture::new(config, vec![web]);
    bench.issue(&["first.test"]).await.unwrap();
    assert_eq!((orders(&staging), orders(&production)), (0, 1));
    let mut request = bench.request(&["a.test"]);
    request.failures = 1;
    let issued = bench.issuer.issue(&request).await.unwrap();
    leaf(&issued, &["a.test"]);
    assert_eq!((orders(&staging), orders(&production)), (1, 2));
    let chain = openssl::x509::X509::stack_from_pem(&issued.chain).unwrap();
    let issuer = openssl::x509::X509::from_pem(production.root().as_bytes()).unwrap();
    let root = issuer.public_key().unwrap();
    assert!(chain[1].verify(&root).unwrap(), "it is production's");
    assert_eq!(bench.stored("accounts").len(), 2, "an account at each");
    assert_eq!(bench.stored("orders").len(), 2, "none of staging's");
    let mut request = bench.request(&["never.test"]);
    request.failures = 3;
    let failure = bench.issuer.issue(&request).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Refused);
    assert!(failure.message.contains("rehearsal"), "{failure}");
    assert_eq!(orders(&production), 2, "production was not asked");
    staging.stop();
    let mut request = bench.request(&["b.test"]);
    request.failures = 1;
    bench.issuer.issue(&request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn troubles_of_staging_do_not_stop_production() {
    let web = WebSolver::start();
    let production = Pebble::builder().http_port(web.port()).start();
    // A CA that wants accounts to be bound: it would never take ours.
    let staging = Pebble::builder()
        .http_port(web.port())
        .eab(
            "kid-1",
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
        )
        .start();
    let roots = roots([production.ca_file(), staging.ca_file()]);
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let bench = Fixture::new(config, vec![web]);
    let mut progress = bench.events.subscribe();
    let mut request = bench.request(&["a.test"]);
    request.failures = 1;
    let issued = bench.issuer.issue(&request).await.unwrap();
    leaf(&issued, &["a.test"]);
    let mut told = Vec::new();
    while let Ok(event) = progress.try_recv() {
        told.push(event.message.clone());
    }
    let told = told.iter().find(|told| told.starts_with("no rehearsal"));
    assert!(told.unwrap().contains("external account binding"));
}

/// CAA records may let one account of one CA alone.
#[tokio::test(flavor = "multi_thread")]
async fn caa_at_staging_says_nothing_of_production() {
    let production = FakeCa::start(|_| None);
    let staging = FakeCa::start(|ask| {
        let refused = || CaReply::problem(403, "caa", "the record is for another account");
        (ask.kind == "finalize").then(refused)
    });
    let roots = roots([production.ca_file(), staging.ca_file()]);
    let mut config = config(production.directory(), roots.path());
    config.staging = Some(staging.directory());
    let bench = Fixture::new(config, vec![WebSolver::start()]);
    let mut request = bench.request(&["a.test"]);
    request.failures = 1;
    bench.issuer.issue(&request).await.unwrap();
    let finalized = [&staging, &production].map(|ca| ca.asked("finalize").len());
    assert_eq!(
        finalized,
        [1, 1],
        "staging refused, and production was asked"
    );
}
