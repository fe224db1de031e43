//! Every member of every answer in turn is absent, null or of another type.

use std::sync::{Arc, Mutex};

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use snigate::printable::is_control;

use super::{Mutation, obtain};
use crate::acme_issuer::fixture::WebSolver;

/// How many runs there are at a time.
const AT_ONCE: usize = 12;

/// All members of a JSON value, by the pointer to their object.
fn members(value: &Value, pointer: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(object) => {
            for (name, member) in object {
                found.push((pointer.to_owned(), name.clone()));
                members(member, &format!("{pointer}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                members(element, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Every member of every answer in turn is absent, null or of another type: unless nobody could do
/// without it, the certificate comes, and with one order.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_matter_costs_nothing() {
    let web = WebSolver::start();
    let answers: Arc<Mutex<Vec<(String, usize, Value)>>> = Arc::default();
    let seen = Arc::clone(&answers);
    let good = obtain(&web, move |ask, reply| {
        if let Ok(body) = serde_json::from_slice(&reply.body) {
            let answer = (ask.kind.clone(), ask.number, body);
            seen.lock().unwrap().push(answer);
        }
        reply
    });
    assert_eq!(good.await, (1, Ok(())));
    let answers = answers.lock().unwrap().clone();
    let mut mutations = Vec::new();
    for (kind, number, answer) in &answers {
        let mut found = Vec::new();
        members(answer, "", &mut found);
        for (object, name) in found {
            for value in [
                None,
                Some(Value::Null),
                Some(json!(17)),
                Some(json!(true)),
                Some(json!("")),
                Some(json!([])),
                Some(json!({})),
            ] {
                for number in [Some(*number), None] {
                    mutations.push(Mutation {
                        kind: kind.clone(),
                        number,
                        object: object.clone(),
                        name: name.clone(),
                        value: value.clone(),
                    });
                }
            }
        }
    }
    // Members that the good run does not have.
    for (kind, name, value) in [
        ("orders", "error", json!({})),
        (
            "orders",
            "error",
            json!({ "type": "urn:ietf:params:acme:error:malformed" }),
        ),
        ("finalize", "error", json!({})),
        (
            "finalize",
            "error",
            json!({ "detail": "it was once", "status": "400" }),
        ),
        ("order", "replaces", json!("")),
        ("order", "replaces", json!("a.b.c")),
        ("order", "profile", json!({})),
        ("order", "notBefore", json!(17)),
        ("finalize", "status", json!(" VALID ")),
        ("orders", "status", json!("Ready")),
        ("order", "status", json!("PENDING")),
        ("finalize", "status", json!("issuing")),
        ("authz", "wildcard", Value::Null),
        ("authz", "wildcard", json!("false")),
        ("authz", "wildcard", json!(0)),
        ("authz", "status", json!("processing")),
        ("authz", "identifier", json!("a.test")),
        ("challenge", "error", Value::Null),
        ("challenge", "error", json!({})),
        ("challenge", "status", json!("queued")),
        ("account", "contact", Value::Null),
        ("account", "termsOfServiceAgreed", json!("yes")),
        ("dir", "newAuthz", json!(17)),
        ("dir", "renewalInfo", json!({})),
    ] {
        mutations.push(Mutation {
            kind: kind.to_owned(),
            number: Some(0),
            object: String::new(),
            name: name.to_owned(),
            value: Some(value),
        });
    }
    mutations.retain(|mutation| !mutation.matters());
    let count = mutations.len();
    let web = &web;
    let wrong: Vec<String> = stream::iter(mutations)
        .map(|mutation| async move {
            let mangle = mutation.clone();
            let outcome = obtain(web, move |ask, reply| mangle.apply(ask, reply)).await;
            (outcome != (1, Ok(()))).then(|| format!("{mutation:?}: {outcome:?}"))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|wrong| async move { wrong })
        .collect()
        .await;
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 300, "{count} runs");
}

/// What is missing is named, with what came instead.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let web = WebSolver::start();
    for (kind, name, part) in [
        ("dir", "newOrder", "no valid URL for 'newOrder'"),
        (
            "authz",
            "challenges",
            "the authorization has no readable 'challenges'",
        ),
    ] {
        let mutation = Mutation {
            kind: kind.to_owned(),
            number: None,
            object: String::new(),
            name: name.to_owned(),
            value: Some(json!("\u{202e}")),
        };
        let (orders, issued) = obtain(&web, move |ask, reply| mutation.apply(ask, reply)).await;
        let why = issued.unwrap_err();
        assert!(why.contains(part), "{name}: {why}");
        assert!(why.chars().all(|char| !is_control(char)), "{why:?}");
        assert!(orders <= 1, "{orders}");
    }
}
