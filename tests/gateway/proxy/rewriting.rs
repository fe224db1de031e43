//! What routes change in requests and responses, over both lanes.

mod responses;

use super::{PINGORA, VERSIONS, all, over};
use crate::support::{Gateway, Origin, TlsClient, serving};

/// Gateways with these routes in `a.test`, one for each lane.
fn gateways(origin: &Origin, routes: &str) -> [Gateway; 2] {
    on_both_lanes(&yaml(origin, routes))
}

fn on_both_lanes(yaml: &str) -> [Gateway; 2] {
    let own = serving(&[&["a.test"]], yaml).start();
    let pingora = serving(&[&["a.test"]], yaml)
        .over_own_lane()
        .run_by(&PINGORA)
        .start();
    [own, pingora]
}

fn yaml(origin: &Origin, routes: &str) -> String {
    format!(
        "upstreams:\n  app: {{ servers: [\"{}\"] }}\n\
         sites:\n- hosts: [a.test]\n  routes:\n{routes}\nlog: {{ access: off }}\n",
        origin.address(),
    )
}

/// The request line that the origin got.
fn line(echo: &str) -> &str {
    echo.lines().next().unwrap_or_default()
}

#[test]
fn the_server_gets_the_path_that_the_route_says() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        r#"
  - { path: /app, strip_prefix: true, upstream: app }
  - { path: /slash/, strip_prefix: true, upstream: app }
  - { path: /files, rewrite: "/static{path}", upstream: app }
  - { path: /both, strip_prefix: true, rewrite: "/v2{path}", upstream: app }
  - { path: /find, rewrite: "/search?at={path}&{query}", upstream: app }
  - { path: /one, rewrite: /index.html, upstream: app }
  - { path: /braces, rewrite: "/{{x}}{?query}", upstream: app }
  - { upstream: app }
"#,
    );
    for gateway in &gateways {
        for version in VERSIONS {
            for (path, got) in [
                ("/app/x?y=z", "/x?y=z"),
                ("/app", "/"),
                ("/app?y", "/?y"),
                ("/app/a%2Fb%20c?%20", "/a%2Fb%20c?%20"),
                ("/%61pp/%41", "/%41"),
                ("/app//evil.test/x", "/evil.test/x"),
                ("/slash/x", "/x"),
                ("/slash/", "/"),
                ("/files/x%2fy?z", "/static/files/x%2fy?z"),
                ("/both/x?y", "/v2/x?y"),
                ("/both", "/v2/"),
                ("/find/x&y?a=b", "/search?at=/find/x%26y&a=b"),
                ("/one/x?y", "/index.html?y"),
                ("/braces/x?y", "/{x}?y"),
                ("/braces/x", "/{x}"),
                ("/apple/x?y", "/apple/x?y"),
                ("/x//y?z", "/x//y?z"),
            ] {
                let reply = over(version, gateway, "a.test", path)
                    .args(["--path-as-is", "-g"])
                    .send();
                let expected = format!("GET {got} HTTP/1.1");
                assert_eq!(line(&reply.text()), expected, "{path} over {version}");
            }
        }
    }
}

#[test]
fn a_path_does_not_leave_the_place_that_the_route_gives_it() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        r#"
  - { path: /app, strip_prefix: true, upstream: app }
  - { path: /files, rewrite: "/static{path}", upstream: app }
  - { path: /query, rewrite: "/static/{query}", upstream: app }
"#,
    );
    for gateway in &gateways {
        for version in VERSIONS {
            for path in [
                "/app/x/../../app/secret",
                "/app/x/..%2f../app/secret",
                "/app/%2e%2e/app/secret",
                "/files/x/..;/../files/y",
                "/files/a/..",
                "/query?../secret",
                "/query?%2e%2e/secret",
                "/query?a`b",
            ] {
                let reply = over(version, gateway, "a.test", path)
                    .args(["--path-as-is", "-g"])
                    .send();
                assert_eq!(reply.status, 400, "{path} over {version}");
            }
        }
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn the_server_gets_the_host_that_the_route_says() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        r#"
  - { path: /fixed, host: "app.internal:81", upstream: app }
  - { path: /made, host: "x-{host}", upstream: app }
  - { upstream: app }
"#,
    );
    for gateway in &gateways {
        let sent = format!("a.test:{}", gateway.https.port());
        for version in VERSIONS {
            for (path, host) in [
                ("/fixed", "app.internal:81"),
                ("/made", "x-a.test"),
                ("/", &*sent),
            ] {
                let head = over(version, gateway, "a.test", path).send().text();
                assert_eq!(all(&head, "host"), [host], "{head}");
                assert_eq!(all(&head, "x-forwarded-host"), [&*sent], "{head}");
            }
        }
    }
}

#[test]
fn fields_of_requests_are_set_added_and_removed() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        r#"
  - path: /edit
    upstream: app
    strip_prefix: true
    request_headers:
      set: { X-From: edge, X-Path: "{path}{?query}", X-Empty: "", X-Who: "{client_ip} {scheme} {method} {host} {port}" }
      add: { X-More: [a, "{sni} {tls_version}"], X-Id: "{request_id}" }
      remove: [cookie, Authorization]
  - { upstream: app }
"#,
    );
    for gateway in &gateways {
        for version in VERSIONS {
            let send = |path| {
                over(version, gateway, "a.test", path)
                    .args(["-H", "x-from: client"])
                    .args(["-H", "X_From: client"])
                    .args(["-H", "X-Empty: client"])
                    .args(["-H", "X-More: client"])
                    .args(["-H", "Cookie: a=b"])
                    .args(["-H", "Authorization: Basic eA=="])
                    .send()
            };
            let reply = send("/edit/x?y");
            let head = reply.text();
            assert_eq!(all(&head, "x-from"), ["edge"], "{head}");
            assert_eq!(all(&head, "x-path"), ["/edit/x?y"], "{head}");
            let who = format!("127.0.0.1 https GET a.test {}", gateway.https.port());
            assert_eq!(all(&head, "x-who"), [&*who], "{head}");
            assert_eq!(
                all(&head, "x-more"),
                ["client", "a", "a.test TLSv1.3"],
                "{head}"
            );
            let id = reply.header("x-request-id").expect("an id");
            assert_eq!(all(&head, "x-id"), [id], "{head}");
            for name in ["x-empty", "cookie", "authorization", "x_from"] {
                assert!(all(&head, name).is_empty(), "{name}: {head}");
            }
            let untouched = send("/").text();
            assert_eq!(all(&untouched, "x-from"), ["client"]);
            assert_eq!(all(&untouched, "cookie"), ["a=b"]);
        }
    }
}

#[test]
fn a_route_sets_what_no_client_may() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        r#"
  - path: /set
    upstream: app
    request_headers: { set: { X-Forwarded-Prefix: /mine, X-Forwarded-Ssl: "on", X-Forwarded-User: "{client_ip}" } }
  - { path: /strip/, strip_prefix: true, upstream: app }
  - { upstream: app }
"#,
    );
    let names = ["x-forwarded-prefix", "x-forwarded-ssl", "x-forwarded-user"];
    for gateway in &gateways {
        for version in VERSIONS {
            for (path, values) in [
                ("/set", [&["/mine"][..], &["on"], &["127.0.0.1"]]),
                ("/strip/x", [&["/strip"], &[], &[]]),
                ("/", [&[], &[], &[]]),
            ] {
                let mut call = over(version, gateway, "a.test", path);
                for name in names {
                    call = call.args(["-H", &format!("{name}: client")]);
                }
                let head = call.send().text();
                for (name, expected) in names.into_iter().zip(values) {
                    assert_eq!(all(&head, name), expected, "{path} over {version}: {head}");
                }
            }
        }
    }
}

#[test]
fn a_client_cannot_take_away_what_the_route_sets() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        "  - { upstream: app, request_headers: { set: { X-From: edge } } }",
    );
    for gateway in &gateways {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-From\r\nX-From: 1\r\n\r\n",
        );
        assert_eq!(all(&reply.text(), "x-from"), ["edge"], "{}", reply.text());
    }
}

#[test]
fn nothing_can_be_smuggled_through_a_template() {
    let origin = Origin::echo();
    let gateways = gateways(
        &origin,
        r#"
  - path: /all
    upstream: app
    strip_prefix: true
    rewrite: "/x{path}?q={query}"
    host: "{host}"
    request_headers: { set: { X-All: "{host} {path} {query} {method}" } }
    response_headers: { set: { X-All: "{host} {path} {query} {method}" } }
"#,
    );
    for gateway in &gateways {
        for version in VERSIONS {
            // It stays in percent-encoding.
            let reply = over(
                version,
                gateway,
                "a.test",
                "/all/%0d%0aX-Evil:%201?%0d%0aX-Evil:%201",
            )
            .args(["--path-as-is"])
            .send();
            let head = reply.text();
            let got = "/x/%0d%0aX-Evil:%201?q=%0d%0aX-Evil:%201";
            assert_eq!(line(&head), format!("GET {got} HTTP/1.1"));
            let sent = "a.test /all/%0d%0aX-Evil:%201 %0d%0aX-Evil:%201 GET";
            assert_eq!(all(&head, "x-all"), [sent]);
            assert_eq!(reply.header("x-all"), Some(sent));
            assert!(all(&head, "x-evil").is_empty() && reply.header("x-evil").is_none());
        }
        for host in [
            "a.test%0d%0aX-Evil: 1",
            "a.test\rX",
            "a.test\0",
            "a.test/x",
            "a.test@b",
        ] {
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            let reply = stream.request(format!("GET /all HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(reply.status, 400, "{host:?}");
        }
        for target in [
            "/all/\r\nX: y",
            "/all/\n",
            "/all/\0",
            "/all?\r\nX: y",
            "/all#x",
        ] {
            let mut stream = TlsClient::named("a.test").connect(gateway.https);
            let reply = stream.request(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            assert_eq!(reply.status, 400, "{target:?}");
        }
    }
}

#[test]
fn a_reload_changes_what_is_rewritten() {
    let origin = Origin::echo();
    let route = |to| {
        yaml(
            &origin,
            &format!("  - {{ rewrite: \"/{to}{{path}}\", upstream: app }}"),
        )
    };
    let mut gateway = serving(&[&["a.test"]], route("one")).start();
    let get = |gateway: &Gateway| over("1.1", gateway, "a.test", "/x").send().text();
    assert_eq!(line(&get(&gateway)), "GET /one/x HTTP/1.1");
    let certificates = "certificates: [{ directory: certs }]\n".to_owned();
    gateway.replace_config(certificates.clone() + &route("two"));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(line(&get(&gateway)), "GET /two/x HTTP/1.1");
    gateway.replace_config(certificates + &route("{three}"));
    assert_ne!(gateway.reload().0, 200);
    assert_eq!(line(&get(&gateway)), "GET /two/x HTTP/1.1");
}
