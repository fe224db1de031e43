//! Routes with exact paths, expressions and conditions.

use super::{VERSIONS, over};
use crate::support::{Gateway, Origin, serving};

const ROUTES: &str = r#"
sites:
  - hosts: [a.test]
    routes:
      - { path: /v1, respond: { body: "prefix" } }
      - { path: { exact: /v1 }, respond: { body: "exact" } }
      - { path: { exact: /v1 }, methods: [GET], headers: { X-Beta: "1" }, query: { a: "b c" }, respond: { body: "all" } }
      - { path: { exact: /v1 }, headers: { X-Beta: "*" }, respond: { body: "beta" } }
      - { path: { regex: "^/u/[0-9]+$" }, upstream: app }
      - { path: { regex: "^/u/" }, respond: { body: "user" } }
      - { path: /write, methods: [POST, PUT], upstream: app }
      - { path: /write, methods: [DELETE], query: { sure: "*" }, upstream: app }
log: { access: off }
"#;

#[test]
fn paths_and_conditions_choose_the_route() {
    let origin = Origin::named("upstream");
    let upstream = format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n",
        origin.address()
    );
    let gateway = serving(&[&["a.test"]], upstream + ROUTES).start();
    for version in VERSIONS {
        for (path, arguments, status, body) in [
            ("/v1", &[][..], 200, "exact"),
            ("/v%31", &[], 200, "exact"),
            ("/v1/", &[], 200, "prefix"),
            ("/v1", &["-H", "x-beta: 2"], 200, "beta"),
            ("/v1?a=b%20c", &["-H", "x-beta: 1"], 200, "all"),
            ("/v1?x=y&a=b+c", &["-H", "X-BETA: 1"], 200, "all"),
            ("/v1?a=b", &["-H", "x-beta: 1"], 200, "beta"),
            ("/v1?a=b+c", &["-H", "x-beta: 1", "-X", "PUT"], 200, "beta"),
            ("/u/12", &[], 200, "upstream"),
            ("/u/%31", &[], 200, "upstream"),
            ("/u/x", &[], 200, "user"),
            ("/write", &["-d", "x"], 200, "upstream"),
            ("/write?sure", &["-X", "DELETE"], 200, "upstream"),
        ] {
            let mut curl = over(version, &gateway, "a.test", path);
            for argument in arguments {
                curl = curl.arg(*argument);
            }
            let reply = curl.send();
            let found = (reply.status, &*reply.text());
            assert_eq!(found, (status, body), "{version} {path} {arguments:?}");
        }
        for (path, status) in [
            ("/u/x/../1", 400),
            ("/u/1;x", 400),
            ("/x", 404),
            ("/write?sure", 405),
        ] {
            let reply = over(version, &gateway, "a.test", path)
                .arg("--path-as-is")
                .send();
            assert_eq!(reply.status, status, "{version} {path}");
        }
        let refused = over(version, &gateway, "a.test", "/write").send();
        assert_eq!(refused.status, 405);
        assert_eq!(refused.header("allow"), Some("POST, PUT"));
        let head = over(version, &gateway, "a.test", "/write?sure")
            .arg("--head")
            .send();
        assert_eq!(head.header("allow"), Some("DELETE, POST, PUT"));
        // The connection is of further use.
        let posted = over(version, &gateway, "a.test", "/write?sure")
            .args(["-X", "PATCH", "-d", "x"])
            .send();
        assert_eq!(posted.status, 405);
    }
}

#[test]
fn a_changed_expression_is_in_force_after_a_reload() {
    let sites = |regex: &str| {
        format!(
            "sites: [{{ hosts: [a.test], routes: [{{ path: {{ regex: '{regex}' }}, \
             respond: {{ body: found }} }}] }}]\n"
        )
    };
    let certificates = "certificates: [{ directory: certs }]\n";
    let mut gateway = serving(&[&["a.test"]], sites("^/u/[0-9]+$")).start();
    let status = |gateway: &Gateway, path: &str| {
        let replies = VERSIONS.map(|version| over(version, gateway, "a.test", path).send());
        replies.map(|reply| reply.status)
    };
    assert_eq!(status(&gateway, "/u/1"), [200, 200]);
    assert_eq!(status(&gateway, "/u/a"), [404, 404]);

    gateway.replace_config(certificates.to_owned() + &sites("^/u/[a-z]+$"));
    assert_eq!(gateway.reload().0, 200);
    assert_eq!(status(&gateway, "/u/1"), [404, 404]);
    assert_eq!(status(&gateway, "/u/a"), [200, 200]);

    gateway.replace_config(certificates.to_owned() + &sites("^/u/(a"));
    let (refused, why) = gateway.reload();
    assert!((400..500).contains(&refused), "{refused} {why}");
    assert!(why.to_string().contains("unclosed group"), "{why}");
    assert_eq!(status(&gateway, "/u/a"), [200, 200]);
}
