//! Which requests routes are for, and in which order they are tried.

use std::sync::Arc;

use super::*;

fn site(routes: &str) -> String {
    format!("sites:\n- hosts: [a.example]\n  tls: off\n  routes:\n{routes}")
}

fn respond(condition: &str) -> String {
    format!("  - {{ {condition}, respond: {{}} }}\n")
}

#[test]
fn routes_are_sorted_by_precedence() {
    let routes: String = [
        "path: { regex: b }",
        "path: { regex: a }",
        "path: /a",
        "path: /a, methods: [PUT]",
        "path: \"/%62%62\"",
        "path: /long/path",
        "path: { exact: /x }",
        "path: { regex: b }, query: { q: \"*\" }",
        "path: { exact: /x }, methods: [PUT], headers: { B: b, A: \"*\" }",
    ]
    .map(respond)
    .concat();
    let loaded = accept(&site(&routes));
    let routes = &loaded.config.sites[0].routes;
    let shown: Vec<_> = routes
        .iter()
        .map(|route| match &route.conditions {
            None => route.path.to_string(),
            Some(conditions) => format!("{}: {conditions}", route.path),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "exact path /x: method PUT, header a, header b",
            "exact path /x",
            "path /long/path",
            "path /%62%62",
            "path /a: method PUT",
            "path /a",
            "expression b: parameter q",
            "expression b",
            "expression a",
        ]
    );
    assert_eq!(loaded.warnings, []);
}

#[test]
fn routes_that_are_never_reached_are_reported() {
    for (routes, warnings) in [
        (
            &["path: /a, methods: [GET, PUT]", "path: /a, methods: [PUT]"][..],
            &["routes[1].path: the route is never reached because of routes[0]: it stands earlier"]
                [..],
        ),
        (
            &["path: /a, methods: [PUT]", "path: /a, methods: [GET, PUT]"],
            &[],
        ),
        (
            &[
                "path: /a, headers: { X: \"*\" }",
                "path: /a, headers: { X: a }",
            ],
            &["routes[1].path: the route is never reached because of routes[0]: it stands earlier"],
        ),
        (
            &["path: /a, query: { x: a }", "path: /a, query: { x: b }"],
            &[],
        ),
        (
            &["path: { regex: a }", "path: /"],
            &["routes[0].path: the route is never reached because of routes[1]: prefixes come"],
        ),
        (
            &["path: { regex: a }, methods: [GET]", "methods: [GET]"],
            &["routes[0].path: the route is never reached because of routes[1]: prefixes come"],
        ),
        (&["path: { regex: a }", "path: /, methods: [GET]"], &[]),
        (&["path: { regex: a }", "path: { regex: \"^/\" }"], &[]),
        (
            &["path: { regex: ^u }"],
            &["routes[0].path.regex: no path matches '^u': each begins with '/'"],
        ),
        (
            &["path: { regex: '^/a\\?b' }"],
            &["routes[0].path.regex: '^/a\\?b' is compared with a path, which has no '?'"],
        ),
        (
            &["methods: [GET, GET]"],
            &["routes[0].methods[1]: the method 'GET' is already in the list"],
        ),
    ] {
        let text = site(
            &routes
                .iter()
                .map(|route| respond(route))
                .collect::<String>(),
        );
        let found = accept(&text).warnings;
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), warnings.len(), "{text}\n{found:#?}");
        for (found, wanted) in found.iter().zip(warnings) {
            assert!(found.contains(wanted), "{text}\n{found}");
        }
    }
}

#[test]
fn a_misspelled_condition_is_no_duplicate() {
    for routes in [
        ["path: /a, methds: [GET]", "path: /a"],
        ["path: /a", "path: /a, methods: [get]"],
        ["path: /a", "path: /a, headers: { X: 1 }"],
        ["path: { exac: /a }", "path: { exac: /a }"],
    ] {
        let found = errors(&site(&routes.map(respond).concat()));
        let is_duplicate = |error: &String| error.contains("has the same");
        assert!(!found.iter().any(is_duplicate), "{found:#?}");
    }
}

#[test]
fn sites_with_the_same_conditions_share_their_routes() {
    let routes = respond("path: { regex: \"^/u/\" }, methods: [PUT, GET]");
    let same = respond("path: { regex: \"^/u/\" }, methods: [GET, PUT]");
    let other = respond("path: { regex: \"^/u/\" }, methods: [GET]");
    let text = [&routes, &same, &other]
        .iter()
        .enumerate()
        .map(|(n, routes)| {
            let site = site(routes).replace("a.example", &format!("a{n}.example"));
            site.replace("sites:\n", "")
        })
        .collect::<String>();
    let loaded = accept(&format!("sites:\n{text}"));
    let [a, b, c] = &*loaded.config.sites else {
        panic!("three sites")
    };
    assert!(Arc::ptr_eq(&a.routes, &b.routes));
    assert!(!Arc::ptr_eq(&a.routes, &c.routes));
}

#[test]
fn the_places_of_routes_are_in_the_order_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    let routes = [respond("path: /a"), respond("path: { exact: /b }")].concat();
    let short = "- { hosts: [b.example], tls: off, upstream: app }\n\
                 upstreams: { app: { servers: [\"127.0.0.1:1\"] } }\n";
    std::fs::write(&path, site(&routes) + short).unwrap();
    let (_, places) = load_with_places(&path).unwrap();
    let line = |site, route| {
        places
            .get(site, route)
            .map(|place| (place.line, &*place.path))
    };
    assert_eq!(line(0, 0), Some((6, "sites[0].routes[1]")));
    assert_eq!(line(0, 1), Some((5, "sites[0].routes[0]")));
    assert_eq!(line(1, 0), Some((7, "sites[1].upstream")));
    assert_eq!(line(1, 1), None);
}

#[test]
fn an_escape_that_is_none_is_warned_of() {
    for (path, is_good) in [("/a%2", false), ("/a%zz/%20", false), ("/%61%2F", true)] {
        let loaded = accept(&site(&respond(&format!("path: \"{path}\""))));
        assert_eq!(loaded.warnings.is_empty(), is_good, "{path}");
    }
}
