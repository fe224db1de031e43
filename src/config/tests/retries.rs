//! `retries` of routes.

use super::*;
use crate::config::model::{Action, Retries, RetryCause};

/// How requests are retried with these keys of the route.
fn retries(keys: &str) -> Retries {
    let text = format!(
        "upstreams: {{ app: {{ servers: [\"a:1\"] }} }}\n\
         sites: [{{ hosts: [a.example], tls: off, routes: [{{ upstream: app{keys} }}] }}]\n"
    );
    match &accept(&text).config.sites[0].routes[0].action {
        Action::Proxy(proxy) => proxy.retries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn retries_are_a_number_or_rules() {
    use RetryCause::{Connect, Reset, Status, Timeout};
    let default = retries("");
    assert_eq!((default.attempts, default.budget), (1, 20));
    assert_eq!(retries(", retries: 3"), Retries::new(3));
    assert_eq!(retries(", retries: {}"), default);
    assert_eq!(retries(", retries: { attempts: 3 }"), Retries::new(3));
    let status = |code| Status(http::StatusCode::from_u16(code).expect("a status"));
    let causes = [
        Connect,
        Reset,
        Timeout,
        status(502),
        status(503),
        status(504),
    ];
    let has = |rules: Retries| causes.map(|cause| rules.on.contains(cause));
    assert_eq!(has(default), [true, true, false, false, false, false]);
    let rules = retries(", retries: { attempts: 2, on: [timeout, 503], budget: 5% }");
    assert_eq!(has(rules), [false, false, true, false, true, false]);
    assert_eq!((rules.attempts, rules.budget), (2, 5));
    assert!(rules.on.has_statuses() && !default.on.has_statuses());
    assert!(!rules.on.contains(status(500)));
}

#[test]
fn mistakes_of_retries_are_reported_where_they_are() {
    for (rules, key, words) in [
        ("11", "", "out of range"),
        ("{ attempts: 11 }", ".attempts", "out of range"),
        ("{ on: [] }", ".on", "the list is empty"),
        ("{ on: [conect] }", ".on[0]", "connect, reset, timeout"),
        ("{ on: [connect, 500] }", ".on[1]", "out of range"),
        ("{ on: [5xx] }", ".on[0]", "one of 502, 503, 504"),
        ("{ on: [\"503\"] }", ".on[0]", "a number without quotes"),
        ("{ budget: 0% }", ".budget", "not a share of the requests"),
        ("{ budget: 101% }", ".budget", "not a share of the requests"),
        (
            "{ budget: \"20\" }",
            ".budget",
            "not a share of the requests",
        ),
        ("{ budget: 20 }", ".budget", "expected text"),
        ("often", "", "expected"),
    ] {
        let found = errors(&format!(
            "upstreams: {{ app: {{ servers: [\"a:1\"] }} }}\n\
             sites: [{{ hosts: [a.example], tls: off, routes: [\
             {{ upstream: app, retries: {rules} }}] }}]\n"
        ));
        let [only] = found.as_slice() else {
            panic!("{rules}\n{found:#?}")
        };
        let key = format!(": sites[0].routes[0].retries{key}: ");
        assert!(
            only.contains(&key) && only.contains(words),
            "{rules}\n{only}"
        );
    }
}
