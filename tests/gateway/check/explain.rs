//! `snigate check --explain`: where a request would lead, and why.

mod listeners;

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::configured;
use crate::support::{Printed, snigate};

const CONFIG: &str = r#"server: { https: ["127.0.0.1:8443"], http: ["127.0.0.1:0"], admin: off }
storage: { file: { path: ./data } }
issuers: { local: { local_ca: {} } }
upstreams: { app: { servers: ["127.0.0.1:1"] } }
sites:
  - hosts: [a.example]
    routes:
      - { path: /x, upstream: app }
      - { path: { exact: /x }, methods: [PUT], respond: { status: 201 } }
      - path: /x
        headers: { X-Beta: "${BETA}" }
        query: { y: "1" }
        respond: {}
      - { path: /x/y, redirect: { to: /z } }
      - { path: { regex: "^/x" }, upstream: app }
  - { hosts: ["*.b.example"], upstream: app }
  - hosts: [plain.example]
    tls: off
    routes: [{ path: /only, methods: [GET], respond: {} }]
  - { hosts: [raw.example], pass_through: app }
  - { hosts: [tcp.example], tcp: app }
  - hosts: [a.example]
    listen: ["127.0.0.1:9443"]
    routes: [{ path: /inside, respond: {} }]
"#;

#[track_caller]
fn explain(path: &Path, arguments: &[&str]) -> Printed {
    let config = path.to_str().expect("text");
    let first = ["check", "--config", config, "--explain"];
    snigate(&[&first[..], arguments].concat())
}

/// A configuration whose secret is `beta`.
fn config() -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, path) = configured("");
    fs::write(dir.path().join("beta"), "beta").expect("written");
    let text = CONFIG.replace("${BETA}", "${file:beta}");
    fs::write(&path, text).expect("written");
    (dir, path)
}

#[test]
fn the_winner_and_the_others_are_printed_with_their_places() {
    let (_dir, path) = config();
    let shown = path.display();
    let printed = explain(&path, &["GET https://a.example/x?y=1"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert_eq!(
        printed.stdout,
        format!(
            "GET https://a.example/x?y=1\n\
             site:   a.example ({shown}:6:5)\n\
             route:  path /x ({shown}:8:9)\n\
             answer: upstream app\n\
             limits: a request body of any size; 5s to connect, 60s to read, 60s to send\n\
             other routes of the site:\n  \
             exact path /x with method PUT ({shown}:9:9): the method is not PUT\n  \
             path /x/y ({shown}:14:9): the path is another\n  \
             path /x with header x-beta, parameter y ({shown}:10:9): the header x-beta is missing\n  \
             expression ^/x ({shown}:15:9): prefixes come before expressions\n"
        )
    );
    assert_eq!(printed.stderr, "");

    let beta = [
        "https://a.example/x?y=1",
        "-H",
        "X-Beta: beta",
        "--header",
        "X: y",
    ];
    let printed = explain(&path, &beta);
    let route = format!("route:  path /x with header x-beta, parameter y ({shown}:10:9)\n");
    assert!(printed.stdout.contains(&route), "{printed:?}");
    assert!(
        printed.stdout.contains("response with status 200"),
        "{printed:?}"
    );
    let other = format!("path /x ({shown}:8:9): the other has more conditions\n");
    assert!(printed.stdout.contains(&other), "{printed:?}");

    let printed = explain(&path, &["PUT https://a.example/x"]);
    let other = format!("path /x ({shown}:8:9): an exact path comes first\n");
    assert!(printed.stdout.contains(&other), "{printed:?}");
    let printed = explain(&path, &["https://a.example/x/y/z"]);
    let other = format!("path /x ({shown}:8:9): the other path is longer\n");
    assert!(printed.stdout.contains(&other), "{printed:?}");
    let printed = explain(&path, &["https://x.B.example./"]);
    let route = format!("route:  path / ({shown}:16:31)\nanswer: upstream app\n");
    assert!(
        printed.stdout.contains("site:   *.b.example"),
        "{printed:?}"
    );
    assert!(printed.stdout.contains(&route), "{printed:?}");
}

#[test]
fn an_answer_without_a_route_is_explained_too() {
    let (_dir, path) = config();
    for (request, site, answer) in [
        (
            "https://a.example/z",
            "a.example (",
            "404 Not Found: There is nothing at this path.",
        ),
        ("https://a.example/x/../y", "a.example (", "400 Bad Request"),
        ("https://nobody.example/", "none", "421 Misdirected Request"),
        (
            "http://nobody.example/",
            "none",
            "404 Not Found: No site has this host.",
        ),
        (
            "https://plain.example/only",
            "plain.example (",
            "421 Misdirected Request",
        ),
        (
            "http://a.example/x?y",
            "a.example (",
            "308 redirect to https://a.example:8443/x?y\n",
        ),
        (
            "POST http://plain.example/only",
            "plain.example (",
            "405 Method Not Allowed",
        ),
        (
            "POST http://plain.example/only",
            "plain.example (",
            " Allow: GET\n",
        ),
        (
            "TRACE https://a.example/x",
            "a.example (",
            "405 Method Not Allowed",
        ),
        (
            "https://a..example/",
            "none",
            "400 Bad Request: The host is not valid.",
        ),
    ] {
        let printed = explain(&path, &[request]);
        assert_eq!((printed.code, &*printed.stderr), (Some(0), ""), "{request}");
        let lines: Vec<_> = printed.stdout.lines().collect();
        assert!(
            lines[1].starts_with(&format!("site:   {site}")),
            "{printed:?}"
        );
        assert_eq!(lines[2], "route:  none", "{printed:?}");
        assert!(printed.stdout.contains(answer), "{printed:?}");
    }
}

#[test]
fn the_json_has_the_same_and_no_secret() {
    let (_dir, path) = config();
    let printed = explain(&path, &["POST http://plain.example/only", "--json"]);
    let report: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!(report["route"], Value::Null);
    assert_eq!(report["answer"]["status"], 405);
    assert_eq!(report["answer"]["allow"], "GET");
    assert_eq!(report["others"][0]["reasons"][0]["kind"], "method");
    assert_eq!(report["others"][0]["line"], 19);

    let printed = explain(&path, &["https://a.example/x", "--json"]);
    let report: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!(report["site"]["host"], "a.example");
    assert_eq!(report["site"]["line"], 6);
    assert_eq!(report["route"]["path"], "sites[0].routes[0]");
    assert_eq!(report["route"]["file"], path.to_str().expect("text"));
    let kinds = |index: usize| {
        let reasons = report["others"][index]["reasons"]
            .as_array()
            .expect("a list");
        reasons
            .iter()
            .map(|one| one["kind"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(0), ["method"]);
    assert_eq!(kinds(1), ["path"]);
    assert_eq!(kinds(2), ["query", "header"]);
    assert_eq!(kinds(3), ["precedence"]);
    assert!(!printed.stdout.contains(": \"beta"), "{printed:?}");
}

#[test]
fn what_else_applies_is_explained() {
    let (dir, path) = configured(
        r#"server: { https: ["127.0.0.1:8443"], admin: off, error_pages: { 5xx: s.html } }
storage: { file: { path: ./data } }
issuers: { local: { local_ca: {} } }
upstreams: { app: { servers: ["127.0.0.1:1"] } }
sites:
  - hosts: [a.example]
    compress: { algorithms: [br, gzip], min_size: 2KiB }
    error_pages: { 404: n.html }
    routes:
      - { path: /x, upstream: app, max_body: 1MiB, timeout: { read: 9s, total: 1m } }
      - path: /y
        maintenance: { body: "back\n", allow: [10.0.0.0/8, "::1"] }
        upstream: app
  - hosts: [b.example]
    maintenance: { status: 500 }
    routes:
      - { path: /open, respond: {}, maintenance: off }
      - { path: /shut, respond: {} }
"#,
    );
    for page in ["s.html", "n.html"] {
        fs::write(dir.path().join(page), page).expect("a file");
    }
    let shown = path.display();
    let lines = |request: &str, arguments: &[&str]| {
        let printed = explain(&path, &[&[request][..], arguments].concat());
        assert_eq!((printed.code, &*printed.stderr), (Some(0), ""), "{request}");
        let lines = printed.stdout.lines().skip(3).map(str::to_owned);
        lines
            .take_while(|line| !line.starts_with("other"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        lines("https://a.example/x", &[]),
        [
            "answer: upstream app",
            "error page: configured for 404, 5xx",
            "compression: br, gzip from 2048 octets",
            "limits: a request body of 1048576 octets; 5s to connect, 9s to read, 60s to send, \
             60s in total",
        ]
    );
    let maintained = lines("https://a.example/y/z", &[]);
    let whom = "for all clients but those in 10.0.0.0/8, ::1/128, which get: upstream app";
    assert_eq!(
        maintained[0],
        "answer: 503 Service Unavailable: maintenance"
    );
    assert_eq!(maintained[1], format!("maintenance: {whom} ({shown}:12:9)"));
    assert_eq!(maintained[2], "error page: that of the maintenance");
    let missing = lines("https://a.example/z", &[]);
    assert_eq!(missing[1..], ["error page: 404"]);

    for path in ["/shut", "/nothing"] {
        assert_eq!(
            lines(&format!("https://b.example{path}"), &[]),
            [
                "answer: 500 Internal Server Error: maintenance".to_owned(),
                format!("maintenance: for all clients ({shown}:15:5)"),
                "error page: 5xx".to_owned(),
            ]
        );
    }
    let open = lines("https://b.example/open", &[]);
    assert_eq!(open[0], "answer: response with status 200 OK");
    // What a CA asks for is not kept from it.
    let challenge = lines("https://b.example/.well-known/acme-challenge/x", &[]);
    assert!(challenge[0].starts_with("answer: 404"), "{challenge:?}");

    let printed = explain(&path, &["https://a.example/y", "--json"]);
    let report: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!(report["answer"]["status"], 503);
    let maintenance = &report["effects"]["maintenance"];
    assert_eq!(maintenance["path"], "sites[0].routes[1].maintenance");
    assert_eq!(maintenance["allow"][0], "10.0.0.0/8");
    assert_eq!(maintenance["line"], 12);
}

#[test]
fn what_a_client_has_to_satisfy_is_explained() {
    let (dir, path) = configured(
        r#"server: { https: ["127.0.0.1:8443"], admin: off, trusted_proxies: [10.0.0.0/8, "::1"] }
storage: { file: { path: ./data } }
issuers: { local: { local_ca: {} } }
sites:
  - hosts: [a.example]
    allow: [192.0.2.0/24]
    rate_limit: { requests: 10 }
    max_requests: 50
    jwt: { jwks_url: "https://login.example/keys", issuer: i, audience: [api, web], claims: { role: admin } }
    routes:
      - { path: /x, respond: {} }
      - path: /y
        allow: []
        deny: [192.0.2.1]
        jwt: off
        basic_auth: { users_file: users }
        forward_auth: { url: "http://127.0.0.1:9/secret" }
        rate_limit: { requests: 5, per: 1m, by: { header: X-Key } }
        respond: {}
      - { path: /z, allow: [], jwt: off, rate_limit: off, respond: {} }
      - { path: /w, allow: [], jwt: { jwks_url: "https://login.example/keys" }, rate_limit: off, respond: {} }
"#,
    );
    let ann = "ann:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";
    fs::write(dir.path().join("users"), ann).expect("a file");
    let lines = |path_and_query: &str| {
        let printed = explain(&path, &[&format!("https://a.example{path_and_query}")]);
        assert_eq!(
            (printed.code, &*printed.stderr),
            (Some(0), ""),
            "{printed:?}"
        );
        let lines = printed.stdout.lines().skip(4).map(str::to_owned);
        lines
            .take_while(|line| !line.starts_with("other"))
            .collect::<Vec<_>>()
    };
    let proxies = "trusted proxies: 10.0.0.0 to 10.255.255.255, ::1";
    let most = "requests of the site: 50 at a time";
    let access = "access: only clients in 192.0.2.0/24; a token in Authorization of i for api or web \
                  with role admin, signed by a key of login.example";
    let rate = "rate limit: 10 requests in 1s, 10 at once, for each client, the site's";
    assert_eq!(lines("/x"), [proxies, access, rate, most]);
    assert_eq!(lines("/nothing")[1..], [proxies, access, rate, most]);
    let access = "access: no clients in 192.0.2.1/32; a name and a password; the \
                  consent of 127.0.0.1:9 within 5s";
    let rate = "rate limit: 5 requests in 60s, 5 at once, for each value of x-key, the route's";
    assert_eq!(lines("/y"), [proxies, access, rate, most]);
    assert_eq!(lines("/z"), [proxies, most]);
    let access = "access: a token in Authorization for no audience in particular, signed by a key of \
                  login.example";
    assert_eq!(lines("/w"), [proxies, access, most]);
    // The redirect to HTTPS is for everybody.
    let printed = explain(&path, &["http://a.example/x", "--json"]);
    let report: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    let guards = &report["effects"]["guards"];
    assert!(guards["trusted_proxies"].is_string(), "{printed:?}");
    for guard in ["access", "rate_limit", "max_requests"] {
        assert!(guards[guard].is_null(), "{guard}: {printed:?}");
    }
    let printed = explain(&path, &["https://a.example/y", "--json"]);
    let report: Value = serde_json::from_str(&printed.stdout).expect("JSON");
    let guards = &report["effects"]["guards"];
    assert_eq!(guards["max_requests"], 50);
    assert!(!printed.stdout.contains("secret"), "{printed:?}");
}

#[test]
fn what_cannot_be_explained_is_refused() {
    let (_dir, path) = config();
    for arguments in [
        &["GET a.example/x"][..],
        &["GET https:///x"],
        &["G(T https://a.example/"],
        &["GET https://a.example/ x"],
        &["GET https://a.example/", "-H", "X-Beta"],
        &["GET https://a.example/", "-H", "X Beta: 1"],
    ] {
        let printed = explain(&path, arguments);
        assert_eq!(printed.code, Some(2), "{arguments:?} {printed:?}");
    }
    let (_dir, path) = configured("sites: [{ hosts: [a.example], routes: [{ respnd: {} }] }]\n");
    let printed = explain(&path, &["https://a.example/"]);
    assert_eq!((printed.code, &*printed.stdout), (Some(3), ""));
    assert!(
        printed.stderr.contains("did you mean 'respond'?"),
        "{printed:?}"
    );
}
