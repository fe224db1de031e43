//! Where redirects lead, and that clients cannot choose another host.

use super::{VERSIONS, over};
use crate::support::{Gateway, TlsClient, serving};

fn gateway(routes: &str) -> Gateway {
    serving(
        &[&["a.test", "www.a.test"]],
        format!(
            "sites:\n- hosts: [a.test]\n  routes:\n{routes}\n\
             - hosts: [www.a.test]\n  \
               routes: [{{ redirect: {{ to: \"https://a.test{{path}}{{?query}}\", status: 308 }} }}]\n\
             log: {{ access: off }}\n"
        ),
    )
    .start()
}

#[test]
fn a_redirect_keeps_what_its_target_asks_for() {
    let gateway = gateway(
        r#"
  - { path: /old, redirect: { to: "https://new.test{path}{?query}", status: 301 } }
  - { path: /same, redirect: { to: "{scheme}://{host}:{port}/x{?query}" } }
  - { path: /path, redirect: { to: "/new{path}" } }
  - { path: /login, redirect: { to: "/in?next={path}" } }
  - { path: /id, redirect: { to: "/x?id={request_id}" } }
  - { path: /plain, redirect: { to: "https://new.test/x" } }
"#,
    );
    let port = gateway.https.port();
    for version in VERSIONS {
        for (host, path, status, to) in [
            (
                "www.a.test",
                "/x/y?z=1",
                308,
                "https://a.test/x/y?z=1".to_owned(),
            ),
            ("www.a.test", "/", 308, "https://a.test/".to_owned()),
            (
                "www.a.test",
                "//evil.test/",
                308,
                "https://a.test//evil.test/".to_owned(),
            ),
            (
                "a.test",
                "/old/a%2Fb?c",
                301,
                "https://new.test/old/a%2Fb?c".to_owned(),
            ),
            (
                "a.test",
                "/same/a?b",
                302,
                format!("https://a.test:{port}/x?b"),
            ),
            ("a.test", "/path/a?b", 302, "/new/path/a".to_owned()),
            (
                "a.test",
                "/login/a&b",
                302,
                "/in?next=/login/a%26b".to_owned(),
            ),
            ("a.test", "/plain/a?b", 302, "https://new.test/x".to_owned()),
        ] {
            let reply = over(version, &gateway, host, path)
                .arg("--path-as-is")
                .send();
            assert_eq!(reply.status, status, "{path} over {version}");
            assert_eq!(
                reply.header("location"),
                Some(&*to),
                "{path} over {version}"
            );
            assert_eq!(reply.header("content-length"), Some("0"));
        }
        let reply = over(version, &gateway, "a.test", "/id").send();
        let id = reply.header("x-request-id").expect("an id");
        assert_eq!(reply.header("location"), Some(&*format!("/x?id={id}")));
    }
}

#[test]
fn curl_follows_a_redirect_to_the_same_path() {
    let gateway = gateway("  - { respond: { body: here } }");
    let port = gateway.https.port();
    let connect = format!("a.test:443:127.0.0.1:{port}");
    let reply = over("2", &gateway, "www.a.test", "/x?y")
        .args(["--location", "--connect-to", &connect])
        .send();
    // curl prints the head of each response.
    assert_eq!(reply.status, 308);
    let text = reply.text();
    let (head, body) = text.rsplit_once("\r\n\r\n").expect("another head");
    assert!(head.starts_with("HTTP/2 200"), "{head}");
    assert_eq!(body, "here");
}

#[test]
fn no_client_chooses_the_host_of_a_redirect() {
    let gateway = gateway(
        r#"
  - { redirect: { to: "{path}{?query}" } }
"#,
    );
    for version in VERSIONS {
        for (path, to) in [
            ("//evil.test/", "/evil.test/"),
            ("///evil.test/x?y", "/evil.test/x?y"),
            ("/\\evil.test/", "/evil.test/"),
            ("/\\/evil.test/", "/evil.test/"),
            ("/%2f/evil.test", "/%2f/evil.test"),
            ("/a//evil.test", "/a//evil.test"),
        ] {
            let reply = over(version, &gateway, "a.test", path)
                .arg("--path-as-is")
                .send();
            assert_eq!(reply.header("location"), Some(to), "{path} over {version}");
        }
        let evil = over(version, &gateway, "a.test", "/%0d%0aSet-Cookie:%20a=b").send();
        assert_eq!(evil.header("location"), Some("/%0d%0aSet-Cookie:%20a=b"));
        assert_eq!(evil.header("set-cookie"), None);
    }
    for target in ["/\r\nSet-Cookie: a=b", "/a\rb", "/a\nb", "/a\0b"] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let reply = stream.request(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(reply.status, 400, "{target:?}");
        assert_eq!(reply.header("set-cookie"), None);
    }
}
