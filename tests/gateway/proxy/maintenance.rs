//! Sites and routes under maintenance.

use std::fs;

use super::{VERSIONS, over};
use crate::support::{Gateway, Origin, serving, wait_for};

fn gateway(origin: &Origin, maintenance: &str, route: &str) -> Gateway {
    let builder = serving(&[&["a.test"]], config(origin, maintenance, route));
    fs::write(builder.dir().join("page.html"), "{status} on {host}").expect("a file");
    builder.start()
}

fn config(origin: &Origin, maintenance: &str, route: &str) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         sites:\n\
         - hosts: [a.test]\n  \
           maintenance: {maintenance}\n  \
           routes: [{{ upstream: app }}, {{ path: /health{route}, respond: {{ body: up }} }}]\n\
         log: {{ access: off }}\n",
        origin.address(),
    )
}

#[test]
fn every_request_gets_the_page() {
    let origin = Origin::named("app");
    let gateway = gateway(&origin, "on", "");
    for version in VERSIONS {
        for path in ["/", "/health", "/x/../y"] {
            let reply = over(version, &gateway, "a.test", path).send();
            assert_eq!(
                (reply.status, reply.header("retry-after")),
                (503, Some("600"))
            );
            assert!(
                reply.text().contains("under maintenance"),
                "{}",
                reply.text()
            );
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
        let posted = over(version, &gateway, "a.test", "/")
            .args(["--data", "body"])
            .send();
        assert_eq!(posted.status, 503);
        let json = over(version, &gateway, "a.test", "/")
            .args(["--header", "Accept: application/json"])
            .send();
        assert_eq!(
            json.header("content-type"),
            Some("application/problem+json")
        );
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn validations_of_servers_still_reach_them() {
    let origin = Origin::named("app");
    let gateway = gateway(&origin, "on", "");
    for (path, status) in [
        ("/.well-known/acme-challenge/abc-_9", 200),
        ("/.well-known/acme-challenge/../../x", 503),
        ("/.well-known/acme-challenge/a/b", 503),
        ("/.well-known/acme-challenge/a?rest_route=/x", 503),
        ("/.well-known/acme-challenge/", 503),
        ("/.well-known/acme-challenge/..%2fx", 503),
        ("/.well-known/", 503),
    ] {
        let reply = over("1.1", &gateway, "a.test", path)
            .arg("--path-as-is")
            .send();
        assert_eq!(reply.status, status, "{path}");
    }
}

#[test]
fn it_is_as_configured() {
    let origin = Origin::named("app");
    let options = "{ status: 500, file: page.html, retry_after: 0s }";
    let gateway = gateway(&origin, options, ", maintenance: off");
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/").send();
        assert_eq!(
            (reply.status, reply.text()),
            (500, "500 on a.test".to_owned())
        );
        assert_eq!(reply.header("retry-after"), None);
        let health = over(version, &gateway, "a.test", "/health").send();
        assert_eq!((health.status, health.text()), (200, "up".to_owned()));
    }
}

#[test]
fn some_clients_are_served_all_the_same() {
    let origin = Origin::named("app");
    let served = gateway(&origin, "{ allow: [\"127.0.0.0/8\"] }", "");
    assert_eq!(over("2", &served, "a.test", "/").send().text(), "app");
    let other = gateway(
        &origin,
        "{ body: later, allow: [\"10.0.0.0/8\", \"::1\"] }",
        "",
    );
    assert_eq!(over("2", &other, "a.test", "/").send().text(), "later");
}

#[test]
fn it_begins_and_ends_while_the_gateway_runs() {
    let origin = Origin::named("app");
    let mut gateway = gateway(&origin, "off", ", maintenance: { body: later }");
    let status = |gateway: &Gateway, path| over("2", gateway, "a.test", path).send().status;
    assert_eq!(status(&gateway, "/"), 200);
    assert_eq!(status(&gateway, "/health"), 503);
    for (maintenance, expected) in [("on", 503), ("off", 200)] {
        let yaml = config(&origin, maintenance, "");
        gateway.replace_config(format!("certificates: [{{ directory: certs }}]\n{yaml}"));
        wait_for("the new state", || {
            (status(&gateway, "/") == expected).then_some(())
        });
        assert_eq!(status(&gateway, "/health"), expected);
    }
}
