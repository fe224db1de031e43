//! What a CA has made and cannot show yet is waited for, with the same order and the same account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use snigate::schedule::FailureClass;

use super::fixture::{Fixture, WebSolver, config};
use crate::support::{CaReply, FakeCa, Features};

fn pending() -> CaReply {
    CaReply::json(403, &json!({ "detail": "certificate is pending" }))
}

fn unknown() -> CaReply {
    CaReply::problem(404, "malformed", "no such thing")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_yet_is_waited_for() {
    let web = WebSolver::start();
    for (kind, count, answer) in [
        ("cert", 1, pending()),
        ("cert", 4, pending()),
        ("cert", 4, CaReply::problem(403, "unauthorized", "not yet")),
        ("cert", 4, unknown()),
        ("cert", 4, CaReply::plain(202, "")),
        ("cert", 4, CaReply::plain(202, "please wait")),
        ("cert", 4, CaReply::plain(200, "")),
        ("cert", 2, CaReply::plain(503, "busy")),
        ("cert", 1, pending().header("Retry-After", "1")),
        ("orders", 1, unknown()),
        ("orders", 3, unknown()),
        ("orders", 1, CaReply::plain(404, "<html>not found</html>")),
        ("orders", 1, CaReply::plain(200, "")),
        ("authz", 1, unknown()),
        ("authz", 3, CaReply::plain(404, "")),
        ("challenge", 1, unknown()),
        ("finalize", 1, unknown()),
    ] {
        let said = answer.clone();
        let ca = FakeCa::start(move |ask| {
            (ask.kind == kind && ask.number < count).then(|| said.clone())
        });
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        let issued = fixture.issue(&["a.test"]).await;
        assert!(issued.is_ok(), "{kind} {answer:?}: {:?}", issued.err());
        assert_eq!(ca.asked("order").len(), 1, "{kind} {answer:?}");
        assert_eq!(ca.asked("account").len(), 1, "{kind} {answer:?}");
        assert!(ca.asked(kind).len() > count, "{kind} {answer:?}");
    }
}

/// Servers of a CA learn of an account one after another.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_known_yet_is_not_replaced() {
    let web = WebSolver::start();
    for kind in ["order", "authz", "orders", "finalize", "cert"] {
        let ca = FakeCa::start(move |ask| {
            let answer = || CaReply::problem(400, "accountDoesNotExist", "no such account");
            (ask.kind == kind && ask.number < 3).then(answer)
        });
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        fixture.issue(&["a.test"]).await.unwrap();
        assert_eq!(ca.asked("account").len(), 1, "{kind}");
        let refused = if kind == "order" { 3 } else { 0 };
        assert_eq!(ca.asked("order").len(), 1 + refused, "{kind}");
        assert_eq!(fixture.stored("accounts").len(), 1);
    }
}

/// Whatever a CA says of an order that it is about to issue for, the next attempt continues with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_finalized_is_kept() {
    let web = WebSolver::start();
    for answer in [
        CaReply::problem(403, "unauthorized", "who are you?"),
        CaReply::problem(400, "malformed", "what is that?"),
        CaReply::problem(400, "userActionRequired", "read the terms"),
        CaReply::problem(429, "rateLimited", "slowly"),
    ] {
        let is_odd = Arc::new(AtomicBool::new(true));
        let (said, odd) = (answer.clone(), Arc::clone(&is_odd));
        let ca = FakeCa::start_mangled(Features::default(), move |ask, reply| {
            // It is on its way when it is asked for.
            match ask.kind.as_str() {
                "finalize" => CaReply::plain(200, "accepted"),
                "orders" if ask.number > 0 && odd.load(Ordering::SeqCst) => said.clone(),
                _ => reply,
            }
        });
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        fixture.issue(&["a.test"]).await.err().unwrap();
        assert_eq!(fixture.stored("orders").len(), 1, "{answer:?}");
        is_odd.store(false, Ordering::SeqCst);
        fixture.issue(&["a.test"]).await.unwrap();
        assert_eq!(ca.asked("order").len(), 1, "{answer:?}");
    }
}

/// A body that is no certificate is asked for again, now and at the next attempt, with one order.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_in_the_place_of_a_certificate_costs_no_other_order() {
    let web = WebSolver::start();
    let is_odd = Arc::new(AtomicBool::new(true));
    let odd = Arc::clone(&is_odd);
    let ca = FakeCa::start(move |ask| {
        let nonsense = || CaReply::plain(200, "<title>Sorry</title>");
        (ask.kind == "cert" && odd.load(Ordering::SeqCst)).then(nonsense)
    });
    let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
    let failure = fixture.issue(&["a.test"]).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Network, "{failure}");
    for part in ["Sorry", "will request it again"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    is_odd.store(false, Ordering::SeqCst);
    fixture.issue(&["a.test"]).await.unwrap();
    assert_eq!(ca.asked("order").len(), 1);
}

/// A kept order that the CA has lost in earnest is given up for another.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_gone_is_given_up() {
    let web = WebSolver::start();
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = Arc::clone(&is_lost);
    let ca = FakeCa::start(move |ask| match ask.kind.as_str() {
        "finalize" if ask.number == 0 => Some(CaReply::plain(503, "later")),
        "orders" if ask.order == 0 && lost.load(Ordering::SeqCst) => Some(unknown()),
        _ => None,
    });
    let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
    fixture.issue(&["a.test"]).await.err().unwrap();
    is_lost.store(true, Ordering::SeqCst);
    fixture.issue(&["a.test"]).await.unwrap();
    assert_eq!(ca.asked("order").len(), 2);
}
