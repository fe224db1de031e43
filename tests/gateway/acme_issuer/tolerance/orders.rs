//! Orders that may not replace a certificate, that do not say what they replace, or that the CA cannot
//! show.

use std::time::Duration;

use serde_json::{Value, json};
use snigate::issuer::Issuer;
use snigate::schedule::FailureClass;

use super::Mutation;
use crate::acme_issuer::fixture::{Fixture, WebSolver, config};
use crate::support::{CaReply, FakeCa, Features};

/// What a CA has against an order in the place of a certificate is reported, with what is done then.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_may_not_replace_is_told_in_the_words_of_the_ca() {
    let web = WebSolver::start();
    for (status, kind, detail) in [
        (409, "alreadyReplaced", "another order has replaced it"),
        (404, "malformed", "no such certificate"),
    ] {
        let features = Features {
            directory: json!({ "renewalInfo": "/ari" }),
            ..Features::default()
        };
        let ca = FakeCa::start_with(features, move |ask| {
            let is_it = ask.kind == "order" && ask.payload.get("replaces").is_some();
            is_it.then(|| CaReply::problem(status, kind, detail))
        });
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        let mut request = fixture.request(&["a.test"]);
        request.replaces = Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".to_owned());
        let mut progress = fixture.events.subscribe();
        fixture.issuer.issue(&request).await.unwrap();
        let told = std::iter::from_fn(|| progress.try_recv().ok());
        let told: Vec<String> = told
            .map(|event| event.message.clone())
            .filter(|message| message.contains("an order that replaces the current certificate"))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(detail), "{told:?}");
        assert!(told[0].ends_with("ordering without 'replaces'"), "{told:?}");
        let orders = ca.asked("order");
        let replace = orders.iter().map(|order| order.payload.get("replaces"));
        let replace: Vec<bool> = replace.map(|one| one.is_some()).collect();
        assert_eq!(replace, [true, false], "{kind}");
    }
}

/// An order whose URL is not told cannot be completed: it is the only one of the attempt, and people
/// read what the CA did.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_nowhere_is_the_only_one_and_is_told() {
    let web = WebSolver::start();
    for (place, body, lifetime) in [
        (None, None, None),
        (Some(""), None, None),
        (Some("no place"), None, None),
        (None, Some("<html>created</html>"), None),
        (None, Some(""), None),
        (None, None, Some(7)),
        (Some("here"), Some(""), Some(7)),
    ] {
        for replaces in [None, Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")] {
            let features = Features {
                directory: json!({ "renewalInfo": "/ari" }),
                ..Features::default()
            };
            let ca = FakeCa::start_mangled(features, move |ask, mut reply| {
                if ask.kind == "order" {
                    reply.headers.retain(|(name, _)| name != "Location");
                    if let Some(place) = place {
                        reply = reply.header("Location", place);
                    }
                    if let Some(body) = body {
                        reply.body = body.into();
                    }
                }
                reply
            });
            let mut config = config(ca.directory(), ca.ca_file());
            config.order.lifetime = lifetime.map(|days| Duration::from_secs(days * 86_400));
            let fixture = Fixture::new(config, vec![web.clone()]);
            let mut request = fixture.request(&["a.test"]);
            request.replaces = replaces.map(str::to_owned);
            let failure = fixture.issuer.issue(&request).await.err().unwrap();
            let case = format!("{place:?} {body:?} {lifetime:?} {replaces:?}: {failure}");
            assert_eq!(ca.asked("order").len(), 1, "{case}");
            // It is asked again after minutes, then hours.
            assert_eq!(failure.class, FailureClass::Internal, "{case}");
            assert!(failure.message.contains("no Location header"), "{case}");
            let words = match body {
                None => "201 Created and begins with {",
                Some("") => "201 Created without a body",
                Some(words) => words,
            };
            assert!(failure.message.contains(words), "{case}");
            // Nobody continues another's order.
            assert!(ca.asked("authz").is_empty(), "{case}");
        }
    }
}

/// An order in the place of a certificate, of a CA that does not say so as it should.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_does_not_say_what_it_replaces_is_good() {
    let web = WebSolver::start();
    for value in [
        None,
        Some(Value::Null),
        Some(json!("")),
        Some(json!(17)),
        Some(json!("other.one")),
    ] {
        let mutation = Mutation {
            kind: "order".to_owned(),
            number: None,
            object: String::new(),
            name: "replaces".to_owned(),
            value: value.clone(),
        };
        let features = Features {
            directory: json!({ "renewalInfo": "/ari" }),
            ..Features::default()
        };
        let ca = FakeCa::start_mangled(features, move |ask, reply| mutation.apply(ask, reply));
        let fixture = Fixture::new(config(ca.directory(), ca.ca_file()), vec![web.clone()]);
        let mut request = fixture.request(&["a.test"]);
        request.replaces = Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE".to_owned());
        fixture.issuer.issue(&request).await.unwrap();
        let orders = ca.asked("order");
        assert_eq!(orders.len(), 1, "{value:?}");
        assert!(orders[0].payload["replaces"].is_string());
    }
}
