//! What routes change in messages, and `hsts`: the resulting models, and warnings.

use std::time::Duration;

use super::*;
use crate::config::model::{Action, Hsts, Rewriting, Template};

fn route(keys: &str) -> Loaded {
    accept(&format!(
        "upstreams: {{ app: {{ servers: [\"127.0.0.1:1\"] }} }}\n\
         sites: [{{ hosts: [a.example], tls: off, routes: [{{ path: /app, {keys} }}] }}]\n"
    ))
}

fn template(text: &str) -> Template {
    text.parse().unwrap()
}

#[test]
fn a_route_without_changes_has_none() {
    for keys in [
        "upstream: app",
        "upstream: app, strip_prefix: false, request_headers: { set: {}, add: {}, remove: [] }",
        "respond: {}, response_headers: {}",
    ] {
        let loaded = route(keys);
        assert_eq!(loaded.config.sites[0].routes[0].rewriting, None, "{keys}");
    }
}

#[test]
fn changes_keep_their_order_and_their_names() {
    let loaded = route(
        "upstream: app, strip_prefix: true, rewrite: \"/v1{path}?{query}\", host: \"x-{host}:80\", \
         request_headers: { set: { X-B: \"\", x-a: \"{{}}${SECRET}\" }, add: { Via: [a, \"{sni}\"], X-C: d } }, \
         response_headers: { remove: [Server] }",
    );
    let rewriting = loaded.config.sites[0].routes[0].rewriting.as_deref();
    let mut expected = Rewriting {
        strip_prefix: Some("/app".into()),
        target: Some(template("/v1{path}?{query}")),
        host: Some(template("x-{host}:80")),
        ..Rewriting::default()
    };
    let pair = |name: &str, value| (name.into(), template(value));
    expected.request_headers.set = vec![pair("X-B", ""), pair("x-a", "{{}}hunter2")];
    expected.request_headers.add = vec![pair("Via", "a"), pair("Via", "{sni}"), pair("X-C", "d")];
    expected.response_headers.remove = vec!["Server".into()];
    assert_eq!(rewriting, Some(&expected));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_route_may_set_what_a_client_may_not() {
    for name in [
        "X-Forwarded-Prefix",
        "x-forwarded-ssl",
        "Front-End-Https",
        "X-Original-URI",
        "X-Scheme",
        "X-Client-IP",
        "X-Host",
        "X-Forwarded-User",
    ] {
        for edit in [
            "set: { NAME: \"1\" }",
            "add: { NAME: \"1\" }",
            "remove: [NAME]",
        ] {
            let edit = edit.replace("NAME", name);
            let loaded = route(&format!("upstream: app, request_headers: {{ {edit} }}"));
            assert_eq!(loaded.warnings, [], "{edit}");
        }
    }
}

#[test]
fn two_slashes_in_a_row_are_warned_of() {
    let loaded = route("upstream: app, rewrite: \"/v1/{path}\"");
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    assert!(
        warning.contains("leave out the '/' before {path}"),
        "{warning}"
    );
    let loaded = route("upstream: app, rewrite: \"/v1?at=/{path}\"");
    assert_eq!(loaded.warnings, []);
}

#[test]
fn redirects_lead_where_the_configuration_says() {
    for to in [
        "https://b.example{path}{?query}",
        "{scheme}://{host}:{port}{path}",
        "http://{sni}/x?{query}",
        "https://b.example?{query}",
        "https://b.example{?query}",
        "https://[2001:db8::1]{path}",
        "{path}",
        "{path}?from={host}",
        "/x/{query}",
    ] {
        let loaded = route(&format!("redirect: {{ to: \"{to}\" }}"));
        let Action::Redirect { to: found, .. } = &loaded.config.sites[0].routes[0].action else {
            panic!("{to}")
        };
        assert_eq!(found.to_string(), to);
    }
}

#[test]
fn what_a_reference_stands_for_is_not_shown_as_a_placeholder() {
    let text = "upstreams: { app: { servers: [\"127.0.0.1:1\"] } }\n\
                sites: [{ hosts: [a.example], tls: off, routes: [{ upstream: app, \
                request_headers: { set: { X-A: \"{${SECRET}}\" } } }] }]\n";
    let shown = refuse(text).to_string();
    assert!(
        shown.contains("unknown placeholder") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn hsts_has_defaults() {
    let loaded = accept(
        "issuers: { local: { local_ca: } }\n\
         sites: [{ hosts: [a.example], hsts: { subdomains: true }, routes: [{ respond: {} }] }, \
         { hosts: [b.example], routes: [{ respond: {} }] }]\n",
    );
    let expected = Hsts {
        max_age: Duration::from_secs(365 * 24 * 3600),
        subdomains: true,
        preload: false,
    };
    assert_eq!(loaded.config.sites[0].hsts, Some(expected));
    assert_eq!(loaded.config.sites[1].hsts, None);
}
