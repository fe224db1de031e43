//! Which site and route answers.

use super::{VERSIONS, in_front_of, over};
use crate::support::{H2, Origin, TlsClient, serving};

const SITES: &str = r#"
sites:
  - hosts: [a.test, www.a.test]
    routes:
      - { path: /api/, upstream: app }
      - { path: /old, redirect: { to: "https://a.test/new", status: 301 } }
      - { path: /gone, respond: { status: 410, body: "gone\n" } }
      - { path: /empty, respond: { status: 204 } }
      - { respond: { status: 200, body: "a\n" } }
  - hosts: ["*.w.test"]
    routes: [{ respond: { status: 200, body: "wild\n" } }]
  - hosts: [exact.w.test]
    routes: [{ path: /only, respond: { status: 200, body: "exact\n" } }]
  - hosts: [plain.test]
    tls: off
    routes: [{ respond: { status: 200, body: "plain\n" } }]
log: { access: off }
"#;

fn upstream(origin: &Origin) -> String {
    format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n",
        origin.address()
    )
}

#[test]
fn host_and_path_choose_the_answer() {
    let origin = Origin::named("upstream\n");
    let gateway = serving(
        &[&["a.test", "www.a.test"], &["*.w.test"]],
        upstream(&origin) + SITES,
    )
    .start();
    for version in VERSIONS {
        for (host, path, status, body) in [
            ("a.test", "/", 200, "a\n"),
            ("www.a.test", "/x?y", 200, "a\n"),
            ("a.test", "/api/x", 200, "upstream\n"),
            ("a.test", "/%61pi/x", 200, "upstream\n"),
            ("a.test", "/apix", 200, "a\n"),
            ("a.test", "/api", 200, "a\n"),
            ("a.test", "/gone", 410, "gone\n"),
            ("a.test", "/gone/further", 410, "gone\n"),
            ("a.test", "/goner", 200, "a\n"),
            ("a.test", "/empty", 204, ""),
            ("x.w.test", "/", 200, "wild\n"),
            ("exact.w.test", "/only", 200, "exact\n"),
        ] {
            let reply = over(version, &gateway, host, path)
                .arg("--path-as-is")
                .send();
            assert_eq!(reply.version, version);
            assert_eq!(
                (reply.status, &*reply.text()),
                (status, body),
                "{host}{path}"
            );
            assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
        }
        let nothing = over(version, &gateway, "exact.w.test", "/").send();
        assert_eq!(nothing.status, 404, "a site answers for its hosts alone");
        let twofold = over(version, &gateway, "a.test", "/x/../api/y")
            .arg("--path-as-is")
            .send();
        assert_eq!(twofold.status, 400, "no way around a route");
        let moved = over(version, &gateway, "a.test", "/old").send();
        assert_eq!(moved.status, 301);
        assert_eq!(moved.header("location"), Some("https://a.test/new"));
    }
}

#[test]
fn a_wildcard_covers_one_label_and_case_does_not_matter() {
    let origin = Origin::named("upstream\n");
    let gateway = serving(
        &[&["a.test", "www.a.test"], &["*.w.test"]],
        upstream(&origin) + SITES,
    )
    .start();
    for (host, status) in [
        ("X.w.test", 200),
        ("x.W.TEST.", 200),
        ("x.w.test:1", 200),
        ("x.y.w.test", 421),
        ("w.test", 421),
    ] {
        let mut stream = TlsClient::named("x.w.test").connect(gateway.https);
        assert_eq!(stream.get(host, "/").status, status, "{host}");
    }
    // The same labels, where no certificate has a say.
    for (host, status) in [("x.w.test", 308), ("x.y.w.test", 404), ("w.test", 404)] {
        let reply = gateway.curl_http(host, "/").send();
        assert_eq!(reply.status, status, "{host}");
    }
}

#[test]
fn plain_requests_go_to_tls_and_keep_path_and_query() {
    let origin = Origin::named("upstream\n");
    let gateway = serving(
        &[&["a.test", "www.a.test"], &["*.w.test"]],
        upstream(&origin) + SITES,
    )
    .start();
    let port = gateway.https.port();
    for target in ["/", "/a/b?c=d&e=%20f", "/?q", "/a//b/"] {
        let reply = gateway.curl_http("a.test", target).send();
        assert_eq!(reply.status, 308, "{target}");
        let expected = format!("https://a.test:{port}{target}");
        assert_eq!(reply.header("location"), Some(&*expected));
    }
    let posted = gateway.curl_http("a.test", "/").args(["-d", "x"]).send();
    assert_eq!(posted.status, 308, "a method is kept");

    let plain = gateway.curl_http("plain.test", "/").send();
    assert_eq!((plain.status, &*plain.text()), (200, "plain\n"));
    // A site that is off TLS is not there on TLS.
    let mut tls = TlsClient::named("a.test").connect(gateway.https);
    assert_eq!(tls.get("plain.test", "/").status, 421);
    assert_eq!(gateway.curl_http("nobody.test", "/").send().status, 404);
}

#[test]
fn a_catch_all_answers_for_every_other_host() {
    let gateway = serving(
        &[&["a.test"]],
        "sites:\n\
         - { hosts: [a.test], routes: [{ respond: { status: 200, body: a } }] }\n\
         - { hosts: [\"*\"], tls: off, routes: [{ respond: { status: 200, body: any } }] }\n",
    )
    .start();
    for host in ["b.test", "127.0.0.1", "[::1]", "x.y.z.test:99"] {
        let reply = gateway
            .curl_http("b.test", "/")
            .args(["-H", &format!("Host: {host}")])
            .send();
        assert_eq!((reply.status, &*reply.text()), (200, "any"), "{host}");
    }
    assert_eq!(gateway.curl_http("a.test", "/").send().status, 308);
}

#[test]
fn head_options_and_absolute_form_are_served() {
    let origin = Origin::start(|request| {
        let answer = if request.line().starts_with("HEAD") {
            crate::support::Act::send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-A: b\r\n\r\n")
        } else {
            crate::support::Act::respond(200, request.line())
        };
        vec![answer]
    });
    let gateway = in_front_of(&origin);
    for version in VERSIONS {
        let reply = over(version, &gateway, "a.test", "/x").arg("--head").send();
        assert_eq!((reply.status, &*reply.body), (200, &b""[..]));
        assert_eq!(reply.header("content-length"), Some("7"));
        assert_eq!(reply.header("x-a"), Some("b"));
        let reply = over(version, &gateway, "a.test", "/x")
            .args(["-X", "OPTIONS"])
            .send();
        assert_eq!(reply.text(), "OPTIONS /x HTTP/1.1");
    }
    let mut stream = TlsClient::named("a.test").connect(gateway.https);
    let whole = stream.request("GET https://a.test/x?y HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(whole.text(), "GET /x?y HTTP/1.1");
    let bare = stream.request("GET https://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(bare.text(), "GET / HTTP/1.1");
    let other = stream.request("GET https://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert_eq!(other.status, 400, "target and Host differ");
    let before = origin.requests().len();
    let star = TlsClient::named("a.test")
        .connect(gateway.https)
        .request("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
    assert!((200..500).contains(&star.status), "{}", star.status);
    assert_eq!(
        origin.requests().len(),
        before,
        "it is asked of the gateway"
    );
}

#[test]
fn methods_that_open_tunnels_or_echo_are_refused() {
    let origin = Origin::echo();
    let gateway = in_front_of(&origin);
    for line in ["CONNECT a.test:443", "TRACE /"] {
        let mut stream = TlsClient::named("a.test").connect(gateway.https);
        let answer = stream.request(format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        assert_eq!(answer.status, 405, "{line}");
    }
    let mut h2 = H2::connect(gateway.https, "a.test");
    let trace = h2.send(h2.request("TRACE", "/"), None).expect("an answer");
    assert_eq!(trace.status, 405);
    let connect = http::Request::builder().method("CONNECT").uri("a.test:443");
    if let Ok(reply) = h2.send(connect, None) {
        assert!((400..500).contains(&reply.status), "{}", reply.status);
    }
    // Extended CONNECT (RFC 8441) is for WebSockets only.
    let tunnel = h2
        .request("CONNECT", "/")
        .extension(h2::ext::Protocol::from_static("connect-udp"));
    if let Ok(reply) = H2::connect(gateway.https, "a.test").send(tunnel, None) {
        assert!((400..500).contains(&reply.status), "{}", reply.status);
    }
    assert!(origin.requests().is_empty());
}
